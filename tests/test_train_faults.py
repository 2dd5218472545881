"""Faults in the middle of whole runs: SIGTERM, damaged checkpoints, a failing engine, full disks. What goes on equals the unbroken run."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from runs_small import train_config
from safetensors.torch import load_file
from test_train_runs import Killed, metrics, stop_after

from vlm_rl import cli_parts, cli_train, trainer, update
from vlm_rl.errors import UserError
from vlm_rl.optim import Optimiser
from vlm_rl.preemption import Terminated


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model, rows, and an unbroken run in `whole`."""
    place = tmp_path_factory.mktemp("faults")
    cli_train.train(train_config(place, f"run_dir={place}/whole"))
    return place


def steps_kept(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("*"))


def equal_unbroken(run: Path, whole: Path) -> None:
    assert metrics(run) == metrics(whole)
    assert (run / "rollouts.jsonl").read_text() == (whole / "rollouts.jsonl").read_text()
    end = load_file(run / "checkpoints" / "step_4" / "model.safetensors")
    assert all(tensor.equal(end[name]) for name, tensor in load_file(whole / "checkpoints" / "step_4" / "model.safetensors").items())


def at_call(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, number: int, act) -> None:
    """Before the call of that number (from 1) of owner.name, act()."""
    function, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) == number:
            act()
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "owner, name, number, kept",
    [
        (cli_parts, "evaluate", 1, []),  # before training: there is nothing to save
        (trainer.Trainer, "rollout", 3, ["step_2"]),  # step 3 is left, and done again
        (cli_train.Mixture, "score", 3, ["step_2"]),
        (update.Updater, "_accumulate", 3, ["step_3"]),  # step 3 is finished
        (cli_train.TrainRun, "log", 3, ["step_3"]),
        (cli_parts, "evaluate", 3, ["step_4"]),  # after training
    ],
)
def test_sigterm_saves_and_the_same_command_equals_the_unbroken_run(place, tmp_path, monkeypatch, caplog, owner, name, number, kept):
    config = train_config(place, f"run_dir={tmp_path}/run", "checkpoint.every=100")
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch, caplog.at_level("INFO"), pytest.raises(Terminated) as exit_:
        at_call(patch, owner, name, number, terminate)
        cli_train.train(config)
    assert exit_.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    assert steps_kept(tmp_path / "run") == kept
    assert f"goes on {f'after step {kept[0][5:]}' if kept else 'from the start'}" in caplog.text
    assert not (tmp_path / "run" / "summary.json").exists()
    cli_train.train(config)
    equal_unbroken(tmp_path / "run", place / "whole")


def test_a_second_sigterm_leaves_at_once(place, tmp_path, monkeypatch):
    at_call(monkeypatch, update.Updater, "_accumulate", 3, lambda: (terminate(), terminate()))
    with pytest.raises(Terminated):
        cli_train.train(train_config(place, f"run_dir={tmp_path}/run", "checkpoint.every=2"))
    assert steps_kept(tmp_path / "run") == ["step_2"]


def test_a_damaged_checkpoint_costs_only_its_own_steps(place, tmp_path, monkeypatch, caplog):
    config = train_config(place, f"run_dir={tmp_path}/run", "checkpoint.every=1")
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Killed):
            cli_train.train(config)
    newest = tmp_path / "run" / "checkpoints" / "step_3"
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with caplog.at_level("WARNING"):
        cli_train.train(config)
    assert f"checkpoint {newest} is damaged and skipped: model.safetensors has other contents" in caplog.text
    equal_unbroken(tmp_path / "run", place / "whole")


def test_an_engine_that_fails_stops_the_run_and_the_next_process_goes_on(place, tmp_path, monkeypatch):
    def die() -> None:
        raise RuntimeError("engine process died")

    config = train_config(place, f"run_dir={tmp_path}/run")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="engine process died"):
        at_call(patch, cli_train.HFEngine, "generate", 5, die)
        cli_train.train(config)
    assert steps_kept(tmp_path / "run") == ["step_2"]
    cli_train.train(config)
    equal_unbroken(tmp_path / "run", place / "whole")


def test_a_loss_that_is_not_finite_stops_before_any_weight_takes_it(place, tmp_path, monkeypatch):
    given = update.Updater._loss
    monkeypatch.setattr(update.Updater, "_loss", lambda *args: given(*args) * float("nan"))
    with pytest.raises(UserError, match=r"the loss is not finite; samples in this pack: r\d+"):
        cli_train.train(train_config(place, f"run_dir={tmp_path}/run"))
    assert steps_kept(tmp_path / "run") == []


def hungry_once(monkeypatch: pytest.MonkeyPatch, call: int, after: bool) -> None:
    """One pack of an update fails for lack of memory, before its gradients are there or when they are."""
    if after:
        at_call(monkeypatch, Optimiser, "gather", call, exhaust)
    else:
        at_call(monkeypatch, update.Updater, "_tokens", call, exhaust)


def exhaust() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize("after", [False, True])
def test_a_pack_too_large_for_memory_is_halved_and_the_run_goes_on(place, tmp_path, monkeypatch, caplog, after):
    """In step 1, so that all of the run has the smaller budget, and equals one that began with it."""
    small = cli_train.train(train_config(place, f"run_dir={tmp_path}/small", "train.token_budget=150"))
    with monkeypatch.context() as patch, caplog.at_level("WARNING"):
        hungry_once(patch, 1, after)
        run = cli_train.train(train_config(place, f"run_dir={tmp_path}/run", "train.token_budget=300"))
    assert "packs have at most 150 tokens from now on" in caplog.text and caplog.text.count("out of memory") == 1
    lines = metrics(run)
    assert [line.pop("guard/halvings") for line in lines] == [1.0] * 4
    assert lines == metrics(small)
    start, end = (load_file(r / "checkpoints" / "step_4" / "model.safetensors") for r in (small, run))
    assert all(tensor.equal(end[name]) for name, tensor in start.items())
    told = [json.loads((r / "summary.json").read_text())["run/reproducible"] for r in (small, run)]
    assert told == [True, False]
