"""What a reward's contribution is multiplied by, depending on other parts of the same group: the GATES table.

A gate maps one group to one factor per rollout. It gets the group, the gated reward's values (transformed, None where unscored) and the
raw values of the reward it looks at (`on`, usually accuracy).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from rewards.base import whole_text
from rewards.response import parse
from vlm_rl.types import Group

Values = Sequence[float | None]


@dataclass(frozen=True)
class Look:
    """What a gate sees of one group: the gated values, and those of the reward it depends on, rollout by rollout."""

    group: Group
    values: Values
    outcomes: Values
    threshold: float = 0.5


def trust(look: Look) -> list[float]:
    """gamma for all: 1 if mean(values of the right) >= mean(values of the wrong), else exp(mean right - mean wrong).

    Right: outcome >= threshold. SophiaVL-R1, arXiv 2505.17018, with exponent 1 as in the paper. A side without a scored rollout gives 1
    (undefined in the paper).
    """
    return [trust_weight(look.values, look.outcomes, look.threshold)] * len(look.values)


def trust_weight(values: Values, outcomes: Values, threshold: float = 0.5) -> float:
    """trust_weight([.2, .4, .8, .6], [1, 1, 0, 0]) -> exp(.3 - .7) = 0.670320"""
    known = [(v, o >= threshold) for v, o in zip(values, outcomes, strict=True) if v is not None and o is not None]
    right, wrong = ([value for value, side in known if side is wanted] for wanted in (True, False))
    if not right or not wrong:
        return 1.0
    return math.exp(min(0.0, fmean(right) - fmean(wrong)))


def requires_correct(look: Look) -> list[float]:
    """1 where the outcome reaches the threshold, else 0; an unscored outcome counts as wrong."""
    return [float(outcome is not None and outcome >= look.threshold) for outcome in look.outcomes]


def requires_format(look: Look) -> list[float]:
    """1 where the response obeys the strict grammar, else 0."""
    return [float(parse(whole_text(look.group, rollout)).wellformed) for rollout in look.group.rollouts]


GATES: dict[str, Callable[[Look], list[float]]] = {
    "requires_correct": requires_correct,
    "requires_format": requires_format,
    "trust": trust,
}
