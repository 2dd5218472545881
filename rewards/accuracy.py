"""The outcome reward: is the answer right? How answers are found and compared lies in `response` and `grading`."""

from collections.abc import Sequence

from rewards.base import Reward, whole_text
from rewards.grading import grade
from rewards.response import MODES, parse
from vlm_rl.errors import unknown
from vlm_rl.types import Group, Reply, RewardResult


class Accuracy(Reward):
    """The grade of the answer in [0, 1]; `mode: strict` gives 0 to every response that is not well-formed. detail: answer, correct."""

    range = (0.0, 1.0)

    def __init__(self, mode: str = "lenient"):
        if mode not in MODES:
            raise unknown("mode", str(mode), MODES)
        self.mode = mode

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        answers = [parse(whole_text(group, rollout), self.mode).answer for rollout in group.rollouts]
        values = [grade(group.sample, answer) for answer in answers]
        return [RewardResult(v, {"answer": a, "correct": v >= 0.5}) for v, a in zip(values, answers, strict=True)]
