"""What a reward's value becomes before it is weighted: the TRANSFORMS table. Pure functions of one group's values.

Each takes the values of a group (None where unscored, and so it stays), the group, and its own settings from the YAML. What adds the same
number to a whole group changes no group-relative advantage, and what multiplies it by one only where the advantage is not divided by the
group's spread; so there is no `shift` and no `centre` alone.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean, stdev
from typing import Any

from rewards.base import whole_text
from rewards.response import parse
from vlm_rl.errors import RowError, UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Group, Prompt, Sample

Values = Sequence[float | None]
Transform = Callable[..., list[float | None]]
NOBODY = Group(Prompt(Sample("", "", ""), "", (), (), ()), (), 0)  # to try settings on


def _each(function: Callable[[float], float], values: Values) -> list[float | None]:
    return [None if value is None else function(value) for value in values]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _log_sigmoid(x: float) -> float:
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


def clip(values: Values, group: Group, low: float = 0.0, high: float = 1.0) -> list[float | None]:
    """min(max(x, low), high)"""
    return _each(lambda x: min(max(x, low), high), values)


def scale(values: Values, group: Group, by: float = 1.0) -> list[float | None]:
    """by * x; matters where rewards are summed, or the advantage is not divided by the spread."""
    return _each(lambda x: by * x, values)


def sigmoid(values: Values, group: Group, mean: float = 0.0, std: float = 1.0) -> list[float | None]:
    """1 / (1 + exp(-(x - mean) / std)): a scalar reward model's score on [0, 1], calibrated by two constants (our definition for HARMO)."""
    if std <= 0:
        raise UserError(f"transform sigmoid: std must be positive, not {std}")
    return _each(lambda x: _sigmoid((x - mean) / std), values)


def log_sigmoid(values: Values, group: Group, reference: float = 0.0, percentile: float = 0.85, floor: float = -5.0) -> list[float | None]:
    """max(log sigmoid(x - reference), floor). LSC, arXiv 2402.00742; the floor is ours, because one bad sample would rule the spread.

    A row's `reference_scores` take the place of `reference`: the given percentile of a normal of their mean and (ddof 1) spread. For
    Bradley-Terry scores, not for 0/1 rewards; the sum over several reward models is the log-probability that all of them are satisfied.
    """
    if not 0 < percentile < 1:
        raise UserError(f"transform log_sigmoid: percentile is above 0 and below 1, not {percentile}")
    scores = reference_scores(group)
    middle = fmean(scores) + NormalDist().inv_cdf(percentile) * (stdev(scores) if len(scores) > 1 else 0.0) if scores else reference
    return _each(lambda x: max(_log_sigmoid(x - middle), floor), values)


def par(values: Values, group: Group, references: Sequence[float] = (0.0,), slope: float = 1.0) -> list[float | None]:
    """mean over references of sigmoid(slope * (x - reference)), in (0, 1). Preference As Reward, arXiv 2502.18770.

    A row's `reference_scores`, of responses that the starting model gave to it, take the place of `references`.
    """
    if not references or slope <= 0:
        raise UserError(f"transform par needs at least one reference score and a slope above 0, not {list(references)} and {slope}")
    scores = reference_scores(group) or references
    return _each(lambda x: fmean(_sigmoid(slope * (x - reference)) for reference in scores), values)


def reference_scores(group: Group) -> Sequence[float]:
    """The row's `reference_scores`, () without any. Raises RowError for anything but finite numbers."""
    scores: Any = group.sample.meta.get("reference_scores") or ()
    numbers = isinstance(scores, (list, tuple)) and all(type(x) in (int, float) and math.isfinite(x) for x in scores)
    if not numbers:
        raise RowError(group.sample.id, f"reference_scores is a list of numbers such as [0.1, -0.4], not {scores!r}")
    return scores


def rank(values: Values, group: Group) -> list[float | None]:
    """The share of the group's other scored rollouts that x beats, ties counting half: in [0, 1]."""
    scored = [x for x in values if x is not None]
    others = max(len(scored) - 1, 1)
    return _each(lambda x: (sum(x > y for y in scored) + (sum(x == y for y in scored) - 1) / 2) / others, values)


def unlikeliness(values: Values, group: Group, beta: float = 0.25, paper: bool = False) -> list[float | None]:
    """x * (1 - beta * k / G): right answers that the policy finds likely earn less. He et al., arXiv 2506.02355.

    k counts from the least likely rollout (0) to the most likely one (G - 1), by mean log-prob per token; equal ones share the mean rank.
    The released code's ranks are the default; `paper` adds 1, which lowers the rarest one too. A group whose values are all equal is left
    alone, or an all-right group would be pushed to rare wordings.
    """
    if len(set(values)) <= 1:
        return list(values)
    means = [_mean_logprob(r.completion.logprobs, r.completion.loss_mask) for r in group.rollouts]
    ranks = [sum(m > o for o in means) + (sum(m == o for o in means) - 1) / 2 + paper for m in means]
    return [None if x is None else x * (1 - beta * k / len(means)) for x, k in zip(values, ranks, strict=True)]


def _mean_logprob(logprobs: Sequence[float], written: Sequence[bool]) -> float:
    own = [p for p, mine in zip(logprobs, written, strict=True) if mine]
    return fmean(own) if own else 0.0


def threshold(values: Values, group: Group, at: float = 0.5) -> list[float | None]:
    """1 where x >= at, else 0."""
    return _each(lambda x: float(x >= at), values)


def patterns(values: Values, group: Group, phrases: Sequence[str] = (), below: float = 0.5, alpha: float = 0.1) -> list[float | None]:
    """x + alpha * min(1, hits / phrases) where x < below: a doubtful score is raised by reasoning phrases in the trace. arXiv 2505.22653.

    `phrases` are your own (the paper mines 40 from a trained model's outputs); a hit is any occurrence, whatever its case. Easy to hack: a
    policy that is paid for phrases alone learns to write them.
    """
    wanted = [" ".join(str(phrase).casefold().split()) for phrase in phrases]
    if isinstance(phrases, str) or not wanted or not all(wanted) or alpha < 0:
        raise UserError(f"transform patterns: phrases is a list of texts, such as [wait, let me check], and alpha 0 or more, not {alpha}")
    traces = [" ".join((parse(whole_text(group, r)).trace or "").casefold().split()) for r in group.rollouts]
    rates = [min(1.0, sum(map(trace.count, wanted)) / len(wanted)) for trace in traces]
    return [None if x is None else x + alpha * rate if x < below else x for x, rate in zip(values, rates, strict=True)]


def flip(values: Values, group: Group, probability: float = 0.0, each: str = "group") -> list[float | None]:
    """1 - x with this probability, drawn once per group (as in the released code of arXiv 2505.22653) or `each: rollout`.

    Noise on purpose, to see how much of it a training bears; it depends on run seed, step, row and rollout alone.
    """
    if not 0 <= probability <= 1 or each not in ("group", "rollout"):
        raise UserError(f'transform flip: probability is from 0 to 1, each "group" or "rollout", not {probability} and {each!r}')
    draws = [stable_hash(group.seed, "flip", i if each == "rollout" else -1) / 2**63 for i in range(len(values))]
    return [None if x is None else 1 - x if draw < probability else x for x, draw in zip(values, draws, strict=True)]


TRANSFORMS: dict[str, Transform] = {
    "clip": clip,
    "flip": flip,
    "log_sigmoid": log_sigmoid,
    "par": par,
    "patterns": patterns,
    "rank": rank,
    "scale": scale,
    "sigmoid": sigmoid,
    "threshold": threshold,
    "unlikeliness": unlikeliness,
}


# Of one value each, whatever the group; all of them keep the order of values.
POINTWISE = ("clip", "log_sigmoid", "par", "scale", "sigmoid", "threshold")


def settings_of(transform: Transform) -> dict[str, Any]:
    """The transform's own settings and their defaults."""
    defaults = transform.__defaults__ or ()
    names = transform.__code__.co_varnames[: transform.__code__.co_argcount]
    return dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
