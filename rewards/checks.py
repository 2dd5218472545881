"""Yes/no checks of a response by a judge, one question each: CRAFT's judged part (arXiv 2602.01348), RLBFF's principles (2509.21319).

    value = mean over checks of k        k = 1 for yes, 0 for no; with `soft`, P(yes) / (P(yes) + P(no))

RLBFF takes log P(yes) - log P(no), which has no bounds; P(yes) is our choice for both. The verdict over all checks is their conjunction
(`strict`), never a judge's own summary, which sometimes contradicts its parts. The policy does not see the checks.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rewards.base import Reward, Rounds, whole_text
from rewards.judge_call import bare_trace, judge_call, question_of, why_unread
from rewards.judging import content_free, yes_probability
from rewards.response import parse
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Group, Reply, RewardResult

SHOWN = ("answer", "response")
_ALTERNATIVES = 20


class Checks(Reward):
    """The share of `checks` (texts such as "Every step names what it was read from.") that the judge says are met, in [0, 1].

    `shown: answer` keeps the trace from the judge. A response without an answer, or one without content, has 0 and nobody is asked.
    detail: judged, strict (all are met), check_1 .. (each).
    """

    range = (0.0, 1.0)

    def __init__(self, judge: str | Mapping[str, Any], checks: Sequence[str], soft: bool = False, shown: str = "response"):
        if isinstance(checks, str) or not checks or not all(isinstance(check, str) and check.strip() for check in checks):
            raise UserError(f"checks is a list of texts, not {checks!r}")
        if shown not in SHOWN:
            raise unknown("part", str(shown), SHOWN)
        self.judge, self.checks, self.soft, self.shown = judge_call(judge, max_new_tokens=16), tuple(checks), soft, shown
        self.targets = (self.judge.name,)

    def rounds(self, group: Group) -> Rounds:
        texts = [seen(whole_text(group, rollout), self.shown == "response") for rollout in group.rollouts]
        question, first = question_of(group.sample), _ALTERNATIVES if self.soft else 0
        replies = yield [
            self.judge.query(group.sample, "principle", first, question=question, response=text, principle=check)
            for text in texts
            if text is not None
            for check in self.checks
        ]
        waiting = iter(replies)
        return [RewardResult(0.0) if text is None else self._result([next(waiting) for _ in self.checks]) for text in texts]

    def _result(self, replies: Sequence[Reply]) -> RewardResult:
        said = [yes_probability(reply) for reply in replies]
        met = [p if self.soft else float(p >= 0.5) for p in said if p is not None]
        if len(met) < len(said):
            return RewardResult(None, {"error": next(why_unread(r) for r, p in zip(replies, said, strict=True) if p is None)})
        each = {f"check_{i}": value for i, value in enumerate(met, 1)}
        return RewardResult(fmean(met), {"judged": fmean(met), "strict": min(met) >= 0.5, **each})


def seen(turn: str, with_trace: bool) -> str | None:
    """What a judge sees of a turn: trace and answer, or the answer; None where there is no answer, or one without content."""
    answer = parse(turn).answer
    if answer is None or content_free(answer):
        return None
    return f"{bare_trace(turn)}\n{answer}".strip() if with_trace else answer
