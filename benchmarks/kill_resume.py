"""`python -m benchmarks.kill_resume --points 20`: short trainings killed (SIGKILL) at random points of every phase, resumed by the same
command, and compared with an unbroken one: metrics, rollouts and every weight, bit for bit. Exits with 1 on any difference.

A point is a phase, the number of its call and a delay after that call began; the process kills itself there. No judge over HTTP takes part.
"""

import argparse
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

PHASES = {
    "rollout": ("vlm_rl.trainer", "Trainer.rollout", 4),
    "scoring": ("rewards.mixture", "Mixture.score", 4),
    "update": ("vlm_rl.update", "Updater._pack_loss", 4),
    "log": ("vlm_rl.cli_train", "TrainRun.log", 4),
    "checkpoint": ("vlm_rl.checkpoint", "save", 2),
    "evaluation": ("vlm_rl.cli_parts", "evaluate", 3),
}  # phase -> where it is entered, and how often at least in this training
LONGEST_DELAY = 0.4  # seconds
SMALL = ["train.steps=4", "checkpoint.every=2", "eval.questions=20", "eval.samples=1", "eval.every=2", "eval.every_questions=8"]
SMALL += ["rollout.prompts_per_step=4", "rollout.group_size=4", "tracker.tensorboard=false"]


def run(run_dir: Path, point: Sequence[str] = ()) -> int:
    """Exit status of one process of the training, which kills itself at the point where one is given."""
    command = [sys.executable, "-m", "benchmarks.kill_resume", "--child", *point, "--", str(run_dir)]
    with (run_dir.parent / f"{run_dir.name}.log").open("ab") as output:
        return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=output, stderr=output).returncode


def child(point: Sequence[str], run_dir: str) -> None:
    from vlm_rl.cli_train import train
    from vlm_rl.config import TrainConfig
    from vlm_rl.loading import load

    if point:
        _arm(point[0], int(point[1]), float(point[2]))
    train(load(TrainConfig, "configs/quickstart.yaml", [f"run_dir={run_dir}", *SMALL]))


def _arm(phase: str, number: int, delay: float) -> None:
    module, path, _ = PHASES[phase]
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    entered, calls = getattr(owner, name), 0

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return entered(*args, **kwargs)

    setattr(owner, name, counted)


def difference(run_dir: Path, whole: Path) -> str:
    """What is not equal to the unbroken run, "" where all is."""
    from safetensors.torch import load_file

    if _metrics(run_dir) != _metrics(whole):
        return "metrics"
    if (run_dir / "rollouts.jsonl").read_bytes() != (whole / "rollouts.jsonl").read_bytes():
        return "rollouts"
    weights, wanted = (load_file(where / "checkpoints" / "step_4" / "model.safetensors") for where in (run_dir, whole))
    return next((f"weight {name}" for name, tensor in wanted.items() if not tensor.equal(weights[name])), "")


def _metrics(run_dir: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith(("time/", "system/"))} for line in lines]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, equal, killed = random.Random(options.seed), 0, 0
    with TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        if run(whole) != 0:
            sys.stderr.write((whole.parent / "whole.log").read_text(encoding="utf-8"))
            return 1
        for i in range(options.points):
            phase = list(PHASES)[i % len(PHASES)]
            point = (phase, str(draw.randint(1, PHASES[phase][2])), f"{draw.uniform(0, LONGEST_DELAY):.3f}")
            broken = Path(scratch) / f"broken_{i}"
            hit = run(broken, point) == -signal.SIGKILL
            wrong = "the resumed run failed" if run(broken) != 0 else difference(broken, whole)
            equal, killed = equal + (hit and not wrong), killed + hit
            told = wrong or ("equal" if hit else "not killed: the run was over before")
            sys.stdout.write(f"{i + 1:2d} {phase} call {point[1]} + {point[2]} s: {told}\n")
            sys.stdout.flush()
    sys.stdout.write(f"killed {killed} of {options.points}, equal to the unbroken run {equal} of {killed}\n")
    return 0 if equal == killed == options.points else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        split = sys.argv.index("--")
        child(sys.argv[2:split], sys.argv[split + 1])
    else:
        sys.exit(main())
