"""One chunk of questions under evaluation: clean answers, samples, the blank control, then what the evaluators ask. Holds no engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from data.rows import Rows, Subset
from data.views import blank
from eval.captions import graded_by, judged
from eval.evaluator import CAPABILITIES, Case, Evaluator, examine
from eval.runner import CLEAN, Ask, Plan, answers, unchanged
from eval.summary import BLANK
from rewards import grading, response
from vlm_rl.errors import UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Record, Sample, Sampling

MOST_OTHERS = 8


@dataclass(frozen=True)
class Questions:
    """What is asked of all rows: `plan` for the answers as they are, `blank_control` whether a blank picture is tried, `judge` who grades
    what no rule can (descriptions), `failure_limit` the share of failed answers in a chunk from which on nothing is kept, `able` what the
    policy's engine can do.
    """

    plan: Plan
    evaluators: Mapping[str, Evaluator]
    blank_control: bool = True
    judge: str | None = None
    failure_limit: float = 0.1
    able: frozenset[str] = frozenset(CAPABILITIES)


def examine_chunk(rows: Rows, start: int, end: int, questions: Questions, ask: Ask) -> list[Record]:
    """The records of rows[start:end]. Raises UserError when too many answers failed: then the endpoint or the data needs mending first."""
    chunk = [rows[index] for index in range(start, end)]
    clean = _clean(chunk, questions, ask)
    _refuse_failures(clean, questions.failure_limit, start, end)
    found = examine(cases_of(rows, start, chunk, clean, questions), questions.evaluators, ask)
    _refuse_failures(found, questions.failure_limit, start, end)
    return [*clean, *found]


def cases_of(rows: Rows, start: int, chunk: Sequence[Sample], records: Sequence[Record], questions: Questions) -> list[Case]:
    """The cases of `chunk`, rows[start:...], whose greedy clean answer is among `records`, with their samples; a failed one makes none."""
    of_row: dict[str, list[Record]] = {}
    for record in records:
        if record.condition == CLEAN:
            of_row.setdefault(record.sample_id, []).append(record)
    answered = [(index, row, of_row[row.id]) for index, row in enumerate(chunk, start) if row.id in of_row]
    return [_case(rows, i, row, tuple(found), questions) for i, row, found in answered if "error" not in found[0].detail]


def _clean(chunk: Sequence[Sample], questions: Questions, ask: Ask) -> list[Record]:
    shown, records = answers(chunk, {CLEAN: unchanged}, questions.plan, ask, questions.judge)
    seen = [row for row in chunk if row.media] if questions.blank_control else []
    more, blind = answers(seen, {BLANK: blank}, questions.plan, ask, questions.judge) if seen else ([], [])
    if questions.judge is None or not any(judged(row) for row in chunk):
        return [*records, *blind]
    kept = [(s, r) for s, r in zip([*shown, *more], [*records, *blind], strict=True) if "error" not in r.detail]
    failed = [r for r in (*records, *blind) if "error" in r.detail]
    return [*graded_by(questions.judge, [s for s, _ in kept], [r for _, r in kept], ask), *failed]


def _case(rows: Rows, index: int, row: Sample, records: tuple[Record, ...], questions: Questions) -> Case:
    plan = questions.plan
    seed = stable_hash(plan.seed, row.id)
    drawn = (stable_hash(seed, "other", i) % len(rows) for i in range(2 * MOST_OTHERS))
    others = Subset(rows, [i for i in dict.fromkeys(drawn) if i != index][:MOST_OTHERS])
    return Case(row, records, seed, Sampling(plan.max_new_tokens, 0.0, plan.stop), others, questions.able)


def _refuse_failures(records: Sequence[Record], limit: float, start: int, end: int) -> None:
    failed = [record for record in records if "error" in record.detail]
    if len(failed) > limit * len(records):
        first = failed[0]
        raise UserError(
            f"{len(failed)} of {len(records)} answers to questions {start + 1} to {end} failed, more than failure_limit={limit:g}; the "
            f"first: question '{first.sample_id}', condition '{first.condition}': {first.detail['error']}; the same command goes on from "
            f"question {start + 1}"
        )


def regraded(record: Record, row: Sample | None) -> Record:
    """The record as it is read and graded now, with no model; what a judge graded, and what failed, keeps its grade."""
    if "error" in record.detail or (row is not None and judged(row)):
        return record
    parsed = response.parse(record.prefill + record.completion)
    meta = row.meta if row is not None else {}
    shown = Sample(record.sample_id, record.question, record.gold, record.kind, record.options, meta=meta)
    return replace(record, answer=parsed.answer, correct=grading.is_correct(shown, parsed.answer), wellformed=parsed.wellformed)


def unasked_case(rows: Rows, index: int, plan: Plan) -> Case:
    """The case of rows[index] as it is examined, without answers: what its conditions show is drawn from it again."""
    return _case(rows, index, rows[index], (), Questions(plan, {}))
