"""A comparison of runs as a self-contained page, as Markdown and as CSV. What is compared and said is `eval.comparison`'s work."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from eval.charts import SERIES, Chart, Line, to_svg
from eval.comparison import ACCURACY, REASONING, Change, Measured, changes, in_words, p_text, shared_questions, verdict
from eval.evaluator import Figure, Table
from eval.examples import Example, across_runs
from eval.run_files import spread
from eval.section_report import FIGURES, MARKDOWN, REPORT, environment, legend_of, write_aside
from eval.wording import escaped, inert, named, table_markdown

_CARDS = 4
_ROWS = 14


@dataclass(frozen=True)
class Row:
    """A change as the page shows it. `strip` is (low, value, high) of the difference on a scale from 0 to 100 with no change at 50."""

    change: Change
    p: str
    p_holm: str
    strip: tuple[float, float, float] | None


@dataclass(frozen=True)
class Pair:
    """The first run against one other. `words` are what is said of score and reasoning, `others` what else changed beyond chance."""

    before: str
    after: str
    tone: str
    words: str
    others: str
    groups: tuple[tuple[str, tuple[Row, ...]], ...]
    changed: Mapping[str, tuple[int, tuple[Example, ...]]]


def write_comparison(out: Path, runs: Sequence[tuple[Path, Measured]]) -> Path:
    """Compare the first run with each other; write report.html, report.md and figures.csv into `out` and return the page's path.

    Raises UserError where the runs share no question or differ about one, or where a file cannot be written.
    """
    measured = [run for _, run in runs]
    ids = shared_questions(measured)
    found = [changes(measured[0], other, ids) for other in measured[1:]]
    pairs = [_pair(runs, other, group, ids) for other, group in zip(range(1, len(runs)), found, strict=True)]
    left_out = [(run.name, len(run.study.greedy()) - len(ids)) for run in measured]
    missing = [(run.name, label, reason) for run in measured for label, reason in run.not_run.items()]
    chart = _trade_off(measured)
    html = (
        environment()
        .get_template("comparison.html")
        .render(
            names=[run.name for run in measured],
            pairs=pairs,
            most=_ROWS,
            questions=len(ids),
            left_out=[(name, count) for name, count in left_out if count],
            not_run=missing,
            chart=chart,
            svg=Markup(to_svg(chart)) if chart else None,
            legend=legend_of([example for pair in pairs for _, cards in pair.changed.values() for example in cards]),
        )
    )
    out.mkdir(parents=True, exist_ok=True)
    write_aside(out / FIGURES, _csv(pairs))
    write_aside(out / MARKDOWN, _markdown(pairs, len(ids)))
    write_aside(out / REPORT, html)
    return out / REPORT


def _pair(runs: Sequence[tuple[Path, Measured]], other: int, found: Mapping[str, Sequence[Change]], ids: Sequence[str]) -> Pair:
    before, after = runs[0][1], runs[other][1]
    tone, words = verdict(found)
    groups = tuple((before.sections[label].title, _rows(group)) for label, group in found.items())
    return Pair(before.name, after.name, tone, words, in_words(found), groups, _changed(runs[0], runs[other], ids))


def _rows(group: Sequence[Change]) -> tuple[Row, ...]:
    scales: dict[str, float] = {}
    for change in group:
        if (figure := change.difference) is not None and figure.low is not None and figure.high is not None:
            scales[figure.unit] = max(scales.get(figure.unit, 0.0), abs(figure.low), abs(figure.high))
    return tuple(Row(change, p_text(change.p), p_text(change.p_holm), _strip(change.difference, scales)) for change in group)


def _strip(figure: Figure | None, scales: Mapping[str, float]) -> tuple[float, float, float] | None:
    if figure is None or figure.value is None or figure.low is None or figure.high is None:
        return None
    scale = scales[figure.unit] or 1.0
    low, value, high = (50 + 48 * bound / scale for bound in (figure.low, figure.value, figure.high))
    return low, value, high


def _changed(one: tuple[Path, Measured], other: tuple[Path, Measured], ids: Sequence[str]) -> dict[str, tuple[int, tuple[Example, ...]]]:
    """How many answers changed which way, with a few of them."""
    old, new = one[1].study.greedy(), other[1].study.greedy()
    lost = _consistent(one[1]) - _consistent(other[1])
    kinds = {
        "wrong, then right": [i for i in ids if new[i].correct and not old[i].correct],
        "right, then wrong": [i for i in ids if old[i].correct and not new[i].correct],
        "right both times, but the trace no longer concludes the answer": [
            i for i in ids if old[i].correct and new[i].correct and i in lost
        ],
    }
    sides = [(one[1].name, one[0]), (other[1].name, other[0])]
    return {
        kind: (len(found), tuple(across_runs(sides, (old[i], new[i])) for i in spread(found, _CARDS)))
        for kind, found in kinds.items()
        if found
    }


def _consistent(run: Measured) -> set[str]:
    """Questions whose trace concludes the answer given, by the most trusted classifier the run has."""
    by_name = {(label, figure.name): figure for label, section in run.sections.items() for figure in section.figures}
    figure = next((by_name[key] for key in REASONING if key in by_name), None)
    return set() if figure is None else {i for i, (value, _) in figure.items.items() if value}


def _trade_off(runs: Sequence[Measured]) -> Chart | None:
    """Accuracy across and consistency up, a point a run; None unless all runs have both."""
    key = next((key for key in REASONING if all(_figure(run, key) for run in runs)), None)
    if key is None or not all(_figure(run, ACCURACY) for run in runs):
        return None
    lines = []
    for i, run in enumerate(runs):
        score, reasoning = _figure(run, ACCURACY), _figure(run, key)
        if score is None or reasoning is None or score.value is None or reasoning.value is None:
            return None
        bounds = ((score.value, reasoning.low, reasoning.high),) if reasoning.low is not None and reasoning.high is not None else ()
        lines.append(Line(run.name, ((score.value, reasoning.value),), i % SERIES, dots=True, joined=False, smooth=False, whiskers=bounds))
    note = "up: answers that the trace concludes; across: answers that are right"
    return Chart("Score and reasoning", tuple(lines), note, share=True, whole=True, across="accuracy", across_share=True)


def _figure(run: Measured, key: tuple[str, str]) -> Figure | None:
    label, name = key
    section = run.sections.get(label)
    return next((f for f in section.figures if f.name == name and f.value is not None), None) if section else None


def _csv(pairs: Sequence[Pair]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ("before", "after", "section", "figure", "value before", "value after", "difference", "low", "high", "n", "p", "p_holm")
    )
    for pair in pairs:
        for change in (row.change for _, rows in pair.groups for row in rows):
            d = change.difference
            numbers = (
                change.before.value,
                change.after.value,
                *((d.value, d.low, d.high, d.n) if d else (None,) * 4),
                change.p,
                change.p_holm,
            )
            names = (inert(text) for text in (pair.before, pair.after, change.label, change.name))
            writer.writerow((*names, *("" if number is None else repr(number) for number in numbers)))
    return out.getvalue()


def _markdown(pairs: Sequence[Pair], questions: int) -> str:
    lines = []
    for pair in pairs:
        lines += [f"# {escaped(pair.before)} → {escaped(pair.after)}", "", escaped(f"{pair.words}."), ""]
        lines += [escaped(f"Beyond chance: {pair.others}."), ""] if pair.others else []
        for title, rows in pair.groups:
            columns = ("figure", "change", pair.before, pair.after, "p", "p (Holm)")
            cells = tuple((named(r.change.name), r.change.difference, r.change.before, r.change.after, r.p, r.p_holm) for r in rows)
            lines += [table_markdown(Table(title, columns, cells))]
    lines += [f"{questions} questions, the same in all runs. Brackets are 95% intervals, paired by question.", ""]
    return "\n".join(lines)
