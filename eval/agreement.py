"""How far classifiers agree about the same items, beyond what chance would make: numbers in, numbers out."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

from eval.metrics import mcnemar_chi2, mcnemar_exact


@dataclass(frozen=True)
class Agreement:
    """Two yes-no classifiers on the same `n` items. `kappa` is None where chance alone agrees always, `chi2` where they never differ.

    `p` is McNemar's exact test of whether one of them says yes more often.
    """

    n: int
    first: float
    second: float
    agreement: float
    kappa: float | None
    chi2: float | None
    p: float


def compare_classifiers(one: Sequence[bool], other: Sequence[bool]) -> Agreement:
    """Shares of yes of both, agreement, kappa and McNemar's tests. Raises ValueError for no items or unequal lengths."""
    same = [a == b for a, b in zip(one, other, strict=True)]
    if not same:
        raise ValueError("no items to agree about")
    tested = mcnemar_chi2(one, other)
    chi2 = tested[0] if tested else None
    return Agreement(len(same), fmean(one), fmean(other), fmean(same), cohen_kappa(one, other), chi2, mcnemar_exact(one, other))


def cohen_kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> float | None:
    """(po - pe) / (1 - pe), pe the chance that two raters with these label frequencies agree (Cohen 1960). None where pe is 1.

    cohen_kappa("aabb", "aaba") -> 0.5
    """
    pairs = list(zip(one, other, strict=True))
    if not pairs:
        raise ValueError("no items to agree about")
    n = len(pairs)
    first, second = Counter(one), Counter(other)
    by_chance = sum(first[label] * second[label] for label in first)
    return None if by_chance == n * n else (n * sum(a == b for a, b in pairs) - by_chance) / (n * n - by_chance)


def fleiss_kappa(counts: Sequence[Sequence[int]]) -> float | None:
    """Agreement of several raters (Fleiss 1971). `counts[i][j]` raters put item i into category j; as many raters for every item.

    (Pbar - Pe) / (1 - Pe), P_i = (sum_j n_ij^2 - n) / (n (n - 1)), Pe = sum_j p_j^2. None where all chose one category throughout.
    fleiss_kappa([(3, 0), (3, 0), (0, 3), (2, 1)]) -> 0.625. Raises ValueError for no items or unequal numbers of raters (or under two).
    """
    raters = {sum(row) for row in counts}
    if len(raters) != 1 or min(raters) < 2 or len({len(row) for row in counts}) != 1:
        raise ValueError("every item needs the same number of raters, two or more, and the same categories")
    n = raters.pop()
    observed = fmean((sum(c * c for c in row) - n) / (n * (n - 1)) for row in counts)
    totals = [sum(column) for column in zip(*counts, strict=True)]
    if max(totals) == n * len(counts):
        return None
    by_chance = sum((total / (n * len(counts))) ** 2 for total in totals)
    return (observed - by_chance) / (1 - by_chance)
