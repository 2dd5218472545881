"""How likely is the reference answer after the sampled reasoning? For free-form answers that no rule can grade, beside other rewards.

With lp_1 .. lp_T the log-probs of the reference's tokens after the turn up to its answer (forms of arXiv 2602.03979):

    logprob  sum lp      avg_logprob  mean lp      prob  exp(sum lp)      geo_mean  exp(mean lp)      avg_prob  mean exp(lp)

`debias`: max(0, value - value after an empty thought), RLPR (arXiv 2506.18254, with avg_prob). Deviations: logs are held at `floor`; RLPR's
filter of flat groups is left out, and so is VeriFree's second loss term (arXiv 2505.21493, prob): no gradient through the reference.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from rewards.base import Reward, whole_text
from rewards.care import READERS
from rewards.option_shuffle import opened, refed
from rewards.response import before_answer
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Group, Reply, RewardResult, Score

FORMS: dict[str, Callable[[Sequence[float]], float]] = {
    "logprob": sum,
    "avg_logprob": fmean,
    "prob": lambda lp: math.exp(sum(lp)),
    "geo_mean": lambda lp: math.exp(fmean(lp)),
    "avg_prob": lambda lp: fmean(map(math.exp, lp)),
}


@dataclass(eq=False)
class Reference(Reward):
    """The form's value, asked of `target` (policy or start). A response without an answer tag after its thought has the least: floor or 0.

    Border tokens are those of sampled text, see `Score.lead`. detail: likelihood (geo_mean), without (debias), no_answer_tag.
    """

    form: str = "avg_logprob"
    target: str = "policy"
    debias: bool = False
    floor: float = -5.0

    def __post_init__(self) -> None:
        for name, given, known in (("form", self.form, FORMS), ("target", self.target, READERS)):
            if given not in known:
                raise unknown(name, str(given), known)
        if not isinstance(self.debias, bool) or not self.floor < 0:
            raise UserError(f"debias is true or false, not {self.debias!r}; floor is a log-prob below 0, not {self.floor}")
        self.targets = (self.target,)
        self.least = self.floor if "logprob" in self.form else 0.0
        self.edge = -self.least or 1.0

    def ask(self, group: Group) -> list[Score]:
        row, begun = replace(group.sample, prefill=""), opened(group.prompt)
        cuts = [cut for rollout in group.rollouts if (cut := before_answer(whole_text(group, rollout), begun)) is not None]
        empty = [refed("", "", begun).removesuffix(">")] if self.debias else []
        return [Score(self.target, row, row.answer, cut, ">") for cut in cuts + empty] if row.answer.strip() else []

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        if not group.sample.answer.strip():
            return [RewardResult(None, {"skipped": "the row has no reference answer"})] * len(group.rollouts)
        base, waiting = replies[-1] if self.debias else None, iter(replies)
        cuts = [before_answer(whole_text(group, rollout), opened(group.prompt)) for rollout in group.rollouts]
        return [self._result(None if cut is None else next(waiting), base) for cut in cuts]

    def _result(self, reply: Reply | None, base: Reply | None) -> RewardResult:
        if errors := [r.error for r in (reply, base) if r is not None and r.error is not None]:
            return RewardResult(None, {"error": errors[0]})
        value, detail = self.least, dict[str, float](no_answer_tag=reply is None)
        if reply is not None:
            value, detail["likelihood"] = self._value(reply.logprobs), FORMS["geo_mean"](reply.logprobs)
        if base is not None:
            detail["without"] = self._value(base.logprobs)
            value = max(0.0, value - detail["without"])
        return RewardResult(value, detail)

    def _value(self, logprobs: Sequence[float]) -> float:
        return max(self.least, FORMS[self.form](logprobs))
