"""`python -m benchmarks.soak --minutes 60`: the quickstart's training for a given time in one process; memory, file handles and threads by
step, and whether they stay flat. Exits with 1 where one does not.

The first third is left out as warm-up (caches fill, allocators settle). Flat: the median of the last third is at most ALLOWED above that of
the second. Linux only: it reads /proc.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

ALLOWED = {"rss_mb": 0.05, "handles": 0.0, "threads": 0.0}  # as a share
LEAST_STEPS = 30


class Over(Exception):
    """The time is up."""


def now() -> dict[str, float]:
    """Resident memory in MB, open file handles and threads of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    handles = len(list(Path("/proc/self/fd").iterdir()))
    return {"rss_mb": int(status["VmRSS"].split()[0]) / 1024, "handles": float(handles), "threads": float(status["Threads"])}


def verdict(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """By quantity: "flat", or from what to what it grew. Raises ValueError when there are too few steps."""
    if len(rows) < LEAST_STEPS:
        raise ValueError(f"{len(rows)} steps are too few to tell; at least {LEAST_STEPS}")
    third = len(rows) // 3
    told = {}
    for name, allowed in ALLOWED.items():
        middle, last = (statistics.median(row[name] for row in part) for part in (rows[third : 2 * third], rows[2 * third :]))
        told[name] = "flat" if last <= middle * (1 + allowed) else f"grew from {middle:.1f} to {last:.1f}"
    return told


def soak(minutes: float, run_dir: Path) -> list[dict[str, float]]:
    """One row per step of a training that is long enough and is left when the time is up."""
    from vlm_rl import cli_train
    from vlm_rl.config import TrainConfig
    from vlm_rl.loading import load

    rows: list[dict[str, float]] = []
    end = time.monotonic() + 60 * minutes

    class Watched(cli_train.TrainRun):
        def save(self, step: int) -> None:
            super().save(step)
            rows.append({"step": step, **now()})
            if time.monotonic() > end:
                raise Over

    overrides = [f"run_dir={run_dir}", "train.steps=100000", "eval.questions=50", "eval.samples=1", "checkpoint.every=20"]
    cli_train.TrainRun = Watched
    with suppress(Over):
        cli_train.train(load(TrainConfig, "configs/quickstart.yaml", overrides))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path, help="also write the rows as JSON lines")
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        rows = soak(options.minutes, Path(scratch) / "run")
    if options.out:
        options.out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    told = verdict(rows)
    first, last = rows[0], rows[-1]
    for name, words in told.items():
        sys.stdout.write(f"{name}: {words} (step {first['step']:.0f}: {first[name]:.1f}, step {last['step']:.0f}: {last[name]:.1f})\n")
    return 0 if set(told.values()) == {"flat"} else 1


if __name__ == "__main__":
    sys.exit(main())
