"""What a judge is asked when it is measured, and what it said: responses in, opinions out. What the numbers mean is `judge_measures`' work.

A judge is asked with the prompts and read by the rules that rewards use, so that what is measured is what would pay. An opinion keeps apart
what the judge says and what the guard before it would have made of the same response.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rewards.hybrid import calibrated, read_number
from rewards.judge_call import JudgeCall, question_of, why_unread
from rewards.judge_rows import EMPTY, reasoning
from rewards.judging import content_free, read_choice, read_score, yes_probability
from rewards.response import parse
from vlm_rl.config_judge_eval import AskConfig
from vlm_rl.errors import UserError
from vlm_rl.types import Generate, Reply, Sample, Sampling

ALTERNATIVES = 20
Answer = Callable[[Sequence[Generate]], Sequence[Reply]]


@dataclass(frozen=True, eq=False)
class Shown:
    """One response to grade: that of `sample`. `part` says what for ("graded", "right", "wrong", "bare" or a family of tricks), `name`
    which of that part; `gold` is its score where it has one."""

    part: str
    name: str
    sample: Sample
    gold: float | None = None


@dataclass(frozen=True)
class Opinion:
    """What a judge made of one response. `score` None: unread, or `error` says why it was not answered. `guarded`: the guard sees nothing
    in the response that a judge could be asked about, so that a reward would be 0 without asking."""

    judge: str
    part: str
    name: str
    sample_id: str
    text: str
    gold: float | None
    score: float | None
    guarded: bool
    reply: str
    error: str | None

    @property
    def paid(self) -> float | None:
        """What a reward that asks this judge would pay."""
        return 0.0 if self.guarded else self.score

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Asking:
    """How one judge is asked. `kind` is that of the config: a reward model gets question and response; sigmoid(its number) is its score."""

    judge: str
    kind: str
    settings: AskConfig

    def query(self, shown: Shown) -> Generate:
        """Raises UserError for a prompt that is not there or wants other fields."""
        sample, ask = shown.sample, self.settings
        if self.kind == "reward_model":
            media = sample.media if ask.media else ()
            said = reasoning(sample) or EMPTY
            return Generate(self.judge, Sample(sample.id, question_of(sample), "", media=media, response=said), Sampling(1, 0.0))
        fields = {"question": question_of(sample), "trace": reasoning(sample), "response": _whole(sample)}
        more = {"criteria": ask.criteria or None, "principle": ask.principle}
        return self._call.query(sample, ask.prompt, ALTERNATIVES if ask.principle else 0, **fields, **more)

    def compared(self, sample: Sample, first: str, second: str) -> Generate:
        """The prompt `pairwise` about two responses."""
        texts = [reasoning(_answered(sample, text)) for text in (first, second)]
        return self._call.query(sample, "pairwise", question=question_of(sample), first=texts[0], second=texts[1])

    def read(self, reply: Reply) -> float | None:
        """The score in [0, 1] that a reply says, None where it says none."""
        if reply.error is not None:
            return None
        if self.kind == "reward_model":
            number = read_number(reply.text)
            return None if number is None else calibrated(number, "reward_model", 0.0, 1.0)
        return yes_probability(reply) if self.settings.principle else read_score(reply.text)

    @property
    def _call(self) -> JudgeCall:
        return JudgeCall(self.judge, self.settings.media, self.settings.item, self.settings.max_new_tokens)


def opinions(asking: Asking, shown: Sequence[Shown], answer: Answer, unscored_limit: float) -> list[Opinion]:
    """One opinion per response, from one call. Raises UserError when more than `unscored_limit` of the questions were not answered."""
    replies = answer([asking.query(one) for one in shown])
    refuse_outage(asking.judge, replies, unscored_limit)
    return [_opinion(asking, one, reply) for one, reply in zip(shown, replies, strict=True)]


def refuse_outage(judge: str, replies: Sequence[Reply], limit: float) -> None:
    failed = [reply.error for reply in replies if reply.error is not None]
    if len(failed) > limit * len(replies):
        raise UserError(
            f"judge '{judge}' left {len(failed)} of {len(replies)} questions unanswered (unscored_limit={limit:g}): {failed[0]}"
        )


def verdicts(
    asking: Asking, pairs: Sequence[tuple[Sample, str, str]], answer: Answer, unscored_limit: float
) -> list[tuple[str | None, str | None]]:
    """What the judge says of each (sample, response, other response), and of the two exchanged."""
    queries = [asking.compared(sample, *texts) for sample, one, other in pairs for texts in ((one, other), (other, one))]
    replies = answer(queries) if queries else []
    refuse_outage(asking.judge, replies, unscored_limit)
    said = [None if reply.error is not None else read_choice(reply.text) for reply in replies]
    return list(zip(said[0::2], said[1::2], strict=True))


def graded_rows(rows: Sequence[Sample], gold: Mapping[str, float]) -> list[Shown]:
    """The rows' own responses, where they have a score."""
    return [Shown("graded", "", row, gold[row.id]) for row in rows if row.id in gold]


def candidates(rows: Sequence[Sample]) -> list[Shown]:
    """The right and wrong responses of rows that have both."""
    return [
        Shown(part, str(i), _answered(row, text))
        for row in rows
        if row.meta.get("right") and row.meta.get("wrong")
        for part in ("right", "wrong")
        for i, text in enumerate(row.meta[part])
    ]


def _answered(sample: Sample, text: str) -> Sample:
    return Sample(sample.id, sample.question, sample.answer, sample.kind, sample.options, sample.media, text, sample.meta)


def dressed(sample: Sample, part: str, name: str, text: str) -> Shown:
    """A text that must not be accepted, as the row's response."""
    return Shown(part, name, _answered(sample, text))


def _whole(sample: Sample) -> str:
    """Reasoning and answer, without tags."""
    answer = parse(sample.response or "").answer
    trace = reasoning(sample)
    return f"{trace}\n{answer}" if answer and answer not in trace else trace


def _opinion(asking: Asking, shown: Shown, reply: Reply) -> Opinion:
    score, text = asking.read(reply), shown.sample.response or ""
    unread = reply.error if reply.error is not None else why_unread(reply) if score is None else None
    guarded = content_free(reasoning(shown.sample)) or content_free(text)
    return Opinion(asking.judge, shown.part, shown.name, shown.sample.id, text, shown.gold, score, guarded, reply.text, unread)
