"""What evaluators found, as a self-contained page, as Markdown and as CSV. Measures nothing: sections come in, files go out.

All text that comes from data or a model is hostile: it reaches the page only through the template's escaping, Markdown through
`eval.wording.escaped`, and the page itself forbids scripts and outside requests.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from eval.charts import Chart, to_svg
from eval.drawings import QUADRANTS
from eval.evaluator import Figure, Section, Study, Table
from eval.examples import Example, convention_of, cut, evaluator_of, examples
from eval.marking import LEGEND
from eval.run_files import Row, read_config
from eval.runner import load_records
from eval.wording import NONE, bounds_text, brief, cell_text, escaped, figures_csv, named, table_markdown, untabled, value_text
from vlm_rl.errors import UserError

log = logging.getLogger(__name__)

REPORT, MARKDOWN, FIGURES = "report.html", "report.md", "figures.csv"
_LONGEST_CELL, _WORDY = 400, 60
_NUMBER = re.compile(r"[<>]?\s?[-+]?\d[\d.,]{0,20}(?:e[-+]?\d{1,3})?%?")


@dataclass(frozen=True)
class Shown:
    """A section as the page shows it. `figures` are those that stand in no table."""

    label: str
    title: str
    words: str
    brief: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    charts: tuple[tuple[Chart, Markup], ...]
    examples: tuple[Example, ...]

    @property
    def legend(self) -> dict[str, str]:
        return legend_of(self.examples)


def write_eval_report(run_dir: Path, sections: Mapping[str, Section], not_run: Mapping[str, str] | None = None) -> Path:
    """Write report.html, report.md and figures.csv into `run_dir`, and return the page's path.

    `not_run` says by label why an evaluator could not run. Examples are read from the run's records.jsonl. Raises UserError where a file
    cannot be written or records cannot be read.
    """
    gaps: list[str] = []
    config_text, config = read_config(run_dir, gaps)
    records = load_records(run_dir / "records.jsonl") if (run_dir / "records.jsonl").exists() else []
    missing = dict(not_run or {})
    ran = {label: section for label, section in sections.items() if label not in missing}
    shown = [_shown(run_dir, label, section, Study({}, records), config) for label, section in ran.items()]
    facts = headline(config, len({record.sample_id for record in records}))
    name = run_dir.resolve().name
    html = (
        environment()
        .get_template("evaluation.html")
        .render(
            name=name,
            facts=facts,
            sections=shown,
            not_run=missing,
            gaps=gaps,
            config=config_text,
        )
    )
    write_aside(run_dir / FIGURES, figures_csv(ran))
    write_aside(run_dir / MARKDOWN, _markdown(name, facts, ran, missing))
    write_aside(run_dir / REPORT, html)
    log.info("wrote %s", run_dir / REPORT)
    return run_dir / REPORT


def environment() -> Environment:
    """Templates of pages, with everything escaped that is not said to be safe."""
    made = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.globals.update(
        value_text=value_text,
        bounds_text=bounds_text,
        cell_text=lambda cell: _short(cell_text(cell)),
        named=named,
        kind_of=_kind,
        none=NONE,
    )
    made.globals.update(part_class=_part_class, is_wordy=_is_wordy)
    return made


def legend_of(cards: Sequence[Example]) -> dict[str, str]:
    """What the marks mean that examples bear."""
    pieces = [piece for card in cards for said in card.said for piece in (*said.trace, *said.asked)]
    borne = {mark for piece in pieces for mark in piece.marks}
    return {mark: words for mark, words in LEGEND.items() if mark in borne}


def write_aside(path: Path, text: str) -> None:
    """Write aside and rename; what UTF-8 cannot hold becomes "?". Raises UserError where it cannot be written."""
    aside = path.with_name(path.name + ".part")
    try:
        aside.write_text(text, encoding="utf-8", errors="replace", newline="\n")
        aside.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}; mend that, then run: vlm-rl report {path.parent}") from None


def headline(config: Row, questions: int) -> list[tuple[str, str]]:
    """A few settings to recognise an evaluation by, from its resolved config."""
    model, data, benchmark = (config.get(key) if isinstance(config.get(key), dict) else {} for key in ("model", "data", "benchmark"))
    facts = {
        "model": (model or {}).get("path") or (model or {}).get("url"),
        "benchmark": (benchmark or {}).get("name"),
        "data": (data or {}).get("name"),
        "split": None if (data or {}).get("name") in ("mixture", "jsonl", "parquet") else (data or {}).get("split"),
        "seed": config.get("seed"),
        "questions": questions or None,
    }
    return [(key, cut(str(value))) for key, value in facts.items() if value is not None]


def _shown(run_dir: Path, label: str, section: Section, study: Study, config: Row) -> Shown:
    charts = tuple((chart, Markup(to_svg(chart)) if chart.lines else Markup()) for chart in section.charts if chart.lines or chart.stacks)
    cards = examples(run_dir, evaluator_of(config, label), section, study, convention_of(config)) if section.marks else []
    return Shown(label, section.title, section.words, brief(section.words), untabled(section), section.tables, charts, tuple(cards))


def _kind(cell: Any) -> str:
    if isinstance(cell, str):
        return "number" if _NUMBER.fullmatch(cell) else "text"
    return "figure" if isinstance(cell, Figure) else "number"


def _is_wordy(table: Table) -> bool:
    """Whether it holds sentences, which need the width of the page."""
    return any(isinstance(cell, str) and len(cell) > _WORDY for row in table.rows for cell in row)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else text[:_LONGEST_CELL] + " ..."


def _part_class(index: int, name: str) -> str:
    """The colour of a part of a divided bar: the four quadrants have their own."""
    return f"q{QUADRANTS.index(name)}" if name in QUADRANTS else f"k{index % 6}"


def _markdown(name: str, facts: Sequence[tuple[str, str]], sections: Mapping[str, Section], not_run: Mapping[str, str]) -> str:
    lines = [f"# {escaped(name)}", ""]
    lines += [", ".join(f"{escaped(key)}: {escaped(value)}" for key, value in facts), ""] if facts else []
    for section in sections.values():
        lines += [f"## {escaped(section.title)}", "", escaped(section.words), ""]
        rest = untabled(section)
        if rest:
            rows = tuple((named(figure.name), figure, figure.note) for figure in rest)
            lines += [table_markdown(Table("Figures", ("figure", "value", "note"), rows))]
        lines += [table_markdown(table) for table in section.tables]
        lines += [table_markdown(_stacked(chart)) for chart in section.charts if chart.stacks]
    if not_run:
        lines += ["## Not run", "", *(f"- {escaped(label)}: {escaped(reason)}" for label, reason in not_run.items()), ""]
    lines += ["Brackets are 95% intervals. Shares and differences are in percent and in points.", ""]
    return "\n".join(lines)


def _stacked(chart: Chart) -> Table:
    names = [part for part, _ in chart.stacks[0].parts]
    rows = tuple((stack.label, *(share for _, share in stack.parts), stack.note) for stack in chart.stacks)
    return Table(chart.title, ("", *names, ""), rows, chart.note)
