"""The run directory: claimed by one config, resumed only by the same one, its small files written aside and renamed."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from vlm_rl.errors import UserError

# Sections that change nothing about what is computed, so a run may go on with others.
FREE = ("checkpoint", "tracker", "run_dir")
LIBRARIES = ("torch", "transformers", "vlm-rl")


def claim(config: BaseModel) -> Path:
    """Make `run_dir` and write config.yaml, or check that the run there has the same config. Raises UserError."""
    tree = config.model_dump(mode="json", exclude_none=True)
    run_dir = Path(tree["run_dir"])
    path = run_dir / "config.yaml"
    if path.exists():
        there = _read(path)
        if keys := sorted(key for key in differences(there, tree) if key.split(".")[0] not in FREE):
            shown = "\n".join(f"  {key}: there {_at(there, key)!r}, now {_at(tree, key)!r}" for key in keys[:10])
            raise UserError(
                f"{run_dir} holds a run with another config:\n{shown}\nto start anew write run_dir=OTHER; to go on with that run give "
                f"it the same values"
            )
        return run_dir
    if run_dir.exists() and any(run_dir.iterdir()):
        raise UserError(f"{run_dir} exists, is not empty and holds no config.yaml: it is not a run directory; write run_dir=OTHER")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_text(path, yaml.safe_dump(tree, sort_keys=False))
    except OSError as error:
        raise UserError(f"run_dir {run_dir} cannot be written: {error.strerror or error}") from None
    return run_dir


def differences(a: Any, b: Any, prefix: str = "") -> set[str]:
    """Dotted keys whose values differ. differences({"x": {"y": 1}}, {"x": {"y": 2}}) -> {"x.y"}"""
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return set() if a == b else {prefix}
    return {d for key in a.keys() | b.keys() for d in differences(a.get(key), b.get(key), f"{prefix}.{key}" if prefix else str(key))}


def write_text(path: Path, text: str) -> None:
    """All or nothing, also when the machine dies in the middle."""
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_summary(run_dir: Path) -> dict[str, Any]:
    """summary.json, or {} when there is none yet."""
    path = run_dir / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def machine() -> dict[str, Any]:
    """Where a run ran: system/* facts for summary.json."""
    versions = {f"system/{name}": importlib.metadata.version(name) for name in LIBRARIES}
    return versions | {
        "system/python": platform.python_version(),
        "system/platform": f"{platform.system()} {platform.machine()}",
        "system/cpus": os.cpu_count() or 0,
    }


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({error}); it says which run this directory holds, so write run_dir=OTHER") from None


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
