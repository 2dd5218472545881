"""Charts of runs and evaluations: what is drawn, and how curves become inline SVG or a PNG. Bars are drawn by the page.

An SVG takes its colours from CSS variables of the page it stands in (`--ink`, `--line`, `--c0` ... `--c5`), so one drawing serves light and
dark pages. Titles and legends belong to the page: labels are the user's text, and drawn text cannot wrap.
"""

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

Row = Mapping[str, Any]
Point = tuple[float, float]
SERIES = 6
_MOST_POINTS = 1200
_LONGEST_NAME = 40
_SIZE = (4.7, 2.75)


@dataclass(frozen=True)
class Line:
    """One named curve in series colour `colour` (0 to 5); `joined` False draws dots only. `whiskers` are (x, low, high) intervals at single
    points, `band` the same as a shaded region along the curve."""

    label: str
    points: tuple[Point, ...]
    colour: int = 0
    dashed: bool = False
    dots: bool = False
    joined: bool = True
    smooth: bool = True
    whiskers: tuple[tuple[float, float, float], ...] = ()
    band: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Stack:
    """One bar, divided into named shares of it: Stack("clean", (("right", 0.7), ("wrong", 0.3)), "n = 200")"""

    label: str
    parts: tuple[tuple[str, float], ...]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """Curves over training steps, or over what `across` names; or `stacks` of bars, which have the same parts in the same order.

    `limit` is a line not to be crossed. `share`: up is a percentage; `whole`: from 0 to 1; `across_share`: so is across. `places` names
    places across: ((0.0, "clean"), (1.0, "1")).
    """

    title: str
    lines: tuple[Line, ...]
    note: str = ""
    share: bool = False
    whole: bool = False
    log: bool = False
    limit: float | None = None
    across: str = "step"
    across_share: bool = False
    places: tuple[tuple[float, str], ...] = ()
    stacks: tuple[Stack, ...] = ()


@dataclass(frozen=True)
class Palette:
    ink: str
    line: str
    series: tuple[str, ...]


_PAPER = Palette("#22262b", "#d5d9de", ("#2f6fde", "#d2691e", "#23936b", "#a8489a", "#8a7a2b", "#4f8a9c"))
# colours that nothing else in a drawing has, to be replaced by the page's variables
_MARKS = Palette("#010a01", "#010a02", tuple(f"#010b{i:02x}" for i in range(SERIES)))


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def _points(steps: Sequence[Row], key: str) -> tuple[Point, ...]:
    found = [(float(row["step"]), value) for row in steps if (value := number(row.get(key))) is not None]
    return tuple(found[:: max(1, -(-len(found) // _MOST_POINTS))])


def smoothing(steps: Sequence[Row]) -> int:
    """How many neighbouring steps the bold curves average over."""
    return max(1, min(len(steps), _MOST_POINTS) // 20)


def _chart(steps: Sequence[Row], chart: Chart, series: Mapping[str, str]) -> Chart | None:
    """`chart` with a line per key that was logged (`series`: key -> label); None when none was."""
    found = [(label, _points(steps, key)) for key, label in series.items()]
    lines = tuple(Line(label, points, colour=i % SERIES, dashed=i >= SERIES) for i, (label, points) in enumerate(found) if points)
    return replace(chart, lines=lines) if lines else None


def accuracy_chart(steps: Sequence[Row], summary: Row) -> Chart | None:
    """Held-out accuracy over steps, between the evaluations before and after, with the blank-picture control."""
    last = max((float(row["step"]) for row in steps), default=1.0)
    during = _points(steps, "eval/accuracy")
    lines = [Line("fewer questions, during training", during, 0, dots=True, smooth=False)] if during else []
    for colour, key, label in ((0, "accuracy", "held-out questions, greedy"), (1, "blank", "the same with a blank picture")):
        ends = [(x, key, side) for x, side in ((0.0, "before"), (last, "after")) if number(summary.get(f"eval/{key}_{side}")) is not None]
        points = tuple((x, float(summary[f"eval/{key}_{side}"])) for x, key, side in ends)
        bounds = [(x, summary.get(f"eval/{key}_ci95_{side}")) for x, key, side in ends]
        whiskers = tuple((x, float(pair[0]), float(pair[1])) for x, pair in bounds if isinstance(pair, list) and len(pair) == 2)
        if points:
            joined = colour > 0 or not during
            lines.append(Line(label, points, colour, dashed=True, dots=True, joined=joined, smooth=False, whiskers=whiskers))
    return Chart("Held-out accuracy", tuple(lines), share=True, whole=True) if lines else None


def training_charts(steps: Sequence[Row], parity_limit: float | None) -> list[Chart]:
    """Every other curve that the run logged."""
    labels = dict.fromkeys(key.split("/")[1] for row in steps for key in row if key.startswith("reward/") and key.endswith("/contribution"))
    parts = {f"reward/{label}/contribution": label for label in labels}
    kl = any(y != 0 for _, y in _points(steps, "loss/kl"))
    wanted = (
        (Chart("Reward", (), "total and each part's contribution (weight x value)"), {"reward/total": "total", **parts}),
        (Chart("Form", (), "share of completions", share=True), {"rollout/wellformed": "well-formed", "rollout/truncated": "cut off"}),
        (Chart("Completion length", (), "mean tokens"), {"rollout/length": "tokens"}),
        (Chart("Entropy", (), "nats per token; near 0 the policy has stopped exploring"), {"rollout/entropy": "entropy"}),
        (Chart("Loss", ()), {"loss/total": "loss", **({"loss/kl": "KL to the reference"} if kl else {})}),
        (Chart("Gradient norm", (), "before clipping"), {"loss/grad_norm": "norm"}),
        (Chart("Clipped tokens", (), "share of tokens", share=True), {"loss/clip_low": "lower bound", "loss/clip_high": "upper bound"}),
        (Chart("Dropped groups", (), "groups whose rewards were all equal: nothing to learn from"), {"algo/dropped_groups": "groups"}),
        (
            Chart("Parity guard", (), "mean |log-prob of the engine - of the trainer| per token", log=True, limit=parity_limit),
            {"guard/logprob_diff": "difference"},
        ),
    )
    return [chart for blank, series in wanted if (chart := _chart(steps, blank, series)) is not None]


def to_svg(chart: Chart, window: int = 1) -> str:
    """An inline <svg> without titles, ids of its own, metadata or outside addresses."""
    name = "v" + re.sub(r"\W", "", chart.title)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False, "font.size": 9}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        _draw(figure.add_subplot(), chart, _MARKS, window)
        text = io.StringIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser draws the text, with its own fonts
            figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'<svg width="[^"]*" height="[^"]*"', "<svg", svg.replace("<svg  ", "<svg "))
    for i, mark in enumerate(_MARKS.series):
        svg = svg.replace(mark, f"var(--c{i})")
    return svg.replace(_MARKS.ink, "var(--ink)").replace(_MARKS.line, "var(--line)")


def to_png(chart: Chart, path: Path, heading: str = "") -> None:
    """A picture on white for a page that cannot style SVG, with its legend drawn in."""
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 10}):
        figure = Figure(figsize=(7.2, 4.0), dpi=160, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _draw(axes, chart, _PAPER, 1)
        axes.set_title(heading or chart.title, loc="left", color=_PAPER.ink, fontsize=11)
        figure.legend(frameon=False, loc="outside lower center", ncols=len(chart.lines), labelcolor=_PAPER.ink, fontsize=8.5)
        figure.savefig(path, format="png")


def _draw(axes: Axes, chart: Chart, palette: Palette, window: int) -> None:
    for line in chart.lines:
        _draw_line(axes, line, palette.series[line.colour], window if line.smooth else 1)
    if chart.limit is not None:
        axes.axhline(chart.limit, color=palette.series[1], linewidth=1.2, linestyle=(0, (4, 3)))
    _scale(axes, chart)
    axes.set_facecolor("none")
    axes.grid(axis="y", color=palette.line, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(palette.line)
    axes.tick_params(which="both", colors=palette.ink, length=0)
    axes.tick_params(axis="x", length=3, color=palette.line)
    axes.set_xlabel(_drawable(chart.across), color=palette.ink)


def _scale(axes: Axes, chart: Chart) -> None:
    positive = all(y > 0 for line in chart.lines for _, y in line.points)
    _scale_across(axes, chart)
    if chart.log and positive:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0e}".replace("e-0", "e-").replace("e+0", "e")))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if chart.share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        if all(y >= 0 for line in chart.lines for y in (*(y for _, y in line.points), *(low for _, low, _ in line.whiskers))):
            axes.set_ylim(bottom=0)
    if chart.whole:
        axes.set_ylim(0, 1)


def _scale_across(axes: Axes, chart: Chart) -> None:
    if chart.places:
        axes.set_xticks([x for x, _ in chart.places], [_drawable(name) for _, name in chart.places])
    elif chart.across_share:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlim(0, 1)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _drawable(text: str) -> str:
    """A name as fonts and XML can take it: one short line."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)[:_LONGEST_NAME]


def _draw_line(axes: Axes, line: Line, colour: str, window: int) -> None:
    xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
    style: dict[str, Any] = {"color": colour, "linestyle": "none" if not line.joined else (0, (4, 2)) if line.dashed else "-"}
    marker = "o" if line.dots or len(xs) == 1 else ""
    if window > 1:
        axes.plot(xs, ys, alpha=0.28, linewidth=0.9, **style)
        ys = _mean_of_neighbours(ys, window)
    axes.plot(xs, ys, linewidth=1.8, marker=marker, markersize=4.5 if line.joined else 7, label=line.label, clip_on=False, **style)
    if line.band:
        across, lows, highs = zip(*line.band, strict=True)
        axes.fill_between(across, lows, highs, color=colour, alpha=0.16, linewidth=0)
    for x, low, high in line.whiskers:
        axes.plot([x, x], [low, high], color=colour, linewidth=1.4, clip_on=False)


def _mean_of_neighbours(values: Sequence[float], window: int) -> list[float]:
    half = window // 2
    spans = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(span) / len(span) for span in spans]
