import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metrics import discordant, mcnemar_exact, minimum_detectable_effect, paired_bootstrap, wilson


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
