"""Better or worse than one of the group, by a judge who compares: BRPO of Writing-Zero, arXiv 2506.00103, for tasks that no rule can grade.

    value_i = 1 where the judge prefers rollout i to a randomly drawn rollout of the same group, -1 where not, 0 for the drawn one

Both orders are asked, since judges lean to one place: votes that disagree, and ties, are 0. A group with |sum of values| / G above
`most_skew` is left out: its reference was no measure. The paper takes the values as advantages; here the group's mean is taken off them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rewards.base import Reward, Rounds, whole_text
from rewards.checks import SHOWN, seen
from rewards.judge_call import JudgeCall, judge_call, question_of, why_unread
from rewards.judging import read_choice
from vlm_rl.errors import UserError, unknown
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Generate, Group, Reply, RewardResult


class Pairwise(Reward):
    """The value above. A rollout without an answer, or one without content, loses to any that has one, and nobody is asked about it.

    detail: won, lost, agreed (both orders say the same).
    """

    range = (-1.0, 1.0)

    def __init__(self, judge: str | Mapping[str, Any], most_skew: float = 0.6, shown: str = "answer"):
        if not 0 < most_skew <= 1:
            raise UserError(f"most_skew is above 0 and at most 1, which leaves no group out, not {most_skew}")
        if shown not in SHOWN:
            raise unknown("part", str(shown), SHOWN)
        self.judge: JudgeCall = judge_call(judge)
        self.most_skew, self.with_trace = most_skew, shown == "response"
        self.targets = (self.judge.name,)

    def rounds(self, group: Group) -> Rounds:
        texts = [seen(whole_text(group, rollout), self.with_trace) for rollout in group.rollouts]
        drawn = stable_hash(group.seed, "pairwise") % len(texts)
        reference = texts[drawn]
        asked = [i for i, text in enumerate(texts) if i != drawn and text is not None and reference is not None]
        orders = [(texts[i], reference) for i in asked]
        pairs = [pair for one, other in orders for pair in ((one, other), (other, one))]
        replies = yield [self._query(group, *pair) for pair in pairs]
        said = {i: compared(*replies[2 * k : 2 * k + 2]) for k, i in enumerate(asked)}
        empty = float(reference is not None)
        unasked = [RewardResult(0.0 if i == drawn else -empty if text is None else 1.0 - empty) for i, text in enumerate(texts)]
        results = [said.get(i, unasked[i]) for i in range(len(texts))]
        values = [result.value for result in results]
        if None not in values and skew(values) > self.most_skew:
            return [RewardResult(None, {"skipped": "nearly all rollouts are better, or worse, than the drawn one"})] * len(texts)
        return results

    def _query(self, group: Group, first: str | None, second: str | None) -> Generate:
        return self.judge.query(group.sample, "pairwise", question=question_of(group.sample), first=first, second=second)


def compared(before: Reply, behind: Reply) -> RewardResult:
    """From the judge's replies with the rollout put first, and put second: 1, -1, or 0 unless both prefer the same."""
    read = [None if reply.error is not None else read_choice(reply.text) for reply in (before, behind)]
    for reply, choice in zip((before, behind), read, strict=True):
        if choice is None:
            return RewardResult(None, {"error": why_unread(reply)})
    won, lost = read == ["first", "second"], read == ["second", "first"]
    return RewardResult(float(won) - float(lost), {"won": won, "lost": lost, "agreed": won or lost or read == ["tie", "tie"]})


def skew(values: Sequence[float | None]) -> float:
    """|sum| / G. skew([1, 1, 0, -1]) -> 0.25"""
    return abs(sum(value or 0.0 for value in values)) / len(values)
