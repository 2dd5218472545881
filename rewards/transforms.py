"""What a reward's value becomes before it is weighted: the TRANSFORMS table. Pure functions of one group's values.

Each takes the values of a group (None where unscored, and so it stays), the group, and its own settings from the YAML. What adds the same
number to a whole group changes no group-relative advantage, and what multiplies it by one only where the advantage is not divided by the
group's spread; so there is no `shift` and no `centre` alone.
"""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from vlm_rl.errors import UserError
from vlm_rl.types import Group

Values = Sequence[float | None]
Transform = Callable[..., list[float | None]]


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


def log_sigmoid(values: Values, group: Group, reference: float = 0.0, floor: float = -5.0) -> list[float | None]:
    """max(log sigmoid(x - reference), floor). LSC, arXiv 2402.00742; the floor is ours, because one bad sample would rule the spread.

    For Bradley-Terry scores, not for 0/1 rewards.
    """
    return _each(lambda x: max(_log_sigmoid(x - reference), floor), values)


def par(values: Values, group: Group, references: Sequence[float] = (0.0,), slope: float = 1.0) -> list[float | None]:
    """mean over references of sigmoid(slope * (x - reference)), in (0, 1). Preference As Reward, arXiv 2502.18770."""
    if not references:
        raise UserError("transform par needs at least one reference score")
    return _each(lambda x: fmean(_sigmoid(slope * (x - reference)) for reference in references), values)


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


TRANSFORMS: dict[str, Transform] = {
    "clip": clip,
    "log_sigmoid": log_sigmoid,
    "par": par,
    "rank": rank,
    "scale": scale,
    "sigmoid": sigmoid,
    "threshold": threshold,
    "unlikeliness": unlikeliness,
}


def settings_of(transform: Transform) -> dict[str, Any]:
    """The transform's own settings and their defaults."""
    defaults = transform.__defaults__ or ()
    names = transform.__code__.co_varnames[: transform.__code__.co_argcount]
    return dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
