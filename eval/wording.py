"""How figures, cells and names are written: for pages, Markdown and CSV. Shares and differences in percent, "–" for what is not defined."""

import csv
import io
import re
from collections.abc import Mapping

from eval.evaluator import Figure, Section, Table

Cell = str | float | Figure | None
NONE = "–"
_BRIEF = 280
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>&<$@:=^])")


def named(name: str) -> str:
    """A figure's name for readers: "drop/wrong_think" -> "drop · wrong think"."""
    return name.replace("_", " ").replace("/", " · ")


def value_text(figure: Figure) -> str:
    """The value alone: "62.5%", "+3.2", "1.37", "12", "–"."""
    if figure.value is None:
        return NONE
    if figure.unit == "count":
        return f"{figure.value:.0f}"
    points = {"share": f"{_points(figure.value):.1f}%", "difference": f"{_points(figure.value):+.1f}"}
    return points.get(figure.unit, _fixed(figure.value, figure.value))


def bounds_text(figure: Figure) -> str:
    """Its interval, "[46.0, 77.0]"; empty where it has none."""
    if figure.value is None or figure.low is None or figure.high is None:
        return ""
    if figure.unit in ("share", "difference"):
        return f"[{_points(figure.low):.1f}, {_points(figure.high):.1f}]"
    return f"[{_fixed(figure.low, figure.value)}, {_fixed(figure.high, figure.value)}]"


def _fixed(number: float, scale: float) -> str:
    """With as many digits as a number of this size needs: three where it is below 1, none above 100."""
    digits = 3 if abs(scale) < 1 else 2 if abs(scale) < 100 else 0
    return f"{round(number, digits) + 0.0:.{digits}f}"


def cell_text(cell: Cell) -> str:
    """A cell of a table as one line: shares in percent, figures with interval and n."""
    if cell is None:
        return NONE
    if isinstance(cell, Figure):
        return " ".join(part for part in (value_text(cell), bounds_text(cell), f"(n = {cell.n})") if part)
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return str(cell)
    return f"{_points(cell):.1f}%" if isinstance(cell, float) else cell


def _points(share: float) -> float:
    return round(100 * share, 1) + 0.0


def untabled(section: Section) -> tuple[Figure, ...]:
    """Figures that stand in no table of their section."""
    tabled = {id(cell) for table in section.tables for row in table.rows for cell in row if isinstance(cell, Figure)}
    return tuple(figure for figure in section.figures if id(figure) not in tabled)


def brief(words: str) -> str:
    """Its first sentences, as many as a summary has room for; the first one whatever its length."""
    if len(words) <= _BRIEF:
        return words
    ends = [match.start() + 1 for match in re.finditer(r"[.!?](?=\s[A-Z])", words)] or [len(words)]
    return words[: max((end for end in ends if end <= _BRIEF), default=ends[0])]


def figures_csv(sections: Mapping[str, Section]) -> str:
    """One line a figure: section, figure, value, low, high, n, unit, note; numbers as they are, shares as fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("section", "figure", "value", "low", "high", "n", "unit", "note"))
    for label, section in sections.items():
        for f in section.figures:
            numbers = ("" if value is None else repr(value) for value in (f.value, f.low, f.high))
            writer.writerow((inert(label), inert(f.name), *numbers, f.n, f.unit, inert(f.note)))
    return out.getvalue()


def inert(text: str) -> str:
    """A cell that no spreadsheet takes for a formula, on one line."""
    line = " ".join(text.replace("\x00", " ").split())
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def escaped(text: str) -> str:
    """Text as Markdown shows it, on one line, no markup in it taking effect. escaped("a*b <c>") -> "a\\*b &lt;c>" """
    line = " ".join(text.split())
    return _MARKDOWN.sub(lambda m: {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(m[1], "\\" + m[1]), line)


def table_markdown(table: Table) -> str:
    lines = [
        f"**{escaped(table.title)}**",
        "",
        _row(table.columns),
        _row(["---"] * len(table.columns), raw=True),
        *(_row([cell_text(cell) for cell in row]) for row in table.rows),
    ]
    return "\n".join([*lines, *(["", escaped(table.note)] if table.note else []), ""])


def _row(cells: "list[str] | tuple[str, ...]", raw: bool = False) -> str:
    return "| " + " | ".join(cell if raw else escaped(cell) for cell in cells) + " |"
