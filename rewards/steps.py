"""A step judge that cannot be farmed by adding steps: the clipped sum of arXiv 2410.15115 (Clip), and why Delta has no reward here.

With p_1 .. p_K what a judge says of each step of the reasoning, in [0, 1]:

    value = sum_k min(p_k - eta, 0)        0 for steps that are good enough, so that good steps earn nothing and bad ones cost

Delta, d_k = p_k - p_{k+1}, makes the return from every step on equal p_j, however many follow. It needs an advantage per token: one number
for the whole response is then p_1 alone. `deltas` is here for who writes one. The paper does not tell eta and the weight; ours is 0.5.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rewards.base import Reward, Rounds, whole_text
from rewards.judge_call import bare_trace, judge_call, question_of, why_unread
from rewards.judging import content_free, read_score
from vlm_rl.errors import UserError
from vlm_rl.types import Group, Reply, RewardResult

_STEP = re.compile(r"\n\s*|(?<=[.!?])\s+")


class Steps(Reward):
    """The value above, with one question per step: a line, or a sentence. The first `most_steps` are judged.

    A response without reasoning gets -eta, as much as one worthless step. `form` is clip; delta and clip_delta are refused with the reason.
    detail: judged (mean p), steps, first (p_1).
    """

    def __init__(self, judge: str | Mapping[str, Any], eta: float = 0.5, most_steps: int = 16, form: str = "clip"):
        if form != "clip":
            raise UserError(
                f"form {form} adds up to the first step's score where a response gets one number, so that later steps would count for "
                "nothing; write form=clip"
            )
        if not 0 < eta <= 1 or most_steps < 1:
            raise UserError(f"eta is above 0 and at most 1, most_steps 1 or more, not {eta} and {most_steps}")
        self.judge, self.eta, self.most_steps = judge_call(judge), eta, most_steps
        self.targets, self.edge = (self.judge.name,), eta * most_steps

    def rounds(self, group: Group) -> Rounds:
        question = question_of(group.sample)
        steps = [split(bare_trace(whole_text(group, rollout)))[: self.most_steps] for rollout in group.rollouts]
        asked = [(tuple(own[:k]), own[k]) for own in steps for k in range(len(own))]
        replies = yield [self.judge.query(group.sample, "step", question=question, before="\n".join(b), step=s) for b, s in asked]
        waiting = iter(replies)
        return [self._result([next(waiting) for _ in own]) for own in steps]

    def _result(self, replies: Sequence[Reply]) -> RewardResult:
        if not replies:
            return RewardResult(-self.eta, {"steps": 0})
        scores = [None if reply.error is not None else read_score(reply.text) for reply in replies]
        known = [score for score in scores if score is not None]
        if len(known) < len(scores):
            return RewardResult(None, {"error": why_unread(replies[scores.index(None)])})
        return RewardResult(sum(clipped(known, self.eta)), {"judged": sum(known) / len(known), "steps": len(known), "first": known[0]})


def split(trace: str) -> list[str]:
    """Lines and sentences with content. split("Red.\\nTwo balls. So B") -> ["Red.", "Two balls.", "So B"]"""
    return [step for step in map(str.strip, _STEP.split(trace)) if not content_free(step)]


def clipped(scores: Sequence[float], eta: float) -> list[float]:
    """clipped([.9, .4, .6, .95], .5) -> [0, -.1, 0, 0]"""
    return [min(score - eta, 0.0) for score in scores]


def deltas(scores: Sequence[float]) -> list[float]:
    """deltas([.9, .4, .6, .95]) -> [.5, -.2, .6, 0]: p_k - p_{k+1}, then p_{K-1}, then 0; after `clipped` it is the paper's best form."""
    return [a - b for a, b in pairwise(scores[:-1])] + list(scores[-2:-1]) + [0.0] * bool(scores)
