"""Published schemas, column mapping and the three sources: files of each shape are written here and read through every source."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import data
from data.mapping import unwrapped
from data.media import png_media
from data.training_sets import TRAINING_SETS
from rewards.grading import gold_problem
from vlm_rl.config import DataConfig
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Sample

pa = pytest.importorskip("pyarrow")
PNG = png_media(Image.new("RGB", (9, 7), "teal")).read()
STRUCT = {"bytes": PNG, "path": "a.png"}
OPTIONS = ["A. A notice", "B. A command", "C. A warning"]


def config(**fields: Any) -> DataConfig:
    return DataConfig(**{"name": "jsonl", **fields})


def encoded(value: Any) -> Any:
    """Bytes as base64 text, the only way JSON can carry them."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: encoded(inner) for key, inner in value.items()}
    return [encoded(inner) for inner in value] if isinstance(value, list) else value


def write(folder: Path, source: str, rows: list[dict]) -> str:
    import pyarrow.parquet as pq

    if source == "jsonl":
        path = folder / "rows.jsonl"
        path.write_text("\n".join(json.dumps(encoded(row)) for row in rows))
    elif source == "json":
        path = folder / "rows.json"
        path.write_text(json.dumps(encoded(rows), indent=2))
    else:
        path = folder / "train-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(folder if source == "hub" else path)


def one(folder: Path, source: str, mapping: str, row: dict) -> Sample:
    name = "jsonl" if source == "json" else source
    (sample,) = data.load_rows(config(name=name, path=write(folder, source, [row]), mapping=mapping))
    assert gold_problem(sample) is None or not sample.answer
    return sample


TURNS = [{"role": "user", "content": "<image>\nWhat is the area of the circle?"}]
SHARE_GPT = [
    {"from": "human", "value": "<image>How many?\nChoices:\nA: 3\nB: 4"},
    {"from": "gpt", "value": "<think>I count \\boxed{9}.</think> The answer is \\boxed{B}."},
]
VIDEO = {"problem_id": 2, "problem": "What appears?", "data_type": "video", "path": "./v/2.mp4", "data_source": "LLaVA-Video-178K"}
PICTURE = {"problem_id": 3, "problem": "How long?", "data_type": "image", "path": "./i/3.png", "data_source": "x", "options": []}
SETS: list[tuple[str, dict, dict]] = [
    (
        "geometry3k",
        {
            "images": [STRUCT],
            "problem": "<image>Find x.",
            "answer": "2 \\sqrt { 221 }",
            "id": 7,
            "choices": ["1", "2"],
            "ground_truth": "B",
        },
        {"id": "7", "kind": "math", "answer": "2 \\sqrt { 221 }", "options": (), "media": 1},
    ),
    (
        "geometry3k",
        {"images": [STRUCT], "problem": "Find x.", "choices": ["4", "5", "6", "7"], "ground_truth": "C"},
        {"id": "0", "kind": "choice", "answer": "C", "options": ("4", "5", "6", "7"), "media": 1},
    ),
    (
        "geometry3k_choice",
        {"images": [STRUCT], "problem": "<image>Find x.", "answer": "2", "id": 7, "choices": ["1", "2"], "ground_truth": "B"},
        {"id": "7", "kind": "choice", "answer": "B", "options": ("1", "2"), "media": 1},
    ),
    (
        "mm_eureka",
        {"id": "k12_1", "conversations": TURNS, "answer": "$9\\pi$", "image_urls": ["K12/1.png"]},
        {"id": "k12_1", "kind": "math", "answer": "9\\pi", "question": "<image>\nWhat is the area of the circle?", "media": 1},
    ),
    (
        "mm_eureka",
        {"id": "k12_2", "conversations": json.dumps(TURNS), "answer": "9", "image_urls": ["K12/1.png"]},
        {"id": "k12_2", "kind": "number", "answer": "9", "media": 1},
    ),
    (
        "mmk12",
        {"id": "m", "question": "Which? A. red B. blue", "answer": "B", "subject": "physics", "image": STRUCT},
        {"id": "m", "kind": "choice", "answer": "B", "question": "Which?", "options": ("red", "blue"), "media": 1},
    ),
    (
        "virl39k",
        {"qid": "q1", "question": "<image>Is it?", "answer": "\\boxed{yes}", "image": ["images/1.jpg"], "PassRate_32BTrained": 0.25},
        {"id": "q1", "kind": "yesno", "answer": "yes", "media": 1},
    ),
    (
        "virl39k",
        {"qid": "q2", "question": "<image>Which is it?\nChoices:\n(A) left\n(B) right", "answer": "\\boxed{A}", "image": ["images/1.jpg"]},
        {"id": "q2", "kind": "choice", "answer": "A", "question": "<image>Which is it?", "options": ("left", "right"), "media": 1},
    ),
    (
        "virl39k",
        {"qid": "q3", "question": "<image>Which picture comes next?", "answer": "\\boxed{D}", "image": ["images/1.jpg"]},
        {"id": "q3", "kind": "choice", "answer": "D", "options": (), "media": 1},
    ),
    (
        "video_r1",
        {**VIDEO, "problem_type": "multiple choice", "options": OPTIONS, "solution": "<answer>A</answer>"},
        {"id": "2", "kind": "choice", "answer": "A", "options": ("A notice", "A command", "A warning"), "media": 1},
    ),
    (
        "video_r1",
        {**PICTURE, "problem_type": "numerical", "solution": "<answer>4.5</answer>"},
        {"id": "3", "kind": "number", "answer": "4.5", "media": 1},
    ),
    (
        "video_r1",
        {**PICTURE, "problem_type": "free-form", "solution": "<answer>a cat</answer>", "process": "<think>I see it.</think>"},
        {"id": "3", "kind": "text", "answer": "a cat", "response": "<think>I see it.</think><answer>a cat</answer>", "media": 1},
    ),
    (
        "sophiavl_r1",
        {**PICTURE, "problem_type": "OCR", "solution": "<answer>EXIT 7</answer>"},
        {"id": "3", "kind": "text", "answer": "EXIT 7", "media": 1},
    ),
    (
        "sophiavl_r1",
        {
            "problem_id": 4,
            "problem": "1 + 1?",
            "problem_type": "numerical",
            "data_type": "text",
            "path": "",
            "solution": "<answer>2</answer>",
        },
        {"id": "4", "kind": "number", "answer": "2", "media": 0},
    ),
    (
        "r1_onevision",
        {"id": "r", "image": base64.b64encode(PNG).decode(), "conversations": SHARE_GPT},
        {
            "id": "r",
            "kind": "choice",
            "answer": "B",
            "question": "<image>How many?",
            "options": ("3", "4"),
            "response": SHARE_GPT[1]["value"],
        },
    ),
    (
        "r1_onevision",
        {
            "id": "u",
            "image": base64.b64encode(PNG).decode(),
            "conversations": [
                {"from": "user", "value": "How long is AB?"},
                {"from": "assistant", "value": "<think>Long.</think> \\boxed{4.5}"},
            ],
        },
        {"id": "u", "kind": "number", "answer": "4.5", "question": "How long is AB?", "media": 1},
    ),
    (
        "r1_onevision",
        {"id": "s", "image": base64.b64encode(PNG).decode(), "conversations": [SHARE_GPT[0], {"from": "gpt", "value": "Four."}]},
        {"id": "s", "kind": "text", "answer": "", "response": "Four.", "media": 1},
    ),
]


@pytest.mark.parametrize("source", ["jsonl", "json", "parquet", "hub"])
@pytest.mark.parametrize(("mapping", "row", "expected"), SETS, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(SETS)])
def test_a_training_set_reads_alike_through_every_source(mapping: str, row: dict, expected: dict, source: str, tmp_path: Path):
    sample = one(tmp_path, source, mapping, row)
    found = {name: getattr(sample, name) for name in expected if name not in ("media", "id")}
    assert found == {name: value for name, value in expected.items() if name not in ("media", "id")}
    # A row without an id is named by its place: by line from 1 in JSON, by index from 0 elsewhere.
    assert sample.id == expected["id"] or (sample.id == "1" and source in ("jsonl", "json"))
    assert len(sample.media) == expected.get("media", 1)


def test_every_training_set_is_read_here():
    assert {name for name, _, _ in SETS} == set(TRAINING_SETS)


def test_media_of_training_sets(tmp_path: Path):
    sample = one(tmp_path, "parquet", "geometry3k", SETS[0][1])
    assert sample.media[0].read() == PNG and sample.media[0].id == png_media(Image.new("RGB", (9, 7), "teal")).id
    video = one(tmp_path, "jsonl", "video_r1", SETS[9][1]).media[0]
    assert (video.kind, video.path) == ("video", tmp_path / "v" / "2.mp4")
    assert one(tmp_path, "jsonl", "r1_onevision", SETS[-1][1]).media[0].read() == PNG
    bitmap = io.BytesIO()
    Image.new("RGB", (9, 7), "teal").save(bitmap, "BMP")
    for text in (base64.b64encode(bitmap.getvalue()).decode(), f"data:image/bmp;base64,{base64.b64encode(bitmap.getvalue()).decode()}"):
        assert one(tmp_path, "jsonl", "r1_onevision", {**SETS[-1][1], "image": text}).media[0].read() == bitmap.getvalue()
    assert one(tmp_path, "jsonl", "r1_onevision", {**SETS[-1][1], "image": "images/s.jpg"}).media[0].path == tmp_path / "images" / "s.jpg"
    elsewhere = config(path=write(tmp_path, "jsonl", [SETS[3][1]]), mapping="mm_eureka", media_root=str(tmp_path / "far"))
    assert data.load_rows(elsewhere)[0].media[0].path == tmp_path / "far" / "K12" / "1.png"


def test_difficulty_of_virl39k_is_the_share_of_failures(tmp_path: Path):
    assert one(tmp_path, "jsonl", "virl39k", SETS[6][1]).meta["difficulty"] == 0.75
    assert "difficulty" not in one(tmp_path, "jsonl", "virl39k", {**SETS[6][1], "PassRate_32BTrained": -1.0}).meta


@pytest.mark.parametrize(
    ("mapping", "row", "reason"),
    [
        ("virl39k", {"question": "q"}, 'column "answer" is missing'),
        ("video_r1", {**VIDEO, "problem_type": "multiple choice", "options": OPTIONS, "solution": 3}, "does not fit"),
        ("mm_eureka", {"conversations": [], "answer": "3"}, "no turn of user"),
        ("mm_eureka", {"conversations": 3, "answer": "3"}, "does not fit"),
        ("mm_eureka", {"conversations": "[", "answer": "3"}, "rows.jsonl line 1"),
        ("virl39k", {"question": "<image> and <image>?", "answer": "3", "image": ["1.png"]}, "marks"),
        ("r1_onevision", {"conversations": SHARE_GPT, "image": 5}, "file paths"),
    ],
)
def test_rows_of_another_shape_are_named(mapping: str, row: dict, reason: str, tmp_path: Path):
    rows = data.load_rows(config(path=write(tmp_path, "jsonl", [row]), mapping=mapping))
    with pytest.raises(RowError, match="line 1") as caught:
        rows[0]
    assert reason in str(caught.value)


def test_a_mapping_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine_mapping.py").write_text("def read(row):\n    return {'question': row['q'], 'answer': row['a']}\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path, "jsonl", [{"q": "why?", "a": 3}, {"q": "why?"}])
    rows = data.load_rows(config(path=path, mapping="mine_mapping:read"))
    assert (rows[0].question, rows[0].answer) == ("why?", "3")
    with pytest.raises(RowError, match="KeyError"):
        rows[1]
    for name, reason in [("geometri3k", "did you mean 'geometry3k'"), ("mine_mapping:raed", "raed"), ("no_such_module:read", "no_such")]:
        with pytest.raises(UserError, match=reason):
            data.load_rows(config(path=path, mapping=name))


def test_columns_rename(tmp_path: Path):
    row = {"pid": 4, "problem": "Which?", "solution": "<answer> B </answer>", "image": "p.png", "choices": {"A": "x", "B": "y"}}
    row |= {"info": {"level": 3}, "answer": "not this one", "source": "web"}
    columns = {"question": "problem", "answer": "solution", "images": "image", "options": "choices", "id": "pid", "level": "info.level"}
    (sample,) = data.load_rows(config(path=write(tmp_path, "jsonl", [row]), columns=columns))
    assert (sample.id, sample.question, sample.answer, sample.options) == ("4", "Which?", "B", ("x", "y"))
    assert sample.media[0].path == tmp_path / "p.png" and sample.meta == {"level": 3, "source": "web"}


@pytest.mark.parametrize(
    ("columns", "row", "expected"),
    [
        ({"question": "q", "answer": "a", "kind": "math"}, {"q": "?", "a": "$x^2$"}, ("x^2", "math", ())),
        ({"question": "q", "answer": "a", "kind": "math"}, {"q": "?", "a": "3", "math": "number"}, ("3", "number", ())),
        ({"question": "q", "answer": "a", "options": "o"}, {"q": "?", "a": "y", "o": "x\ny\n"}, ("B", "choice", ("x", "y"))),
        ({"question": "q", "answer": "a", "options": "o"}, {"q": "?", "a": "B", "o": "['2 N', '4 N']"}, ("B", "choice", ("2 N", "4 N"))),
        ({"question": "q", "answer": "a", "options": "o"}, {"q": "?", "a": 1, "o": None}, ("1", "number", ())),
    ],
)
def test_columns_of_other_forms(columns: dict, row: dict, expected: tuple, tmp_path: Path):
    (sample,) = data.load_rows(config(path=write(tmp_path, "jsonl", [row]), columns=columns))
    assert (sample.answer, sample.kind, sample.options) == expected


def test_a_missing_column_is_named(tmp_path: Path):
    rows = data.load_rows(config(path=write(tmp_path, "jsonl", [{"problem": "?"}]), columns={"question": "problem", "answer": "soluton"}))
    with pytest.raises(RowError, match=r'column "soluton" is missing \(the row has: problem\)'):
        rows[0]


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("<answer> 140 </answer>", "140"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("<answer>$\\boxed{4}$</answer>", "4"),
        ("\\boxed{1} or \\boxed{2}", "\\boxed{1} or \\boxed{2}"),
        ("\\boxed{1", "\\boxed{1"),
        ("$1$ and $2$", "$1$ and $2$"),
        ("$", "$"),
        ("", ""),
    ],
)
def test_only_what_wraps_the_whole_answer_goes(text: str, inner: str):
    assert unwrapped(text) == inner
