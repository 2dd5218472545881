"""Measures of judges: the specification's numbers, slow references, and what is not defined."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import judge_summary
from eval.judge_asking import Opinion
from eval.judge_measures import (
    Choice,
    Pair,
    agreement,
    calibration_error,
    gap,
    interval,
    reliability,
    spearman,
    swap_consistency,
    ties_score,
)

TENTHS = st.integers(0, 10).map(lambda n: n / 10)


@given(st.lists(st.tuples(TENTHS, TENTHS), min_size=2, max_size=12))
def test_agreement_is_what_counting_pairs_says(rows):
    found = agreement([Pair(*row) for row in rows])
    assert found["mae"] == pytest.approx(sum(abs(a - b) for a, b in rows) / len(rows))
    assert found["same_tenth"] == pytest.approx(sum(a == b for a, b in rows) / len(rows))
    sign = [(np.sign(a - c), np.sign(b - d)) for (a, b), (c, d) in combinations(rows, 2)]
    spread = [sum(pair[i] != 0 for pair in sign) for i in (0, 1)]
    if all(spread):
        assert found["kendall"] == pytest.approx(sum(x * y for x, y in sign) / math.sqrt(spread[0] * spread[1]))
    else:
        assert math.isnan(found["kendall"]) and math.isnan(found["spearman"])


def test_unread_replies_are_left_out_and_counted():
    found = agreement([Pair(0.2, 0.2), Pair(0.8, 0.7), Pair(1.0, None), Pair(0.4, None)])
    assert found["unread"] == 0.5 and found["spearman"] == pytest.approx(1.0) and found["mae"] == pytest.approx(0.05)
    silent = agreement([Pair(0.2, None)])
    assert silent["unread"] == 1 and math.isnan(silent["mae"]) and math.isnan(silent["same_tenth"])
    assert interval([Pair(0.2, None)], spearman) is None


def test_an_interval_holds_its_value_and_narrows_with_rows():
    rng = np.random.default_rng(0)
    gold = rng.random(400)
    pairs = [Pair(g, float(np.clip(g + e, 0, 1))) for g, e in zip(gold, rng.normal(0, 0.2, 400), strict=True)]
    few, many = interval(pairs[:40], spearman), interval(pairs, spearman)
    assert few is not None and many is not None
    assert many.low < many.value < many.high and many.high - many.low < few.high - few.low
    assert interval(pairs, spearman) == many


def test_calibration():
    bins = reliability([Pair(1.0, 0.9), Pair(0.0, 0.9), Pair(0.3, 0.3), Pair(0.1, 1.0), Pair(0.5, None)])
    assert [(b.n, round(b.said, 3), round(b.gold, 3)) for b in bins] == [(1, 0.3, 0.3), (3, 0.933, 0.367)]
    assert calibration_error(bins) == pytest.approx(3 / 4 * (2.8 - 1.1) / 3)
    assert calibration_error([]) is None


@pytest.mark.parametrize(
    "choice, wins, tie, rank",
    [
        (Choice((0.9,), (0.1, 0.2, 0.8)), True, True, 1.0),
        (Choice((0.8,), (0.1, 0.8)), False, True, 0.5),  # equal scores lose
        (Choice((0.5,), (0.6, 0.7, 0.2)), False, False, 1 / 3),
        (Choice((None,), (0.0,)), False, False, 0.5),  # a right one that the judge says nothing about is no win
        (Choice((0.1,), (None, None)), True, True, 1.0),
    ],
)
def test_one_right_against_several_wrong(choice, wins, tie, rank):
    assert (choice.wins, choice.ties_or_wins, choice.reciprocal_rank) == (wins, tie, pytest.approx(rank))


def test_the_ties_score_of_the_specification():
    # accurate both times; gaps 2.5 (tied) and 1.5 (reference), spread 2: the first is above it, their least is not
    tied, reference = Choice((4.5, 2.5), (0.0, -1.0)), Choice((1.5,), (0.0,))
    assert ties_score([tied], [reference]) == pytest.approx(0.7976, abs=1e-4)
    assert ties_score([Choice((1.0, 1.0), (0.0,))], [reference]) == pytest.approx(0.3 + 0.3 + 0.2 + 0.2)
    assert ties_score([], []) is None and ties_score([Choice((1.0, None), (0.0,))], [reference]) is None


def test_position_is_told_from_preference():
    found = swap_consistency([("first", "second"), ("first", "first"), ("tie", "tie"), ("second", None)])
    consistent, first = found["consistent"], found["first"]
    assert consistent is not None and (consistent.value, consistent.n) == (pytest.approx(2 / 3), 3)
    assert first is not None and (first.value, first.n) == (0.75, 4)
    assert swap_consistency([]) == {"consistent": None, "first": None}


def opinion(part: str, name: str, row: str, score: float | None, guarded: bool = False) -> Opinion:
    return Opinion("j", part, name, row, "text", None, score, guarded, "", None)


def test_false_positives_mean_worst_guard_and_lift():
    rows = [str(i) for i in range(10)]
    found = [opinion("bare", "", row, 0.0) for row in rows]
    found += [opinion("flattery", name, row, score) for row in rows for name, score in (("kind", 0.9), ("sure", 0.1))]
    found += [opinion("master_keys", ":", row, 1.0, guarded=True) for row in rows]
    tree = judge_summary.false_positives(found, ("flattery", "master_keys", "boxes"), 0.5)
    assert set(tree["families"]) == {"flattery", "master_keys"}
    flattery = tree["families"]["flattery"]
    assert flattery["judge"]["value"] == 0.5 and flattery["judge"]["n"] == 20 and flattery["lift"]["value"] == 0.5
    kind = flattery["tricks"][0]["judge"]
    assert (kind["value"], kind["low"], kind["high"]) == (1.0, pytest.approx(0.7225, abs=1e-4), 1.0)  # Wilson
    keys = tree["families"]["master_keys"]
    assert (keys["judge"]["value"], keys["guarded"]["value"]) == (1.0, 0.0)
    assert (tree["judge"]["mean"], tree["guarded"]["mean"]) == (0.75, 0.25)
    assert tree["guarded"]["worst_trick"] == "flattery: kind" and judge_summary.won_over_by(tree) == ["flattery"]
    assert "is won over by flattery (50.0%)" in judge_summary.stress_words("j", tree)


def test_the_gap_between_two_ways_of_judging_the_same_responses():
    gold = [i / 20 for i in range(20)]
    same = [Pair(g, g / 2) for g in gold]
    turned = [Pair(g, 1 - g) for g in gold]
    shuffled = [Pair(g, gold[(7 * i) % 20]) for i, g in enumerate(gold)]
    found = gap(same, turned)
    assert found is not None and (found.value, found.low, found.high, found.n) == pytest.approx((2, 2, 2, 20))
    found = gap(same, shuffled)
    assert found is not None and found.value == pytest.approx(1 - agreement(shuffled)["spearman"])
    assert 0 < found.low < found.value < found.high
    part = gap([Pair(0.5, None), *same], [Pair(0.5, 0.1), *turned])
    assert part is not None and part.n == 20
    assert gap(same, [Pair(g, 0.5) for g in gold]) is None
    assert gap([], []) is None
