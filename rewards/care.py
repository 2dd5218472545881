"""A consistency bonus that needs no options, after GRPO-CARE (arXiv 2506.16141): is the answer likely to another reader of the reasoning?

With acc_i the accuracy of rollout i, p_i = min(exp(mean log-prob of its answer's tokens after its own reasoning), cap) by a slowly moving
reader, Q the rollouts with acc_i > least_accuracy and acc_i >= mean(acc), and m the mean of p over Q:

    bonus_i = bonus * acc_i  if i in Q and p_i >= m - margin;  0 otherwise

Deviations: the reader is the model training started from, or the policy itself, in place of an exponential moving average of the policy;
what stands between the reasoning and the answer is left out, and so is the length bonus. Not a reproduction.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from rewards.base import Reward, Rounds, whole_text
from rewards.grading import grade
from rewards.option_shuffle import opened, reasoning, refed
from rewards.response import parse
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Group, Reply, RewardResult, Rollout, Score

READERS = ("policy", "start")


@dataclass(eq=False)
class Care(Reward):
    """The bonus. A rollout without reasoning and answer to read gets none; one whose reader failed is unscored.

    Only qualifying rollouts are asked about. detail: `qualifies`, `earned`, and `likelihood`, which is p before the cap.
    """

    target: str = "start"
    bonus: float = 0.5
    cap: float = 0.95
    least_accuracy: float = 0.1
    margin: float = 0.01

    def __post_init__(self) -> None:
        if self.target not in READERS:
            raise unknown("reader", str(self.target), READERS, "target")
        if not (self.bonus > 0 and 0 < self.cap <= 1 and 0 <= self.least_accuracy < 1 and self.margin >= 0):
            raise UserError("bonus is above 0, cap above 0 and at most 1, least_accuracy from 0 to below 1, margin 0 or more")
        self.targets = (self.target,)
        self.edge = self.bonus

    def rounds(self, group: Group) -> Rounds:
        accuracies = [grade(group.sample, parse(whole_text(group, rollout)).answer) for rollout in group.rollouts]
        qualified = qualifying(accuracies, self.least_accuracy)
        questions = [self._question(group, r) if q else None for r, q in zip(group.rollouts, qualified, strict=True)]
        replies = iter((yield [question for question in questions if question is not None]))
        said = [next(replies) if question is not None else None for question in questions]
        likelihoods = [_likelihood(reply) for reply in said]
        earned = earning(likelihoods, self.cap, self.margin)
        return [
            RewardResult(None, {"error": reply.error})
            if reply is not None and reply.error is not None
            else RewardResult(
                self.bonus * accuracies[i] * earned[i], {"qualifies": qualified[i], "earned": earned[i], "likelihood": likelihoods[i]}
            )
            for i, reply in enumerate(said)
        ]

    def _question(self, group: Group, rollout: Rollout) -> Score | None:
        text, begun = whole_text(group, rollout), opened(group.prompt)
        trace, answer = reasoning(text, begun), parse(text).answer
        if trace is None or not answer:
            return None
        return Score(self.target, replace(group.sample, prefill=""), answer, refed(trace, text, begun))  # the turn is whole in the prefill


def qualifying(accuracies: Sequence[float], least_accuracy: float) -> list[bool]:
    """Which rollouts are accurate, for themselves and for their group. qualifying([1, 1, 0, 0], .1) -> [True, True, False, False]"""
    mean = fmean(accuracies)
    return [accuracy > least_accuracy and accuracy >= mean for accuracy in accuracies]


def earning(likelihoods: Sequence[float | None], cap: float, margin: float) -> list[bool]:
    """Which rollouts are as likely as their peers; None takes no part. earning([.9, .5, None], .95, .01) -> [True, False, False]"""
    capped = [None if p is None else min(p, cap) for p in likelihoods]
    peers = [p for p in capped if p is not None]
    least = fmean(peers) - margin if peers else math.inf
    return [p is not None and p >= least for p in capped]


def _likelihood(reply: Reply | None) -> float | None:
    return math.exp(fmean(reply.logprobs)) if reply is not None and reply.logprobs else None
