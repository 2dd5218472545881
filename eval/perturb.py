"""The perturbation suite: the same questions under misleading text, worse pictures and disturbed videos (arXiv 2602.12506 and our own).

What is measured stands in `eval.perturb_figures`, what is made of it in `eval.perturb_section`. One wrong answer per question, drawn once,
is pushed by all its conditions; media of one question are the same objects in all conditions of text; equal prompts are asked once.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data.claims import pushed
from data.options import PUSHED
from data.views import Draw, NotApplicable
from eval import perturb_conditions
from eval.evaluator import Case, Evaluator, Rounds, Section, Study
from eval.option_letters import from_alternatives, in_words, instead, option_logprobs, option_queries
from eval.perturb_conditions import Condition
from eval.perturb_outcomes import BASE, NAME
from eval.perturb_section import section
from vlm_rl.errors import RowError
from vlm_rl.types import LETTERS, Generate, Query, Record, Reply, Sample, Score

_Key = tuple[Any, ...]


class Perturb(Evaluator):
    """`conditions` are entries of `perturb_conditions.KINDS`, "+" joining several; graded ones are asked at each of `severities`.

    `probabilities`: after each answer's own reasoning the options are scored too. What the model's engine cannot do (begin a turn, score)
    is said in the records, and reported as not run by the name of the condition.
    """

    def __init__(self, conditions: Sequence[str], severities: Sequence[int] = (1, 2, 3, 4, 5), probabilities: bool = True):
        self.asked = perturb_conditions.conditions(conditions, severities)
        self.probabilities = probabilities

    def rounds(self, case: Case) -> Rounds:
        shown = [_Shown.of(case, condition) for condition in self.asked]
        distinct = {_key(one.sample): one.sample for one in shown if one.error is None}
        replies = yield [Generate("policy", sample, case.greedy) for sample in distinct.values()]
        said = dict(zip(distinct, replies, strict=True))
        answers = [said[_key(one.sample)] if one.error is None else Reply(error=one.error) for one in shown]
        records = [
            case.record(f"{NAME}/{one.condition.name}", one.sample, reply, **one.detail) for one, reply in zip(shown, answers, strict=True)
        ]
        if not self.probabilities:
            return records
        base = replace(case.base, condition=BASE, index=0, detail=dict(case.base.detail))
        samples = {_key(case.row): case.row, **distinct}
        return (yield from _scored([base, *records], [case.row, *(samples.get(_key(one.sample), one.sample) for one in shown)]))

    def measure(self, study: Study) -> Section:
        return section(study, self.asked)


@dataclass(frozen=True, eq=False)
class _Shown:
    """A question as a condition shows it, or why it cannot."""

    condition: Condition
    sample: Sample
    detail: dict[str, Any]
    error: str | None = None

    @classmethod
    def of(cls, case: Case, condition: Condition) -> "_Shown":
        draw = Draw(case.seed, condition.severity or 3, case.others)
        try:
            sample = condition(case.row, draw)
        except NotApplicable as error:
            return cls(condition, case.row, {"not_applicable": error.reason}, f"not applicable: {error.reason}")
        except RowError as error:
            return cls(condition, case.row, {}, error.reason)
        return cls(condition, sample, _detail(case.row, sample, draw))


def _detail(row: Sample, sample: Sample, draw: Draw) -> dict[str, Any]:
    """What must be known to measure again: the wrong answer that is pushed (an index of the row's options, or a text)."""
    if PUSHED not in sample.meta or sample.meta[PUSHED] == sample.answer:
        return {}
    target = pushed(row, draw, right=False)
    return {"target": LETTERS.index(target) if row.kind == "choice" and row.options else target}


def _key(sample: Sample) -> _Key:
    """What a prompt depends on."""
    return sample.question, sample.options, sample.prefill, tuple(medium.id for medium in sample.media)


def _place(query: Score) -> _Key:
    return id(query.sample), query.prefill, query.lead, query.continuation


def _scored(records: Sequence[Record], shown: Sequence[Sample]) -> Generator[Sequence[Query], Sequence[Reply], list[Record]]:
    """The records with detail["options"], the log-prob of each option, or detail["no_options"], why there is none. One round or two."""
    pairs = list(zip(shown, records, strict=True))
    queries = [[] if "error" in record.detail else option_queries(sample, record) for sample, record in pairs]
    distinct = {_place(query): query for qs in queries for query in qs}
    replies = dict(zip(distinct, (yield list(distinct.values())), strict=True))
    told = [option_logprobs([replies[_place(query)] for query in qs]) for qs in queries]
    failed = [i for i, qs in enumerate(queries) if qs and isinstance(told[i], str) and not in_words(records[i])]
    if failed:
        likeliest = yield [instead(queries[i][0]) for i in failed]
        for i, reply in zip(failed, likeliest, strict=True):
            if reply.error is None and reply.alternatives:
                told[i] = from_alternatives(reply.alternatives, len(queries[i]))
    found = []
    for record, qs, logprobs in zip(records, queries, told, strict=True):
        more = {} if not qs else {"no_options": logprobs} if isinstance(logprobs, str) else {"options": logprobs}
        found.append(replace(record, detail={**record.detail, **more}))
    return found
