"""Rows of the benchmarks in their published schemas, invented here, become Samples whose gold answer its own grader accepts."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmark_rows import BLUE, CAPTIONING, GREEN, RED, ROWS, benchmark_of, column, mathverse, mathvista, mmmu, vsi, wemath
from hypothesis import given, settings
from hypothesis import strategies as st

from data.benchmark_fields import inline_options, letter_gold, texts
from data.benchmarks import BENCHMARK_ROWS, Place, to_sample
from data.media import media_from
from data.templates import think
from rewards.grading import gold_problem, grade, readable
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import LETTERS, Media, Sample

HIDEABLE = {"pope": "answer", "mathvista": "answer", "mmmu": "answer", "vsibench": "ground_truth", "videomme": "answer", "vstar": "label"}


def samples(entry: str) -> list[Sample]:
    config, rows = ROWS[entry]
    return [to_sample(benchmark_of(entry), row, Place(number=i, config=config)) for i, row in enumerate(rows)]


def one(name: str, row: dict[str, Any], **place: Any) -> Sample:
    return to_sample(name, row, Place(**place))


def colours(sample: Sample) -> list[str]:
    names = {media_from(data, "image", Path()).id: name for data, name in ((RED, "red"), (BLUE, "blue"), (GREEN, "green"))}
    return [names[medium.id] for medium in sample.media]


def test_every_benchmark_has_rows_here() -> None:
    assert {benchmark_of(entry) for entry in ROWS} == set(BENCHMARK_ROWS)


@pytest.mark.parametrize("entry", ROWS)
def test_gold_answers_are_accepted_and_ids_differ(entry: str) -> None:
    found = samples(entry)
    assert [gold_problem(sample) for sample in found] == [None] * len(found)
    assert all(readable(sample, sample.answer) for sample in found)
    assert len({sample.id for sample in found}) == len(found)


@pytest.mark.parametrize("entry", ROWS)
def test_options_carry_no_letters_and_a_right_option_is_right_by_letter_and_by_text(entry: str) -> None:
    for sample in samples(entry):
        assert not any(option[:2] in ("A.", "B.", "A)", "(A") for option in sample.options)
        if sample.options and "," not in sample.answer:
            assert grade(sample, f"({sample.answer})") == 1.0
            assert grade(sample, sample.options[LETTERS.index(sample.answer)]) == 1.0


@pytest.mark.parametrize("entry", ROWS)
@pytest.mark.parametrize("answer", [None, "", "   ", ":", "Let's solve this step by step", "Because the dog runs with a cup"])
def test_what_cannot_be_read_is_wrong_and_never_guessed(entry: str, answer: str | None) -> None:
    assert [grade(sample, answer) >= 0.5 for sample in samples(entry)] == [False] * len(samples(entry))


REQUIRED = {
    "mathvista": ["pid", "question", "answer", "question_type", "decoded_image"],
    "mathverse": ["question", "image", "answer", "problem_version"],
    "mathvision": ["question", "options", "answer", "decoded_image"],
    "mmmu": ["id", "question", "options", "answer", "question_type", "image_1"],
    "mmmu_pro_vision": ["image", "options", "answer"],
    "logicvista": ["question", "image", "answer"],
    "wemath": ["ID", "key", "question", "answer", "image_path"],
    "dynamath": ["question", "ground_truth", "decoded_image"],
    "geometry3k": ["images", "problem", "choices", "ground_truth"],
    "geoqa": ["image", "problem", "solution"],
    "chartqa": ["question", "answer", "image"],
    "vstar": ["text", "label", "category", "image"],
    "hrbench": ["index", "question", "answer", "cycle_category", "image"],
    "pope": ["question", "answer", "image"],
    "whatsup": ["image_path"],
    "spatial_mm": ["question", "answer", "options", "image_name"],
    "mmvu": ["question", "question_type", "choices", "answer", "video_path"],
    "vsibench": ["dataset", "scene_name", "question_type", "ground_truth", "options"],
    "videommmu": ["id", "question", "options", "answer"],
    "videomme": ["videoID", "question_id", "options", "answer", "duration"],
    "mvbench": ["video", "question", "candidates", "answer"],
    "tempcompass": ["video_id", "question", "answer", "dim"],
    "longvideobench": ["video_path", "question", "option0"],
}


@pytest.mark.parametrize(("entry", "key"), [(entry, key) for entry, keys in REQUIRED.items() for key in keys])
def test_a_missing_field_is_refused_naming_row_benchmark_split_and_revision(entry: str, key: str) -> None:
    config, rows = ROWS[entry]
    row = {name: value for name, value in rows[0].items() if name not in (key, "image" if key == "decoded_image" else key)}
    with pytest.raises(RowError) as error:
        to_sample(benchmark_of(entry), row, Place(number=4, config=config, split="test", revision="abc123"))
    for said in (benchmark_of(entry), "test, revision abc123", key):
        assert said in str(error.value)


@pytest.mark.parametrize(("name", "key"), HIDEABLE.items())
@pytest.mark.parametrize("hidden", ["", None, "?"])
def test_hidden_keys_give_an_empty_answer(name: str, key: str, hidden: str | None) -> None:
    assert one(name, {**ROWS[name][1][0], key: hidden}).answer == ""


def test_an_unknown_benchmark_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'mathvista'"):
        one("mathvist", {})


@pytest.mark.parametrize("name", BENCHMARK_ROWS)
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_rows_of_any_shape_are_refused_or_read_but_never_crash(name: str, data: st.DataObject) -> None:
    keys = list(ROWS[name][1][0])
    junk = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.text(max_size=3), max_size=3))
    changed = data.draw(st.dictionaries(st.sampled_from(keys), junk | st.just({"A": [1]}), max_size=3))
    try:
        sample = one(name, {**ROWS[name][1][0], **changed}, config=ROWS[name][0])
    except RowError:
        return
    assert isinstance(sample.question, str) and isinstance(sample.answer, str)


# MathVista


@pytest.mark.parametrize(
    ("changes", "right", "wrong"),
    [
        ({"answer": "7"}, ["7", "7.0", "seven", "7 tiles", "$7$"], ["7.9", "8", "7 or 8", ""]),
        ({"answer": "20000"}, ["20,000"], ["20001"]),
        ({"answer_type": "float", "precision": 1.0, "answer": "1.2"}, ["1.2", "1.23", "1.16 m", "1.20"], ["1.3", "1.26", "one"]),
        ({"answer_type": "float", "precision": 2.0, "answer": "0.50"}, ["0.5", "0.501", "1/2"], ["0.51", "5"]),
        ({"answer_type": "float", "precision": None, "answer": "0.25"}, ["0.25", "0.252"], ["0.3"]),
        ({"answer_type": "list", "answer": "[0, 3]"}, ["[0, 3]", "0, 3", "(0.0, 3)"], ["[3, 0]", "[0, 3, 3]", "0", "[0, x]"]),
        ({"answer_type": "text", "answer": "Bronze age"}, ["bronze age", "The Bronze Age."], ["bronze", "iron age", "age"]),
    ],
)
def test_mathvista_free_form_by_answer_type(changes: dict, right: Sequence[str], wrong: Sequence[str]) -> None:
    sample = one("mathvista", mathvista(**changes))
    assert [text for text in right if grade(sample, text) != 1.0] == []
    assert [text for text in wrong if grade(sample, text) != 0.0] == []


def test_mathvista_multi_choice_is_by_content_and_never_the_nearest_choice() -> None:
    row = mathvista(question_type="multi_choice", answer_type="text", choices=["(A) 12 m", "(B) 15 m", "(C) 13 m"], answer="(B) 15 m")
    assert one("mathvista", row).answer == "B"
    sample = one("mathvista", mathvista(question_type="multi_choice", answer_type="text", choices=["12", "15", "13"], answer="15"))
    assert (sample.options, sample.answer) == (("12", "15", "13"), "B")
    assert [grade(sample, text) for text in ("B", "15", "(B) 15", "14.9", "A", "5")] == [1, 1, 1, 0, 0, 0]


def test_mathvista_says_unit_and_digits_and_keeps_its_table_keys() -> None:
    sample = one("mathvista", mathvista(answer_type="float", precision=1.0, answer="1.2", unit="$"))
    assert "(Unit: $)" in sample.question and "1 digit after the point" in sample.question
    assert sample.meta["skills"] == ["arithmetic reasoning", "statistical reasoning"] and sample.meta["task"] == "figure question answering"


# MathVerse, MathVision, LogicVista, We-Math, DynaMath, GeoQA


def test_mathverse_versions() -> None:
    dominant, only, text_only, free = samples("mathverse")
    assert (dominant.question, dominant.options) == ("Find angle ABC.", ("30", "45", "60", "90"))
    assert only.options == () and "picture" in only.question and grade(only, "C") == grade(only, "60") == 1.0 and grade(only, "D") == 0.0
    assert text_only.media == () and text_only.meta["version"] == "Text Only"
    assert [grade(free, text) for text in ("5\\sqrt{3}", "$5\\sqrt{3}$", "5")] == [1, 1, 0]
    with pytest.raises(RowError, match='"image" holds no picture'):
        one("mathverse", mathverse("Text Lite", 1, image={"bytes": None, "path": None}))


def test_mathvision_marks_and_options_that_the_picture_shows() -> None:
    choice, open_ended, pictured = samples("mathvision")
    assert choice.question == "Which net folds into the box? <image>" and len(choice.media) == 1
    assert [grade(open_ended, text) for text in ("1/2", "0.5", "\\frac12", "2", "A")] == [1, 1, 1, 0, 0]
    assert pictured.options == () and grade(pictured, "E") == 1.0 and not readable(pictured, "F")


def test_logicvista_needs_all_letters() -> None:
    several, pictured = samples("logicvista")
    assert (several.question, several.options, several.answer) == ("Which figure comes next?", ("star", "ring", "cross", "dot"), "A,C")
    assert [grade(several, text) for text in ("C, A", "A and C", "star, cross", "A", "A, B, C")] == [1, 1, 1, 0, 0]
    assert pictured.options == () and [grade(pictured, text) for text in ("E", "(e)", "Select from E and A")] == [1, 1, 0]


def test_prompts_ask_for_the_form_that_is_graded_and_give_nothing_away() -> None:
    hints = {entry: [think(sample).rpartition(": ")[2] for sample in samples(entry)] for entry in ROWS}
    assert len(set(hints["logicvista"])) == 1 and "all that are right" in hints["logicvista"][0]
    assert hints["mathvista"][3:] == ["the list only.", "a word or a short phrase only."]
    for entry, index in (("mmmu", 3), ("chartqa", 0), ("chartqa", 1), ("videommmu", 1), ("mmvu", 1)):
        assert hints[entry][index] == "a number, a word or a short phrase only."


def test_wemath_options_in_one_text_or_in_columns() -> None:
    sample = one("wemath", wemath(2, "1"))
    assert sample.options == ("9", "12", "16", "No correct answer") and sample.id == "5/2steps_1"
    columns = {key: value for key, value in wemath(3, "multi").items() if key != "option"} | {"A": "9", "B": "12", "C": "16"}
    assert one("wemath", columns).options == ("9", "12", "16")
    unclear = one("wemath", wemath(2, "1", option="A. 9 B. A. 12 C. 3"))
    assert unclear.options == () and "B. A. 12" in unclear.question and grade(unclear, "A") == 1.0
    with pytest.raises(RowError, match='"key" is such as'):
        one("wemath", wemath(2, "3"))


def test_dynamath_kinds_come_from_the_schema() -> None:
    number, choice, text = samples("dynamath")
    assert [grade(number, answer) for answer in ("1.5", "1.5009", "3/2", "1.502", "")] == [1, 1, 1, 0, 0]
    assert (choice.kind, choice.options, choice.answer) == ("choice", ("left", "right"), "B")
    assert (text.kind, grade(text, "berlin"), grade(text, "B"), grade(text, "Ber")) == ("math", 1.0, 0.0, 0.0)
    vk = {"index": 3, "qid": "7", "varid": "2", "question": "Which? A. up B. down", "answer": "A", "answer_type": "multiple choice"}
    assert one("dynamath", vk | {"image": RED}).meta["seeds"][0] == "7"


def test_geoqa_reads_both_forms() -> None:
    training, test = samples("geoqa")
    assert training.answer == "140" and [grade(training, text) for text in ("140", "140°", "$140^\\circ$", "14")] == [1, 1, 1, 0]
    assert [grade(test, text) for text in ("35°", "35 degrees", "35", "53")] == [1, 1, 1, 0]


# MMMU


def test_mmmu_marks_become_ours_in_the_order_of_the_text() -> None:
    sample = one("mmmu", mmmu(question="<image 3> then <image 1>, again <image 3>", image_2=BLUE, image_3=GREEN))
    assert sample.question == "<image> then <image>, again [image 1]" and colours(sample) == ["green", "red"]
    unmarked = one("mmmu", mmmu(question="Look.", image_2=BLUE))
    assert unmarked.question == "Look." and colours(unmarked) == ["red", "blue"]


def test_mmmu_pictures_named_by_options_can_change_places() -> None:
    sample = one("mmmu", mmmu(question="Which fits <image 1>?", options="['<image 3>', 'none', '<image 2>']", image_2=BLUE, image_3=GREEN))
    assert sample.question == "Which fits <image>?\n[image 2]: <image>\n[image 3]: <image>" and colours(sample) == ["red", "green", "blue"]
    assert sample.options == ("[image 2]", "none", "[image 3]")


def test_mmmu_a_mark_without_a_picture_is_refused() -> None:
    with pytest.raises(RowError, match=r"<image 2> but \"image_2\" holds no picture"):
        one("mmmu", mmmu(question="<image 1> <image 2>"))


@pytest.mark.parametrize(
    "options",
    [
        "__import__('os').system('true')",
        "['a', open('x')]",
        "[" * 5000,
        "('a'",
        "{'a': 1}",
        "'ab'",
        "['a', 'b'" + ", 'c'" * 30000 + "]",
        "7",
    ],
)
def test_mmmu_options_are_a_literal_and_nothing_else(options: str) -> None:
    start = time.process_time()
    with pytest.raises(RowError, match="options"):
        one("mmmu", mmmu(options=options))
    assert time.process_time() - start < 2


def test_mmmu_options_with_latex_quotes_and_as_a_list() -> None:
    latex = r"['$\\frac{1}{2}$', \"Ampere's law\", '\d']".replace('\\"', '"')
    assert one("mmmu", mmmu(options=latex)).options[1] == "Ampere's law"
    assert one("mmmu", mmmu(options=["x", "y"])).options == ("x", "y")


def test_mmmu_open_questions_accept_any_key() -> None:
    sample = samples("mmmu")[3]
    assert sample.meta["discipline"] == "Business"
    assert [grade(sample, text) for text in ("3.5", "$3.50", "3.501", "3.5 dollars", "3.6", "35")] == [1, 1, 1, 1, 0, 0]
    interval = one("mmmu", mmmu(question_type="open", options="[]", answer="[0, 1)"))
    assert grade(interval, "[0, 1)") == 1.0


def test_mmmu_pro_vision_asks_nothing_but_the_picture() -> None:
    sample = samples("mmmu_pro_vision")[0]
    assert sample.options == () and "picture" in sample.question and sample.meta["setting"] == "vision"
    assert [grade(sample, text) for text in ("G", "teal", "J", "K")] == [1, 1, 0, 0] and not readable(sample, "K")


# Fine detail, charts, hallucination, space


def test_vstar_ignores_brackets_in_the_question() -> None:
    left, sign = samples("vstar")
    assert (left.question, left.options) == ("Is the mug left or right of the lamp?", ("left", "right"))
    assert (sign.question, sign.options) == ("Is the (red) sign marked (A)?", ("yes", "no", "maybe", "unclear"))


@pytest.mark.parametrize(
    ("text", "stem", "options"),
    [
        ("Which? (A) cat (B) dog", "Which?", ("cat", "dog")),
        ("Pick one.\nChoices:\nA:65°\nB:35°\nC:25°", "Pick one.", ("65°", "35°", "25°")),
        ("A. 9; B. 12; C. 16", "", ("9", "12", "16")),
        ("How many chairs? Select: (A) 1 (B) 2 (C) 3 (D) 4", "How many chairs?", ("1", "2", "3", "4")),
        ("Is A. nearer than B?", "Is A. nearer than B?", ()),
        ("What is A:B when A is 3?", "What is A:B when A is 3?", ()),
        ("Which? (A) one (C) three", "Which? (A) one (C) three", ()),
        ("Which? (A) (B) dog", "Which? (A) (B) dog", ()),
        ("A. one B. two D. four", "A. one B. two D. four", ()),
        ("Which? A) E. coli B) C. elegans", "Which?", ("E. coli", "C. elegans")),
    ],
)
def test_inline_options(text: str, stem: str, options: tuple[str, ...]) -> None:
    assert inline_options(text) == (stem, options)


@given(st.text(alphabet="AB ().:\n;x", max_size=60))
def test_inline_options_never_lose_text(text: str) -> None:
    stem, options = inline_options(text)
    assert (options == () and stem == text.strip()) or (len(options) > 1 and all(options))


def test_hostile_texts_are_read_in_bounded_time() -> None:
    start = time.process_time()
    for text in ("(A) " * 50_000, "A. B. " * 50_000, " " * 200_000 + "A.", "Choices: " * 30_000, "?" + " " * 200_000 + "(A) a (B) b"):
        inline_options(text)
    row = {"video_id": "1", "answer": "x", "dim": "speed"}
    for text in ("\n" * 200_000, "Caption A: " + " " * 200_000 + "x", " \n" * 100_000, "Caption A: x " * 20_000):
        with pytest.raises(RowError):
            one("tempcompass", {**row, "question": text + "?"}, config="caption_matching")
    assert time.process_time() - start < 2


def test_pope_ids_hold_the_category() -> None:
    assert [sample.id for sample in samples("pope")] == ["adversarial/15", "random/15"]
    split = {key: value for key, value in ROWS["pope"][1][0].items() if key != "category"}
    assert one("pope", split, split="popular ").meta["category"] == "popular"
    assert [grade(samples("pope")[0], text) for text in ("No.", "no", "No, there is none.", "yes", "none")] == [1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        ("10", ["10", "10.5", "9.5", "$10", "10 km", "10%"][:5], ["10.51", "9.49", "ten units or so", "10%"]),
        ("0", ["0"], ["0.0", "0.01"]),
        ("5%", ["5%", "0.05", "5.2%"], ["5", "6%"]),
        ("Spain", ["spain", "Spain."], ["Spain and Italy", "Italy"]),
        ("-4", ["-4", "-4.2"], ["4"]),
        ("12000", ["12,000"], ["12"]),
    ],
)
def test_chartqa_relaxed(key: str, right: Sequence[str], wrong: Sequence[str]) -> None:
    sample = one("chartqa", {"type": "human_test", "question": "?", "answer": key, "image": RED})
    assert ([grade(sample, t) for t in right], [grade(sample, t) for t in wrong]) == ([1.0] * len(right), [0.0] * len(wrong))


def test_whatsup_does_not_always_have_a_right() -> None:
    base = {"image_path": "a/1.jpg", "caption_options": [f"A mug {w} a plate" for w in ("left of", "right of", "on", "under")]}
    found = [one("whatsup", base, number=i) for i in range(40)]
    assert {sample.answer for sample in found} == set("ABCD")
    assert all(sample.options[LETTERS.index(sample.answer)] == "A mug left of a plate" for sample in found)
    assert found[0].meta["category"] == "left of" and found[3] == one("whatsup", base, number=3)


# Video


def test_videos_lie_below_the_base(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "xxXXxxXXxx0.mkv").write_bytes(b"x")
    assert one("videomme", ROWS["videomme"][1][0], base=tmp_path).media[0].path == tmp_path / "data" / "xxXXxxXXxx0.mkv"
    expected = {
        "mmvu": "videos/Chemistry/9.mp4",
        "vsibench": "scannet/scene9999_00.mp4",
        "videommmu": "Business/validation_Economics_4.mp4",
        "mvbench": "clip_001.mp4",
        "tempcompass": "2000001.mp4",
        "longvideobench": "videos/abc.mp4",
    }
    for name, path in expected.items():
        media = one(name, ROWS[name][1][0], config=ROWS[name][0], base=tmp_path).media
        assert [(m.kind, m.path) for m in media] == [("video", tmp_path / path)]


@pytest.mark.parametrize("path", ["../secret.mp4", "/etc/passwd", "videos/../../x.mp4", "", "a\0b.mp4"])
def test_videos_outside_the_base_are_refused(path: str) -> None:
    with pytest.raises(RowError):
        one("mmvu", {**ROWS["mmvu"][1][0], "video_path": path})


def test_videommmu_shows_the_picture_after_the_video_where_there_is_one() -> None:
    row = ROWS["videommmu"][1][0]
    assert "[the last frame of the video]" in one("videommmu", row, config="Adaptation").question
    shown = one("videommmu", row | {"image": column("blue")}, config="Adaptation")
    assert [m.kind for m in shown.media] == ["video", "image"] and "[the picture]" in shown.question
    assert shown.id == "Adaptation/validation_Economics_4" and shown.meta["track"] == "Adaptation"


def test_tempcompass_captions_bring_the_question_that_a_judge_is_asked() -> None:
    sample = one("tempcompass", CAPTIONING, config="captioning", number=3)
    assert (sample.id, sample.kind, sample.answer, sample.options) == ("captioning/3", "text", "right", ())
    options = ("left", "right", "up", "down")
    assert sample.meta["judged"] == {"question": "Which way does the ball move?", "options": options, "answer": "B"}
    assert gold_problem(sample) is None and "in one or two sentences" in think(sample)
    with pytest.raises(UserError, match="graded by a judge and by no rule"):
        grade(sample, "right")
    for change in ({"mc_answer": "E. off"}, {"mc_answer": ""}, {"mc_answer": "B. left"}, {"mc_question": "Which way?"}):
        with pytest.raises(RowError, match="mc_answer"):
            one("tempcompass", CAPTIONING | change, config="captioning")


def test_mvbench_videos_are_bounded_where_they_are_whole(tmp_path: Path) -> None:
    cut, frames = ROWS["mvbench"][1][0], ROWS["mvbench_frames"][1][0]
    (tmp_path / frames["video"]).mkdir()
    assert one("mvbench", cut, base=tmp_path).media == (Media("video", path=tmp_path / "clip_001.mp4"),)
    assert one("mvbench", cut, base=tmp_path, bounded=True).media == (Media("video", path=tmp_path / "clip_001.mp4", start=3.2, end=9.8),)
    assert one("mvbench", {**cut, "start": None, "end": None}, bounded=True).media[0].bounded is False
    folder = Media("video", path=tmp_path / frames["video"], fps=3.0)
    assert one("mvbench", frames, base=tmp_path).media == (folder,)
    assert one("mvbench", frames, base=tmp_path, bounded=True).media == (replace(folder, start=2.0, end=8.5),)
    for start in ("3", -1.0, float("nan"), True):
        with pytest.raises(RowError, match='the field "start" is a number of seconds'):
            one("mvbench", {**cut, "start": start})


def test_longvideobench_looks_at_the_first_seconds_that_its_rows_are_about() -> None:
    row = ROWS["longvideobench"][1][0]
    assert one("longvideobench", row).media[0].end == 412.5 and one("longvideobench", row | {"duration": None}).media[0].end is None


def test_mvbench_gold_is_the_text_and_bounds_are_kept() -> None:
    sample = samples("mvbench")[0]
    assert (sample.answer, sample.meta["start"], sample.meta["end"], sample.meta["task"]) == ("C", 3.2, 9.8, "action_sequence")
    assert [grade(sample, text) for text in ("C", "Took the cup.", "took the cup", "with a cup", "A person took it")] == [1, 1, 1, 0, 0]


def test_tempcompass_tasks() -> None:
    choice, yes_no, caption = samples("tempcompass")[0], samples("tempcompass_yes_no")[0], samples("tempcompass_caption")[0]
    assert (choice.question, choice.answer) == ("Which way does the ball move?", "B")
    assert (yes_no.kind, yes_no.answer) == ("yesno", "no")
    assert (caption.question, caption.options, caption.answer) == ("Which fits?", ("The ball rises.", "The ball falls."), "B")
    numbered = {
        "video_id": "1",
        "question": "Which?\nOption 1: It rises.\nOption 2: It falls.",
        "answer": "Option 2: it falls",
        "dim": "speed",
    }
    assert one("tempcompass", numbered, config="caption_matching").answer == "B"
    with pytest.raises(RowError, match="task is multi-choice, yes_no, caption_matching, captioning, not 'caption'"):
        one("tempcompass", ROWS["tempcompass"][1][0], config="caption")
    with pytest.raises(RowError, match="option B reads"):
        one("tempcompass", {**ROWS["tempcompass"][1][0], "answer": "B. left"})


def test_longvideobench_absent_options_and_hidden_keys() -> None:
    row = ROWS["longvideobench"][1][0]
    assert samples("longvideobench")[0].options == ("a bell", "a pen", "a cup", "a map")
    gap = one("longvideobench", row | {"option0": "N/A"})
    assert (gap.options, gap.answer) == (("a pen", "a cup", "a map"), "B")
    assert one("longvideobench", row | {"correct_choice": -1}).answer == ""
    with pytest.raises(RowError, match="correct_choice"):
        one("longvideobench", row | {"correct_choice": 4})
    assert [grade(gap, text) for text in ("Because of it", "The Dog", "B")] == [0, 0, 1]


def test_vsibench_choices_are_read_with_brackets_and_words() -> None:
    sample = one("vsibench", vsi("object_rel_distance", "B", ["A. lamp", "B. table", "C. door", "D. bin"]))
    assert [grade(sample, text) for text in ("B", "(B)", "Option B", "B.", "table", "D")] == [1, 1, 1, 1, 1, 0]
    with pytest.raises(RowError, match="question_type"):
        one("vsibench", vsi("object_weight", "3"))


# Fields


def test_letters_are_letters_whatever_the_options_say() -> None:
    assert [letter_gold(text, 4) for text in ("B", "(b)", "B.", "A, C", "")] == ["B", "B", "B", "A,C", ""]
    for text in ("E", "Berlin", "AB", "1", "A,"):
        with pytest.raises(ValueError, match="one of the letters A to D"):
            letter_gold(text, 4)


def test_lists_of_numbers_are_texts() -> None:
    assert texts("[1, 2.5, 'x']", "options") == ("1", "2.5", "x")
    assert texts(json.loads('["a", 3]'), "options") == ("a", "3")
