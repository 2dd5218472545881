"""The perturbation suite: the same questions under misleading text, worse pictures and disturbed videos (arXiv 2602.12506 and our own).

What is measured stands in `eval.perturb_figures`, what is made of it in `eval.perturb_section`. One wrong answer per question, drawn once,
is pushed by all its conditions; media of one question are the same objects in all conditions of text; equal prompts are asked once.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data.claims import pushed
from data.options import PUSHED
from data.views import Draw
from eval.evaluator import CAPABILITIES, Case, Evaluator, Rounds, Section, Study
from eval.option_letters import from_alternatives, in_words, instead, option_logprobs, option_queries
from eval.perturb_conditions import Condition
from eval.perturb_conditions import conditions as made
from eval.perturb_outcomes import BASE, NAME, NOT_ASKED
from eval.perturb_section import section
from vlm_rl.errors import RowError
from vlm_rl.types import LETTERS, Generate, Query, Record, Reply, Sample, Score

CANNOT = "the model's engine cannot"
_IN_WORDS = "the model answers in words, and its engine tells likeliest tokens only"
_Key = tuple[Any, ...]


class Perturb(Evaluator):
    """`conditions` are entries of `KINDS`, "+" joining several; graded ones are asked at each of `severities`.

    `probabilities`: after each answer's own reasoning the options are scored too. Conditions that begin the model's turn are not run, and
    named, where its engine cannot; so are probabilities where it can tell none. Records of "perturb/base" repeat the clean answers and
    hold what could not be asked, and why.
    """

    def __init__(self, conditions: Sequence[str], severities: Sequence[int] = (1, 2, 3, 4, 5), probabilities: bool = True):
        self.asked = made(conditions, severities)
        self.probabilities = probabilities

    def rounds(self, case: Case) -> Rounds:
        tried = [_Shown.of(case, condition) for condition in self.asked]
        shown = [one for one in tried if not one.not_asked]
        distinct = {_key(one.sample): one.sample for one in shown}
        replies = yield [Generate("policy", sample, case.greedy) for sample in distinct.values()]
        said = dict(zip(distinct, replies, strict=True))
        records = [case.record(f"{NAME}/{one.condition.name}", one.sample, said[_key(one.sample)], **one.detail) for one in shown]
        not_asked = {one.condition.name: one.not_asked for one in tried if one.not_asked}
        base = replace(case.base, condition=BASE, index=0, detail={NOT_ASKED: not_asked})
        if not self.probabilities:
            return [base, *records]
        return (yield from _scored([base, *records], [case.row, *(distinct[_key(one.sample)] for one in shown)], case.able))

    def shown(self, case: Case) -> Mapping[str, Sample]:
        tried = [_Shown.of(case, condition) for condition in self.asked]
        return {f"{NAME}/{one.condition.name}": one.sample for one in tried if not one.not_asked and one.sample.media != case.row.media}

    def measure(self, study: Study) -> Section:
        return section(study, self.asked)


@dataclass(frozen=True, eq=False)
class _Shown:
    """A question as a condition shows it, or why it is not asked so."""

    condition: Condition
    sample: Sample
    detail: dict[str, Any]
    not_asked: str = ""

    @classmethod
    def of(cls, case: Case, condition: Condition) -> "_Shown":
        if condition.begins and "prefill" not in case.able:
            return cls(condition, case.row, {}, f"{CANNOT} {CAPABILITIES['prefill']}")
        draw = Draw(case.seed, condition.severity or 3, case.others)
        try:
            sample = condition(case.row, draw)
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


def _scored(
    records: Sequence[Record], shown: Sequence[Sample], able: frozenset[str]
) -> Generator[Sequence[Query], Sequence[Reply], list[Record]]:
    """The records with detail["options"], the log-prob of each option, or detail["no_options"], why there is none.

    By scoring, or where the engine cannot, by its likeliest tokens, which hold letters only.
    """
    queries = [option_queries(sample, record) for sample, record in zip(shown, records, strict=True)]
    queries = [[] if "error" in record.detail else asked for record, asked in zip(records, queries, strict=True)]
    if "score" in able:
        distinct = {_place(query): query for qs in queries for query in qs}
        replies = dict(zip(distinct, (yield list(distinct.values())), strict=True))
        told = [option_logprobs([replies[_place(query)] for query in qs]) if qs else None for qs in queries]
    elif {"prefill", "alternatives"} <= able:
        first = [instead(qs[0]) for qs, record in zip(queries, records, strict=True) if qs and not in_words(record)]
        likeliest = iter((yield first))
        told = [
            None if not qs else _IN_WORDS if in_words(record) else from_alternatives(next(likeliest), len(qs))
            for qs, record in zip(queries, records, strict=True)
        ]
    else:
        told = [f"{CANNOT} {CAPABILITIES['score']}" if qs else None for qs in queries]
    found = []
    for record, logprobs in zip(records, told, strict=True):
        more = {} if logprobs is None else {"no_options": logprobs} if isinstance(logprobs, str) else {"options": logprobs}
        found.append(replace(record, detail={**record.detail, **more}))
    return found
