"""`python -m benchmarks.soak --minutes 60`: the quickstart's training for a given time in one process; memory, file handles and threads by
step, and whether they stay flat; into benchmarks/results/soak.{json,md,png}. Exits with 1 where one does not.

The first third is left out as warm-up (caches fill, allocators settle). Flat: the median of the last third is at most ALLOWED above that of
the second. Linux only: it reads /proc.
"""

import argparse
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


def plot(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Each quantity by step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(ALLOWED), figsize=(3.6 * len(ALLOWED), 2.8))
    for panel, name in zip(panels, ALLOWED, strict=True):
        panel.plot([row["step"] for row in rows], [row[name] for row in rows])
        panel.set(xlabel="step", title=name)
        panel.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def main() -> int:
    from benchmarks import report

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    before, machine = report.load(), report.about(seed=0)
    with TemporaryDirectory() as scratch:
        rows = soak(options.minutes, Path(scratch) / "run")
    told, first, last = verdict(rows), rows[0], rows[-1]
    lines = [[name, f"{first[name]:.1f}", f"{last[name]:.1f}", max(row[name] for row in rows), words] for name, words in told.items()]
    facts = {
        "command": f"python -m benchmarks.soak --minutes {options.minutes:g}",
        "about": machine,
        "load": report.in_words(before, report.load(), machine["cores"]),
        "steps": len(rows),
        "verdict": told,
        "rows": rows[:: max(1, len(rows) // 100)],
    }
    table = report.table(["", f"step {first['step']:.0f}", f"step {last['step']:.0f}", "most", "verdict"], lines)
    plot(rows, report.RESULTS / "soak.png")
    written = report.write("soak", facts, [table, "![Memory, file handles and threads by step](soak.png)"])
    sys.stdout.write(f"{table}{written}\n")
    return 0 if set(told.values()) == {"flat"} else 1


if __name__ == "__main__":
    sys.exit(main())
