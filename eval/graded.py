"""Answers of a benchmark with their grades: what official metrics are computed from. Asks no model and knows no benchmark."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from eval.captions import judged, refuse_unjudged
from eval.runner import CLEAN
from rewards import grading
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Record, Sample

_LONGEST_BARE = 120


@dataclass(frozen=True)
class Graded:
    """One answer: `score` in [0, 1] by the sample's own rule, `parsed` False when it could not be read (wrong, and counted apart)."""

    sample: Sample
    answer: str | None
    score: float
    parsed: bool


@dataclass(frozen=True)
class OfficialResult:
    """What a benchmark reports: `headline` and `parts` are shares in [0, 1] or counts ("category/x", and "category/x/n" beside it).

    `units`, where the headline is a mean over groups of questions: the value of each group, in [0, 1].

    OfficialResult("pope", 0.86, n=3000, parts={"accuracy": 0.85, ...}, unparsed=2)
    """

    name: str
    headline: float
    n: int
    parts: Mapping[str, float] = field(default_factory=dict)
    unparsed: int = 0
    units: tuple[float, ...] = ()


Metric = Callable[[str, Sequence[Graded]], OfficialResult]


def grade_answers(samples: Iterable[Sample], answers: Mapping[str, str | None]) -> list[Graded]:
    """Grade one parsed answer per sample, by sample id, in the samples' order.

    Raises UserError when a key is hidden or a judge is needed, RowError when a sample has no answer or its gold answer cannot be graded.
    """
    rows = list(samples)
    refuse_unjudged(rows, None)
    _refuse_unanswered(rows, answers)
    return [_graded(row, answers[row.id]) for row in rows]


def _refuse_unanswered(rows: Sequence[Sample], answers: Container[str]) -> None:
    hidden = [row.id for row in rows if not row.answer.strip()]
    if hidden:
        raise UserError(
            f"{len(hidden)} of {len(rows)} questions have no gold answer ({hidden[0]}, ...): this split hides its keys. "
            "Answers can be written out and sent to the benchmark's server, not scored here; choose a split with keys"
        )
    missing = [row.id for row in rows if row.id not in answers]
    if missing:
        raise RowError(missing[0], f"no answer to this question; {len(missing)} of {len(rows)} are missing, and none may be left out")


def _graded(sample: Sample, answer: str | None) -> Graded:
    parsed = grading.readable(sample, answer)
    return Graded(sample, answer, grading.grade(sample, answer) if parsed else 0.0, parsed)


def graded_records(samples: Iterable[Sample], records: Sequence[Record], condition: str = CLEAN) -> list[Graded]:
    """Grade the greedy records of one condition again, with no model. Raises as `grade_answers`, and for a repeated record.

    What a judge graded keeps its grade. A finished reply in which no answer was marked, and which is one short line beside its reasoning,
    is itself the answer: benchmarks also ask for a bare letter, word or number.
    """
    greedy: dict[str, Record] = {}
    for record in records:
        if record.condition != condition or record.mode != "greedy":
            continue
        if record.sample_id in greedy:
            raise RowError(record.sample_id, f"two greedy answers in condition '{condition}'")
        greedy[record.sample_id] = record
    rows = list(samples)
    _refuse_unanswered(rows, greedy)
    return [_from_record(row, greedy[row.id]) for row in rows]


def _from_record(sample: Sample, record: Record) -> Graded:
    if judged(sample):
        return Graded(sample, record.answer, float(record.correct), bool(record.answer and record.answer.strip()))
    return _graded(sample, record.answer if record.answer is not None else _bare(record))


def _bare(record: Record) -> str | None:
    body = (record.prefill + record.completion).rpartition("</think>")[2].strip()
    plain = record.finish == "stop" and 0 < len(body) <= _LONGEST_BARE and "\n" not in body and "<" not in body
    return body if plain else None


def mean(scores: Iterable[float]) -> float:
    """Raises ValueError for none: a mean over nothing is not 0."""
    values = list(scores)
    if not values:
        raise ValueError("a mean over no scores")
    return sum(values) / len(values)


def grouped(graded: Iterable[Graded], key: str) -> dict[str, list[Graded]]:
    """By `meta[key]`; a row whose value is a list belongs to each of its entries, one without a value to none."""
    groups: dict[str, list[Graded]] = {}
    for item in graded:
        value = item.sample.meta.get(key)
        for name in value if isinstance(value, (list, tuple)) else [value]:
            if name not in (None, ""):
                groups.setdefault(str(name), []).append(item)
    return dict(sorted(groups.items()))


def table(graded: Iterable[Graded], *keys: str) -> dict[str, float]:
    """Mean score and n per value of each key: {"subject/Art": 0.5, "subject/Art/n": 30}"""
    rows: dict[str, float] = {}
    for key in keys:
        for name, items in grouped(graded, key).items():
            rows |= {f"{key}/{name}": mean(i.score for i in items), f"{key}/{name}/n": float(len(items))}
    return rows


def result(name: str, headline: float, graded: Sequence[Graded], parts: Mapping[str, float]) -> OfficialResult:
    return OfficialResult(name, headline, len(graded), parts, sum(not item.parsed for item in graded))


def accuracy(*keys: str) -> Metric:
    """Headline: the mean score over items. Tables by these meta keys."""

    def metric(name: str, graded: Sequence[Graded]) -> OfficialResult:
        return result(name, mean(item.score for item in graded), graded, table(graded, *keys))

    return metric


def macro(key: str, *keys: str) -> Metric:
    """Headline: the plain mean over the values of `meta[key]` of their mean scores. Tables by it and `keys`; "items" is the item mean."""

    def metric(name: str, graded: Sequence[Graded]) -> OfficialResult:
        over_items = mean(item.score for item in graded)
        groups = grouped(graded, key).values()
        headline = mean(mean(item.score for item in group) for group in groups) if groups else over_items
        return result(name, headline, graded, {"items": over_items, **table(graded, key, *keys)})

    return metric
