"""Read what a run directory holds, whole or not: an unfinished or killed run is read as far as it goes, and what is missing is listed.

Reads only; draws and judges nothing. Text from these files is the model's own and is passed on as it stands.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eval.runner import record_from
from vlm_rl.errors import UserError
from vlm_rl.types import Record

_WINDOW = 4_000_000
_LARGEST_PICTURE = 400_000
_PNG = b"\x89PNG\r\n\x1a\n"
Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run directory's contents. `steps` and `evaluations` are ordered; `gaps` says in words what could not be read.

    `rollouts` are three windows on rollouts.jsonl, near its beginning, middle and end, each with the rows of one step.
    """

    path: Path
    config_text: str
    config: Row
    steps: tuple[Row, ...]
    summary: Row
    watched: tuple[Row, ...]
    before: tuple[Record, ...]
    after: tuple[Record, ...]
    rollouts: tuple[tuple[Row, ...], ...]
    gaps: tuple[str, ...]


def read_run(run_dir: Path) -> Run:
    """Everything in `run_dir` that can be read. Raises UserError when there is no such directory."""
    if not run_dir.is_dir():
        raise UserError(f"no run directory {run_dir}; give the run_dir of a `vlm-rl train` run")
    gaps: list[str] = []
    config_text, config = read_config(run_dir, gaps)
    steps = {row["step"]: row for row in _rows(run_dir / "metrics.jsonl", gaps) if isinstance(row.get("step"), int)}
    return Run(
        path=run_dir,
        config_text=config_text,
        config=config,
        steps=tuple(steps[step] for step in sorted(steps)),
        summary=_mapping("summary.json", _text(run_dir / "summary.json", gaps), json.loads, gaps),
        watched=tuple(_rows(run_dir / "eval" / "watched.jsonl", gaps)) if (run_dir / "eval" / "watched.jsonl").exists() else (),
        before=_records(run_dir / "eval" / "before.jsonl", gaps),
        after=_records(run_dir / "eval" / "after.jsonl", gaps),
        rollouts=_rollouts(run_dir / "rollouts.jsonl", gaps),
        gaps=tuple(gaps),
    )


def read_config(run_dir: Path, gaps: list[str]) -> tuple[str, Row]:
    """config.yaml as text and tree, both empty where it cannot be read; `gaps` is told."""
    text = _text(run_dir / "config.yaml", gaps)
    return text, _mapping("config.yaml", text, yaml.safe_load, gaps)


def picture(run_dir: Path, media_id: str) -> str | None:
    """The thumbnail of a medium as a data: address, or None where the run kept none (or it is no PNG, or too large to embed)."""
    if not re.fullmatch(r"[0-9A-Za-z_-]{1,64}", media_id):
        return None
    try:
        with (run_dir / "media" / f"{media_id}.png").open("rb") as file:
            data = file.read(_LARGEST_PICTURE + 1)
    except OSError:
        return None
    if len(data) > _LARGEST_PICTURE or not data.startswith(_PNG):
        return None
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _text(path: Path, gaps: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        gaps.append(f"{path.name} is missing")
    except OSError as error:
        gaps.append(f"{path.name} cannot be read: {error.strerror}")
    return ""


def _mapping(name: str, text: str, parse: Callable[[str], Any], gaps: list[str]) -> Row:
    if not text:
        return {}
    try:
        tree = parse(text)
    except (ValueError, RecursionError, yaml.YAMLError):
        gaps.append(f"{name} is damaged")
        return {}
    return tree if isinstance(tree, dict) else {}


def _rows(path: Path, gaps: list[str]) -> list[Row]:
    name = f"{path.parent.name}/{path.name}" if path.parent.name == "eval" else path.name
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            rows = [_row(line) for line in file]
    except FileNotFoundError:
        gaps.append(f"{name} is missing")
        return []
    except OSError as error:
        gaps.append(f"{name} cannot be read: {error.strerror}")
        return []
    good = [row for row in rows if row is not None]
    if len(good) < len(rows):
        gaps.append(f"{name}: {len(rows) - len(good)} of {len(rows)} lines are damaged and left out")
    return good


def _row(line: str | bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _records(path: Path, gaps: list[str]) -> tuple[Record, ...]:
    records = []
    rows = _rows(path, gaps)
    for row in rows:
        try:
            records.append(record_from(row))
        except ValueError as error:
            gaps.append(f"eval/{path.name} does not hold evaluation records: {error}")
            return ()
    return tuple(records)


def _rollouts(path: Path, gaps: list[str]) -> tuple[tuple[Row, ...], ...]:
    """One step's rows near the beginning, the middle and the end, without reading what may be gigabytes in between."""
    try:
        size = path.stat().st_size
        first = list(_window(path, 0))
        middle = list(_window(path, size // 2))
        last = list(_window(path, max(0, size - _WINDOW)))
    except FileNotFoundError:
        gaps.append("rollouts.jsonl is missing")
        return ()
    except OSError as error:
        gaps.append(f"rollouts.jsonl cannot be read: {error.strerror}")
        return ()
    chosen: dict[int, tuple[Row, ...]] = {}
    for rows, at in ((first, 0), (middle, 1), (last, -1)):  # a window may open in the middle of a step: its second one is whole
        steps = list(dict.fromkeys(row["step"] for row in rows))
        if steps:
            step = steps[at] if len(steps) > 1 else steps[0]
            chosen.setdefault(step, tuple(row for row in rows if row["step"] == step))
    return tuple(chosen[step] for step in sorted(chosen))


def _window(path: Path, start: int) -> Iterator[Row]:
    with path.open("rb") as file:
        file.seek(start)
        if start:
            file.readline(_WINDOW)
        end = start + _WINDOW
        while file.tell() < end and (line := file.readline(_WINDOW)):
            row = _row(line)
            if row is not None and isinstance(row.get("step"), int):
                yield row


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` items at even distances, so that a few examples stand for the whole list."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
