"""Rewards of a response's length in tokens the model wrote: the prompt, a prefill and inserted tokens are not counted, the end token is."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rewards.base import Reward, Rounds
from rewards.nested import nested
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Group, Reply, RewardResult

REFERENCES = {"shortest": min, "mean": fmean}


class Overlong(Reward):
    """Soft overlong punishment of DAPO (arXiv 2503.14476): with L tokens written,

    0 where L <= max_tokens - cache; ((max_tokens - cache) - L) / cache up to max_tokens; -1 beyond.
    """

    range = (-1.0, 0.0)

    def __init__(self, max_tokens: int, cache: int):
        if not 0 < cache <= max_tokens:
            raise UserError(f"cache is a number of tokens from 1 to max_tokens ({max_tokens}), not {cache}")
        self.max_tokens, self.cache = max_tokens, cache

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        lengths = written(group)
        return [RewardResult(max(-1.0, min(0.0, (self.max_tokens - self.cache - length) / self.cache))) for length in lengths]


class LengthPenalty(Reward):
    """A penalty on responses shorter than a right one needs, against a drift to brevity:

    -most x clip((L_ref - L) / L_ref, 0, 1), with L_ref the shortest (or mean) L among the right responses of the group; 0 without any.

    HARMO, arXiv 2510.05283, has such a term with two constants (here `most` and `threshold`); its shape is our definition, since the
    equation is not public. Right: `outcome`, a reward of its own such as {use: hybrid, ...}, gives `threshold` or more; the same questions
    are not asked twice. A response cut off at the limit is no measure of what a right one needs. detail: length, no_reference.
    """

    range = (-1.0, 0.0)

    def __init__(self, most: float = 0.5, threshold: float = 0.5, reference: str = "shortest", outcome: Mapping[str, Any] | None = None):
        if not 0 <= most <= 1:
            raise UserError(f"most is the largest penalty, from 0 to 1, not {most}")
        if reference not in REFERENCES:
            raise unknown("reference", str(reference), REFERENCES)
        self.most, self.threshold, self.reference = most, threshold, REFERENCES[reference]
        self.outcome = nested("outcome", outcome or {"use": "accuracy"})
        self.targets, self.kinds = self.outcome.targets, self.outcome.kinds
        self.edge = 0.0 if reference == "shortest" else most  # no response that is right pays against the shortest right one

    def rounds(self, group: Group) -> Rounds:
        outcomes = yield from self.outcome.rounds(group)
        lengths, finished = written(group), [rollout.completion.finish != "length" for rollout in group.rollouts]
        right = [
            length
            for length, result, whole in zip(lengths, outcomes, finished, strict=True)
            if whole and result.value is not None and result.value >= self.threshold
        ]
        reference = self.reference(right) if right else 0
        return [self._result(length, reference, result) for length, result in zip(lengths, outcomes, strict=True)]

    def _result(self, length: int, reference: float, outcome: RewardResult) -> RewardResult:
        """`reference` is 0 where no response is right."""
        if outcome.value is None:
            return outcome
        share = min(1.0, max(0.0, (reference - length) / reference)) if reference else 0.0
        return RewardResult(0.0 - self.most * share, {"length": length, "no_reference": not reference})


def written(group: Group) -> list[int]:
    """Tokens the model wrote, per rollout."""
    return [sum(rollout.completion.loss_mask) for rollout in group.rollouts]
