"""Intervals and paired tests for evaluations: numbers in, numbers out. Knows no records, conditions or files.

Shares and differences are fractions (0.5, not 50 points). Every function raises ValueError for an empty or inconsistent input: a mean over
nothing is not 0, and the caller decides whether to leave the number out.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

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
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError("a bootstrap needs at least one difference, all of them finite")
    labels: Sequence[Hashable] = range(len(values)) if clusters is None else clusters
    if len(labels) != len(values):
        raise ValueError(f"{len(values)} differences but {len(labels)} cluster labels")
    number = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    members = np.array([number[label] for label in labels])
    sums, sizes = np.bincount(members, values), np.bincount(members)
    rng = np.random.default_rng(seed)
    means = []
    chunk = max(1, _DRAWS_AT_ONCE // len(sums))
    for start in range(0, resamples, chunk):
        drawn = rng.integers(len(sums), size=(min(chunk, resamples - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(values.mean()), float(low), float(high), len(values))


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
