"""Accuracy that counts only with the reasoning it follows from: the faithfulness reward of arXiv 2602.12506 (Apple).

With f, c and k (well-formed, right, consistent, the last 0 or 1) and weights 0.1 and 1, the `form`s are

    multiply_all       (0.1 f + c) k         the whole baseline reward times k, the summaries' literal reading
    multiply_accuracy  0.1 f + c k           only accuracy times k
    additive           0.1 f + c + w k       ours

The paper's text was not available to us, only summaries, which do not tell the first two apart; its judge's prompt is not public. Not a
reproduction. In their reports this reward brought consistency back, and together with augmented prompts drove traces to short templates:
look at monitor/, and evaluate consistency with another judge than the one that is paid for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewards.accuracy import Accuracy
from rewards.base import Reward, Rounds, whole_text
from rewards.conclusion import agrees
from rewards.format import Format
from rewards.judge_call import JudgeCall, bare_trace, judge_call, question_of, why_unread
from rewards.judging import content_free, yes_probability
from vlm_rl.config import RewardConfig
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Generate, Group, Reply, RewardResult

Numbers = tuple[float, float, float]

FORMS: Mapping[str, Callable[[Numbers, float, float], float]] = {
    "multiply_all": lambda fck, wf, wk: (wf * fck[0] + fck[1]) * fck[2],
    "multiply_accuracy": lambda fck, wf, wk: wf * fck[0] + fck[1] * fck[2],
    "additive": lambda fck, wf, wk: wf * fck[0] + fck[1] + wk * fck[2],
}
UNJUDGED = FORMS["multiply_accuracy"]
_ALTERNATIVES = 20


class Faithful(Reward):
    """Consistent: the answer is the one that the trace concludes, right or wrong, as a judge says who sees question, trace and answer
    (prompt `yes_no`), or without `judge` by the rule of `conclusion`. A response without a trace, or without an answer, is not, and nobody
    is asked. `soft` takes P(yes) in the place of 0 or 1, where the judge's endpoint tells log-probs.

    When the judge fails on any rollout of a group, k is 1 for the whole group (accuracy alone), since k = 1 for one would be a prize; each
    failure counts as unscored. detail: accuracy, format, judged (k), consistent_right and consistent_wrong (k by side), no_trace, dropped.
    """

    def __init__(
        self,
        judge: str | Mapping[str, Any] | None = None,
        form: str = "multiply_all",
        mode: str = "lenient",
        soft: bool = False,
        format_weight: float = 0.1,
        consistency_weight: float = 1.0,
    ):
        if form not in FORMS:
            raise unknown("form", str(form), FORMS)
        if soft and judge is None:
            raise UserError("soft takes P(yes) from a judge; name one, or leave soft out")
        self.judge: JudgeCall | None = None if judge is None else judge_call(judge, media=False, max_new_tokens=16)
        self.combined, self.soft = FORMS[form], soft
        self.weights = (float(format_weight), float(consistency_weight))
        self.accuracy, self.format = Accuracy(mode), Format()
        self.targets = () if self.judge is None else (self.judge.name,)
        self.edge = self.weights[0] - 1.0  # between two responses that are alike in consistency, which is what it pays for

    def check(self, label: str, rewards: Mapping[str, Reward], configs: Mapping[str, RewardConfig]) -> None:
        paid = (Accuracy, Format) if self.weights[0] else Accuracy
        for other, reward in rewards.items():
            if isinstance(reward, paid) and configs[other].weight:
                raise UserError(f"rewards.{label} pays for what rewards.{other} pays; write rewards.{other}.weight=0, which only logs it")

    def rounds(self, group: Group) -> Rounds:
        graded = self.accuracy.score(group, ())
        traces = [bare_trace(whole_text(group, rollout)) for rollout in group.rollouts]
        answers = [str(result.detail["answer"] or "") for result in graded]
        whole = [i for i, trace in enumerate(traces) if answers[i] and not content_free(trace)]
        if self.judge is None:
            judged = {i: RewardResult(float(agrees(traces[i], answers[i], group.sample))) for i in whole}
        else:
            replies = yield [self._query(group, traces[i], answers[i]) for i in whole]
            judged = {i: self._read(reply) for i, reply in zip(whole, replies, strict=True)}
        nothing = RewardResult(0.0, {"no_trace": True})
        wellformed = self.format.score(group, ())
        return self._results([judged.get(i, nothing) for i in range(len(traces))], graded, wellformed)

    def _query(self, group: Group, trace: str, answer: str) -> Generate:
        assert self.judge is not None
        first = _ALTERNATIVES if self.soft else 0
        return self.judge.query(group.sample, "yes_no", first, question=question_of(group.sample), trace=trace, answer=answer)

    def _read(self, reply: Reply) -> RewardResult:
        yes = yes_probability(reply)
        if yes is None:
            return RewardResult(None, {"error": why_unread(reply)})
        return RewardResult(yes if self.soft else float(yes >= 0.5), {"no_trace": False})

    def _results(
        self, judged: Sequence[RewardResult], graded: Sequence[RewardResult], wellformed: Sequence[RewardResult]
    ) -> list[RewardResult]:
        dropped = any(result.value is None for result in judged)
        results = []
        for k, c, f in zip(judged, graded, wellformed, strict=True):
            right, form = c.value or 0.0, f.value or 0.0
            said = {} if k.value is None else {"judged": k.value, f"consistent_{'right' if c.detail['correct'] else 'wrong'}": k.value}
            combined = UNJUDGED if dropped else self.combined
            value = combined((form, right, 1.0 if dropped else k.value or 0.0), *self.weights)
            results.append(RewardResult(value, {"accuracy": right, "format": form, **said, **k.detail, "dropped": dropped}))
        return results
