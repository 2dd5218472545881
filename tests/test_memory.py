"""Running out of memory, really: the phase and the keys to lower are named, whatever is not about memory stays as it is."""

import numpy as np
import pytest
import torch
from runs_small import train_config, write_model, write_rows
from test_cli import vlm_rl

from vlm_rl import cli_sft, cli_train, models
from vlm_rl.config import SftConfig
from vlm_rl.errors import UserError
from vlm_rl.memory import guarded
from vlm_rl.types import Generate, Sampling

ABSURD = 1 << 50  # bytes, more than any address space has, so no machine tries


def allocate() -> None:
    torch.empty(ABSURD, dtype=torch.uint8)


def raise_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore lines")


@pytest.mark.parametrize(
    "work, said",
    [
        (allocate, f"tried to allocate {ABSURD} bytes"),
        (lambda: np.empty(ABSURD, np.uint8), "Unable to allocate"),
        (raise_cuda, "20.00 GiB."),
    ],
)
def test_out_of_memory_is_the_users_error_and_keeps_its_cause(work, said):
    with pytest.raises(UserError, match=r"out of memory in the phase 'update': lower train\.token_budget") as raised:
        guarded("update")(work)()
    assert said in str(raised.value) and "more lines" not in str(raised.value)
    assert isinstance(raised.value.__cause__, (RuntimeError, MemoryError))


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("no"), UserError("mine"), KeyboardInterrupt()])
def test_other_errors_pass_unchanged(error):
    with pytest.raises(type(error)) as raised, guarded("update"):
        raise error
    assert raised.value is error


def test_the_inner_phase_is_named():
    with pytest.raises(UserError, match="phase 'load'"), guarded("evaluate"), guarded("load"):
        allocate()


def hungry(monkeypatch, when) -> None:
    """Models whose last layer allocates what no machine has, at times."""
    make = models.load_model

    def load(*args, **kwargs):
        model = make(*args, **kwargs)
        model.model.language_model.norm.register_forward_hook(lambda *_: allocate() if when() else None)
        return model

    monkeypatch.setattr(models, "load_model", load)


@pytest.mark.parametrize(
    "phase, when, keys",
    [
        ("evaluate", lambda evaluated: not evaluated, "rollout.batch_size, train.token_budget"),
        ("generate", lambda evaluated: evaluated and not torch.is_grad_enabled(), "rollout.batch_size, train.token_budget"),
        ("update", lambda evaluated: torch.is_grad_enabled(), "train.token_budget, or what is seen (model.image_max_pixels"),
    ],
)
def test_each_phase_of_a_training_is_named(tmp_path, monkeypatch, phase, when, keys):
    hungry(monkeypatch, lambda: when((tmp_path / "run" / "eval" / "before.jsonl").exists()))
    with pytest.raises(UserError, match=f"out of memory in the phase '{phase}'") as raised:
        cli_train.train(train_config(tmp_path))
    assert keys in str(raised.value)


@pytest.mark.parametrize("phase, grad", [("update", True), ("evaluate", False)])
def test_each_phase_of_a_fine_tuning_is_named(tmp_path, monkeypatch, phase, grad):
    hungry(monkeypatch, lambda: torch.is_grad_enabled() == grad)
    tree = {"run_dir": str(tmp_path / "run"), "model": {"path": str(write_model(tmp_path / "model"))}, "train": {"steps": 1}}
    tree["data"] = {"name": "jsonl", "path": str(write_rows(tmp_path / "rows", responses=True))}
    with pytest.raises(UserError, match=f"out of memory in the phase '{phase}'"):
        cli_sft.sft(SftConfig.model_validate(tree | {"tracker": {"tensorboard": False}}))


class Long:
    """Asks for an answer so long that the random numbers to draw it by fit nowhere."""

    def ask(self, group):
        return [Generate("policy", group.sample, Sampling(ABSURD))]

    def score(self, group, replies):
        raise AssertionError


def test_a_question_of_a_reward_is_a_generation(tmp_path):
    with pytest.raises(UserError, match="out of memory in the phase 'generate'"):
        cli_train.train(train_config(tmp_path, "rewards.long.use=test_memory:Long"))


def test_a_model_that_does_not_fit(tmp_path):
    with pytest.raises(UserError, match="out of memory in the phase 'load': take a smaller model"):
        cli_train.train(train_config(tmp_path, "model.path=null", f"model.scratch={{hidden_size: {ABSURD}, heads: 2}}"))


def test_the_command_line_shows_no_traceback(tmp_path):
    train_config(tmp_path)
    done = vlm_rl("train", "base.yaml", f"rollout.max_new_tokens={ABSURD}", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "error: out of memory in the phase 'evaluate': lower rollout.batch_size" in done.stderr and "Traceback" not in done.stderr
