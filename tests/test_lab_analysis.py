"""The analysis of the laboratory: numbers by hand, laws, and the table of verdicts."""

import math
from statistics import fmean, variance

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eval.lab_analysis import Effect, adjusted, contrast, contrast_of_values, decide, degrees


def of(values):
    return {str(i): (float(v), 1.0) for i, v in enumerate(values)}


def effect(value, half, seeds=3, questions=100, over_questions=None, over_seeds=1e-6):
    """With an interval of value -+ half; the questions vary most unless it says otherwise."""
    over_questions = (half / 1.98) ** 2 if over_questions is None else over_questions
    by_seed = dict.fromkeys(range(seeds), value)
    return Effect(value, value - half, value + half, 0.5, 0.1, seeds, questions, over_questions, over_seeds, by_seed)


def test_effect_is_the_mean_over_seeds_of_differences_of_ratios():
    one = {0: of([1, 1, 0, 1]), 1: of([1, 1, 1, 1])}
    other = {0: of([0, 1, 0, 0]), 1: of([0, 1, 0, 0])}
    found = contrast(one, other)
    assert found is not None
    assert found.by_seed == {0: 0.5, 1: 0.75} and found.value == 0.625
    assert (found.seeds, found.questions) == (2, 4)
    assert found.over_seeds == pytest.approx(variance([0.5, 0.75]) / 2)


def test_variance_over_questions_is_that_of_the_mean_over_seeds():
    """The paired differences averaged over seeds are 1, 0, 0.5, 0.5: the bootstrap variance of their mean is s^2 (n - 1) / n^2."""
    one, other = {0: of([1, 0, 0, 1]), 1: of([1, 0, 1, 0])}, {0: of([0] * 4), 1: of([0] * 4)}
    found = contrast(one, other, resamples=40_000)
    assert found is not None
    assert found.over_questions == pytest.approx(np.var([1, 0, 0.5, 0.5]) / 4, rel=0.03)
    assert found.over_seeds == 0.0
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 3) * math.sqrt(found.over_questions))


def test_ratios_weigh_by_their_denominators_and_pair_what_both_have():
    one = {0: {"a": (2.0, 4.0), "b": (3.0, 3.0)}}
    other = {0: {"a": (1.0, 2.0), "c": (1.0, 1.0)}}
    found = contrast(one, other)
    assert found is not None and found.value == pytest.approx(5 / 7 - 2 / 3)
    assert found.questions == 3


def test_clusters_are_drawn_whole():
    values, zero = [1, 1, 0, 0, 1, 1, 0, 0], [0] * 8
    alone = contrast({0: of(values)}, {0: of(zero)})
    held = contrast({0: of(values)}, {0: of(zero)}, {str(i): str(i // 4) for i in range(8)})
    paired = contrast({0: of(values)}, {0: of(zero)}, {str(i): str(i // 2) for i in range(8)})
    assert alone is not None and held is not None and paired is not None
    assert (alone.questions, paired.questions, held.questions) == (8, 4, 2)
    assert paired.over_questions == pytest.approx(2 * alone.over_questions, rel=0.1)
    assert held.over_questions == 0  # both pictures have the same share


def test_values_without_questions_are_students_paired_t():
    one, other = {0: 0.7, 1: 0.8, 2: 0.75, 3: 0.9}, {0: 0.6, 1: 0.75, 2: 0.7, 3: 0.7, 9: 0.1}
    found = contrast_of_values(one, other)
    assert found is not None
    wanted = stats.ttest_rel([0.7, 0.8, 0.75, 0.9], [0.6, 0.75, 0.7, 0.7])
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval()))
    assert (found.seeds, found.questions) == (4, 0)


def test_seeds_that_differ_widen_the_interval_by_their_own_degrees_of_freedom():
    assert degrees(1.0, 101, 1.0, 3) == pytest.approx(4 / (1 / 100 + 1 / 2))
    assert degrees(0.0, 101, 1.0, 3) == pytest.approx(2)
    assert degrees(1.0, 101, 0.0, 3) == pytest.approx(100)
    n = 400
    steady = {s: of([1] * 200 + [0] * 200) for s in range(3)}
    moved = {s: of([1] * (140 + 60 * s) + [0] * (260 - 60 * s)) for s in range(3)}
    base = {s: of([0] * n) for s in range(3)}
    narrow, wide = contrast(steady, base), contrast(moved, base)
    assert narrow is not None and wide is not None
    assert wide.value == pytest.approx(narrow.value)
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


def test_nothing_to_compare_is_none():
    assert contrast({0: of([1])}, {1: of([1])}) is None
    assert contrast({}, {}) is None
    assert contrast({0: {"a": (0.0, 0.0)}}, {0: of([1])}) is None
    assert contrast_of_values({0: 1.0}, {1: 1.0}) is None


shares = st.lists(st.sampled_from([0.0, 1.0]), min_size=3, max_size=12)


@settings(max_examples=25, deadline=None)
@given(a=shares, b=shares, seeds=st.integers(2, 4), data=st.data())
def test_laws(a, b, seeds, data):
    """Turned round it is the negative; the same on both sides is nothing; the order of seeds and questions does not matter."""
    n = min(len(a), len(b))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    one = {s: of(rng.permutation(a[:n])) for s in range(seeds)}
    other = {s: of(b[:n]) for s in range(seeds)}
    there, back = contrast(one, other, resamples=400), contrast(other, one, resamples=400)
    assert there is not None and back is not None
    assert there.value == pytest.approx(-back.value) and there.low == pytest.approx(-back.high)
    assert there.value == pytest.approx(fmean(a[:n]) - fmean(b[:n]))
    same = contrast(one, one, resamples=400)
    assert same is not None and same.value == same.low == same.high == 0 and same.p == 1
    backwards = [{s: dict(reversed(list(side[s].items()))) for s in reversed(range(seeds))} for side in (one, other)]
    assert contrast(*backwards, resamples=400) == there


def test_intervals_cover_what_they_say():
    """Trainings whose effects vary by their seed and questions that vary too: the truth lies inside about 19 times in 20, or more."""
    rng, inside, runs = np.random.default_rng(1), 0, 120
    for _ in range(runs):
        hard, seeds = rng.normal(0, 0.1, 60), rng.normal(0.1, 0.05, 3)
        one = {s: of(seeds[s] + hard + rng.normal(0, 0.1, 60)) for s in range(3)}
        found = contrast(one, {s: of(np.zeros(60)) for s in range(3)}, resamples=300)
        assert found is not None
        inside += found.low <= 0.1 <= found.high
    assert inside / runs > 0.9


VERDICTS = [
    # direction, value, half the interval, margin -> verdict
    ("up", 0.10, 0.05, 0.03, "holds"),
    ("up", 0.04, 0.05, 0.03, "undecided"),
    ("up", 0.00, 0.02, 0.03, "does not hold"),
    ("up", 0.01, 0.005, 0.03, "does not hold"),  # an effect, too small to matter
    ("up", -0.10, 0.05, 0.03, "does not hold"),
    ("up", -0.02, 0.06, 0.03, "undecided"),
    ("down", -0.10, 0.05, 0.03, "holds"),
    ("down", 0.10, 0.05, 0.03, "does not hold"),
    ("down", 0.00, 0.05, 0.03, "undecided"),
    ("same", 0.00, 0.02, 0.03, "holds"),
    ("same", 0.02, 0.02, 0.03, "undecided"),
    ("same", -0.10, 0.02, 0.03, "does not hold"),
]


@pytest.mark.parametrize(("direction", "value", "half", "margin", "word"), VERDICTS)
def test_verdicts(direction, value, half, margin, word):
    verdict = decide(effect(value, half), direction, margin)
    assert verdict.word == word
    assert bool(verdict.needs) == (word == "undecided")


def test_one_seed_or_none_decides_nothing():
    assert decide(effect(0.5, 0.01, seeds=1), "up", 0.03).word == "undecided"
    assert decide(None, "up", 0.03).word == "undecided"


def test_what_would_decide_is_enough():
    """The number named narrows the interval enough to decide, were the effect as it is."""
    undecided = effect(0.04, 0.05, questions=100)
    needs = decide(undecided, "up", 0.03).needs
    questions = int(needs.rpartition(" or about ")[2].partition(" questions")[0].rpartition(" ")[2])
    assert decide(effect(0.04, 0.05 * math.sqrt(100 / questions)), "up", 0.03).word == "holds"
    assert "seeds" not in needs  # more seeds would not help: the questions vary most
    both = decide(effect(0.04, 0.9, over_questions=0.02, over_seeds=0.02), "up", 0.03).needs
    assert "seeds and" in both


def test_holm_leaves_out_what_was_not_measured():
    few = [effect(0.1, 0.05), None, effect(0.2, 0.05)]
    assert adjusted(few) == [1.0, None, 1.0]
