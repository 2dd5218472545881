"""Ask a set of questions under several conditions, grade the answers, store them.

Holds no model: `ask` answers all queries of an evaluation in one call. What the numbers mean is `eval.summary`'s work.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.captions import graded_by, judged, refuse_unjudged
from rewards import grading, response
from vlm_rl.errors import RowError, UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Generate, Query, Record, Reply, Sample, Sampling

CLEAN = "clean"
Condition = Callable[[Sample], Sample]
Ask = Callable[[Sequence[Query]], Sequence[Reply]]


@dataclass(frozen=True)
class Plan:
    """How each question is asked. Plan(samples=8, max_new_tokens=64, temperature=1.0, stop=("</answer>",), seed=0)

    One greedy answer per condition; the clean condition also gets `samples` answers drawn at `temperature`.
    """

    samples: int
    max_new_tokens: int
    temperature: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class _Asked:
    """One planned answer: `row_id` as in the data, `shown` the sample as the condition made it."""

    row_id: str
    condition: str
    mode: str
    index: int
    shown: Sample


def unchanged(sample: Sample) -> Sample:
    """The clean condition: evaluate(rows, {"clean": unchanged, "blank": blank}, ...)"""
    return sample


def evaluate(rows: Sequence[Sample], conditions: Mapping[str, Condition], plan: Plan, ask: Ask, judge: str | None = None) -> list[Record]:
    """Ask every row under every condition and grade the answers; one Record per answer, in the order asked.

    Answers that no rule can grade are graded by `judge`, asked in a second `ask` call. Raises RowError naming the row for a repeated
    id, an unreadable medium, or a question left without an answer: no item is ever dropped. Raises UserError where a judge is missing.
    """
    shown, records = answers(rows, conditions, plan, ask, judge)
    failures = [record for record in records if "error" in record.detail]
    if failures:
        first = failures[0]
        more = f"; {len(failures)} of {len(records)} questions failed" if len(failures) > 1 else ""
        where = f"condition '{first.condition}' ({first.mode} {first.index})"
        raise RowError(first.sample_id, f"no answer in {where}: {first.detail['error']}{more}")
    return graded_by(judge, shown, records, ask) if judge else records


def answers(
    rows: Sequence[Sample], conditions: Mapping[str, Condition], plan: Plan, ask: Ask, judge: str | None = None
) -> tuple[list[Sample], list[Record]]:
    """What was shown and the record of its answer, in the order asked; a failed answer is a record with detail["error"].

    All queries go to "policy" through one `ask` call, those about one sample as one condition shows it side by side, so that the asker can
    share their prompt. A draw's seed depends on the plan's seed, the row's id, the condition and the draw's index, not on what else is
    asked. Rows that only a judge can grade are refused without one, and are not graded here. Raises RowError and UserError as `evaluate`.
    """
    refuse_unjudged(rows, judge)
    repeated = _first_repeated([row.id for row in rows])
    if repeated is not None:
        raise RowError(repeated, "another row has the same id; evaluation pairs answers by id, so give each row its own")
    asked = [item for row in rows for name, change in conditions.items() for item in _questions(row, name, change, plan)]
    replies = ask([_query(item, plan) for item in asked])
    pairs = zip(asked, replies, strict=True)
    records = [graded_record(item.row_id, item.condition, item.shown, reply, item.mode, item.index) for item, reply in pairs]
    return [item.shown for item in asked], records


def _first_repeated(ids: Sequence[str]) -> str | None:
    seen: set[str] = set()
    return next((i for i in ids if i in seen or seen.add(i)), None)


def _questions(row: Sample, name: str, change: Condition, plan: Plan) -> list[_Asked]:
    try:
        shown = change(row)
    except OSError as error:
        raise RowError(row.id, f"condition '{name}' cannot read its media: {error}") from error
    draws = plan.samples if name == CLEAN else 0
    return [_Asked(row.id, name, "greedy", 0, shown), *(_Asked(row.id, name, "sample", i, shown) for i in range(draws))]


def _query(item: _Asked, plan: Plan) -> Generate:
    temperature = 0.0 if item.mode == "greedy" else plan.temperature
    seed = stable_hash(plan.seed, item.row_id, item.condition, item.index)
    return Generate("policy", item.shown, Sampling(plan.max_new_tokens, temperature, plan.stop), seed=seed)


def graded_record(
    row_id: str, condition: str, shown: Sample, reply: Reply, mode: str = "greedy", index: int = 0, detail: Mapping[str, Any] | None = None
) -> Record:
    """`reply` to `shown` as it is graded and stored; what a judge must grade is not right yet. A failed reply (`reply.error`) is right in
    nothing and says why in detail["error"]. Raises RowError where a medium cannot be read.
    """
    parsed = response.parse(shown.prefill + reply.text)
    try:
        media_ids = tuple(medium.id for medium in shown.media)
    except OSError as error:
        raise RowError(row_id, f"a medium cannot be read: {error}") from error
    return Record(
        sample_id=row_id,
        condition=condition,
        mode=mode,
        index=index,
        question=shown.question,
        options=shown.options,
        gold=shown.answer,
        kind=shown.kind,
        media_ids=media_ids,
        completion=reply.text,
        answer=parsed.answer,
        correct=reply.error is None and not judged(shown) and grading.is_correct(shown, parsed.answer),
        wellformed=parsed.wellformed,
        finish=reply.finish,
        prefill=shown.prefill,
        detail={**(detail or {}), **({"error": reply.error} if reply.error is not None else {})},
    )


def save_records(path: Path, records: Sequence[Record]) -> None:
    """Write one JSON object per line, aside and then renamed: a killed run leaves the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(dataclasses.asdict(record)) + "\n" for record in records)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def load_records(path: Path) -> list[Record]:
    """The records of `save_records`. Raises UserError naming the file and line of anything else."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: records cannot be read: {error}") from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(record_from(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not an evaluation record: {error}") from None
    return records


_TEXTS = ("sample_id", "condition", "mode", "question", "gold", "kind", "completion", "finish", "prefill")
_LISTS = ("options", "media_ids")


def record_from(tree: Any) -> Record:
    """A Record from its JSON object. Raises ValueError naming the field that is missing or of the wrong type."""
    if not isinstance(tree, dict):
        raise ValueError("not a JSON object")
    tree = {"prefill": "", "detail": {}, **tree}  # records of before there were prefills and details
    names = {field.name for field in dataclasses.fields(Record)}
    if set(tree) != names:
        raise ValueError(f"fields missing: {sorted(names - set(tree))}, unknown: {sorted(set(tree) - names)}")
    right = {
        **{name: isinstance(tree[name], str) for name in _TEXTS},
        **{name: isinstance(tree[name], list) and all(isinstance(x, str) for x in tree[name]) for name in _LISTS},
        **{name: isinstance(tree[name], bool) for name in ("correct", "wellformed")},
        "index": isinstance(tree["index"], int),
        "detail": isinstance(tree["detail"], dict),
        "answer": tree["answer"] is None or isinstance(tree["answer"], str),
    }
    wrong = [name for name, good in right.items() if not good]
    if wrong:
        raise ValueError(f"field '{wrong[0]}' has the wrong type")
    return Record(**{**tree, **{name: tuple(tree[name]) for name in _LISTS}})
