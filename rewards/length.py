"""Rewards of a response's length in generated tokens."""

from collections.abc import Sequence

from rewards.base import Reward
from vlm_rl.errors import UserError
from vlm_rl.types import Group, Reply, RewardResult


class Overlong(Reward):
    """Soft overlong punishment of DAPO (arXiv 2503.14476): with L tokens generated (inserted ones and the prompt not counted),

    0 where L <= max_tokens - cache; ((max_tokens - cache) - L) / cache up to max_tokens; -1 beyond.
    """

    range = (-1.0, 0.0)

    def __init__(self, max_tokens: int, cache: int):
        if not 0 < cache <= max_tokens:
            raise UserError(f"cache is a number of tokens from 1 to max_tokens ({max_tokens}), not {cache}")
        self.max_tokens, self.cache = max_tokens, cache

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        lengths = [sum(rollout.completion.loss_mask) for rollout in group.rollouts]
        return [RewardResult(max(-1.0, min(0.0, (self.max_tokens - self.cache - length) / self.cache))) for length in lengths]
