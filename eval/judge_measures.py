"""What is measured of a judge: agreement with gold scores, calibration, best-of-N accuracy, false positives. Numbers in, numbers out.

A reply that says nothing usable is None: left out of agreement and calibration and counted, never 0; in best-of-N it loses.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from scipy import stats

from eval.metrics import Estimate, wilson

BINS = 10
RESAMPLES = 1000


@dataclass(frozen=True)
class Pair:
    """What a response is worth, and what the judge said of it."""

    gold: float
    said: float | None


def agreement(pairs: Sequence[Pair]) -> dict[str, float]:
    """spearman, kendall (tau-b), mae, same_tenth, and unread, the share of replies without a score. What is not defined (no spread, no
    reply read) is nan, not 0."""
    read = [(pair.gold, pair.said) for pair in pairs if pair.said is not None]
    gold, said = np.array([g for g, _ in read]), np.array([s for _, s in read])
    return {
        "spearman": spearman(gold, said),
        "kendall": kendall(gold, said),
        "mae": mean_error(gold, said),
        "same_tenth": float(np.mean(np.round(gold * 10) == np.round(said * 10))) if read else math.nan,
        "unread": 1 - len(read) / len(pairs),
    }


def spearman(gold: np.ndarray, said: np.ndarray) -> float:
    return float(np.corrcoef(stats.rankdata(gold), stats.rankdata(said))[0, 1]) if _spread(gold, said) else math.nan


def kendall(gold: np.ndarray, said: np.ndarray) -> float:
    return float(cast(Any, stats.kendalltau(gold, said)).statistic) if _spread(gold, said) else math.nan


def mean_error(gold: np.ndarray, said: np.ndarray) -> float:
    return float(np.abs(gold - said).mean()) if len(gold) else math.nan


def _spread(*columns: np.ndarray) -> bool:
    return all(len(column) > 1 and column.min() < column.max() for column in columns)


def interval(pairs: Sequence[Pair], statistic: Callable[[np.ndarray, np.ndarray], float], seed: int = 0) -> Estimate | None:
    """A statistic of the read pairs with its percentile bootstrap interval over rows; None where it is not defined."""
    read = np.array([(pair.gold, pair.said) for pair in pairs if pair.said is not None], np.float64).reshape(-1, 2)
    value = statistic(read[:, 0], read[:, 1])
    if math.isnan(value):
        return None
    rng = np.random.default_rng(seed)
    drawn = [statistic(*read[rng.integers(len(read), size=len(read))].T) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(read))


def gap(pairs: Sequence[Pair], others: Sequence[Pair], seed: int = 0) -> Estimate | None:
    """Spearman of `pairs` less that of `others`, the same responses judged in another way, with its bootstrap interval over rows. Rows that
    either left unread are left out; None where a correlation is not defined."""
    read = np.array([(a.gold, a.said, b.said) for a, b in zip(pairs, others, strict=True) if None not in (a.said, b.said)], np.float64)
    gold, one, other = read.reshape(-1, 3).T
    value = spearman(gold, one) - spearman(gold, other)
    if math.isnan(value):
        return None
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(len(gold), size=len(gold)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile([spearman(gold[i], one[i]) - spearman(gold[i], other[i]) for i in drawn], [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(gold))


@dataclass(frozen=True)
class Bin:
    """Responses whose score lies in one tenth of the scale: how many, the mean of what was said and of what is so."""

    n: int
    said: float
    gold: float


def reliability(pairs: Sequence[Pair]) -> list[Bin]:
    """Non-empty tenths [0, 0.1), [0.1, 0.2) ... [0.9, 1], in order."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for pair in pairs:
        if pair.said is not None:
            bins.setdefault(min(int(pair.said * BINS + 1e-9), BINS - 1), []).append((pair.said, pair.gold))
    return [Bin(len(found), *(sum(column) / len(found) for column in zip(*found, strict=True))) for _, found in sorted(bins.items())]


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """ECE = sum_b n_b / n |mean said - mean gold|; None without a bin."""
    n = sum(bin_.n for bin_ in bins)
    return sum(bin_.n * abs(bin_.said - bin_.gold) for bin_ in bins) / n if n else None


@dataclass(frozen=True)
class Choice:
    """One question's right and wrong responses as a judge scored them."""

    right: tuple[float | None, ...]
    wrong: tuple[float | None, ...]

    @property
    def wins(self) -> bool:
        """The first right response is above every wrong one: best-of-N as RewardBench 2 and RewardMATH count it. Equal scores lose."""
        return _or_least(self.right[0]) > max(map(_or_least, self.wrong))

    @property
    def ties_or_wins(self) -> bool:
        return self.right[0] is not None and self.right[0] >= max(map(_or_least, self.wrong))

    @property
    def reciprocal_rank(self) -> float:
        """1 / rank of the first right response; wrong ones of equal score stand before it."""
        mine = _or_least(self.right[0])
        return 1 / (1 + sum(_or_least(score) >= mine for score in self.wrong))

    @property
    def pairs_won(self) -> float:
        """Share of wrong responses that the first right one beats."""
        return sum(_or_least(self.right[0]) > _or_least(score) for score in self.wrong) / len(self.wrong)


def _or_least(score: float | None) -> float:
    return -math.inf if score is None else score


def ties_score(several: Sequence[Choice], single: Sequence[Choice]) -> float | None:
    """RewardBench 2's score for questions with several right answers (`several`) beside ones with one (`single`), paired in order:

        .3 acc_tied + .3 acc_ref + .2 mean(gap_tied > spread) + .2 mean(least > spread) + .01 mean(tanh(least / spread - 1))

    accurate = worst right > best wrong; gap = worst right - best wrong; least = min(gap_ref, gap_tied); spread = best - worst right of the
    tied one, where 0 gives 0 for the last term. None without questions, or with a reply unread.
    """
    scores = [score for choice in (*several, *single) for score in (*choice.right, *choice.wrong)]
    if not several or len(several) != len(single) or any(score is None for score in scores):
        return None
    gaps, references = [_gap(choice) for choice in several], [_gap(choice) for choice in single]
    spreads = [max(map(_or_least, choice.right)) - min(map(_or_least, choice.right)) for choice in several]
    least = [min(pair) for pair in zip(gaps, references, strict=True)]
    margins = [math.tanh(gap / spread - 1) if spread else 0.0 for gap, spread in zip(least, spreads, strict=True)]
    accurate = 0.3 * _mean(gap > 0 for gap in gaps) + 0.3 * _mean(gap > 0 for gap in references)
    above = [0.2 * _mean(gap > spread for gap, spread in zip(found, spreads, strict=True)) for found in (gaps, least)]
    return accurate + sum(above) + 0.01 * sum(margins) / len(margins)


def _gap(choice: Choice) -> float:
    return min(map(_or_least, choice.right)) - max(map(_or_least, choice.wrong))


def _mean(values: Iterable[bool]) -> float:
    found = [float(value) for value in values]
    return sum(found) / len(found)


def share(successes: int, n: int) -> Estimate | None:
    """A share with its Wilson interval; None of nothing."""
    return Estimate(successes / n, *wilson(successes, n), n) if n else None


def swap_consistency(verdicts: Sequence[tuple[str | None, str | None]]) -> dict[str, Estimate | None]:
    """Of (verdict, verdict with the two exchanged): `consistent`, both prefer the same response (or both say tie); `first`, the share of
    verdicts for whatever stood first, 0.5 without a bias of position. Pairs with a reply unread are left out."""
    read = [(one, other) for one, other in verdicts if one is not None and other is not None]
    swapped = {"first": "second", "second": "first", "tie": "tie"}
    chosen = [verdict for pair in read for verdict in pair if verdict != "tie"]
    return {
        "consistent": share(sum(swapped[one] == other for one, other in read), len(read)),
        "first": share(sum(verdict == "first" for verdict in chosen), len(chosen)),
    }
