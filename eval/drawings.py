"""The charts that evaluators draw: curves over severity or dose, reliability diagrams, divided bars."""

from collections.abc import Mapping, Sequence

from eval.calibration import Bin
from eval.charts import SERIES, Chart, Line, Stack
from eval.evaluator import Figure

QUADRANTS = ("consistent, right", "inconsistent, right", "inconsistent, wrong", "consistent, wrong")


def curve_chart(
    title: str, curves: Mapping[str, Mapping[float, Figure]], across: str, places: Mapping[float, str] | None = None, note: str = ""
) -> Chart:
    """Figures over a number (severity, share of a trace kept, samples): a curve each, with its intervals; undefined ones are left out.

    curve_chart("Accuracy under noise", {"noise": {0: clean, 1: mild}}, "severity", {0: "clean", 1: "1"}). All figures have one unit.
    """
    lines = []
    for i, (label, figures) in enumerate(curves.items()):
        known = [(float(x), figure) for x, figure in sorted(figures.items()) if figure.value is not None]
        points = tuple((x, figure.value) for x, figure in known if figure.value is not None)
        whiskers = tuple((x, f.low, f.high) for x, f in known if f.low is not None and f.high is not None)
        dashed = i % (2 * SERIES) >= SERIES
        if points:
            lines.append(Line(label, points, i % SERIES, dashed=dashed, dots=True, smooth=False, whiskers=whiskers))
    units = {figure.unit for figures in curves.values() for figure in figures.values()}
    share = units <= {"share", "difference"}
    named = tuple((float(x), name) for x, name in (places or {}).items())
    return Chart(title, tuple(lines), note, share=share, whole=units == {"share"}, across=across, places=named)


def reliability_chart(title: str, bins: Mapping[str, Sequence[Bin]], note: str = "") -> Chart:
    """How often a model was right, over how sure it was, per condition; on the dashed diagonal it knows what it knows."""
    diagonal = Line("as sure as right", ((0.0, 0.0), (1.0, 1.0)), SERIES - 1, dashed=True, smooth=False)
    lines = [
        Line(label, tuple((b.confidence, b.accuracy) for b in held), i % (SERIES - 1), dots=True, smooth=False)
        for i, (label, held) in enumerate(bins.items())
        if held
    ]
    return Chart(title, (*lines, diagonal), note, share=True, whole=True, across="confidence", across_share=True)


def bar_chart(title: str, bars: Mapping[str, Mapping[str, int]], note: str = "") -> Chart:
    """Counts as divided bars, one per condition: bar_chart("Trace and answer", {"clean": {"consistent, right": 70, ...}}).

    Bars of nothing are left out; every part stands in every bar. The four of QUADRANTS, in that order, have colours of their own.
    """
    parts = tuple(dict.fromkeys(part for counts in bars.values() for part in counts))
    stacks = []
    for label, counts in bars.items():
        n = sum(counts.values())
        if n:
            stacks.append(Stack(label, tuple((part, counts.get(part, 0) / n) for part in parts), f"n = {n}"))
    return Chart(title, (), note, share=True, stacks=tuple(stacks))
