"""Invented rows of every benchmark in its published schema, name -> (configuration, rows). Pictures are base64."""

import base64
import io
from typing import Any

from PIL import Image


def png(colour: str = "red", size: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(out, format="PNG")
    return out.getvalue()


def b64(colour: str = "red") -> str:
    return base64.b64encode(png(colour)).decode()


def column(colour: str = "red") -> dict[str, Any]:
    """A picture as a Hugging Face column holds it."""
    return {"bytes": png(colour), "path": None}


RED, BLUE, GREEN = b64("red"), b64("blue"), b64("green")
Rows = list[dict[str, Any]]


def mathvista(**changes: Any) -> dict[str, Any]:
    about = {
        "split": "testmini",
        "language": "english",
        "source": "made-up",
        "category": "general-vqa",
        "task": "figure question answering",
        "context": "natural image",
        "grade": "elementary school",
        "skills": ["arithmetic reasoning", "statistical reasoning"],
    }
    row: dict[str, Any] = {
        "pid": "9001",
        "question": "How many tiles are shaded?",
        "query": "Hint: ... Question: How many tiles are shaded?",
    }
    row |= {"choices": None, "answer": "7", "question_type": "free_form", "answer_type": "integer", "precision": None, "unit": None}
    return row | {"image": "images/9001.jpg", "decoded_image": RED, "metadata": about} | changes


def mathverse(version: str, index: int, **changes: Any) -> dict[str, Any]:
    whole = "Find angle ABC. Choices: A:30 B:45 C:60 D:90"
    row = {"sample_index": str(index), "problem_index": "3", "problem_version": version, "question": whole, "image": RED, "answer": "C"}
    row |= {"question_type": "multi-choice", "metadata": {"split": "testmini", "subject": "Plane Geometry"}}
    return row | {"query_wo": f"Answer directly. {whole}", "query_cot": f"Reason first. {whole}", "question_for_eval": whole} | changes


def mmmu(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"id": "validation_Physics_99", "question": "Given <image 1>, what is the net force?"}
    row |= {"options": "['2 N', '4 N', '6 N', '8 N']", "answer": "B", "question_type": "multiple-choice"}
    return row | {"image_1": RED, "image_2": None} | changes


def wemath(steps: int, part: str, **changes: Any) -> dict[str, Any]:
    row = {"ID": "5", "split": "testmini", "knowledge concept": "area of a square", "question": "What is the area?"}
    row |= {"option": "A. 9; B. 12; C. 16; D. No correct answer", "answer": "A", "image_path": RED, "key": f"{steps}steps_{part}"}
    return row | {"question number": 41, "knowledge concept description": "side times side"} | changes


def vsi(kind: str, truth: str, options: list[str] | None = None, index: int = 11) -> dict[str, Any]:
    row = {"id": index, "dataset": "scannet", "scene_name": "scene9999_00", "question_type": kind, "question": "Which is closest?"}
    return row | {"ground_truth": truth, "options": options}


FOUR = ["A. lamp", "B. table", "C. door", "D. bin"]

IMAGE_ROWS: dict[str, tuple[str, Rows]] = {
    "mathvista": (
        "",
        [
            mathvista(),
            mathvista(pid="2", question_type="multi_choice", answer_type="text", choices=["no", "yes"], answer="yes"),
            mathvista(pid="3", answer_type="float", precision=1.0, answer="1.2", unit="m"),
            mathvista(pid="4", answer_type="list", answer="[0, 3]"),
            mathvista(pid="5", answer_type="text", answer="Bronze age"),
        ],
    ),
    "mathverse": (
        "",
        [
            mathverse("Vision Dominant", 12),
            mathverse("Vision Only", 13, question=""),
            mathverse("Text Only", 14, image=None),
            mathverse("Text Lite", 15, question="Find the length.", question_type="free-form", answer="5\\sqrt{3}"),
        ],
    ),
    "mathvision": (
        "",
        [
            {"id": "77", "question": "Which net folds into the box? <image1>", "options": ["1", "2", "3", "4", "5"], "answer": "D"}
            | {"decoded_image": RED, "subject": "solid geometry", "level": 3},
            {"id": "78", "question": "How many? <image1>", "options": [], "answer": "\\frac{1}{2}", "decoded_image": RED}
            | {"subject": "counting", "level": 1, "image": "images/78.jpg", "solution": None},
            {"id": "79", "question": "Which one? <image1>", "options": ["A", "B", "C", "D", "E"], "answer": "E", "decoded_image": RED}
            | {"subject": "counting", "level": 1},
        ],
    ),
    "mmmu": (
        "",
        [
            mmmu(),
            mmmu(id="validation_Art_Theory_3", question="See <image 2> and <image 1>; is <image 2> older?", image_2=BLUE),
            mmmu(id="validation_Math_4", question="Which?", options="['<image 2>', '<image 1>']", image_2=BLUE),
            mmmu(
                id="validation_Finance_5",
                question="How much? <image 1>",
                options="[]",
                question_type="open",
                answer="['3.50', '3.5 dollars']",
            ),
        ],
    ),
    "mmmu_pro": (
        "standard (10 options)",
        [mmmu(id="test_Art_7", options=str(list("0123456789")), answer="J", subject="Art")],
    ),
    "mmmu_pro_vision": (
        "vision",
        [
            {"id": "test_Art_7", "image": RED, "answer": "G", "subject": "Art"}
            | {"options": "['red', 'blue', 'green', 'grey', 'pink', 'gold', 'teal', 'plum', 'navy', 'rust']"}
        ],
    ),
    "logicvista": (
        "",
        [
            {"question": "Which figure comes next? A. star B. ring C. cross D. dot", "image": RED, "answer": "A, C", "skill": "inductive"},
            {"question": "Which box comes next? Select from A, B, C, D and E.", "image": RED, "answer": "E", "skill": "spatial"},
        ],
    ),
    "wemath": ("", [wemath(2, "1"), wemath(2, "2"), wemath(2, "multi")]),
    "dynamath": (
        "",
        [
            {"id": "31", "question_id": "31_4", "question": "What is the slope of the line?", "ground_truth": "1.5", "decoded_image": RED},
            {"id": "32", "question_id": "32_1", "question": "Which? A: left B: right", "ground_truth": "B", "decoded_image": RED},
            {"id": "33", "question_id": "33_1", "question": "Which function?", "ground_truth": "Berlin", "decoded_image": RED},
        ],
    ),
    "geometry3k": ("", [{"images": [RED], "problem": "<image>Find x.", "choices": ["4", "5", "6", "7"], "ground_truth": "C"}]),
    "geoqa": (
        "",
        [
            {
                "image": RED,
                "problem": "AB is parallel to CD, angle 1 is 40 degrees. Find angle 2.",
                "solution": "<answer> 140 </answer>",
            },
            {"image_path": RED, "question": "Find angle 3.", "ground_truth": "35°"},
        ],
    ),
    "chartqa": (
        "",
        [
            {"type": "human_test", "question": "What was the sum in 2014 and 2015?", "answer": "128", "image": RED},
            {"type": "augmented_test", "question": "Which is highest?", "answer": "Spain", "image": RED},
        ],
    ),
    "vstar": (
        "",
        [
            {"question_id": 3, "category": "relative_position", "image": RED, "label": "B"}
            | {"text": "Is the mug left or right of the lamp? (A) left (B) right"},
            {"question_id": 4, "category": "direct_attributes", "image": RED, "label": "D"}
            | {"text": "Is the (red) sign marked (A)?\n(A) yes\n(B) no\n(C) maybe\n(D) unclear\nAnswer with the option's letter directly."},
        ],
    ),
    "hrbench": (
        "",
        [
            {"index": 12, "question": "What is on the sign?", "A": "7", "B": "17", "C": "71", "D": "1", "answer": "B", "category": "single"}
            | {"cycle_category": "1", "image": RED}
        ],
    ),
    "pope": (
        "",
        [
            {"question_id": "15", "question": "Is there a fork in the image?", "answer": "no", "image": RED, "category": "adversarial"},
            {"question_id": "15", "question": "Is there a fork in the image?", "answer": "yes", "image": RED, "category": "random"},
        ],
    ),
    "whatsup": (
        "",
        [
            {"image_path": "a/1.jpg", "caption_options": [f"A mug {w} a plate" for w in ("left of", "right of", "on", "under")]},
            {"image_path": "a/2.jpg", "caption_options": [f"A cup {w} a table" for w in ("left of", "right of", "on", "under")]},
        ],
    ),
    "spatial_mm": (
        "",
        [
            {"id": "s1", "image_name": "3.jpg", "question": "Where is the dog?", "options": ["A. left", "B. right"], "answer": "B"},
            {"id": "s2", "image": RED, "question": "Where is the dog?", "options": ["left", "right"], "answer": "right"},
            {"id": "s3", "image": RED, "question": "Where is the dog?", "A": "left", "B": "right", "answer": 1},
        ],
    ),
}

VIDEO_ROWS: dict[str, tuple[str, Rows]] = {
    "mmvu": (
        "",
        [
            {"id": "validation_9", "question": "Which step stabilises the compound?", "question_type": "multiple-choice", "answer": "A"}
            | {"choices": {"A": "cooling", "B": "stirring", "C": "venting", "D": "seeding", "E": "drying"}}
            | {"video_path": "videos/Chemistry/9.mp4"},
            {"id": "validation_10", "question": "Name the law.", "question_type": "open-ended", "choices": None, "answer": "Hooke's law"}
            | {"video_path": "videos/Physics/10.mp4", "metadata": {"subject": "Physics"}},
        ],
    ),
    "vsibench": (
        "",
        [
            vsi("object_rel_distance", "B", FOUR),
            vsi("room_size_estimation", "21.4", None, 12),
        ],
    ),
    "videommmu": (
        "Adaptation",
        [
            {"id": "validation_Economics_4", "question": "Using the method of the video, compute the elasticity. <image 1>"}
            | {"options": ["-0.5", "-1.0", "-1.5", "-2.0"], "answer": "C", "question_type": "multiple-choice"},
            {"id": "validation_Public_Health_5", "question": "What share?", "options": [], "answer": "0.25", "question_type": "open"},
        ],
    ),
    "videomme": (
        "",
        [
            {"video_id": "901", "videoID": "xxXXxxXXxx0", "duration": "short", "domain": "Knowledge", "sub_category": "Astronomy"}
            | {"task_type": "Counting Problem", "question_id": "901-1", "question": "How many planets are drawn?"}
            | {"options": ["A. 3.", "B. 4.", "C. 5.", "D. 6."], "answer": "C", "url": "https://example.org/v"}
        ],
    ),
    "mvbench": (
        "action_sequence",
        [
            {"video": "clip_001.mp4", "question": "What happened after the person sat down?", "answer": "Took the cup."}
            | {"candidates": ["Opened the box.", "Closed the door.", "Took the cup."], "start": 3.2, "end": 9.8}
        ],
    ),
    "tempcompass": (
        "multi-choice",
        [
            {"video_id": "2000001", "question": "Which way does the ball move?\nA. left\nB. right\nC. up\nD. down", "answer": "B. right"}
            | {"dim": "direction"}
        ],
    ),
    "tempcompass_yes_no": ("yes_no", [{"video_id": "2000001", "question": "Does the ball move up?", "answer": "no", "dim": "direction"}]),
    "tempcompass_caption": (
        "caption_matching",
        [
            {
                "video_id": "2000001",
                "question": "Which fits?\nCaption A: The ball rises.\nCaption B: The ball falls.",
                "dim": "speed",
            }
            | {"answer": "Caption B: The ball falls."}
        ],
    ),
    "mvbench_frames": (
        "episodic_reasoning",
        [
            {"video": "castle_s01e01_seg02_clip_00", "question": "Why did she leave?", "answer": "To call him."}
            | {"candidates": ["To eat.", "To call him.", "To sleep."], "start": 2.0, "end": 8.5, "fps": 3}
        ],
    ),
    "longvideobench": (
        "",
        [
            {"id": "abc_0", "video_path": "abc.mp4", "question": "When the man in the grey hat says 'thanks', what is on the desk?"}
            | {"option0": "a bell", "option1": "a pen", "option2": "a cup", "option3": "a map", "option4": "N/A", "correct_choice": 2}
            | {"duration": 412.5, "duration_group": 600, "question_category": "T2E", "subtitle_path": "abc_en.json"}
            | {"starting_timestamp_for_subtitles": 0.0}
        ],
    ),
}

ROWS = {**IMAGE_ROWS, **VIDEO_ROWS}

# Graded by a judge, so apart from the rows that a rule grades.
CAPTIONING: dict[str, Any] = {
    "video_id": "2000001",
    "question": "Describe the video in one sentence, and where the ball goes.",
    "dim": "direction",
}
CAPTIONING |= {"answer": "The ball moves to the right.", "mc_answer": "B. right"}
CAPTIONING |= {"mc_question": "Which way does the ball move?\nA. left\nB. right\nC. up\nD. down"}

SRT = """1
00:00:00,000 --> 00:00:02,000
<font color="white" size=".72c">We begin.</font>

2
00:00:02,000 --> 00:00:03,500
There are five <i>planets</i>
in the sky.

3
00:00:03,500 --> 00:00:03,900


4
00:01:00,000 --> 00:01:02,000
Long after the end.
"""
SUBTITLES: list[dict[str, Any]] = [
    {"timestamp": [9.5, 11.5], "text": "Good morning."},
    {"timestamp": [12.0, 12.375], "text": "Thanks."},
    {"start": "0:00:12.875", "end": "0:00:14.500", "line": "<b>The cup</b> is mine."},
    {"timestamp": [600.0, None], "text": "Never heard."},
]


def benchmark_of(entry: str) -> str:
    """The benchmark that an entry of ROWS belongs to: "tempcompass_yes_no" -> "tempcompass"."""
    return "tempcompass" if entry.startswith("tempcompass") else entry.removesuffix("_vision").removesuffix("_frames")
