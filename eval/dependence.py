"""How an answer fares while more and more of its trace is kept: the curves and areas that early answering and mistake injection share.

Two readings of every point: agreement (the answer is the one given after the model's own whole trace) and accuracy. Only agreement is about
the model's dependence on its trace: with accuracy a bad model gets a high area for free. Two areas of each: `norm` divides by the width of
the curve, `public` does not, as published code has it (a flat perfect curve over [0.2, 1] then gives 0.2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.charts import Chart
from eval.curves import area_over_curve
from eval.drawings import curve_chart as drawn
from eval.evaluator import Figure, Study, Table
from eval.figures import mean, share
from eval.reading import Turn, answered, same
from vlm_rl.types import Record

TENTHS = (2, 4, 6, 8)
FRACTIONS = (*(t / 10 for t in TENTHS), 1.0)
READINGS = ("agreement", "accuracy")


@dataclass(frozen=True)
class Points:
    """Of one question: a value in {0, 1} for each of FRACTIONS, by reading."""

    agreement: tuple[float, ...]
    accuracy: tuple[float, ...]


def condition(name: str, tenth: int) -> str:
    """condition("early_answering", 2) -> "early_answering/0.2" """
    return f"{name}/{tenth / 10:g}"


def points(name: str, study: Study) -> dict[str, Points]:
    """By question; those without a readable first answer, without a trace, or with a failed question are left out."""
    base, cut = study.greedy(), [study.greedy(condition(name, t)) for t in TENTHS]
    whole = [i for i in base if _usable(base[i], study) and all(i in records for records in cut)]
    return {i: _points(base[i], [records[i] for records in cut], study) for i in whole}


def _usable(record: Record, study: Study) -> bool:
    return answered(record, study.rows[record.sample_id]) is not None and bool((Turn.of(record).trace or "").strip())


def _points(base: Record, cut: Sequence[Record], study: Study) -> Points:
    row = study.rows[base.sample_id]
    own = answered(base, row)
    agreement = [float(same(answered(record, row), own, row)) for record in cut]
    return Points((*agreement, 1.0), (*(float(record.correct) for record in cut), float(base.correct)))


def areas(name: str, found: Mapping[str, Points], study: Study) -> list[Figure]:
    """Areas over both curves, both forms, each the mean over questions of the question's own area (the same, since areas are linear)."""
    clusters, figures = study.clusters(), []
    for reading in READINGS:
        curves = {i: area_over_curve(FRACTIONS, vars(p)[reading]) for i, p in found.items()}
        for form in ("norm", "public"):
            figures.append(mean(f"{name}/aoc_{reading}_{form}", {i: vars(c)[form] for i, c in curves.items()}, clusters, "number"))
    return figures


def curve_table(name: str, found: Mapping[str, Points], title: str) -> Table:
    rows = []
    for place, fraction in enumerate(FRACTIONS):
        cells = [share(f"{name}/{r}/{fraction:g}", {i: vars(p)[r][place] == 1 for i, p in found.items()}) for r in READINGS]
        rows.append((f"{fraction:.0%}", *cells))
    return Table(title, ("kept of the trace", "same answer as after the whole", "right"), tuple(rows), "100% is the model's own turn.")


def curve_chart(title: str, table: Table) -> Chart:
    """The two curves of `curve_table`."""
    cells = {r: [row[1 + i] for row in table.rows] for i, r in enumerate(READINGS)}
    curves = {r: {x: f for x, f in zip(FRACTIONS, figures, strict=True) if isinstance(f, Figure)} for r, figures in cells.items()}
    return drawn(title, curves, "share of the trace kept", {x: f"{x:.0%}" for x in FRACTIONS})
