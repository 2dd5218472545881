"""Two real processes under torchrun are one training: same losses, gradients, weights, rollouts and files; and they stop together."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranks_small
import torch
from runs_small import train_config
from test_train_runs import metrics

from vlm_rl.config import SftConfig
from vlm_rl.distributed import opened
from vlm_rl.errors import UserError
from vlm_rl.ranks import ALONE

ROOT = Path(__file__).parent.parent
ROUNDING = ("guard/", "mismatch/")  # differences of nearly equal numbers


def torchrun(*arguments: object, processes: int = 2, limit: float = 240.0, **environment: str) -> subprocess.CompletedProcess[str]:
    """A launch on this machine; output and errors together. `limit` in seconds."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *map(str, arguments)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        command, env=variables, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit, check=False
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a model, rows and a training by one process; and what its updates gave.

    On one thread, as those that are launched: first tokens of a group have one entropy, and which of them are among the top is rounding's.
    """
    directory, threads = tmp_path_factory.mktemp("ranks"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return directory, ranks_small.alone(directory)
    finally:
        torch.set_num_threads(threads)


def close(one: dict, other: dict, rel: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if not name.startswith((*ROUNDING, "time/")):
            # Norm and drift are told of a step's last update: those before it have moved the weights, by Adam's steps.
            moved = name.startswith(("loss/grad_norm", "drift/"))
            assert other[name] == pytest.approx(value, rel=10 * rel if moved else rel, abs=1e-6), name


def same_run(one: Path, other: Path) -> None:
    """Rollouts and answers to the letter, numbers closely: Adam divides rounding residues by their own size, so they grow by the step."""
    assert (one / "rollouts.jsonl").read_text() == (other / "rollouts.jsonl").read_text()
    assert (one / "eval" / "after.jsonl").read_text() == (other / "eval" / "after.jsonl").read_text()
    for step, (a, b) in enumerate(zip(metrics(one), metrics(other), strict=True)):
        close(a, b, rel=1e-5 * 3**step)


slow = pytest.mark.slow


@pytest.mark.parametrize("stage", [2, 3, pytest.param(0, marks=slow), pytest.param(1, marks=slow)])
def test_two_processes_train_as_one(place, stage):
    directory, alone = place
    launched = torchrun(ROOT / "tests" / "ranks_small.py", stage, directory, "whole")
    assert launched.returncode == 0, launched.stdout[-4000:]
    found = torch.load(directory / f"{stage}.pt", weights_only=True)
    for case, expected in alone.items():
        for one, other in zip(expected["metrics"], found[case]["metrics"], strict=True):
            close(one, other)
        assert expected["weights"].keys() == found[case]["weights"].keys()
        gaps = torch.cat([(found[case]["weights"][name] - weight).abs().flatten() for name, weight in expected["weights"].items()])
        # Of entries whose gradient is rounding residue Adam makes steps of the full rate, 1e-4.
        assert (gaps > 2e-6).float().mean() < 1e-3 and gaps.max() < 4e-4, case
        for one, other in zip(expected["state"]["adam"]["state"].values(), found[case]["state"]["adam"]["state"].values(), strict=True):
            assert torch.allclose(one["exp_avg"], other["exp_avg"], rtol=1e-4, atol=1e-7), case
    assert "rank 0 is at 'place 0', rank 1 at 'place 1'" in found["apart"]
    one, other = directory / "alone", directory / f"ranks{stage}"
    same_run(one, other)
    written = [{str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} for run in (one, other)]
    assert written[0] == written[1]


@slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_broken_run_goes_on_with_another_number_of_processes(place, stage):
    directory, _ = place
    ranks_small.trained(directory, f"one-two-{stage}", 0, ALONE, stop=2)
    launched = torchrun(ROOT / "tests" / "ranks_small.py", stage, directory, "broken")
    assert launched.returncode == 0, launched.stdout[-4000:]
    ranks_small.trained(directory, f"two-one-{stage}", 0, ALONE)
    for name in ("two-two", "one-two", "two-one"):
        same_run(directory / "alone", directory / f"{name}-{stage}")


def test_one_process_that_fails_stops_the_other_with_its_cause(tmp_path):
    train_config(tmp_path)
    start = time.monotonic()
    launched = torchrun("-m", "vlm_rl", "train", tmp_path / "base.yaml", "rewards.brief.use=ranks_small:FailsOnRankOne")
    assert launched.returncode != 0 and "a cause of its own" in launched.stdout
    assert time.monotonic() - start < 120  # most of it is the start of two processes
    assert not list((tmp_path / "run" / "checkpoints").glob("step_*"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["distributed.offload=optimizer"], "write distributed.zero=1, 2 or 3"),
        (["distributed.zero=2", "distributed.offload=all"], "with zero=3 only"),
        (["distributed.zero=2", "model.lora={rank: 2}"], "write distributed.zero=0"),
        (["distributed.zero=4"], "distributed.zero"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(tmp_path, overrides, said):
    with pytest.raises(UserError, match=said):
        train_config(tmp_path, *overrides)


def test_a_fine_tuning_is_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process"), opened(SftConfig.model_construct()):
        pass


def test_one_process_is_all_of_them():
    assert ALONE.share("ab") == [(0, "a"), (1, "b")] and ALONE.merge("", {2: "b", 1: "a"}) == {1: "a", 2: "b"}
    assert ALONE.first and ALONE.first_says("", lambda: 3) == 3
