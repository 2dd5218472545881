import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eval.agreement import cohen_kappa, compare_classifiers, fleiss_kappa
from eval.calibration import auroc, brier, calibration_error, entropy, option_probabilities, reliability_bins
from eval.curves import area_over_curve
from eval.metrics import (
    cohens_d,
    cohens_dz,
    discordant,
    holm,
    mcnemar_chi2,
    mcnemar_exact,
    minimum_detectable_effect,
    paired_bootstrap,
    paired_t,
    pass_at_k,
    ratio_bootstrap,
    spearman,
    statistic_bootstrap,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "interval"),
    [(7, 10, (0.3968, 0.8922)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (250, 500, (0.4563, 0.5437))],
)
def test_wilson_interval(successes, n, interval):
    assert wilson(successes, n) == pytest.approx(interval, abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(pair):
    successes, n = pair
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert (1 - high, 1 - low) == pytest.approx(wilson(n - successes, n))


@pytest.mark.parametrize("pair", [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_proportion(pair):
    with pytest.raises(ValueError, match="not a proportion"):
        wilson(*pair)


@pytest.mark.parametrize(
    ("lost", "gained", "p"), [(10, 2, 0.03857), (5, 5, 1.0), (0, 6, 0.03125), (8, 1, 0.0391), (3, 0, 0.25), (0, 0, 1.0)]
)
def test_mcnemar_exact(lost, gained, p):
    before = [True] * lost + [False] * gained + [True, False]
    after = [False] * lost + [True] * gained + [True, False]
    assert discordant(before, after) == (lost, gained)
    assert mcnemar_exact(before, after) == pytest.approx(p, abs=5e-5)
    assert mcnemar_exact(after, before) == pytest.approx(p, abs=5e-5)


def test_mcnemar_refuses_unequal_lengths():
    with pytest.raises(ValueError):
        mcnemar_exact([True], [True, False])


def test_bootstrap_matches_the_normal_interval_of_many_independent_items():
    differences = [1.0] * 300 + [0.0] * 600 + [-1.0] * 100
    estimate = paired_bootstrap(differences)
    deviation = (sum((d - 0.2) ** 2 for d in differences) / 1000) ** 0.5
    assert (estimate.value, estimate.n) == (pytest.approx(0.2), 1000)
    assert (estimate.low, estimate.high) == pytest.approx(
        (0.2 - 1.96 * deviation / 1000**0.5, 0.2 + 1.96 * deviation / 1000**0.5), abs=0.003
    )


def test_copies_of_an_item_in_its_cluster_add_no_certainty():
    differences = [1.0, 0.0, -1.0, 1.0, 0.0, 1.0, 0.0, 0.0] * 5
    once = paired_bootstrap(differences)
    copied = [d for d in differences for _ in range(4)]
    clusters = [i for i in range(len(differences)) for _ in range(4)]
    clustered, naive = paired_bootstrap(copied, clusters), paired_bootstrap(copied)
    assert (clustered.low, clustered.high) == pytest.approx((once.low, once.high))
    assert naive.high - naive.low < 0.6 * (clustered.high - clustered.low)


def test_large_clusters_weigh_by_their_size():
    estimate = paired_bootstrap([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])
    assert (estimate.value, estimate.low, estimate.high) == (0.75, 0.0, 1.0)


def test_bootstrap_in_chunks_covers_all_resamples(monkeypatch):
    monkeypatch.setattr("eval.metrics._DRAWS_AT_ONCE", 70)
    assert paired_bootstrap([0.0, 1.0] * 5, resamples=23).low < 0.5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=1, max_size=30), st.integers(0, 5))
def test_bootstrap_is_seeded_and_bounded(differences, seed):
    one, other = (paired_bootstrap(differences, resamples=200, seed=seed) for _ in range(2))
    assert one == other
    assert min(differences) <= one.low <= one.high <= max(differences)


@pytest.mark.parametrize(("differences", "clusters"), [([], None), ([float("nan")], None), ([1.0, 0.0], ["a"])])
def test_bootstrap_refuses_nothing_and_nan(differences, clusters):
    with pytest.raises(ValueError):
        paired_bootstrap(differences, clusters)


def test_minimum_detectable_effect_solves_its_equation_and_falls_with_n():
    found = [minimum_detectable_effect(n, 0.3) for n in (100, 500, 5000)]
    assert found[0] > found[1] > found[2]
    for n, d in zip((100, 500, 5000), found, strict=True):
        assert n * d**2 == pytest.approx((1.959964 * 0.3**0.5 + 0.841621 * (0.3 - d**2) ** 0.5) ** 2, rel=1e-5)


def test_nothing_is_detectable_where_too_few_answers_change():
    assert minimum_detectable_effect(500, 0.0) is None
    assert minimum_detectable_effect(20, 0.05) is None


def confusion(both, first_only, second_only, neither):
    one = [True] * (both + first_only) + [False] * (second_only + neither)
    return one, [True] * both + [False] * first_only + [True] * second_only + [False] * neither


@pytest.mark.parametrize(
    ("counts", "agreement", "kappa", "chi2"),
    [
        ((1095, 883, 2, 54), 0.5649, 0.0599, 877.02),
        ((179, 267, 52, 152), 0.5092, 0.1139, 144.91),
        ((773, 151, 297, 310), 0.7074, 0.3622, 47.58),
        ((1968, 313, 230, 318), 0.8081, 0.4190, 12.69),
        ((2424, 432, 141, 235), 0.8227, 0.3546, 147.79),
        ((6439, 2046, 722, 1069), 0.7306, 0.2754, 633.30),
    ],
)
def test_published_confusion_tables_of_hint_classifiers(counts, agreement, kappa, chi2):
    found = compare_classifiers(*confusion(*counts))
    assert (found.agreement, found.kappa) == pytest.approx((agreement, kappa), abs=5e-5)
    assert found.chi2 == pytest.approx(chi2, abs=5e-3)
    assert found.n == sum(counts) and found.p < 0.001


@pytest.mark.parametrize(("right", "interval"), [(7161, (0.6879, 0.7057)), (8485, (0.8183, 0.8329))])
def test_published_acknowledgement_rates(right, interval):
    assert wilson(right, 10276) == pytest.approx(interval, abs=5e-5)


def test_published_ranks_of_twelve_models():
    pipeline = (97.6, 94.7, 71.9, 96.0, 94.8, 91.2, 98.9, 75.1, 67.4, 80.2, 66.5, 37.1)
    judge = (89.9, 84.9, 81.0, 75.3, 74.8, 73.1, 68.3, 62.8, 60.9, 56.9, 56.3, 39.7)
    found = spearman(pipeline, judge)
    assert (found.value, found.n) == (pytest.approx(0.6713, abs=5e-5), 12)
    assert (found.low, found.high) == pytest.approx((0.158, 0.899), abs=5e-4)


def test_spearman_where_it_is_not_defined():
    assert spearman((1, 2, 3), (1, 2, 3)) is None
    assert spearman((1, 1, 1, 1), (1, 2, 3, 4)) is None
    perfect = spearman((1, 2, 3, 4), (4, 3, 2, 1))
    assert (perfect.value, perfect.low, perfect.high) == (-1, -1, -1)


def test_fleiss_kappa():
    assert fleiss_kappa([(3, 0), (3, 0), (0, 3), (2, 1)]) == pytest.approx(0.625)
    assert fleiss_kappa([(3, 0), (3, 0)]) is None
    with pytest.raises(ValueError, match="same number of raters"):
        fleiss_kappa([(3, 0), (1, 1)])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_cohen_kappa_against_its_formula(pairs):
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    p1, p2 = sum(one) / len(one), sum(other) / len(other)
    chance = p1 * p2 + (1 - p1) * (1 - p2)
    same = sum(a == b for a, b in pairs) / len(pairs)
    found = cohen_kappa(one, other)
    assert found is None if chance == 1 else found == pytest.approx((same - chance) / (1 - chance))


@pytest.mark.parametrize(
    ("logits", "expected", "nats"),
    [((2, 1, 0, 0), (0.6103, 0.2245, 0.0826, 0.0826), 1.0487), ((0, 0, 0, 0), (0.25,) * 4, 1.3863), ((5, -math.inf), (1, 0), 0)],
)
def test_option_probabilities_and_entropy(logits, expected, nats):
    probabilities = option_probabilities(logits)
    assert probabilities == pytest.approx(expected, abs=5e-5)
    assert entropy(probabilities) == pytest.approx(nats, abs=5e-5)


def test_entropy_of_a_sure_answer():
    assert entropy((0.97, 0.01, 0.01, 0.01)) == pytest.approx(0.1677, abs=5e-5)


@pytest.mark.parametrize("logits", [(), (-math.inf, -math.inf), (math.nan, 1.0), (math.inf, 0.0)])
def test_no_probabilities_of_nothing(logits):
    with pytest.raises(ValueError, match="no probabilities"):
        option_probabilities(logits)


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ((0.9, 0.8, 0.4, 0.3), (1, 1, 0, 1), 2 / 3),
        ((0.9, 0.6, 0.6, 0.2), (1, 1, 0, 0), 0.875),
        ((0.9, 0.6), (1, 1), None),
        ((), (), None),
    ],
)
def test_auroc(scores, positive, expected):
    assert auroc(scores, positive) == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.4, 0.5, 0.9]), st.booleans()), max_size=25))
def test_auroc_against_all_pairs(items):
    above = [(p > n) + 0.5 * (p == n) for p, yes in items if yes for n, no in items if not no]
    found = auroc([s for s, _ in items], [y for _, y in items])
    assert found is None if not above else found == pytest.approx(sum(above) / len(above))


def test_calibration_error_and_bins():
    assert calibration_error((0.95, 0.95, 0.55, 0.55), (True, False, True, False)) == pytest.approx(0.25)
    bins = reliability_bins((0.0, 0.1, 0.3, 0.30000000000000004, 1.0), (False, True, True, True, True))
    assert [(b.low, b.n) for b in bins] == [(0.0, 2), (0.2, 2), (0.9, 1)]
    assert (bins[0].confidence, bins[0].accuracy) == (pytest.approx(0.05), 0.5)
    with pytest.raises(ValueError, match="no probability"):
        reliability_bins((1.2,), (True,))


def test_brier():
    assert brier([(1, 0), (0.5, 0.5)], [0, 1]) == pytest.approx(0.25)
    assert brier([(0, 1)], [0]) == 2


@pytest.mark.parametrize(
    ("values", "public", "norm"),
    [((1, 1, 1, 1, 1), 0.2, 0), ((0.2, 0.4, 0.6, 0.8, 1), 0.52, 0.4), ((0, 0, 0, 0, 1), 0.9, 0.875), ((0, 0, 0, 0, 0), 1, 1)],
)
def test_area_over_the_curve(values, public, norm):
    found = area_over_curve((0.2, 0.4, 0.6, 0.8, 1.0), values)
    assert (found.public, found.norm) == pytest.approx((public, norm))


def test_area_over_the_curve_of_agreement_from_nothing():
    assert area_over_curve((0, 0.25, 0.5, 0.75, 1), (0.25, 0.5, 0.75, 1, 1)).norm == pytest.approx(0.28125)
    with pytest.raises(ValueError, match="rising"):
        area_over_curve((0.5, 0.5), (1, 1))


def test_effect_sizes():
    assert cohens_d((1, 1, 1, 0), (1, 0, 0, 0)) == pytest.approx(1.0)
    assert cohens_dz((1, 1, 0, -1, 1)) == pytest.approx(0.4472, abs=5e-5)
    assert (
        cohens_dz((0.1, 0.1, 0.1)) is None
        and cohens_dz((1,)) is None
        and cohens_d((1,), (1, 2)) is None
        and cohens_d((1, 1), (2, 2)) is None
    )


def test_paired_t_is_scipys():
    differences = [0.3, -0.1, 0.5, 0.2, 0.0]
    assert paired_t(differences) == pytest.approx(float(stats.ttest_rel(differences, [0.0] * 5).pvalue))
    assert paired_t([0.2, 0.2]) is None


@pytest.mark.parametrize(
    ("before", "after"), [([0.01, 0.04], [0.02, 0.04]), ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]), ([0.9, 0.8], [1, 1]), ([], [])]
)
def test_holm(before, after):
    assert holm(before) == pytest.approx(after)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_a_p_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    assert [a for _, a in sorted(zip(p_values, adjusted, strict=True))] == sorted(adjusted)


def test_mcnemar_chi2_without_correction():
    before, after = [True] * 10 + [False] * 2, [False] * 10 + [True] * 2
    assert mcnemar_chi2(before, after) == pytest.approx((64 / 12, stats.chi2.sf(64 / 12, 1)))
    assert mcnemar_chi2([True], [True]) is None


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(case):
    n, right, k = case
    draws = list(combinations([True] * right + [False] * (n - right), k))
    assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_ratio_varies_with_its_denominator():
    flips = ratio_bootstrap([1, 1, 0, 0] * 20, [1, 1, 1, 0] * 20)
    assert (flips.value, flips.n) == (pytest.approx(2 / 3), 60)
    assert 0.5 < flips.low < 2 / 3 < flips.high < 0.8
    assert ratio_bootstrap([0, 0], [0, 0]) is None
    assert ratio_bootstrap([1, 0], [1, 0]).low == 1
    with pytest.raises(ValueError, match="as many"):
        ratio_bootstrap([1, 0], [1])


def test_bootstrap_of_any_statistic_is_that_of_the_mean():
    values, clusters = [1.0, 0.0, 0.5, 0.25] * 10, [i // 2 for i in range(40)]
    found = statistic_bootstrap(lambda at: sum(values[i] for i in at) / len(at), clusters, resamples=2000)
    mean = paired_bootstrap(values, clusters)
    assert (found.value, found.n) == (mean.value, 40)
    assert (found.low, found.high) == pytest.approx((mean.low, mean.high), abs=0.02)
    assert statistic_bootstrap(lambda at: None, clusters) is None
