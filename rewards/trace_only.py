"""A probe, not a reward: does the policy give the right answer from its own trace when it sees no picture? Its weight must be 0.

One of the signs of collapse watched under the faithfulness reward of arXiv 2602.12506: where this rises to the accuracy with pictures, the
trace carries all there is to know; where accuracy is far above it, answers come past the trace.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from data.views import blank
from rewards.accuracy import Accuracy
from rewards.base import Reward, Rounds, whole_text
from rewards.grading import grade
from rewards.option_shuffle import CLOSING, opened, reasoning, refed
from rewards.response import parse
from vlm_rl.config import RewardConfig
from vlm_rl.errors import UserError
from vlm_rl.types import Generate, Group, Reply, RewardResult, Sampling


class TraceOnly(Reward):
    """The grade, in [0, 1], of a greedy answer after the rollout's own trace, the question and grey pictures; 0 without a trace.

    detail: same (the answer is graded like the first), no_trace.
    """

    targets = ("policy",)

    def __init__(self, max_new_tokens: int = 16):
        self.limits, self.accuracy = Sampling(max_new_tokens, 0.0, (CLOSING,)), Accuracy()

    def check(self, label: str, rewards: Mapping[str, Reward], configs: Mapping[str, RewardConfig]) -> None:
        if configs[label].weight:
            raise UserError(f"rewards.{label} is a probe that pays nothing; write rewards.{label}.weight=0")

    def rounds(self, group: Group) -> Rounds:
        begun = opened(group.prompt)
        turns = [whole_text(group, rollout) for rollout in group.rollouts]
        traces = [reasoning(turn, begun) for turn in turns]
        prefills = {i: refed(t, turns[i], begun) for i, t in enumerate(traces) if t is not None and t.strip()}
        blind = replace(blank(group.sample), prefill="")
        replies = yield [Generate("policy", blind, self.limits, prefill) for prefill in prefills.values()]
        return self._results(group, prefills, dict(zip(prefills, replies, strict=True)))

    def _results(self, group: Group, prefills: Mapping[int, str], replies: Mapping[int, Reply]) -> Sequence[RewardResult]:
        results = []
        for i, first in enumerate(self.accuracy.score(group, ())):
            if i not in replies:
                results.append(RewardResult(0.0, {"no_trace": True}))
            elif (error := replies[i].error) is not None:
                results.append(RewardResult(None, {"error": error}))
            else:
                value = grade(group.sample, parse(prefills[i] + replies[i].text).answer)
                results.append(RewardResult(value, {"same": (value >= 0.5) == first.detail["correct"], "no_trace": False}))
        return results
