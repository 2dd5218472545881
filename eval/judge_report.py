"""What was measured of judges as one self-contained HTML page. It computes nothing and asks nobody.

Replies and responses are hostile text: they reach the page only through the template's escaping, and the page forbids scripts and requests.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from eval.judge_asking import Opinion
from eval.judge_summary import won_over_by
from eval.run_files import spread
from eval.summary import interval_text, points
from vlm_rl.errors import UserError

log = logging.getLogger(__name__)
EXAMPLES = 8
GOOD_RANK = 0.8
_LONGEST = 600
_PLOT = 200
_HONEST = ("graded", "right", "wrong")


def write_judge_report(run_dir: Path, summary: Mapping[str, Any], opinions: Sequence[Opinion]) -> Path:
    """Write `run_dir`/report.html and return its path. Raises UserError where it cannot be written."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(points=points, interval=interval_text)
    judges = summary["judges"]
    html = environment.get_template("judges.html").render(
        name=run_dir.resolve().name,
        what=summary["judge/what"],
        rows=summary["judge/rows"],
        threshold=summary["judge/threshold"],
        judges=judges,
        tones={name: _tone(tree, summary["judge/what"]) for name, tree in judges.items()},
        plots={name: _dots(tree["quality"].get("bins", [])) for name, tree in judges.items() if "quality" in tree},
        examples={name: _examples([one for one in opinions if one.judge == name], summary["judge/threshold"]) for name in judges},
        size=_PLOT,
    )
    path = run_dir / "report.html"
    aside = path.with_name("report.html.part")
    try:
        aside.write_text(html, encoding="utf-8", errors="replace")
        aside.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
    log.info("wrote %s", path)
    return path


def _tone(tree: Mapping[str, Any], what: str) -> str:
    keys = tree if what == "stress" else tree["keys"]
    rank = tree["quality"].get("spearman") if what == "eval" else None
    if won_over_by(keys) or (rank is not None and rank["low"] <= 0):
        return "bad"
    unsure = what == "eval" and tree["quality"] and (rank is None or rank["value"] < GOOD_RANK)
    return "good" if keys["guarded"]["worst"] == 0 and not unsure else "open"


def _dots(bins: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Centres and radii of a reliability diagram's dots, in the units of its picture."""
    most = max((bin_["n"] for bin_ in bins), default=1)
    return [{"x": _PLOT * b["said"], "y": _PLOT * (1 - b["gold"]), "r": 3 + 7 * (b["n"] / most) ** 0.5, **b} for b in bins]


def _examples(opinions: Sequence[Opinion], threshold: float) -> list[dict[str, Any]]:
    """Mistakes worth reading: accepted though it should not be, then the largest errors on graded responses."""
    fooled = [one for one in opinions if one.part not in _HONEST and one.score is not None and one.score >= threshold]
    graded = [one for one in opinions if one.part == "graded" and one.score is not None and one.gold is not None]
    off = sorted(graded, key=lambda one: -abs((one.score or 0) - (one.gold or 0)))[:EXAMPLES]
    off = [one for one in off if abs((one.score or 0) - (one.gold or 0)) >= 0.25]
    return [_example(one) for one in (*spread(fooled, EXAMPLES), *off)]


def _example(one: Opinion) -> dict[str, Any]:
    text = one.text if len(one.text) <= _LONGEST else f"{one.text[:_LONGEST]} ... ({len(one.text) - _LONGEST} more characters)"
    return {"part": f"{one.part}: {one.name}" if one.name else one.part, "row": one.sample_id, "text": text} | {
        "gold": one.gold,
        "score": one.score,
        "guarded": one.guarded,
        "reply": one.reply[:200],
    }
