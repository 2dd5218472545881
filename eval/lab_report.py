"""An experiment as a self-contained page, as Markdown with a picture, and as numbers. What is found is `eval.lab_findings`' work."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from eval.charts import to_png, to_svg
from eval.evaluator import Figure, Table
from eval.figures import said
from eval.lab_analysis import Effect
from eval.lab_charts import curves
from eval.lab_findings import Findings, Results, Tested, findings
from eval.section_report import MARKDOWN, REPORT, environment, write_aside
from eval.summary import points, signed
from eval.wording import escaped, table_markdown
from vlm_rl.config_claim import ClaimConfig
from vlm_rl.rundir import write_json

log = logging.getLogger(__name__)

_TONES = {"holds": "good", "does not hold": "bad", "undecided": "open"}
_WANTED = {"up": "more", "down": "less", "same": "the same"}
INDEX = "README.md"
_COMMANDS = 40
_MAIN = ("accuracy", "consistency", "drop", "follow")


@dataclass(frozen=True)
class Shown:
    """A test as the page shows it; `strip` and `margin` are places from 0 to 100 with no difference at 50."""

    tested: Tested
    strip: tuple[float, float, float] | None
    margin: tuple[float, ...]
    by_seed: str


def write_lab_report(
    directory: Path,
    title: str,
    claim: ClaimConfig,
    results: Results,
    unfinished: Mapping[str, str],
    facts: Mapping[str, Any],
    docs: Path | None = None,
) -> str:
    """Write report.html, report.md, curves.png and summary.json into `directory`, and TITLE.md, .png and .json into `docs`; returns the
    verdict in a sentence. Raises UserError where a file cannot be written.
    """
    found = findings(claim, results)
    told = sentence(found, unfinished)
    charts = curves(results, list(claim.arms))
    about = _facts(claim, results, facts)
    html = (
        environment()
        .get_template("lab.html")
        .render(
            title=title,
            claim=claim,
            tone="open" if unfinished else _TONES[found.primary.verdict.word],
            told=told,
            found=found,
            tests=[_shown(t) for t in (found.primary, *found.secondary)],
            groups=[_shown(t) for t in found.groups],
            charts=[(chart, Markup(to_svg(chart))) for chart in charts],
            wanted=_WANTED,
            setup=_setup(claim),
            unfinished=unfinished,
            facts=about,
            commands=_commands(results, facts),
        )
    )
    summary = summarised(title, claim, found, unfinished) | {"facts": dict(about)}
    for place, name in [(directory, None), *([(docs, title)] if docs else [])]:
        place.mkdir(parents=True, exist_ok=True)
        picture = place / (f"{name}.png" if name else "curves.png")
        drawn = [chart for chart in charts if chart.share][:1]
        for chart in drawn:
            to_png(chart, picture)
        page = _markdown(title, claim, found, told, unfinished, about, [picture.name] if drawn else [])
        write_aside(place / (f"{name}.md" if name else MARKDOWN), page)
        write_json(place / (f"{name}.json" if name else "summary.json"), summary)
    if docs:
        write_aside(docs / INDEX, _index(docs))
    write_aside(directory / REPORT, html)
    log.info("wrote %s", directory / REPORT)
    return told


def _index(docs: Path) -> str:
    """The pages that lie there as a table, by their numbers."""
    rows = []
    for path in sorted(docs.glob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        primary, number = told["primary"], ""
        if "value" in primary:
            unit = "difference" if primary["unit"] == "difference" else "number"
            number = said(Figure("", primary["value"], primary["questions"], primary["low"], primary["high"], unit))
        left = f", {len(told['unfinished'])} trainings not finished" if told["unfinished"] else ""
        cells = (
            f"[{told['experiment']}]({path.stem}.md)",
            *map(escaped, (told["claim"], primary["test"], number)),
            f"{told['verdict']}{left}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    head = [
        "# Claims tested in the laboratory",
        "",
        "Written by `vlm-rl lab run CLAIM --docs docs/lab`; how to read it: [docs/lab.md](../lab.md).",
        "",
    ]
    return "\n".join([*head, "| experiment | claim | primary test | effect | verdict |", "| --- | --- | --- | --- | --- |", *rows, ""])


def sentence(found: Findings, unfinished: Mapping[str, str]) -> str:
    """ "Holds: consistency · exact of grpo, less that of start: +20.1 points [15.0, 25.1] (n = 240); ..." """
    primary = found.primary
    words = f"{primary.verdict.word}: {primary.words}: {said(primary.figure)}; {primary.verdict.because}"
    words += f"; it would take {primary.verdict.needs}" if primary.verdict.needs else ""
    left = f"; unfinished: {len(unfinished)} of the registered trainings" if unfinished else ""
    return words[0].upper() + words[1:] + left


def summarised(title: str, claim: ClaimConfig, found: Findings, unfinished: Mapping[str, str]) -> dict[str, Any]:
    """The verdict and every registered test as numbers."""
    primary = _numbers(found.primary)
    return {
        "experiment": title,
        "claim": claim.claim,
        "source": claim.source,
        "amendments": list(claim.amendments),
        "verdict": found.primary.verdict.word,
        "primary": primary,
        "secondary": [_numbers(test) for test in found.secondary],
        "unfinished": dict(unfinished),
    }


def _numbers(tested: Tested) -> dict[str, Any]:
    effect, verdict = tested.effect, tested.verdict
    plain = {
        "test": tested.words,
        "unit": tested.unit,
        "direction": tested.test.direction,
        "margin": tested.test.margin,
        "verdict": verdict.word,
    }
    if effect is None:
        return plain
    keys = ("value", "low", "high", "p", "detectable", "seeds", "questions")
    numbers = {key: vars(effect)[key] for key in keys}
    by_seed = {str(seed): value for seed, value in effect.by_seed.items()}
    return {**plain, **numbers, "by_seed": by_seed, "p_holm": tested.p_holm, "because": verdict.because, "needs": verdict.needs}


def _shown(tested: Tested) -> Shown:
    effect = tested.effect
    if effect is None:
        return Shown(tested, None, (), "")
    scale = max(abs(effect.low), abs(effect.high), tested.test.margin) or 1.0
    low, value, high = (50 + 48 * bound / scale for bound in (effect.low, effect.value, effect.high))
    signs = {"up": (1,), "down": (-1,), "same": (-1, 1)}[tested.test.direction]
    margin = tuple(50 + 48 * sign * tested.test.margin / scale for sign in signs)
    return Shown(tested, (low, value, high), margin, _seeds(effect, tested))


def _seeds(effect: Effect, tested: Tested) -> str:
    points_of = signed if tested.unit == "difference" else (lambda value: f"{value:+.2f}")
    return ", ".join(f"{points_of(value)}" for value in effect.by_seed.values())


def _setup(claim: ClaimConfig) -> Table:
    rows = []
    for name, arm in claim.arms.items():
        judge = (
            ""
            if arm.judge is None
            else f"{arm.judge.kind}" + {"noisy": f" {arm.judge.noise:g}", "hackable": f" ({arm.judge.hack})"}.get(arm.judge.kind, "")
        )
        rows.append((name, arm.config or "no training", " ".join(arm.overrides), judge, "yes" if name == claim.baseline else ""))
    note = f"Each trained from {claim.policy} with {' '.join(claim.train) or 'the settings of its config'}."
    return Table("Arms", ("arm", "config", "overrides", "judge", "baseline"), tuple(rows), note)


def _facts(claim: ClaimConfig, results: Results, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    measured = next(iter(results.values())).facts if results else {}
    seconds = [float(r.facts.get(key) or 0) for r in results.values() for key in ("time/training", "time/evaluation")]
    system = {key.removeprefix("system/"): value for key, value in {**facts, **measured}.items() if key.startswith("system/")}
    return [
        ("seeds", ", ".join(map(str, claim.seeds))),
        ("level", f"{claim.level:.0%}"),
        ("evaluation", " ".join((claim.evaluation.config, *claim.evaluation.overrides))),
        ("wall time of its processes", f"{sum(seconds) / 60:.0f} min, counted again where claims share them"),
        *((key, str(value)) for key, value in system.items()),
    ]


def _commands(results: Results, facts: Mapping[str, Any]) -> list[str]:
    own = dict.fromkeys(command for result in results.values() for command in result.facts.get("commands", []))
    return [*facts.get("commands", []), *list(own)[:_COMMANDS]]


def _markdown(
    title: str,
    claim: ClaimConfig,
    found: Findings,
    told: str,
    unfinished: Mapping[str, str],
    facts: list[tuple[str, str]],
    pictures: list[str],
) -> str:
    lines = [f"# {escaped(title)}", "", f"{escaped(claim.claim)} ({escaped(claim.source)})", "", f"**{escaped(told)}.**", ""]
    lines += [f"- changed after results were seen: {escaped(line)}" for line in claim.amendments]
    lines += [f"![{escaped(title)}]({name})" for name in pictures] + [""]
    rows = tuple(
        (
            t.words,
            t.figure,
            points(t.test.margin) if t.unit == "difference" else f"{t.test.margin:g}",
            t.test.direction,
            t.verdict.word,
            _p(t),
        )
        for t in (found.primary, *found.secondary)
    )
    note = "The first is the registered primary test and alone decides. p of the others is adjusted by Holm over them."
    lines += [table_markdown(Table("Registered tests", ("difference", "effect", "margin", "claimed", "verdict", "p"), rows, note))]
    if found.primary.effect is not None:
        effect = found.primary.effect
        lines += [
            f"By seed: {escaped(_seeds(effect, found.primary))}. Smallest effect found with a power of 80%: {points(effect.detectable)} "
            f"points; {effect.seeds} seeds, {effect.questions} questions.",
            "",
        ]
    if found.groups:
        rows = tuple((t.words, t.figure) for t in found.groups)
        lines += [table_markdown(Table("The primary test by group of held-out questions", ("questions", "effect"), rows))]
    lines += [table_markdown(_setup(claim))]
    lines += [table_markdown(replace(table, rows=short)) for table in found.tables if (short := _main_rows(table))]
    lines += [f"- not finished: {escaped(name)}: {escaped(reason)}" for name, reason in unfinished.items()]
    lines += ["", ", ".join(f"{escaped(key)}: {escaped(value)}" for key, value in facts), ""]
    lines += [f"Brackets of differences are {claim.level:.0%} intervals over seeds and questions, of arms the lowest and highest seed.", ""]
    return "\n".join(lines)


def _main_rows(table: Table) -> tuple[tuple[Any, ...], ...]:
    """What a page in Markdown has room for: metrics that are no part of another, and those of conditions that tell most."""
    return tuple(row for row in table.rows if str(row[0]).count(" · ") < 2 or str(row[0]).rpartition(" · ")[2] in _MAIN)


def _p(tested: Tested) -> str | None:
    p = tested.p_holm if tested.p_holm is not None else tested.effect.p if tested.effect else None
    return None if p is None else f"{p:.2g}"
