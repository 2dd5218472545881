"""Rows as a judge's lessons: the prompt that rewards ask with, the score in the form it is read in, tenths of the scale balanced."""

from collections import Counter

import pytest

from rewards.judge_rows import Lessons, balanced, bucket, lesson, reasoning, score_of
from rewards.judging import read_score, render
from rewards.thinking import Thinking
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Sample


def row(i: int, score: object, response: str | None = "<think>It is red.</think><answer>B</answer>", **meta: object) -> Sample:
    return Sample(f"r{i}", "What colour?", "B", "choice", ("teal", "red"), response=response, meta={"score": score, **meta})


@pytest.mark.parametrize("score, written", [(0, "0.0"), (0.04, "0.0"), (0.44, "0.4"), (0.667, "0.7"), (1, "1.0"), (0.96, "1.0")])
def test_what_is_written_is_read_back(score, written):
    made = lesson(row(0, score), "thinking", "score")
    assert made.response == f"<score>{written}</score>" and read_score(made.response) == float(written)
    assert (made.answer, made.kind, made.meta["score"]) == (written, "number", score) and bucket(score) == round(float(written) * 10)


def test_a_lesson_is_asked_as_the_reward_asks():
    made = lesson(row(0, 0.5), "trained", "score")
    asked = Thinking("j", prompt="trained").judge.query(row(0, 0), "trained", question="What colour?\nA. teal\nB. red", trace="It is red.")
    assert made.question == asked.sample.question == render("trained", question="What colour?\nA. teal\nB. red", trace="It is red.")
    assert "<answer>" not in made.question and not made.options


def test_reasoning_is_the_think_block_or_all_of_a_response_without_one():
    assert reasoning(row(0, 1)) == "It is red."
    assert reasoning(row(0, 1, "It is red.")) == "It is red."
    assert reasoning(row(0, 1, "<think></think><answer>B</answer>")) == ""


@pytest.mark.parametrize("score", [None, "0.5", True, -0.1, 1.1, float("nan"), [0.5]])
def test_a_row_without_a_score_is_named(score):
    with pytest.raises(RowError, match=r'r7: "score" is the response\'s score, a number from 0 to 1'):
        score_of(row(7, score), "score")


def test_a_row_without_a_response_is_named():
    with pytest.raises(RowError, match="it has no response to grade"):
        Lessons([row(0, 0.5, None)], "thinking", "score")[0]


def test_tenths_are_capped_and_bad_rows_are_left_to_the_checks():
    rows = [row(i, 0.0 if i < 60 else 1.0 if i < 90 else 0.5) for i in range(100)] + [row(100, "bad")]
    kept = balanced(rows, "score", 12, seed=1)
    assert Counter(sample.meta["score"] for sample in kept) == {0.0: 12, 1.0: 12, 0.5: 10, "bad": 1}
    assert [s.id for s in kept] == [s.id for s in balanced(rows, "score", 12, seed=1)]
    assert [s.id for s in kept] != [s.id for s in balanced(rows, "score", 12, seed=2)]
    with pytest.raises(UserError, match='no row has a response and, under "grade", a score from 0 to 1'):
        balanced(rows, "grade", 12, seed=1)
