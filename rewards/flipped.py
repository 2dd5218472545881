"""Noise in a reward, to find out how much of it training takes: a share of its values is turned round (arXiv 2505.22653)."""

import random
from collections.abc import Mapping
from typing import Any

from rewards.base import Reward, Rounds, declared_range
from rewards.nested import nested
from vlm_rl.errors import UserError, unknown
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Group, Rollout

LEVELS = ("row", "group", "rollout")


class Flipped(Reward):
    """low + high - value with probability `rate`, else the value of the reward `of`, {use: accuracy} by default.

    What is drawn at once is the `level`: a "row" has a wrong label in every step; a "group" (the paper's released code) is wrong as a
    whole, now and then; a "rollout" is graded wrongly on its own. What is unscored stays so. detail: flipped, and that of the reward.
    """

    def __init__(self, rate: float, level: str = "group", of: Mapping[str, Any] | None = None):
        if not 0 <= rate <= 1:
            raise UserError(f"rate is a share from 0 to 1, not {rate}")
        if level not in LEVELS:
            raise unknown("level", str(level), LEVELS)
        self.rate, self.level, self.inner = rate, level, nested("of", of or {"use": "accuracy"})
        bounds = declared_range(self.inner)
        if bounds is None:
            raise UserError("of: a reward without a declared range has no other way round")
        self.turned = sum(bounds)
        self.targets, self.kinds = self.inner.targets, self.inner.kinds

    def rounds(self, group: Group) -> Rounds:
        results = yield from self.inner.rounds(group)
        flips = [self._flips(group, rollout) for rollout in group.rollouts]
        return [
            type(r)(self.turned - r.value if flip and r.value is not None else r.value, {**r.detail, "flipped": flip})
            for r, flip in zip(results, flips, strict=True)
        ]

    def _flips(self, group: Group, rollout: Rollout) -> bool:
        about = {"row": group.sample.id, "group": group.seed, "rollout": rollout.seed}[self.level]
        return random.Random(stable_hash("flipped", self.level, about)).random() < self.rate
