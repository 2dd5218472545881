import dataclasses
import json
import random

import pytest

from eval.summary import compare, in_words, verdict
from vlm_rl.errors import UserError
from vlm_rl.types import Record


def record(i, correct, condition="clean", mode="greedy", index=0, **over):
    base = Record(
        sample_id=str(i),
        condition=condition,
        mode=mode,
        index=index,
        question="q?",
        options=("red", "teal"),
        gold="B",
        kind="choice",
        media_ids=(f"m{i}",),
        completion="",
        answer="B" if correct else "A",
        correct=correct,
        wellformed=True,
        finish="stop",
    )
    return dataclasses.replace(base, **over)


def evaluation(clean, blank=None, samples=None):
    """clean, blank: correctness by question; samples: lists of correctness by question."""
    records = [record(i, c) for i, c in enumerate(clean)]
    records += [record(i, c, "blank") for i, c in enumerate(blank or [])]
    return records + [record(i, c, mode="sample", index=k) for i, row in enumerate(samples or []) for k, c in enumerate(row)]


def draws(share, n=400, seed=0):
    rng = random.Random(seed)
    return [rng.random() < share for _ in range(n)]


def test_numbers_of_a_small_case():
    before = evaluation([True, False, False, False], [False, False, True, False], [[True, False]] * 4)
    after = evaluation([True, True, True, False], [False, True, False, False], [[True, True]] * 4)
    summary = compare(before, after)
    assert (summary["eval/questions"], summary["eval/accuracy_before"], summary["eval/accuracy_after"]) == (4, 0.25, 0.75)
    assert (summary["eval/difference"], summary["eval/mcnemar_p"]) == (0.5, 0.5)
    assert summary["eval/accuracy_ci95_after"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert (summary["eval/blank_before"], summary["eval/blank_after"], summary["eval/gain_over_blank"]) == (0.25, 0.25, 0.5)
    assert (summary["eval/sampled_before"], summary["eval/sampled_after"]) == (0.5, 1.0)
    assert summary["eval/sampled_difference_ci95"] == [0.5, 0.5]
    assert json.loads(json.dumps(summary)) == summary


def test_shares_of_form():
    before = [record(0, False, answer=None, wellformed=False, finish="length"), record(1, True)]
    summary = compare(before, evaluation([True, True]))
    assert [summary[f"eval/{key}_before"] for key in ("wellformed", "unparsed", "truncated")] == [0.5, 0.5, 0.5]
    assert [summary[f"eval/{key}_after"] for key in ("wellformed", "unparsed", "truncated")] == [1.0, 0.0, 0.0]


def test_gain_over_blank_subtracts_what_a_blind_model_gains():
    summary = compare(evaluation([False] * 10, [False] * 10), evaluation([True] * 10, [True] * 6 + [False] * 4))
    assert (summary["eval/difference"], summary["eval/gain_over_blank"]) == (pytest.approx(1.0), pytest.approx(0.4))


def test_questions_about_one_picture_are_resampled_together():
    clean, later = draws(0.5, 40) * 10, draws(0.8, 40, seed=1) * 10
    alone = compare(evaluation(clean), evaluation(later))
    shared = [[dataclasses.replace(r, media_ids=(f"m{int(r.sample_id) % 40}",)) for r in evaluation(side)] for side in (clean, later)]
    together = compare(*shared)
    assert together["eval/pictures"] == 40
    width = [s["eval/difference_ci95"][1] - s["eval/difference_ci95"][0] for s in (alone, together)]
    assert width[1] > 2 * width[0]


@pytest.mark.parametrize(
    ("before", "after", "absent"),
    [
        (evaluation([True]), evaluation([True]), ("blank", "sampled", "gain_over_blank")),
        (evaluation([True], [True]), evaluation([True]), ("blank", "gain_over_blank")),
        ([], evaluation([True]), ("accuracy", "difference", "wellformed")),
    ],
)
def test_what_was_not_asked_has_no_key(before, after, absent):
    summary = compare(before, after)
    assert not [key for key in summary if any(key.startswith(f"eval/{name}") for name in absent)]


def test_different_questions_are_refused():
    with pytest.raises(UserError, match=r"2 questions were answered on one side only \(1, 2\)"):
        compare(evaluation([True]), evaluation([True, True, True]))


def test_different_gold_answers_are_refused():
    with pytest.raises(UserError, match="question '0' has another gold answer"):
        compare(evaluation([True]), [record(0, True, gold="A")])


def test_two_greedy_answers_to_one_question_are_refused():
    with pytest.raises(UserError, match="question '0' has two greedy answers"):
        compare([record(0, True), record(0, True)], evaluation([True]))


def test_the_order_of_records_does_not_matter():
    before, after = evaluation(draws(0.5, 60), draws(0.4, 60, 1)), evaluation(draws(0.8, 60, 2), draws(0.4, 60, 3))
    once = compare(before, after)
    again = compare(before, after[::-1])
    assert once == again


def words(clean_before, clean_after, blank_before=None, blank_after=None):
    summary = compare(evaluation(clean_before, blank_before), evaluation(clean_after, blank_after))
    return in_words(summary), verdict(summary)[0]


def test_sentence_when_the_picture_is_used():
    text, tone = words([True] * 200 + [False] * 200, [True] * 360 + [False] * 40, draws(0.38), draws(0.4, seed=1))
    assert text.startswith("accuracy 50.0 -> 90.0: +40.0 points [35.")
    assert ", n = 400, paired; the same questions with a blank picture: " in text
    assert "; gain over the blank control +" in text
    assert (text.endswith("]: the model uses the picture"), tone) == (True, "good")


def test_sentence_when_a_blind_model_gains_as_much():
    text, tone = words([False] * 400, [True] * 300 + [False] * 100, [False] * 400, [True] * 300 + [False] * 100)
    assert (text.endswith(": a blind model gains as much: this is not visual reasoning"), tone) == (True, "bad")


def test_sentence_without_control_without_change_and_with_loss():
    assert words([False] * 50, [True] * 50)[0].endswith(
        "paired; without a blank-picture control this does not show that the model uses the picture"
    )
    assert words([True, False] * 50, [True, False] * 50)[0].startswith(
        "accuracy 50.0 -> 50.0: +0.0 points [0.0, 0.0], n = 100, paired; no change"
    )
    assert words([True] * 50, [False] * 50)[0].endswith("; the model got worse")
    assert in_words({}) == "no evaluation before and after to compare"
