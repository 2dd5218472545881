"""Hostile text in every place where a model's, a judge's or a stranger's file is read: nothing crashes, nothing takes a second, and what
has no content earns nothing. Times are of this process's CPU, so that a busy machine is no failure."""

import json
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers_rewards import make_group
from hostile_texts import CONTENT_FREE, PIECES, megabytes, mixture, written
from hypothesis import given, settings
from hypothesis import strategies as st

from data.scene_reading import read_trace
from data.sources import jsonl
from eval.captions import _ANSWER as CAPTION_ANSWER
from eval.hints import HINTS, dismisses, mentions
from eval.reading import steps as eval_steps
from rewards import grading, hybrid, judging, keypoints, mathcheck, option_shuffle, steps
from rewards.accuracy import Accuracy
from rewards.boxes import CONVENTIONS, Picture, read_boxes
from rewards.conclusion import agrees, conclusion
from rewards.evidence import cited_ids
from rewards.format import Format
from rewards.judge_call import bare_trace
from rewards.listeners import beginning
from rewards.response import before_answer, parse
from vlm_rl.config import DataConfig
from vlm_rl.console import _safe
from vlm_rl.errors import RowError
from vlm_rl.types import AnswerKind, Sample

KINDS: dict[AnswerKind, str] = {"choice": "B", "yesno": "yes", "number": "5", "text": "a red cat on a mat"}
ROWS = {kind: Sample("7", "?", gold, kind, ("red", "teal", "blue", "grey") if kind == "choice" else ()) for kind, gold in KINDS.items()}
RULED: dict[str, tuple[str, dict[str, Any]]] = {
    "exact": ("cat", {"alternatives": ["dog"]}), "open": ("cat", {"alternatives": ["5"]}), "decimals": ("5.00", {"decimals": 2}),
    "absolute": ("5", {"absolute": 0.1}), "list": ("[1, 2]", {}), "relaxed": ("5", {}), "mra": ("5", {}), "wer": ("a red cat", {}),
    "iou": ("[1, 2, 30, 40]", {}),
}  # fmt: skip
ROWS |= {f"rule {rule}": Sample("7", "?", gold, "text", meta={"grading": rule, **meta}) for rule, (gold, meta) in RULED.items()}
MATHS = Sample("7", "?", "\\frac{1}{2}", "math")
Reader = Callable[[str], Any]
READERS: dict[str, Reader] = {
    "response": parse, "strict response": partial(parse, mode="strict"), "before the answer": before_answer,
    "score": judging.read_score, "choice": judging.read_choice, "conclusion": judging.read_conclusion, "stances": judging.read_stances,
    "yes or no": judging.read_yes_no, "content free": judging.content_free, "harmless": judging.harmless, "number": hybrid.read_number,
    "prompt": lambda text: judging.section(judging.render("thinking", question=text, trace=text), "trace"),
    "steps": steps.split, "steps of evaluation": eval_steps, "bare trace": bare_trace, "beginning": lambda text: beginning(text, 0.5),
    "citations": cited_ids, "scene trace": read_trace, "caption answer": CAPTION_ANSWER.search,
    "boxes": lambda text: [read_boxes(text, convention, Picture(100, 80, (84, 112))) for convention in CONVENTIONS],
    "key points": lambda text: keypoints.overlap(text[: keypoints.MOST_CHARACTERS], "a red cat on a mat", ["red", "cat", "a"]),
    "letters": lambda text: (option_shuffle.names_letter(text, ROWS["choice"].options), option_shuffle.without_letters(text, ["red"])),
    "screen": _safe, "hints": lambda text: [(mentions(kind, text), dismisses(kind, text)) for kind in HINTS],
}  # fmt: skip
READERS |= {f"stated {kind}": partial(conclusion, sample=ROWS[kind]) for kind in KINDS}
READERS |= {f"agreeing {kind}": lambda text, row=ROWS[kind]: agrees(text, text, row) for kind in KINDS}
READERS |= {f"readable {name}": partial(grading.readable, row) for name, row in ROWS.items()}
GRADERS: dict[str, Reader] = {name: partial(grading.grade, row) for name, row in ROWS.items()}
READERS |= {f"grade {name}": grade for name, grade in GRADERS.items()}


def read_in_time(read: Reader, text: str, most: float = 1.0) -> Any:
    started = time.process_time()
    found = read(text)
    assert time.process_time() - started < most, f"{text[:40]!r}, {len(text)} characters"
    return found


@pytest.mark.parametrize("name", READERS)
def test_what_was_written_by_hand_is_read_in_time(name: str) -> None:
    for text in [*written(), *(piece * (20_000 // len(piece)) for piece in PIECES)]:
        read_in_time(READERS[name], text)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_megabytes_are_read_in_time(name: str) -> None:
    for text in megabytes():
        read_in_time(READERS[name], text)


def judged(text: str) -> None:
    """Every reader, and what must hold of any text."""
    for read in READERS.values():
        read_in_time(read, text)
    for grade in GRADERS.values():
        assert 0 <= grade(text) <= 1
    score, said = judging.read_score(text), judging.read_choice(text)
    assert (score is None or 0 <= score <= 1) and said in (None, "first", "second", "tie")
    assert parse(text).wellformed or parse(text, "strict").answer is None
    assert not any(mark in judging.harmless(text) for mark in ("<think>", "</answer>", "<|im_end|>", "<score>"))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=30).map("".join))
def test_any_text_is_read(text: str) -> None:
    judged(text)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_mixtures_are_read(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(1000):
        judged(mixture(draw, 60))


@pytest.mark.parametrize("name", [*GRADERS, "math"])
def test_what_has_no_content_earns_nothing(name: str) -> None:
    row = ROWS.get(name, MATHS)
    # A wrong transcript earns exp(-WER) as published, whatever its words are.
    for text in filter(judging.content_free, CONTENT_FREE) if name == "rule wer" else CONTENT_FREE:
        assert grading.grade(row, text) == 0, text
        assert grading.grade(row, parse(f"<think>{text}</think><answer>{text}</answer>").answer) == 0, text


def test_what_has_no_content_is_known_before_a_judge_is_asked() -> None:
    assert all(judging.content_free(text) for text in CONTENT_FREE if "<" not in text and "\\" not in text)


def test_an_answer_inside_or_before_the_thought_is_none() -> None:
    texts = [
        "<think>x</think><answer></answer>", "<think></think><answer>B</answer>", "<answer>B</answer><think>x</think>",
        "<think>a</think><answer>B</answer><think>", "<think></think></think><answer>B</answer>", "<think>x<answer>B</answer></think>",
        "<think>x</think><answer>B</answer>" * 2, "<think>x</think><answer><answer>B</answer></answer>",
        "＜think＞x＜/think＞＜answer＞B＜/answer＞",
    ]  # fmt: skip
    group = make_group(texts, ROWS["choice"])
    assert [result.value for result in Format().score(group, ())] == [0.0] * len(texts)
    strict = Accuracy(mode="strict").score(group, ())
    assert [result.value for result in strict] == [0.0] * len(texts)


@pytest.mark.parametrize("letter", ["В", "β", "Ᏼ", "ß", "8"])
def test_a_letter_that_only_looks_like_the_right_one_is_wrong(letter: str) -> None:
    assert grading.grade(ROWS["choice"], letter) == 0 and grading.grade(ROWS["choice"], "B") == 1


@pytest.mark.parametrize("text", ["9^{9^{9^{9}}}", "10^{10^{10}}!", "\\sum_{k=1}^{10^{9}} k", "\\frac{1}{" * 40 + "2" + "}" * 40])
def test_mathematics_that_explodes_is_wrong_within_its_time(text: str) -> None:
    started = time.perf_counter()
    assert not mathcheck.check("\\frac{1}{2}", text, seconds=0.5).equal
    assert time.perf_counter() - started < 20  # the worker may have to be started anew, on a busy machine


LINES = [
    "", "{", "[]", "null", "1e999999", '"text"', "[" * 100_000, '{"a":' * 100_000, '{"question": NaN, "answer": Infinity}',
    '{"question": "q", "answer": %s}' % ("9" * 100_000), '{"question": ["q"], "answer": {"a": 1}}', '{"question": "q", "answer": ""}',
    '{"question": "q", "answer": "x", "images": "../../etc/passwd"}', '{"question": "q", "answer": "x", "images": [{"a": 1}, null, 7]}',
    '{"question": "q", "answer": "x", "images": ["\\u0000.png"]}', '{"question": "<image>\ud800", "answer": "B", "options": {"A": 1}}',
    json.dumps({"question": "q", "answer": "x", "options": ["x"] * 5000}), '{"question": "q", "answer": "x", "kind": "chioce"}',
    '{"question": "%s", "answer": "x"}' % ("<image>" * 20_000), '{"question": "q", "answer": "%s"}' % ("\\\\boxed{" * 20_000),
    '{"question": "q", "answer": "x", "images": ["data:image/png;base64,%s"]}' % ("A" * 100_000),
]  # fmt: skip


def test_hostile_rows_are_rows_or_errors_of_their_own_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = '{"id": "good", "question": "what?", "answer": "B"}'
    path.write_bytes("\n".join([*LINES, good]).encode("utf-8", "surrogatepass") + b'\n{"question": "\xff\xfe", "answer": "B"}\n\x00\n')
    rows = jsonl(DataConfig(name="jsonl", path=str(path)))
    found: list[Sample] = []
    for i in range(len(rows)):
        started = time.process_time()
        try:
            found.append(rows[i])
        except RowError as error:
            assert "line" in str(error) and len(str(error)) < 2000
        assert time.process_time() - started < 1
    assert "good" in [row.id for row in found]
    for row in found:
        problem = grading.gold_problem(row)
        assert problem is None or 0 < len(problem) < 2000
