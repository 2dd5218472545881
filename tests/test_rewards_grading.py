import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from rewards import mathcheck
from rewards.grading import choice_letters, gold_problem, grade, is_correct
from rewards.numerals import parse_number
from rewards.rouge import rouge_mean
from vlm_rl.errors import RowError
from vlm_rl.types import LETTERS, AnswerKind, Sample

OPTIONS = ("red", "teal", "a cat", "blue, green")


def sample(answer: str, kind: AnswerKind = "choice", **meta: float) -> Sample:
    return Sample(id="7", question="?", answer=answer, kind=kind, options=OPTIONS if kind == "choice" else (), meta=meta)


CHOICES = [
    ("A", "A"), ("(A)", "A"), ("A.", "A"), ("A)", "A"), ("a", "A"), (" A ", "A"), ("[A]", "A"), ("（A）", "A"), ("**B**", "B"),
    ("", None), ("  ", None), (",", None), (",,", None), ("1.", None), ("E", None), ("?", None), (":", None),
    ("A,B", "AB"), ("B, A", "AB"), ("A,A", "A"), ("A and C", "AC"), ("a, b", "AB"), ("AC", "AC"), ("A C", "AC"), ("A, B and C", "ABC"),
    ("A or B", None), ("A/B", None), ("A. or B.", None), ("A.B.C.D", None),
    ("teal", "B"), ("Teal.", "B"), ("red, teal", "AB"), ("blue, green", "D"), ("A. red, D. blue, green", None), ("B. teal or A. red", None),
    ("a cat", "C"), ("A cat", "C"), ("cat", "C"), ("the cat", "C"), ("a dog", None), ("A dog", None), ("I see a cat", None),
    ("B. teal", "B"), ("(B) teal", "B"), ("B teal", "B"), ("b) teal", "B"), ("B: teal", "B"), ("B - teal", "B"), ("B\nteal", "B"),
    ("B. because it is teal", "B"), ("B. A teal thing", "B"), ("B. red", None), ("B. not A", None), ("A-frame", None),
    ("The answer is B", "B"), ("the correct answer is option (b).", "B"), ("Option B", "B"), ("It is teal.", "B"),
    ("I looked. The answer is B", "B"), ("not B", None), ("The answer is not B", None), ("\\boxed{\\text{B}}", "B"), ("$B$", "B"),
    ("Let's solve this step by step", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CHOICES)
def test_choice_letters(text: str, expected: str | None) -> None:
    assert choice_letters(text, OPTIONS) == (None if expected is None else frozenset(expected))


def test_a_letter_that_is_also_an_options_word_is_the_letter() -> None:
    assert choice_letters("B", ("B", "A", "O")) == {"B"}
    assert choice_letters("AB", ("O", "AB")) == {"B"}
    assert choice_letters("B", ("B", "A", "O", "AB")) == {"B"}


def test_options_that_read_the_same_decide_nothing() -> None:
    assert choice_letters("teal", ("teal", "Teal", "teal")) is None
    assert choice_letters("T", ("t", "T")) == {"B"}
    assert choice_letters("5!", ("5", "5!")) == {"B"}
    assert choice_letters("-5", ("5", "-5")) == {"B"}


@pytest.mark.parametrize(
    ("gold", "answer", "value"),
    [
        *[("A", text, 1.0) for text in ("A", "(A)", "A.", "a", " A ")],
        *[("A", text, 0.0) for text in ("", " ", "A,B", ",")],
        *[("A,B", text, 1.0) for text in ("A,B", "B, A")],
        *[("A,B", text, 0.0) for text in ("A", "A,A", ",,")],
        ("A,C", "C and A", 1.0),
        ("A,C", "A,B,C", 0.0),
    ],
)
def test_choice_is_equality_of_sets(gold: str, answer: str, value: float) -> None:
    assert grade(sample(gold), answer) == value


@given(st.text(alphabet="ABCDabcd ()[].,:;-and teal\n*", max_size=30))
def test_only_options_that_exist_are_ever_named(text: str) -> None:
    found = choice_letters(text, OPTIONS[:2])
    assert found is None or set() < found <= {"A", "B"}


@given(st.integers(1, 26), st.data())
def test_every_letter_and_every_options_words_are_understood(count: int, data: st.DataObject) -> None:
    options = tuple(f"thing {i}" for i in range(count))
    i = data.draw(st.integers(0, count - 1))
    for text in (LETTERS[i], f"({LETTERS[i].lower()})", options[i], f"{LETTERS[i]}. {options[i]}", f"The answer is {LETTERS[i]}."):
        assert choice_letters(text, options) == {LETTERS[i]}


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("yes", "Yes", True), ("yes", "Yes, it is.", True), ("No", "no", True), ("no", "No, there is no cat", True),
        ("yes", "**Yes**", True),
        ("yes", "The answer is yes", True), ("true", "yes", True), ("no", "False.", True), ("yes", "no", False),
        ("yes", "yes or no", False),
        ("no", "yes and no", False), ("yes", "", False), ("yes", "not yes", False), ("no", "nothing", False), ("yes", "yesterday", False),
    ],
)  # fmt: skip
def test_yesno(gold: str, answer: str, right: bool) -> None:
    assert is_correct(sample(gold, "yesno"), answer) is right


NUMBERS = [
    ("5", 5), ("5 cm", 5), ("-5", -5), ("−5", -5), (".5", 0.5), ("5.", 5), ("1,234", 1234), ("1,234,567.5 kg", 1234567.5),
    ("1\\,000", 1000),
    ("1{,}000", 1000), ("3/4", 0.75), ("\\frac{3}{4}", 0.75), ("-\\dfrac{3}{4}", -0.75), ("1 1/2", 1.5), ("$1.5e3", 1500),
    ("1.5\\times10^{3}", 1500), ("x = 5", 5), ("5 \\text{ cm}^2", 5), ("45^\\circ", 45), ("five", 5), ("There are 5 cats.", 5), ("$5$", 5),
    ("", None), ("nan", None), ("inf", None), ("1e999", None), ("1/0", None), ("3-5", None), ("5 or 6", None), ("10:30", None),
    ("1,5", None),
    ("2^10", None), ("5\\pi", None), ("\\pi/2", None), ("sqrt(2)", None), ("CO2", None), ("x=5, y=3", None), ("not 5", None), ("> 5", None),
    ("9" * 600, None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_parse_number(text: str, value: float | None) -> None:
    number = parse_number(text)
    assert (None if number is None else number.value) == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("0.75", "3/4", True), ("1000", "1,000 kg", True), ("3.14159", "3.1416", True), ("3.14159", "3.15", False), ("0", "0.0", True),
        ("0", "0.001", False), ("50%", "50", True), ("50%", "0.5", True), ("0.5", "50%", True), ("50", "50%", True), ("0.5", "0.5%", False),
        ("1", "1%", False), ("2", "two", True), ("5", "4 or 5", False), ("5", None, False),
    ],
)  # fmt: skip
def test_number(gold: str, answer: str | None, right: bool) -> None:
    assert is_correct(sample(gold, "number"), answer) is right


def test_the_tolerance_of_a_number_is_the_rows_own() -> None:
    assert grade(sample("100", "number", tolerance=0.05), "104.9") == 1.0
    assert grade(sample("100", "number", tolerance=0.05), "105.1") == 0.0
    assert grade(sample("100", "number", tolerance=0), "100.001") == 0.0
    with pytest.raises(RowError, match=r"7.*tolerance"):
        grade(sample("100", "number", tolerance=-1), "100")


@given(st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-3))
def test_a_number_in_its_usual_forms_equals_itself(value: float) -> None:
    gold = sample(repr(value), "number")
    for text in (repr(value), f"{value:,}", f"{value:.12e}", f"{value} cm", f"The answer is {value}."):
        assert grade(gold, text) == 1.0


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("\\frac{1}{2}", "0.5", True), ("x^2+1", "$1 + x^2$", True), ("\\sqrt{2}/2", "\\frac{1}{\\sqrt{2}}", True),
        ("(1,2)", "(1, 2)", True),
        ("2\\pi", "\\boxed{2\\pi}", True), ("6", "$5$ $6$", False), ("6", "5 or 6", False), ("x", "y", False), ("6", "", False),
        ("6", "}{" * 50, False),
    ],
)  # fmt: skip
def test_math(gold: str, answer: str, right: bool) -> None:
    assert is_correct(sample(gold, "math"), answer) is right


def test_math_that_never_ends_is_wrong_in_time_and_the_next_is_right() -> None:
    started = time.perf_counter()
    assert not mathcheck.check("6", "9^{9^{9^{9^{9}}}}", seconds=0.5).equal
    assert not mathcheck.check("6", "(10^{9})!", seconds=0.5).equal
    assert not mathcheck.check("6", "1+" * 10_000 + "1", seconds=0.5).equal
    assert time.perf_counter() - started < 10
    assert mathcheck.check("6", "5+1").equal


def test_math_works_in_threads() -> None:
    found: list[bool] = []
    threads = [threading.Thread(target=lambda i=i: found.append(mathcheck.check(f"{i}", f"{i}+0").equal)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [True] * 8


@pytest.mark.parametrize(
    ("gold", "answer", "mean"),
    [
        ("the cat is on the mat", "the cat sat on the mat", 0.755556),
        ("one two three", "one two three", 1.0),
        ("word", "word", 0.666667),
        ("word", "", 0.0),
    ],
)
def test_rouge_mean_of_known_pairs(gold: str, answer: str, mean: float) -> None:
    assert rouge_mean(gold, answer) == pytest.approx(mean, abs=1e-6)


WORDS = st.lists(st.sampled_from(["the", "cats", "cat", "sitting", "sat", "mat", "on", "2", "Café", "a-b"]), min_size=1, max_size=12).map(
    " ".join
)


@given(WORDS, WORDS)
@settings(deadline=None)
def test_rouge_mean_is_that_of_the_reference_library(gold: str, answer: str) -> None:
    scores = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(gold, answer)
    assert rouge_mean(gold, answer) == pytest.approx(sum(s.fmeasure for s in scores.values()) / 3)


@pytest.mark.parametrize(
    ("gold", "answer", "low", "high"),
    [
        ("Word", " word. ", 1, 1), ("红色的猫", "红色的猫", 1, 1), ("红色的猫", "红色的狗", 0.5, 0.9), ("红色的猫", "cat", 0, 0),
        ("красный кот", "красный кот", 1, 1), ("красный кот", "черный пес", 0, 0), ("?", "?", 1, 1), ("cat", "?", 0, 0),
        ("a red cat", "a blue car", 0.05, 0.5),
    ],
)  # fmt: skip
def test_text(gold: str, answer: str, low: float, high: float) -> None:
    assert low <= grade(sample(gold, "text"), answer) <= high


@pytest.mark.parametrize(
    "piece",
    ["*", "$", "y", "a ", "y" * 23 + " ", "9", "9,", "(", "{", "\\text{", "\\frac{", " ", "A,", "A. ", "the answer is ", "和", "=", "-"],
)
@pytest.mark.parametrize("kind", ["choice", "yesno", "number", "text"])
def test_a_hostile_megabyte_is_graded_in_time(kind: AnswerKind, piece: str) -> None:
    gold = {"choice": "A", "yesno": "yes", "number": "5", "text": "a cat " * 100}[kind]
    for size in (500, 2000, 4000, 1_000_000):
        started = time.perf_counter()
        assert 0 <= grade(sample(gold, kind), piece * (size // len(piece))) <= 1
        assert time.perf_counter() - started < 2


@pytest.mark.parametrize("piece", ["(", "{", "\\frac{", "^", "!", "9", "\\sqrt"])
def test_hostile_mathematics_is_wrong_in_time(piece: str) -> None:
    started = time.perf_counter()
    assert not mathcheck.check("6", piece * (mathcheck.LONGEST // len(piece)), seconds=0.3).equal
    assert time.perf_counter() - started < 5
    assert grade(sample("6", "math"), piece * (1_000_000 // len(piece))) == 0.0


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (sample("B"), None), (sample("a, c"), None), (sample(""), "empty"), (sample("E"), "letter of an option (A to D"),
        (sample("teal"), "letter of an option"), (sample("A,"), "letter of an option"),
        (Sample("7", "?", "A", "choice"), "without options"), (Sample("7", "?", "A", "choice", ("x",) * 27), "27 options"),
        (sample("yes", "yesno"), None), (sample("perhaps", "yesno"), "not accepted"), (sample("1,234 m", "number"), None),
        (sample("many", "number"), "not accepted"), (sample("5", "number", tolerance=2), "tolerance"),
        (sample("\\frac{1}{2}", "math"), None),
        (sample("triangle ABC", "math"), "math-verify cannot read"), (sample("anything at all", "text"), None),
        (sample(" ", "text"), "empty"),
        (Sample("7", "?", "A", "chioce"), "unknown kind"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_gold_problem(row: Sample, problem: str | None) -> None:
    found = gold_problem(row)
    assert found is None if problem is None else found is not None and problem in found
