import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.options import letter_options, permute
from data.templates import TEMPLATES, render
from vlm_rl.errors import UserError
from vlm_rl.types import LETTERS, AnswerKind, Sample


def gold_texts(sample: Sample) -> set[str]:
    return {sample.options[LETTERS.index(letter)] for letter in sample.answer.split(",")}


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_permuting_keeps_the_gold_texts_and_comes_back(count: int):
    words = ("ant", "bee", "cow", "dog", "eel")[:count]
    golds = ["A", LETTERS[count - 1], "A,B", ",".join(LETTERS[:count])]
    for order, gold in itertools.product(itertools.permutations(range(count)), golds):
        sample = Sample("7", "Which?", gold, "choice", words)
        shuffled = permute(sample, order)
        assert shuffled.options == tuple(words[i] for i in order)
        assert gold_texts(shuffled) == gold_texts(sample)
        assert shuffled.answer == ",".join(sorted(shuffled.answer.split(",")))
        back = [order.index(i) for i in range(count)]
        assert permute(shuffled, back) == sample


def test_permuting_drops_the_demonstration_and_refuses_what_is_no_permutation():
    sample = Sample("7", "Which?", "A", "choice", ("ant", "bee"), response="<answer>A</answer>")
    assert permute(sample, [1, 0]).response is None
    for order in ([0], [0, 0], [1, 2], [0, 1, 2]):
        with pytest.raises(ValueError, match="row 7"):
            permute(sample, order)


@given(st.integers(0, 2**62), st.integers(1, 6))
def test_lettered_options_hold_the_right_one_once(seed: int, count: int):
    options, letter = letter_options("teal", ["red", "blue", "gray", "black", "brown"], count, seed)
    assert len(set(options)) == len(options) == count
    assert options[LETTERS.index(letter)] == "teal"
    assert (options, letter) == letter_options("teal", ["red", "blue", "gray", "black", "brown"], count, seed)


def test_every_place_is_equally_likely_for_the_right_option():
    places = [letter_options("x", ["y", "z", "w"], 4, seed)[1] for seed in range(2000)]
    assert all(430 < places.count(letter) < 570 for letter in "ABCD")


def test_impossible_options_are_refused():
    for correct, others, count in [("x", ["y"], 3), ("x", ["x", "y"], 2), ("x", [str(i) for i in range(40)], 27)]:
        with pytest.raises(ValueError):
            letter_options(correct, others, count, 0)


def test_templates():
    sample = Sample("7", "What colour is it?", "B", "choice", ("red", "teal"))
    assert render("plain")(sample) == "What colour is it?\nA. red\nB. teal"
    assert render("plain")(Sample("7", "How many?", "3", "number")) == "How many?"
    hints: dict[AnswerKind, str] = {"choice": "letter", "number": "number", "yesno": "yes or no", "math": "LaTeX", "text": "phrase"}
    for kind, hint in hints.items():
        text = render("think")(Sample("7", "Q?", "B", kind))
        assert text.startswith("Q?\n\n") and "<think></think>" in text and "<answer></answer>" in text and hint in text
    assert "letters" in render("think")(Sample("7", "Q?", "A,C", "choice", ("x", "y", "z")))
    assert render("plain") is TEMPLATES["plain"]
    with pytest.raises(UserError, match="did you mean 'think'"):
        render("thnik")
