"""Rules of comparison that benchmarks prescribe: their published numbers, and what no rule may accept."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import mathcheck
from rewards.grading import gold_problem, grade, is_correct, readable
from rewards.numerals import parse_number
from rewards.rules import RULES, mean_relative_accuracy, number_list, same_text
from rewards.transcripts import edit_distance
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import AnswerKind, Sample


def sample(answer: str, kind: AnswerKind, **meta: object) -> Sample:
    return Sample(id="7", question="?", answer=answer, kind=kind, meta=meta)


@pytest.mark.parametrize(
    ("gold", "answer", "ours", "public"),
    [
        (100, 100, 1.0, 1.0),
        (100, 105, 1.0, 1.0),
        (100, 110, 0.9, 0.9),
        (100, 120, 0.7, 0.6),
        (100, 150, 0.1, 0.1),
        (100, 160, 0.0, 0.0),
        (2.0, 2.4, 0.7, 0.7),
        (5.0, 6.0, 0.7, 0.6),
        (0, 0, 1.0, 1.0),
        (0, 0.1, 0.0, 0.0),
    ],
)
def test_mean_relative_accuracy(gold: float, answer: float, ours: float, public: float) -> None:
    assert mean_relative_accuracy(gold, answer) == pytest.approx(ours, abs=1e-12)
    assert mean_relative_accuracy(gold, answer, public=True) == pytest.approx(public, abs=1e-12)


@given(st.floats(0.01, 1e4), st.floats(0, 1e5))
def test_public_mra_is_the_published_formula(gold: float, answer: float) -> None:
    thresholds = np.linspace(0.5, 0.95, int((0.95 - 0.5) / 0.05 + 2))
    assert mean_relative_accuracy(gold, answer, public=True) == pytest.approx(np.mean(abs(answer - gold) / gold <= 1 - thresholds))


@given(st.floats(0.01, 1e4), st.floats(-2, 2), st.floats(1.1, 100))
def test_mra_does_not_depend_on_the_unit_and_is_never_below_the_public_one(gold: float, share: float, factor: float) -> None:
    error = round(share, 1)
    one = mean_relative_accuracy(gold, gold * (1 + error))
    assert one == mean_relative_accuracy(gold * factor, gold * factor * (1 + error))
    assert one >= mean_relative_accuracy(gold, gold * (1 + error), public=True)


def test_mra_grades_partly_and_reads_words() -> None:
    row = sample("20", "number", grading="mra")
    assert [grade(row, text) for text in ("20", "twenty", "about 24 metres", "no idea", "24 or 25")] == [1.0, 1.0, 0.7, 0.0, 0.0]
    assert [readable(row, text) for text in ("24", "no idea", "", None)] == [True, False, False, False]


@pytest.mark.parametrize(("text", "value"), [("twenty-one", 21), ("ninety nine", 99), ("forty-zero", None), ("twenty-", None)])
def test_number_words(text: str, value: float | None) -> None:
    number = parse_number(text)
    assert (None if number is None else number.value) == value


def test_lists() -> None:
    assert number_list("[1, 2.5]") == number_list("(1; 2.5)") == number_list("the answer is 1, 2.5") == (1.0, 2.5)
    assert number_list("[1, x]") is None and number_list("") is None and number_list("[]") is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("Bronze age", "the bronze  age.", True), ("a cat", "cat", True), ("", "", False), ("cat", "", False), ("age", "bronze age", False)],
)
def test_same_text(one: str, other: str, same: bool) -> None:
    assert same_text(one, other) is same_text(other, one) is same


# That one refuses to grade, whatever it is given; and the other two grade by how near an answer comes.
GRADING = [rule for rule in RULES if rule not in ("judge", "wer", "iou")]


@pytest.mark.parametrize("gold", ["7", "Berlin"])
def test_what_a_judge_must_grade_is_graded_by_no_rule(gold: str) -> None:
    for answer in ("", gold, "9" * 100_000):
        with pytest.raises(UserError, match="graded by a judge"):
            RULES["judge"](gold, answer, {})


@pytest.mark.parametrize("rule", GRADING)
@pytest.mark.parametrize("gold", ["7", "[1, 2]", "Berlin", "5%", "0"])
def test_no_rule_accepts_an_empty_or_a_merely_contained_answer(rule: str, gold: str) -> None:
    meta = {"decimals": 1, "absolute": 0.001}
    assert [RULES[rule](gold, answer, meta) for answer in ("", " ", ":", "er", f"not {gold}x", "[", "nan", "inf")] == [0.0] * 8


@pytest.mark.parametrize("rule", GRADING)
def test_rules_take_bounded_time(rule: str) -> None:
    start = time.process_time()
    for answer in ("9" * 100_000, "1," * 50_000, "(" * 100_000, "the answer is " * 10_000, "1e" * 50_000, " " * 200_000):
        RULES[rule]("7", answer, {"decimals": 1, "absolute": 0.001})
    assert time.process_time() - start < 2


def test_expressions() -> None:
    mathcheck.check("\\sqrt{4}", "2", 60.0)  # the first expression loads the parser, which a busy machine does not do in time
    root, name = sample("5\\sqrt{3}", "math", grading="expression"), sample("isosceles triangle", "math", grading="expression")
    assert [grade(root, text) for text in ("5\\sqrt{3}", "\\sqrt{75}", "8.66", "5")] == [1, 1, 0, 0]
    assert [grade(name, text) for text in ("Isosceles triangle.", "an isosceles triangle", "triangle isosceles", "")] == [1, 1, 0, 0]
    assert gold_problem(root) is None and gold_problem(name) is None


def test_bad_rules_name_the_row() -> None:
    with pytest.raises(RowError, match=r"row 7: unknown meta\.grading 'exakt'"):
        grade(sample("7", "text", grading="exakt"), "7")
    with pytest.raises(RowError, match="lacks a usable setting"):
        grade(sample("7", "number", grading="decimals"), "7")
    assert gold_problem(sample("7", "number", grading=["x"])) is not None


def test_options_that_the_picture_shows_are_read_but_not_written() -> None:
    row = sample("B", "choice", options_shown=("red", "teal"))
    assert gold_problem(row) is None and row.options == ()
    assert [grade(row, text) for text in ("B", "teal", "(B) teal", "A", "C")] == [1, 1, 1, 0, 0]
    assert not readable(row, "C") and gold_problem(sample("C", "choice", options_shown=("red", "teal"))) is not None


@pytest.mark.parametrize(
    ("gold", "answer", "score"),
    [
        ("hello world", "hello world", 1.0),
        ("hello world", "hello", 0.606531),
        ("a b", "a b c d", 0.367879),
        ("one two three four", "one two three", 0.778801),
        ("a b", "x y", 0.367879),
        ("EXIT", "exit", 0.367879),
        ("出口", "出", 0.606531),
        ("a", "b c", 0.135335),
        ("a b", "", 0.0),
        ("a b", "a " * 500_000, 0.0),
    ],
)
def test_transcripts(gold: str, answer: str, score: float) -> None:
    row = Sample("1", "?", gold, "text", meta={"grading": "wer"})
    assert grade(row, answer) == pytest.approx(score, abs=1e-6)
    assert gold_problem(row) is None and is_correct(row, gold)


def slow_distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


@given(st.text("abc", max_size=90), st.text("abc", max_size=90))
def test_edit_distance_is_that_of_the_table(a: str, b: str) -> None:
    assert edit_distance(a, b) == slow_distance(a, b) == edit_distance(b, a)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("[0, 0, 50, 50]", 1.0),
        ("(25, 0, 75, 50)", 1 / 3),
        ("[60, 60, 70, 70]", 0.0),
        ("[50, 50, 0, 0]", 0.0),
        ("[0, 0, 50]", 0.0),
        ("left", 0.0),
    ],
)
def test_boxes_are_graded_by_overlap(answer: str, score: float) -> None:
    row = Sample("1", "?", "[0, 0, 50, 50]", "text", meta={"grading": "iou"})
    assert grade(row, answer) == pytest.approx(score) and gold_problem(row) is None
    assert gold_problem(Sample("1", "?", "[9, 9, 0, 0]", "text", meta={"grading": "iou"}))
