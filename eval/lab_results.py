"""What is kept of one training of an experiment: seeds/ARM-SEED.json, enough for the analysis without the training or its model; and the
registration that such results were made under.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.evaluator import Figure, Section
from eval.lab_analysis import Items
from eval.run_files import Row
from vlm_rl.errors import UserError
from vlm_rl.rundir import write_json

REGISTRATION, SEEDS = "registration.json", "seeds"
_CURVES = ("eval/", "reward/total", "reward/accuracy/raw", "rollout/length", "rollout/entropy")


@dataclass(frozen=True)
class SeedResult:
    """One arm under one seed. `figures` are {"value", "n", "unit", "items"?} by metric, `curves` (step, value) by logged key, `facts` what
    was run, where, and how long it took.
    """

    registration: str
    arm: str
    seed: int
    figures: Mapping[str, Row]
    clusters: Mapping[str, str]
    curves: Mapping[str, Sequence[Sequence[float]]]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def items(self, metric: str) -> Items | None:
        """What each question adds to a metric, None for a metric that has no parts by question."""
        found = self.figures.get(metric, {}).get("items")
        return {i: (float(a), float(b)) for i, (a, b) in found.items()} if found else None

    def value(self, metric: str) -> float | None:
        return self.figures.get(metric, {}).get("value")


def metric_name(label: str, figure: str) -> str:
    """metric_name("accuracy", "accuracy") -> "accuracy/accuracy"; a figure whose name begins with its label has it once."""
    return figure if figure.startswith(f"{label}/") else f"{label}/{figure}"


def figures_of(sections: Mapping[str, Section]) -> dict[str, Row]:
    return {metric_name(label, figure.name): _tree(figure) for label, section in sections.items() for figure in section.figures}


def _tree(figure: Figure) -> Row:
    items = {i: list(pair) for i, pair in figure.items.items()}
    return {"value": figure.value, "n": figure.n, "unit": figure.unit, **({"items": items} if items else {})}


def curves_of(steps: Sequence[Row], watched: Sequence[Row]) -> dict[str, list[list[float]]]:
    """The curves worth keeping of a training: `steps` are its logged lines, `watched` the headlines of its evaluators."""
    found: dict[str, list[list[float]]] = {}
    for row in steps:
        for key, value in row.items():
            if key.startswith(_CURVES) and isinstance(value, int | float):
                found.setdefault(key, []).append([float(row["step"]), float(value)])
    for row in watched:
        for quantity, figure in row.items():
            if isinstance(figure, Mapping) and isinstance(figure.get("value"), int | float):
                found.setdefault(f"watched/{quantity}", []).append([float(row["step"]), float(figure["value"])])
    return found


def costs_of(steps: Sequence[Row]) -> dict[str, Row]:
    """What a step of training cost: its seconds, and the share of the rewards' questions in them beside rollouts and updates."""
    spent = {part: sum(float(row.get(f"time/{part}", 0.0)) for row in steps) for part in ("generate", "score", "update")}
    base = spent["generate"] + spent["update"]
    if not base:
        return {}
    whole = (base + spent["score"]) / len(steps)
    return {
        "cost/seconds_per_step": {"value": whole, "n": len(steps), "unit": "number"},
        "cost/overhead": {"value": spent["score"] / base, "n": len(steps), "unit": "share"},
    }


def path_of(directory: Path, arm: str, seed: int) -> Path:
    return directory / SEEDS / f"{arm}-{seed}.json"


def save(directory: Path, result: SeedResult) -> None:
    path = path_of(directory, result.arm, result.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, dataclasses.asdict(result))


def load(directory: Path, arm: str, seed: int) -> SeedResult | None:
    """None where there is none. Raises UserError for a file that is damaged."""
    path = path_of(directory, arm, seed)
    if not path.exists():
        return None
    try:
        return SeedResult(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it, and the same command makes it again") from None


def digest(tree: Any) -> str:
    """Ten hex digits by which equal settings are known."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:10]


def register(directory: Path, registered: Mapping[str, Any], amendments: Sequence[str]) -> str:
    """Write down what is registered, or hold it against what was; returns its hash.

    Results may be there already. Then another registration is refused, unless `amendments` has a line more than it had: that is what says
    what was changed after results were seen. Raises UserError.
    """
    path, now = directory / REGISTRATION, digest(registered)
    there = _read(path)
    results = sorted((directory / SEEDS).glob("*.json"))
    if there and there.get("hash") != now and results and len(amendments) <= len(there.get("amendments", [])):
        keys = ", ".join(_changed(there.get("registered", {}), registered))
        raise UserError(
            f"{directory} holds {len(results)} results under another registration; it differs in {keys}. Put back what was registered, or "
            "say so where readers see it: add a line to amendments: in the claim (what was changed, when, and what was known by then), "
            "or start anew with --out OTHER"
        )
    directory.mkdir(parents=True, exist_ok=True)
    write_json(path, {"hash": now, "amendments": list(amendments), "registered": dict(registered)})
    return now


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); without it results cannot be told from those of another registration") from None
    return tree if isinstance(tree, dict) else {}


def _changed(there: Any, now: Any, prefix: str = "") -> list[str]:
    if not (isinstance(there, Mapping) and isinstance(now, Mapping)):
        return [] if there == json.loads(json.dumps(now, default=str)) else [prefix]
    keys = dict.fromkeys([*there, *now])
    return [name for key in keys for name in _changed(there.get(key), now.get(key), f"{prefix}.{key}" if prefix else key)]
