"""The quality of the reasoning, by a judge that does not see the answer: SophiaVL-R1's thinking reward, arXiv 2505.17018.

    R_i = R_outcome_i + gamma x alpha x exp(-s / T) x R_thinking_i

This file gives R_thinking. The rest is the mixture's, and is written in the config: alpha is `weight`, exp(-s / T) the schedule
`exponential` with T = `anneal_steps`, gamma the gate `trust`. The released code differs from its paper in ways this one does not: right and
wrong responses are judged alike (there, wrong binary answers never are, so that gamma is always 1), a judge that fails leaves a response
unscored (there 0), one function makes the gamma that is applied and logged, and T has a name of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rewards.accuracy import Accuracy
from rewards.base import Reward, Rounds, whole_text
from rewards.judge_call import bare_trace, judge_call, question_of, why_unread
from rewards.judging import content_free, read_score
from vlm_rl.config import RewardConfig
from vlm_rl.errors import UserError
from vlm_rl.types import Group, Reply, RewardResult, Sample


class Thinking(Reward):
    """The judge's score of each response's reasoning, in [0, 1]. Without a trace, or one without content, 0 and nobody is asked.

    A group is not judged when all its outcomes are at most skip[0] or all at least skip[1] (the released code's rule, not the paper's:
    where outcomes tie, a group-relative advantage would blow up the judge's noise); `skip: null` judges all. Outcomes are the grades of
    `accuracy` under the same `mode`. Deviation: the judge is given neither the answer nor the prompt's template text (the released code
    sends both, which tells it whether the answer is right). detail: judged, right or wrong (the score, by side), right_share, no_trace.
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        judge: str | Mapping[str, Any],
        prompt: str = "thinking",
        mode: str = "lenient",
        skip: Sequence[float] | None = (0.1, 0.9),
    ):
        if skip is not None and not (len(skip) == 2 and skip[0] < skip[1]):
            raise UserError(f"skip is two outcomes, low and high, such as [0.1, 0.9], or null, not {skip}")
        self.judge, self.prompt, self.skip = judge_call(judge), prompt, skip
        self.outcomes = Accuracy(mode)
        self.targets = (self.judge.name,)
        self.judge.query(Sample("", "", ""), prompt, question="?", trace="?")  # a prompt that is not there, or wants more, shows here

    def check(self, label: str, rewards: Mapping[str, Reward], configs: Mapping[str, RewardConfig]) -> None:
        for gate in configs[label].gate:
            paid = rewards[gate.on]
            if isinstance(paid, Accuracy) and paid.mode != self.outcomes.mode:
                raise UserError(
                    f"rewards.{label}.mode is {self.outcomes.mode}, but rewards.{gate.on}.mode, by which its gate tells right from "
                    f"wrong, is {paid.mode}; write the same"
                )

    def rounds(self, group: Group) -> Rounds:
        graded = self.outcomes.score(group, ())
        outcomes = [result.value or 0.0 for result in graded]
        if self.skip and (max(outcomes) <= self.skip[0] or min(outcomes) >= self.skip[1]):
            return [RewardResult(None, {"skipped": "all outcomes of the group are alike"})] * len(outcomes)
        traces = [bare_trace(whole_text(group, rollout)) for rollout in group.rollouts]
        asked = [i for i, trace in enumerate(traces) if not content_free(trace)]
        question = question_of(group.sample)
        replies = yield [self.judge.query(group.sample, self.prompt, question=question, trace=traces[i]) for i in asked]
        said = dict(zip(asked, replies, strict=True))
        right = [bool(result.detail["correct"]) for result in graded]
        return [_result(said.get(i), right[i], sum(right) / len(right)) for i in range(len(traces))]


def _result(reply: Reply | None, right: bool, right_share: float) -> RewardResult:
    """Without a reply nobody was asked: there was nothing to judge."""
    value = 0.0 if reply is None else read_score(reply.text) if reply.error is None else None
    if value is None:
        assert reply is not None
        return RewardResult(None, {"error": why_unread(reply)})
    side = "right" if right else "wrong"
    return RewardResult(value, {"judged": value, side: value, "right_share": right_share, "no_trace": reply is None})
