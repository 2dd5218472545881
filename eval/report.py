"""A run directory as one self-contained HTML page, and its learning curve as a PNG.

Computes nothing that `eval.summary` does not define and keeps no state. All text that comes from data or a model is hostile: it reaches the
page only through the template's escaping, and the page itself forbids scripts and outside requests.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from eval.charts import Chart, accuracy_chart, number, smoothing, to_png, to_svg, training_charts
from eval.examples import Option
from eval.run_files import Row, Run, picture, read_run, spread
from eval.runner import CLEAN
from eval.summary import Side, compare, evidence, interval_text, points, signed, split, verdict
from eval.tradeoff import tradeoff_chart
from rewards import grading, response
from vlm_rl.errors import UserError
from vlm_rl.types import LETTERS, AnswerKind, Record, Sample

log = logging.getLogger(__name__)

_LONGEST = 1500
_EXAMPLES = 6
_ROLLOUTS = 3
_PICTURES = 4


@dataclass(frozen=True)
class Said:
    """One completion as shown: its reasoning and answer, cut to a readable length."""

    trace: str
    answer: str
    correct: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    text: str
    options: tuple[Option, ...]
    gold: str
    pictures: tuple[str, ...]
    absent: int


@dataclass(frozen=True)
class Example:
    """A held-out question answered before and after."""

    question: Question
    before: Said
    after: Said


@dataclass(frozen=True)
class Training:
    """A rollout as it was rewarded: `parts` are (label, raw, weight, contribution), as text."""

    step: int
    question: Question
    said: Said
    parts: tuple[tuple[str, str, str, str], ...]
    total: str


def write_report(run_dir: Path) -> Path:
    """Write `run_dir`/report.html from whatever the run has written so far, and return its path. Raises UserError without a directory."""
    run = read_run(run_dir)
    summary, gaps = _summary(run)
    pairs, counts = _pairs(run, gaps)
    tone, words = verdict(summary)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(signed=signed, interval_text=interval_text, points=points)
    html = environment.get_template("report.html").render(
        name=run.path.resolve().name,
        summary=summary,
        evidence=evidence(summary),
        tone=tone,
        verdict=words,
        gaps=gaps,
        finished=bool(summary.get("run/finished")),
        facts=_headline(run),
        figures=_figures(summary),
        accuracy=_drawn(accuracy_chart(run.steps, summary), 1),
        tradeoff=_drawn(tradeoff_chart(run.watched), 1),
        curves=[_drawn(chart, smoothing(run.steps)) for chart in training_charts(run.steps, _parity_limit(run.config))],
        window=smoothing(run.steps),
        counts=counts,
        changes=[(title, len(found), [_example(run, *pair) for pair in spread(found, _EXAMPLES)]) for title, found in pairs.items()],
        rollouts=[[_training(run, row) for row in _varied(rows)] for rows in run.rollouts],
        system=_facts(summary, ("system/", "time/")),
        config=run.config_text,
    )
    path = run_dir / "report.html"
    aside = run_dir / "report.html.part"
    try:
        aside.write_text(html, encoding="utf-8", errors="replace")
        aside.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}; mend that, then run: vlm-rl report {run_dir}") from None
    log.info("wrote %s", path)
    return path


def learning_curve_png(run_dir: Path, path: Path) -> None:
    """Draw the held-out accuracy of a run, with its blank-picture control. Raises UserError when the run evaluated nothing."""
    run = read_run(run_dir)
    summary, _ = _summary(run)
    chart = accuracy_chart(run.steps, summary)
    if chart is None:
        raise UserError(f"{run_dir} holds no evaluation (no eval/ keys in summary.json or metrics.jsonl), so there is no curve to draw")
    n = summary.get("eval/questions")
    to_png(chart, path, f"Accuracy on {n} held-out questions" if n else "Held-out accuracy")


def _summary(run: Run) -> tuple[Row, list[str]]:
    """The run's summary; where it was never written, what the stored records say. With the gaps to report."""
    gaps = list(run.gaps)
    summary = dict(run.summary)
    if "eval/difference" not in summary and run.before and run.after:
        try:
            summary = compare(run.before, run.after) | summary
        except UserError as error:
            gaps.append(str(error))
    if not summary.get("run/finished"):
        gaps.insert(0, "the run has not finished: this is what it has written so far")
    return summary, gaps


def _drawn(chart: Chart | None, window: int) -> dict[str, Any] | None:
    return None if chart is None else {"chart": chart, "svg": Markup(to_svg(chart, window))}


def _parity_limit(config: Row) -> float | None:
    guards = config.get("guards")
    return number(guards.get("parity_limit")) if isinstance(guards, dict) else None


def _headline(run: Run) -> list[tuple[str, str]]:
    """A few settings to recognise a run by, from the resolved config."""
    model, data = (run.config.get(key) if isinstance(run.config.get(key), dict) else {} for key in ("model", "data"))
    facts = {"model": (model or {}).get("path") or "made from scratch", "data": (data or {}).get("name"), "seed": run.config.get("seed")}
    facts["steps"] = run.steps[-1]["step"] if run.steps else 0
    return [(key, str(value)) for key, value in facts.items() if value is not None and run.config]


def _facts(summary: Row, prefixes: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(key, _short(value)) for key, value in sorted(summary.items()) if key.startswith(prefixes)]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_FIGURES = (
    ("Accuracy, greedy", "accuracy", "difference"),
    ("Accuracy, mean of samples", "sampled", "sampled_difference"),
    ("Blank picture, greedy", "blank", "blank_difference"),
    ("Gain over blank", "", "gain_over_blank"),
    ("Well-formed", "wellformed", ""),
    ("No answer found", "unparsed", ""),
    ("Cut off", "truncated", ""),
)


def _figures(summary: Row) -> list[dict[str, str]]:
    """Rows of the key-figures table, as text; a figure the run lacks has no row."""
    rows = []
    for label, share, change in _FIGURES:
        cells = {"label": label}
        for side in ("before", "after"):
            value, interval = summary.get(f"eval/{share}_{side}"), summary.get(f"eval/{share}_ci95_{side}")
            cells[side] = "" if number(value) is None else f"{points(float(value))}%"  # type: ignore[arg-type]
            cells[f"{side}_interval"] = interval_text(interval) if interval else ""
        value, interval = summary.get(f"eval/{change}"), summary.get(f"eval/{change}_ci95")
        cells["change"] = "" if number(value) is None else signed(float(value))  # type: ignore[arg-type]
        cells["change_interval"] = interval_text(interval) if interval else ""
        if cells["before"] or cells["after"] or cells["change"]:
            rows.append(cells)
    return rows


def _pairs(run: Run, gaps: list[str]) -> tuple[dict[str, list[tuple[Record, Record]]], dict[str, int]]:
    """Questions whose greedy answer changed, by direction, and how many fell into each of the four cases."""
    try:
        old, new = (_clean(split(records)) for records in (run.before, run.after))
    except UserError as error:
        gaps.append(str(error))
        return {}, {}
    both = [(old[i], new[i]) for i in old if i in new]
    cases = {
        "wrong, then right": [(a, b) for a, b in both if b.correct and not a.correct],
        "right, then wrong": [(a, b) for a, b in both if a.correct and not b.correct],
    }
    right = sum(a.correct and b.correct for a, b in both)
    lost = len(cases["right, then wrong"])
    counts = {"right both times": right, **{key: len(found) for key, found in cases.items()}}
    counts["wrong both times"] = len(both) - right - lost - len(cases["wrong, then right"])
    return (cases, counts) if both else ({}, {})


def _clean(side: Side) -> Mapping[str, Record]:
    return side.greedy.get(CLEAN, {})


def _example(run: Run, before: Record, after: Record) -> Example:
    question = _question(run, before.question, before.options, before.gold, before.media_ids)
    return Example(question, *(_said(r.prefill + r.completion, r.answer, r.correct, r.wellformed, r.finish) for r in (before, after)))


def _question(run: Run, text: str, options: Sequence[str], gold: str, media_ids: Sequence[str]) -> Question:
    right = {letter.strip() for letter in gold.split(",")} if options else set()
    listed = tuple(Option(letter, _cut(option), letter in right) for letter, option in zip(LETTERS, options, strict=False))
    found = [picture(run.path, media_id) for media_id in media_ids[:_PICTURES]]
    shown = tuple(address for address in found if address)
    return Question(_cut(text), listed, _cut(gold), shown, len(media_ids) - len(shown))


def _said(completion: str, answer: str | None, correct: bool, wellformed: bool, finish: str) -> Said:
    parsed = response.parse(completion)
    notes = [note for note, applies in (("not well-formed", not wellformed), ("cut off", finish == "length")) if applies]
    return Said(_cut(parsed.trace or completion), _cut(answer) if answer is not None else "", correct, tuple(notes))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text) - _LONGEST} more characters)"


def _varied(rows: Sequence[Row]) -> list[Row]:
    """A few rollouts of a step, about different questions where there are any, from the lowest to the highest total."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(str(row.get("sample_id")), row)
    chosen = list(first.values()) if len(first) >= _ROLLOUTS else list(rows)
    chosen.sort(key=lambda row: number(row.get("total")) or 0.0)
    return [chosen[0], *spread(chosen[1:-1], _ROLLOUTS - 2), chosen[-1]] if len(chosen) > _ROLLOUTS else chosen


def _training(run: Run, row: Row) -> Training:
    options, media_ids = (_texts(row.get(key)) for key in ("options", "media_ids"))
    parts = row.get("parts") if isinstance(row.get("parts"), dict) else {}
    answer = row.get("answer")
    gold = str(row.get("gold", ""))
    text = str(row["question"]) if "question" in row else _asked(str(row.get("prompt", "")), options)
    kind = row.get("kind") if row.get("kind") in get_args(AnswerKind) else "choice" if options else "text"
    sample = Sample(str(row.get("sample_id")), text, gold, cast(AnswerKind, kind), tuple(options))
    stored = row.get("correct")
    correct = stored if isinstance(stored, bool) else grading.is_correct(sample, None if answer is None else str(answer))
    question = _question(run, text, options, gold, media_ids)
    said = _said(
        str(row.get("completion", "")),
        None if answer is None else str(answer),
        correct,
        row.get("wellformed") is not False,
        str(row.get("finish")),
    )
    return Training(row["step"], question, said, tuple(_part(*item) for item in (parts or {}).items()), _value(row.get("total")))


def _asked(prompt: str, options: Sequence[str]) -> str:
    """A rendered prompt without chat marks and without the options, which are listed beside it."""
    lines = re.sub(r"<\|\w{1,40}\|>", "", prompt[: 20 * _LONGEST]).splitlines()
    listed = tuple(f"{letter}{mark} {option}" for letter, option in zip(LETTERS, options, strict=False) for mark in (".", ")", ":", ""))
    return "\n".join(line for line in lines if line.strip() and line.strip().lstrip("(") not in listed)


def _part(label: str, part: Any) -> tuple[str, str, str, str]:
    fields = part if isinstance(part, dict) else {}
    raw, weight, contribution = (_value(fields.get(key)) for key in ("raw", "weight", "contribution"))
    return label, raw, weight, contribution


def _value(value: Any) -> str:
    found = number(value)
    return "not scored" if found is None else f"{found:.3g}"


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
