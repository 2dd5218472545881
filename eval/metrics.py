"""Intervals, paired tests and effect sizes for evaluations: numbers in, numbers out. Knows no records, conditions or files.

Shares and differences are fractions (0.5, not 50 points). Every function raises ValueError for an empty or inconsistent input: a mean over
nothing is not 0, and the caller decides whether to leave the number out. None means that the number is not defined for a valid input
(nothing to divide by, no spread).
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from scipy import stats

_DRAWS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval over `n` items. Estimate(value=0.377, low=0.330, high=0.421, n=500)"""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927): never outside [0, 1], and not empty when all or none succeed.

    wilson(7, 10) -> (0.3968, 0.8922)
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a proportion")
    z = float(stats.norm.ppf((1 + level) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def discordant(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int]:
    """(right before and wrong after, wrong before and right after), the items in the same order in both."""
    pairs = list(zip(before, after, strict=True))
    return sum(b and not a for b, a in pairs), sum(a and not b for b, a in pairs)


def mcnemar_exact(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Two-sided exact p of McNemar's test (1947) on the same items: a fair coin decides each discordant pair. No such pair -> 1."""
    lost, gained = discordant(before, after)
    if lost + gained == 0:
        return 1.0
    return float(stats.binomtest(min(lost, gained), lost + gained, 0.5).pvalue)


def mcnemar_chi2(before: Sequence[bool], after: Sequence[bool]) -> tuple[float, float] | None:
    """(chi2, p) = (b - c)^2 / (b + c) on one degree of freedom without continuity correction, as published tables have it; the exact test
    decides. None without a discordant pair. mcnemar_chi2 of 10 lost and 2 gained -> (5.333, 0.0209)
    """
    lost, gained = discordant(before, after)
    if lost + gained == 0:
        return None
    chi2 = (lost - gained) ** 2 / (lost + gained)
    return chi2, float(stats.chi2.sf(chi2, 1))


def paired_t(differences: Sequence[float]) -> float | None:
    """Two-sided p of Student's paired t-test; None for fewer than two items or where all differ by the same."""
    spread = _deviation(differences)
    if not spread:
        return None
    t = fmean(differences) / (spread / math.sqrt(len(differences)))
    return float(2 * stats.t.sf(abs(t), len(differences) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p of several tests (1979), in the order given. holm([0.01, 0.04]) -> [0.02, 0.04]"""
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p values lie between 0 and 1: {list(p_values)}")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def cohens_d(one: Sequence[float], other: Sequence[float]) -> float | None:
    """(mean(one) - mean(other)) / sqrt((s1^2 + s2^2) / 2), deviations with n - 1. None for fewer than two items a side or no spread."""
    spreads = _deviation(one), _deviation(other)
    if None in spreads or not any(spreads):
        return None
    return (fmean(one) - fmean(other)) / math.sqrt(fmean((s or 0.0) ** 2 for s in spreads))


def cohens_dz(differences: Sequence[float]) -> float | None:
    """mean(d) / sd(d) of paired differences; None for fewer than two items or where all differ by the same."""
    spread = _deviation(differences)
    return fmean(differences) / spread if spread else None


def _deviation(values: Sequence[float]) -> float | None:
    """Standard deviation with n - 1, 0.0 exactly where all values are equal; None for fewer than two."""
    if len(values) < 2:
        return None
    return 0.0 if len(set(values)) == 1 else stdev(values)


def spearman(one: Sequence[float], other: Sequence[float], level: float = 0.95) -> Estimate | None:
    """Rank correlation with Fisher's interval tanh(atanh(r) -+ z / sqrt(n - 3)). None for under four pairs or a constant side."""
    pairs = list(zip(one, other, strict=True))
    if len(pairs) < 4 or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    r = max(-1.0, min(1.0, float(np.corrcoef(stats.rankdata(one), stats.rankdata(other))[0, 1])))
    half = float(stats.norm.ppf((1 + level) / 2)) / math.sqrt(len(pairs) - 3)
    low, high = (math.tanh(math.atanh(r) + side * half) if abs(r) < 1 - 1e-12 else r for side in (-1, 1))
    return Estimate(r, low, high, len(pairs))


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Chance that one of `k` samples drawn from `samples` without return, `right` of them right, is right (unbiased, arXiv 2107.03374).

    1 - C(n - c, k) / C(n, k). pass_at_k(4, 1, 2) -> 0.5
    """
    if not 0 <= right <= samples or not 1 <= k <= samples:
        raise ValueError(f"{right} right of {samples} samples, k = {k}: need 0 <= right <= samples and 1 <= k <= samples")
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def paired_bootstrap(
    differences: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Mean of the per-item differences with a percentile bootstrap interval (Efron 1979).

    `clusters` names what each item belongs to (the picture several questions are about): whole clusters are drawn with replacement, because
    items of one cluster are right or wrong together. None: each item is its own cluster. The resampled statistic is the mean over the drawn
    items, so clusters of unequal size weigh by their size. `n` of the estimate counts items. Equal inputs and seed give equal bounds.
    """
    estimate = ratio_bootstrap(differences, [1.0] * len(differences), clusters, level, resamples, seed)
    assert estimate is not None
    return estimate


def ratio_bootstrap(
    numerators: Sequence[float],
    denominators: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate | None:
    """sum(numerators) / sum(denominators) with a percentile bootstrap interval, both varying together; clusters as in `paired_bootstrap`.

    For shares of a subset that is itself found by the model (flips of what was right, acknowledgements of hints that changed the answer):
    numerator 1 and denominator 1 where it is in both, 0 and 0 outside the subset. `n` counts items with a denominator other than 0. None
    where the denominators sum to 0; draws in which they do are left out. ratio_bootstrap([1, 0, 0], [1, 1, 0]).value -> 0.5
    """
    above, below = (np.asarray(values, dtype=np.float64) for values in (numerators, denominators))
    if above.ndim != 1 or not above.size or not (np.isfinite(above).all() and np.isfinite(below).all()):
        raise ValueError("a bootstrap needs at least one item, and finite numbers only")
    labels: Sequence[Hashable] = range(len(above)) if clusters is None else clusters
    if not len(labels) == len(above) == len(below):
        raise ValueError(f"{len(above)} items, {len(below)} denominators and {len(labels)} cluster labels: they must be as many")
    if below.sum() == 0:
        return None
    members = _members(labels)
    sums, sizes = np.bincount(members, above), np.bincount(members, below)
    rng = np.random.default_rng(seed)
    ratios = []
    chunk = max(1, _DRAWS_AT_ONCE // len(sums))
    for start in range(0, resamples, chunk):
        drawn = rng.integers(len(sums), size=(min(chunk, resamples - start), len(sums)))
        top, bottom = sums[drawn].sum(axis=1), sizes[drawn].sum(axis=1)
        ratios.append(top[bottom != 0] / bottom[bottom != 0])
    low, high = np.quantile(np.concatenate(ratios), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(above.sum() / below.sum()), float(low), float(high), int((below != 0).sum()))


def ratio_difference(
    one: Sequence[tuple[float, float]],
    other: Sequence[tuple[float, float]],
    clusters: Sequence[Hashable],
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[Estimate, float] | None:
    """Ratio of `other` - ratio of `one` on the same items in the same order, each item (numerator, denominator) in both, and a two-sided p.

    Drawn together, so that it is paired where both have the item: with denominators of 1 it is `paired_bootstrap` of the differences. p is
    twice the smaller share of draws on one side of 0, never under 1 / resamples. `n` counts items in either. None where a ratio is not
    defined; draws in which one is not are left out.
    """
    values = np.asarray([(*a, *b) for a, b in zip(one, other, strict=True)], dtype=np.float64).reshape(-1, 4)
    if len(values) != len(clusters) or not np.isfinite(values).all():
        raise ValueError(f"{len(values)} items and {len(clusters)} cluster labels: they must be as many, and all numbers finite")
    total = values.sum(axis=0)
    if not len(values) or total[1] == 0 or total[3] == 0:
        return None
    members = _members(clusters)
    sums = np.stack([np.bincount(members, column) for column in values.T], axis=1)
    rng = np.random.default_rng(seed)
    found = []
    chunk = max(1, _DRAWS_AT_ONCE // (4 * len(sums)))
    for start in range(0, resamples, chunk):
        drawn = sums[rng.integers(len(sums), size=(min(chunk, resamples - start), len(sums)))].sum(axis=1)
        drawn = drawn[(drawn[:, 1] != 0) & (drawn[:, 3] != 0)]
        found.append(drawn[:, 2] / drawn[:, 3] - drawn[:, 0] / drawn[:, 1])
    differences = np.concatenate(found)
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    p = min(1.0, max(2 * min(float((differences <= 0).mean()), float((differences >= 0).mean())), 1 / resamples))
    n = int(((values[:, 1] != 0) | (values[:, 3] != 0)).sum())
    return Estimate(float(total[2] / total[3] - total[0] / total[1]), float(low), float(high), n), p


def statistic_bootstrap(
    statistic: Callable[[Sequence[int]], float | None],
    clusters: Sequence[Hashable],
    level: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
) -> Estimate | None:
    """Any statistic of a set of items (an AUROC, a calibration error) with a percentile interval over whole clusters.

    `statistic` is given positions of items, one as often as it was drawn; a draw on which it is not defined (None) is left out. None where
    it is not defined on all items.
    """
    if not clusters:
        raise ValueError("a bootstrap needs at least one item")
    members = _members(clusters)
    value = statistic(range(len(members)))
    if value is None:
        return None
    order = np.argsort(members, kind="stable")
    held = np.split(order, np.cumsum(np.bincount(members))[:-1])
    rng = np.random.default_rng(seed)
    draws = (np.concatenate([held[i] for i in rng.integers(len(held), size=len(held))]).tolist() for _ in range(resamples))
    found = [v for v in map(statistic, draws) if v is not None]
    if not found:
        return None
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), len(members))


def cluster_draws(clusters: Sequence[Hashable], resamples: int = 1_000, seed: int = 0) -> np.ndarray:
    """How often each item is drawn when whole clusters are drawn with replacement: (draws, items). Fewer draws of very many items.

    For statistics that can be computed from weights, all draws at once; others use `statistic_bootstrap`.
    """
    members = _members(clusters)
    count = int(members.max()) + 1
    draws = max(100, min(resamples, 5 * _DRAWS_AT_ONCE // len(members)))
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)[:, members]


def _members(labels: Sequence[Hashable]) -> np.ndarray:
    """The number of each item's cluster, in the order first met."""
    number = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    return np.array([number[label] for label in labels])


def minimum_detectable_effect(n: int, discordant_share: float, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Smallest difference of paired accuracies that McNemar's test finds with this power, on n items of which `discordant_share` change.

    Solves n d^2 = (z_a sqrt(q) + z_b sqrt(q - d^2))^2 for d, q the discordant share (Connor 1987, two-sided normal approximation).
    None when even all changes going one way (d = q) would not be found.
    """
    if n <= 0 or not 0 <= discordant_share <= 1:
        raise ValueError(f"n = {n}, discordant share = {discordant_share}: need n > 0 and a share between 0 and 1")
    z_a, z_b = float(stats.norm.ppf(1 - alpha / 2)), float(stats.norm.ppf(power))
    q = discordant_share
    # (d sqrt(n) - z_a sqrt(q))^2 = z_b^2 (q - d^2) is quadratic in d; its larger root is the one with d sqrt(n) >= z_a sqrt(q)
    a, b, c = n + z_b**2, -2 * z_a * math.sqrt(n * q), (z_a**2 - z_b**2) * q
    root = b * b - 4 * a * c
    effect = (-b + math.sqrt(root)) / (2 * a) if root >= 0 else math.inf
    return effect if 0 < effect <= q else None
