"""A rule where the task can be verified, a model's score where it cannot: the accuracy term of HARMO, arXiv 2510.05283.

    R_hybrid_i = c x rule_i + (1 - c) x model_i, with c = 1 for a verifiable row and c = 0 for an open one

The switch is the paper's; how a model's score becomes a number on [0, 1] is our definition, since its equations are not public. A row says
what it is by `meta["verifiable"]` (false: open), or the config by its kind of answer; a row that carries `meta["confidence"]` in [0, 1]
has that for c, a blend. The response never decides: a policy could choose the softer judge. The paper's other two terms are the rewards
`length_penalty` and `format`, its advantage `algo.advantage: group_mean`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

from rewards.base import Reward, Rounds, whole_text
from rewards.grading import grade
from rewards.judge_call import bare_trace, judge_call, question_of, why_unread
from rewards.judging import content_free, read_score
from rewards.response import MODES, parse
from rewards.rules import same_text
from vlm_rl.config_judges import SCORERS
from vlm_rl.errors import RowError, UserError, unknown
from vlm_rl.types import AnswerKind, Generate, Group, Reply, RewardResult, Sample, Sampling

CRITERIA = ("It answers the question that was asked.", "What it says agrees in meaning with the reference; other words are fine.")
BY = ("judge", *SCORERS)
_ONE_NUMBER = Sampling(1, 0.0)


class Hybrid(Reward):
    """`scorer` names one of `judges:`; `by` says what it is. Rows of the kinds in `open` ("text") are open whatever they say themselves.

    judge: a chat model, asked with the prompt `rubric` (question, reference, response), its score as it is. embedding: of the cosine c of
    answer and gold answer, clip((c - low) / (high - low), 0, 1) with (low, high) = `calibration`, so that (0, 1) is clip(c, 0, 1).
    reward_model: of a scalar r of question and response, sigmoid((r - m) / s) with (m, s) = `calibration`. `shown: response` gives the
    scorer trace and answer instead of the answer alone. An answer without content earns 0 and nobody is asked, unless it is the gold one.
    detail: rule or model (by row), judged, verifiable.
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        scorer: str | Mapping[str, Any],
        by: str = "judge",
        calibration: Sequence[float] = (0.0, 1.0),
        criteria: Sequence[str] = CRITERIA,
        shown: str = "answer",
        mode: str = "lenient",
        open: Sequence[str] = (),
    ):
        for what, name, known in (("kind of scorer", by, BY), ("mode", mode, MODES), ("part", shown, ("answer", "response"))):
            if name not in known:
                raise unknown(what, str(name), known)
        for kind in open:
            if kind not in get_args(AnswerKind):
                raise unknown("kind of answer", str(kind), get_args(AnswerKind), "open")
        low, high = _pair(calibration)
        if (high <= low) if by == "embedding" else (high <= 0):
            raise UserError(f"calibration of {by}: {'high must be above low' if by == 'embedding' else 's must be positive'}, not {high:g}")
        self.call, self.by, self.calibration = judge_call(scorer), by, (low, high)
        self.criteria, self.shown, self.mode, self.open = tuple(criteria), shown, mode, frozenset(open)
        self.targets = (self.call.name,)
        self.edge = -1.0  # where a rule decides, right earns 1 and wrong 0; elsewhere nothing is right or wrong

    @property
    def kinds(self) -> Mapping[str, str]:
        return {self.call.name: self.by} if self.by in SCORERS else {}

    def rounds(self, group: Group) -> Rounds:
        answers = [parse(whole_text(group, rollout), self.mode).answer for rollout in group.rollouts]
        rules, sure = [grade(group.sample, answer) for answer in answers], confidence(group.sample, self.open)
        asked = [i for i, answer in enumerate(answers) if sure < 1 and not self._empty(group.sample, answer)]
        replies = yield [self._query(group, i, answers[i] or "") for i in asked]
        said = dict(zip(asked, replies, strict=True))
        return [self._result(rule, sure, said.get(i)) for i, rule in enumerate(rules)]

    def _empty(self, sample: Sample, answer: str | None) -> bool:
        return answer is None or (content_free(answer) and not same_text(sample.answer, answer))

    def _query(self, group: Group, index: int, answer: str) -> Generate:
        sample, text = group.sample, answer
        if self.shown == "response":
            text = f"{bare_trace(whole_text(group, group.rollouts[index]))}\n{answer}".strip()
        if self.by == "judge":
            return self.call.query(
                sample, "rubric", question=question_of(sample), criteria=self.criteria, reference=sample.answer, response=text
            )
        if self.by == "embedding":
            return Generate(self.call.name, Sample(sample.id, text, sample.answer), _ONE_NUMBER)
        media = sample.media if self.call.media else ()
        return Generate(self.call.name, Sample(sample.id, question_of(sample), "", media=media, response=text), _ONE_NUMBER)

    def _result(self, rule: float, sure: float, reply: Reply | None) -> RewardResult:
        detail: dict[str, Any] = {"verifiable": sure == 1}
        if sure == 1:
            return RewardResult(rule, detail | {"rule": rule})
        model = 0.0 if reply is None else self.model_score(reply)
        if model is None:
            assert reply is not None
            return RewardResult(None, {"error": why_unread(reply)})
        return RewardResult(sure * rule + (1 - sure) * model, detail | {"model": model, "judged": model})

    def model_score(self, reply: Reply) -> float | None:
        """What a reply says on [0, 1], None where it says nothing."""
        if reply.error is not None:
            return None
        if self.by == "judge":
            return read_score(reply.text)
        number = read_number(reply.text)
        return None if number is None else calibrated(number, self.by, *self.calibration)


def calibrated(number: float, by: str, low: float, high: float) -> float:
    """calibrated(0.7, "embedding", 0.5, 0.9) -> 0.5; calibrated(3.0, "reward_model", 1.0, 2.0) -> sigmoid(1) = 0.7311"""
    if by == "embedding":
        return min(1.0, max(0.0, (number - low) / (high - low)))
    x = (number - low) / high
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def read_number(text: str) -> float | None:
    """A reply that is nothing but one finite number, None for anything else."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def confidence(sample: Sample, open_kinds: Collection[str] = ()) -> float:
    """How far the row's rule decides: `meta["confidence"]`, else 1 for a verifiable row and 0 for an open one. Raises RowError."""
    verifiable, sure = sample.meta.get("verifiable", True), sample.meta.get("confidence")
    if not isinstance(verifiable, bool):
        raise RowError(sample.id, f"meta.verifiable is true or false, not {verifiable!r}")
    if sure is None:
        return float(verifiable and sample.kind not in open_kinds)
    if isinstance(sure, bool) or not isinstance(sure, int | float) or not 0 <= sure <= 1:
        raise RowError(sample.id, f"meta.confidence is a number from 0 to 1, not {sure!r}")
    return float(sure)


def _pair(calibration: Sequence[float]) -> tuple[float, float]:
    try:
        low, high = (float(number) for number in calibration)
    except (TypeError, ValueError):
        raise UserError(f"calibration is two numbers, such as [0.0, 1.0], not {calibration!r}") from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"calibration is two numbers, not {calibration!r}")
    return low, high
