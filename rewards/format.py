"""The format reward: does the response obey the grammar of `response`? It looks at no answer."""

from collections.abc import Sequence

from rewards.base import Reward, whole_text
from rewards.response import parse
from vlm_rl.types import Group, Reply, RewardResult


class Format(Reward):
    """1.0 when well-formed, else 0.0."""

    range = (0.0, 1.0)

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        return [RewardResult(float(parse(whole_text(group, rollout)).wellformed)) for rollout in group.rollouts]
