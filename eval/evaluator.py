"""What an evaluator is: it asks about one question as a reward asks about a group, and what it measures is read from stored records alone.

`rounds` may ask any number of times and returns records; `measure` turns the records of a whole data set into a section of the report and
never needs a model, so stored records can be measured again. An evaluator does no input or output and holds no engine.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from eval.charts import Chart
from eval.runner import CLEAN, graded_record
from rewards import response
from rewards.rounds import Ask, Course, run_together
from vlm_rl.types import Query, Record, Reply, Sample, Sampling

CAPABILITIES = {
    "prefill": "begin the answer of the model (assistant prefill)",
    "score": "tell the log-probs of a given continuation",
    "alternatives": "tell the log-probs of the likeliest first tokens",
}
Rounds = Generator[Sequence[Query], Sequence[Reply], Sequence[Record]]
Unit = Literal["share", "difference", "nats", "count", "number"]


@dataclass(frozen=True, eq=False)
class Case:
    """One question under evaluation, already answered as it is: `records` holds the greedy clean answer first, then sampled ones.

    `seed` = hash(run seed, row id): every draw about the question derives from it. `others` are rows to borrow a picture or caption from,
    never the row itself. `greedy` are the limits of a greedy answer. `able` are those of CAPABILITIES that the policy's engine has, for
    evaluators that can do a part of their work without some.
    """

    row: Sample
    records: tuple[Record, ...]
    seed: int
    greedy: Sampling
    others: Sequence[Sample] = ()
    able: frozenset[str] = frozenset(CAPABILITIES)

    @property
    def base(self) -> Record:
        return self.records[0]

    @property
    def trace(self) -> str:
        """The reasoning of the greedy clean answer, without tags; "" where it has none."""
        return response.parse(self.base.prefill + self.base.completion).trace or ""

    def record(self, condition: str, shown: Sample, reply: Reply, index: int = 0, **detail: Any) -> Record:
        """`reply` to `shown` as a graded record. A failed reply (`reply.error`) is kept as one that is answered by nothing, with
        detail["error"]: it is left out of every share and counted. `detail` holds JSON values only."""
        return graded_record(self.row.id, condition, shown, reply, index=index, detail=detail)


@dataclass(frozen=True, eq=False)
class Study:
    """What `measure` sees: the questions (without media, as they are stored) and every record of the run."""

    rows: Mapping[str, Sample]
    records: Sequence[Record]

    def greedy(self, condition: str = CLEAN) -> dict[str, Record]:
        """Greedy answers of a condition by question; failed ones are left out (see `failed`)."""
        return {r.sample_id: r for r in self.of(condition) if r.mode == "greedy" and "error" not in r.detail}

    def of(self, condition: str) -> list[Record]:
        return [r for r in self.records if r.condition == condition]

    def failed(self, condition: str) -> int:
        """How many questions of a condition could not be asked or were not answered."""
        return sum("error" in r.detail for r in self.of(condition))

    def conditions(self, prefix: str = "") -> tuple[str, ...]:
        """In the order first met."""
        return tuple(dict.fromkeys(r.condition for r in self.records if r.condition.startswith(prefix)))

    def clusters(self) -> dict[str, Any]:
        """What each question stands or falls with: its pictures, or itself where it has none."""
        return {i: record.media_ids or i for i, record in self.greedy().items()}


@dataclass(frozen=True)
class Figure:
    """One number of the report: Figure("drop/wrong_think", 0.25, n=400, low=0.2, high=0.3, unit="difference")

    `value` None means "not defined" (nothing to divide by), said with n = 0 or in `note`; it is never 0 for that reason. `items` is what
    each question adds to it, id -> (numerator, denominator), value = sum / sum: two runs are compared question by question through it, and
    a figure without it (an AUROC) only by its two values. `eval.figures` makes figures with all of this.
    """

    name: str
    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    unit: Unit = "share"
    note: str = ""
    items: Mapping[str, tuple[float, float]] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Table:
    """Cells are numbers (shares are shown in percent), figures (shown with interval and n) or text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | Figure | None, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """What one evaluator found. `words` is what a researcher would write about it, `marks` are ids of questions worth looking at."""

    title: str
    words: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    marks: tuple[str, ...] = ()


class Evaluator:
    """Base class. One that asks nothing (it reads what is there) leaves `rounds` as it is.

    `needs` are entries of CAPABILITIES without which it is reported as not run; `targets` are judges of the config that it asks.
    Conditions of its records begin with its own name and a slash ("perturb/wrong_think").
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    targets: Sequence[str] = ()

    def rounds(self, case: Case) -> Rounds:
        """`replies = yield queries` any number of times, then `return records`."""
        yield from ()
        return ()

    def shown(self, case: Case) -> Mapping[str, Sample]:
        """The question as conditions show it, by the condition of their records, where they change its pictures or frames: a report shows
        those beside the clean ones. `case` may be without records."""
        return {}

    def measure(self, study: Study) -> Section:
        raise NotImplementedError(f"{type(self).__name__} has no measure(study)")


def examine(cases: Sequence[Case], evaluators: Mapping[str, Evaluator], ask: Ask) -> list[Record]:
    """All evaluators on all cases, round by round: one `ask` call a round for all of them together. Records by case, then evaluator."""
    courses = [
        Course(f"evaluator '{label}', question '{case.row.id}'", evaluator.rounds(case))
        for case in cases
        for label, evaluator in evaluators.items()
    ]
    run_together(courses, ask)
    return [record for course in courses for record in course.result or ()]
