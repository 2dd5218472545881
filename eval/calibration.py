"""What a model's probabilities over the options are worth: entropy, calibration, ranking. Numbers in, numbers out.

Probabilities are over the options of one question, in their order, and sum to 1 (`option_probabilities`). Logarithms are natural.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy import stats

from eval.metrics import Estimate, cluster_draws


def option_probabilities(logprobs: Sequence[float]) -> tuple[float, ...]:
    """Softmax over the options only: (2, 1, 0, 0) -> (0.6103, 0.2245, 0.0826, 0.0826). -inf is probability 0."""
    highest = max(logprobs, default=-math.inf)
    if not math.isfinite(highest) or any(math.isnan(value) for value in logprobs):
        raise ValueError(f"no probabilities can be made of {list(logprobs)}")
    weights = [math.exp(value - highest) for value in logprobs]
    return tuple(weight / sum(weights) for weight in weights)


def entropy(probabilities: Sequence[float]) -> float:
    """- sum p ln p, in nats. Depends on the number of options: average over mixed numbers only after dividing by ln K."""
    return -sum(p * math.log(p) for p in probabilities if p > 0) + 0.0


def brier(distributions: Sequence[Sequence[float]], gold: Sequence[int]) -> float:
    """Mean over questions of sum_j (p_j - [j is right])^2: 0 is perfect, 2 the worst. `gold` are positions of the right options."""
    scores = [sum((p - (j == right)) ** 2 for j, p in enumerate(ps)) for ps, right in zip(distributions, gold, strict=True)]
    if not scores:
        raise ValueError("a score over no questions")
    return fmean(scores)


@dataclass(frozen=True)
class Bin:
    """Questions whose confidence lies in (low, high] (the first bin holds 0 too): how sure the model was and how often it was right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability_bins(confidences: Sequence[float], correct: Sequence[bool], bins: int = 10) -> list[Bin]:
    """The bins of a reliability diagram, those without a question left out. Raises ValueError for a confidence outside [0, 1]."""
    held: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in zip(confidences, correct, strict=True):
        if not 0 <= confidence <= 1 + 1e-9:
            raise ValueError(f"a confidence of {confidence} is no probability")
        # rounded, so that 0.3 falls into (0.2, 0.3] although 0.3 * 10 is not 3 in every representation
        held.setdefault(min(bins, max(1, math.ceil(round(confidence * bins, 9)))), []).append((confidence, right))
    return [
        Bin((b - 1) / bins, b / bins, len(items), fmean(c for c, _ in items), fmean(r for _, r in items))
        for b, items in sorted(held.items())
    ]


def calibration_error(confidences: Sequence[float], correct: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error: sum_b (n_b / n) |accuracy_b - confidence_b| over equal-width bins. Raises ValueError for no items."""
    found = reliability_bins(confidences, correct, bins)
    if not found:
        raise ValueError("a calibration error over no questions")
    return sum(b.n * abs(b.accuracy - b.confidence) for b in found) / sum(b.n for b in found)


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """P(a positive scores above a negative) + half the ties; None where one of the two kinds is missing. By ranks (Mann-Whitney)."""
    flags = [bool(flag) for _, flag in zip(scores, positive, strict=True)]
    yes, no = sum(flags), len(flags) - sum(flags)
    if not yes or not no:
        return None
    ranks = stats.rankdata(scores)
    return float((sum(rank for rank, flag in zip(ranks, flags, strict=True) if flag) - yes * (yes + 1) / 2) / (yes * no))


def calibration_estimate(confidences: Sequence[float], correct: Sequence[bool], clusters: Sequence[Hashable], bins: int = 10) -> Estimate:
    """`calibration_error` with a percentile interval over clusters of questions. It is biased upwards where bins hold few questions."""
    value = calibration_error(confidences, correct, bins)
    place = np.array([min(bins, max(1, math.ceil(round(c * bins, 9)))) for c in confidences])
    gaps = np.zeros((len(place), bins + 1))
    gaps[np.arange(len(place)), place] = np.asarray(correct, dtype=float) - np.asarray(confidences, dtype=float)
    drawn = cluster_draws(clusters)
    errors = np.abs(drawn @ gaps).sum(axis=1) / drawn.sum(axis=1)
    low, high = np.quantile(errors, [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(place))


def auroc_estimate(scores: Sequence[float], positive: Sequence[bool], clusters: Sequence[Hashable]) -> Estimate | None:
    """`auroc` with a percentile interval over clusters of questions; draws that lack a kind are left out. None where it is not defined."""
    value = auroc(scores, positive)
    if value is None:
        return None
    order = np.argsort(np.asarray(scores), kind="stable")
    ordered, flags = np.asarray(scores, dtype=float)[order], np.asarray(positive, dtype=bool)[order]
    tie = np.concatenate([[0], np.cumsum(np.diff(ordered) != 0)])
    starts = np.flatnonzero(np.concatenate([[True], np.diff(tie) != 0]))
    drawn = cluster_draws(clusters)[:, order]
    yes, no = (np.add.reduceat(drawn * kind, starts, axis=1) for kind in (flags, ~flags))
    below = np.cumsum(no, axis=1) - no / 2  # negatives under each score, and half of those at it
    pairs = yes.sum(axis=1) * no.sum(axis=1)
    found = (yes * below).sum(axis=1)[pairs > 0] / pairs[pairs > 0]
    low, high = np.quantile(found, [0.025, 0.975]) if len(found) else (value, value)
    return Estimate(value, float(low), float(high), len(ordered))
