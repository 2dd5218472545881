import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.response import Response, parse
from vlm_rl.errors import UserError

GOOD = "<think>it is teal</think><answer>B</answer>"

WELLFORMED = [
    (GOOD, True),
    (f"\n  {GOOD}\n", True),
    ("<think>a\nb</think>\n\n<answer> B </answer>", True),
    (f"Sure! {GOOD}", False),
    (f"{GOOD} done", False),
    ("<think></think><answer>B</answer>", False),
    ("<think> \n</think><answer>B</answer>", False),
    ("<think>x</think><answer> </answer>", False),
    ("<think>x</think>so<answer>B</answer>", False),
    ("<think>x</think><think>y</think><answer>B</answer>", False),
    ("<think>x</think><answer>B</answer><answer>B</answer>", False),
    ("<think>maybe <answer>B</answer></think><answer>A</answer>", False),
    ("<think>x<answer>B</answer>", False),
    ("<answer>B</answer><think>x</think>", False),
    ("<answer>B</answer>", False),
    ("<THINK>x</THINK><ANSWER>B</ANSWER>", False),
    ("", False),
]

LENIENT = [
    (GOOD, "B"),
    ("<think>maybe <answer>B</answer></think><answer>A</answer>", "A"),
    ("<answer>A</answer> no, <answer>C</answer>", "C"),
    ("<think>x</think><answer>A</answer><answer>B", "A"),
    ("<think>x</think><answer>B", "B"),
    ("<think>x</think> <answer>", None),
    ("<think>x</think><answer></answer> \\boxed{3}", None),
    ("<think>x <answer>B</answer>", None),
    ("<think>x <answer>B</answer></think>", None),
    ("<answer>A</answer></answer>", "A"),
    ("<answer><answer>A</answer>", "A"),
    ("x</think><answer>D</answer>", "D"),
    ("<think>\\boxed{1}</think> so \\boxed{\\frac{1}{2}} it is", "\\frac{1}{2}"),
    ("\\boxed{1} and \\boxed{2}", "2"),
    ("\\boxed{1", None),
    ("So the answer is C.", "C"),
    ("The answer is A. No: the answer is B. Because it is teal.", "B"),
    ("**Answer:** 3.5", "3.5"),
    ("Answer:\nB. teal\nas seen", "B"),
    ("The final answer is: **B**", "B"),
    ("<think>the answer is A</think>", None),
    ("I see a cat and a dog", None),
    ("B", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "expected"), WELLFORMED)
def test_wellformed(text: str, expected: bool) -> None:
    assert parse(text).wellformed is expected
    strict = parse(text, "strict")
    assert strict.wellformed is expected
    assert (strict.answer is not None) is expected
    assert (strict.trace is not None) is expected


@pytest.mark.parametrize(("text", "expected"), LENIENT)
def test_lenient_answer(text: str, expected: str | None) -> None:
    assert parse(text).answer == expected


def test_trace() -> None:
    assert parse(GOOD) == Response("it is teal", "B", True)
    assert parse("in the prompt it began</think><answer>B</answer>").trace == "in the prompt it began"
    assert parse("<think>cut off").trace == "cut off"
    assert parse("<answer>B</answer>").trace is None


def test_unknown_mode_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'strict'"):
        parse(GOOD, "strickt")


PIECES = ["<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "}", "answer is ", "B", " ", "\n", ".", "İ"]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_the_answer_is_always_written_after_the_last_think(text: str) -> None:
    strict, lenient = parse(text, "strict"), parse(text)
    if strict.wellformed:
        assert strict == lenient
    if lenient.answer is not None:
        assert lenient.answer in text.rpartition("</think>")[2]
        assert lenient.answer == lenient.answer.strip() != ""


@pytest.mark.parametrize(
    "piece",
    ["<think>", "</think>", "<answer>", "</answer>", "<answer></answer>", "\\boxed{", "{", "answer is ", "answer" + " " * 50, " ", "\n"],
)
def test_a_hostile_megabyte_is_read_at_once(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    started = time.perf_counter()
    for mode in ("lenient", "strict"):
        parse(text, mode)
        parse(f"\\boxed{text}", mode)
        parse(f"<think>x</think><answer>{text}</answer>", mode)
    assert time.perf_counter() - started < 2
