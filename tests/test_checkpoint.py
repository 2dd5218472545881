"""Checkpoints under kills, full disks, interrupts and damage: what is named step_N is whole, and an earlier one always survives."""

import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vlm_rl.checkpoint import find_damage, load_state, newest, save, step_of
from vlm_rl.errors import UserError

STATE = {"step": 3, "sampler": {"position": 7}}


def write_model(directory: Path) -> None:
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    (directory / "processor").mkdir()
    (directory / "processor" / "vocab.json").write_text('{"a": 1}')


def failing(error: BaseException) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        (directory / "model.safetensors").write_bytes(b"half")
        raise error

    return write


def names(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir())


def test_a_checkpoint_is_a_model_directory_with_state_and_manifest(tmp_path: Path) -> None:
    path = save(tmp_path, 3, write_model, STATE, keep=2)
    assert path == tmp_path / "step_3"
    assert step_of(path) == 3
    assert names(path) == ["config.json", "manifest.json", "model.safetensors", "processor", "trainer_state.json", "trainer_state.pt"]
    files = json.loads((path / "manifest.json").read_text())["files"]
    assert files["model.safetensors"]["bytes"] == 2048
    assert set(files) == {"config.json", "model.safetensors", "processor/vocab.json", "trainer_state.json", "trainer_state.pt"}
    assert newest(tmp_path) == path


def test_state_comes_back_exactly(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    state: dict[str, Any] = {
        "step": 3,
        "loss": 0.1 + 0.2,
        "seen": {"rows": ["a", "b"], "none": None, "flag": True},
        "tuple": (1, 2),
        "integer_keys": {1: "x"},
        "worst": float("-inf"),
        "optimizer": optimizer.state_dict(),
        "generator": torch.Generator().manual_seed(5).get_state(),
    }
    loaded = load_state(save(tmp_path, 3, write_model, state, keep=1))
    assert set(loaded) == set(state)
    plain = ("step", "loss", "seen", "tuple", "integer_keys", "worst")
    assert {key: loaded[key] for key in plain} == {key: state[key] for key in plain}
    assert loaded["generator"].equal(state["generator"])
    moments = loaded["optimizer"]["state"][0]
    assert all(moments[key].equal(value) for key, value in optimizer.state_dict()["state"][0].items())
    assert loaded["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    json_file = json.loads((tmp_path / "step_3" / "trainer_state.json").read_text())
    assert json_file["step"] == 3
    assert "optimizer" not in json_file


def test_a_state_the_safe_loader_refuses_fails_when_it_is_saved(tmp_path: Path) -> None:
    save(tmp_path, 1, write_model, STATE, keep=1)
    with pytest.raises(Exception, match="weights_only"):
        save(tmp_path, 2, write_model, {"path": Path("x")}, keep=1)
    assert names(tmp_path) == ["step_1"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_explained_and_leaves_earlier_checkpoints(tmp_path: Path, error: Exception) -> None:
    first = save(tmp_path, 1, write_model, STATE, keep=1)
    with pytest.raises(UserError, match=r"step_2 could not be written.*GB were free.*untouched.*free some space"):
        save(tmp_path, 2, failing(error), STATE, keep=1)
    assert names(tmp_path) == ["step_1"]
    assert newest(tmp_path) == first
    assert find_damage(first) is None


def test_a_full_device_under_torch_itself_is_explained(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.raises(UserError, match="could not be written"):
        save(tmp_path, 1, lambda _: torch.save({"w": torch.zeros(100_000)}, "/dev/full"), STATE, keep=1)
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), ValueError("a bug")])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    first = save(tmp_path, 1, write_model, STATE, keep=1)
    with pytest.raises(type(error)):
        save(tmp_path, 2, failing(error), STATE, keep=1)
    assert names(tmp_path) == ["step_1"]
    assert newest(tmp_path) == first


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="step_1"):
        save(tmp_path / "file", 1, write_model, STATE, keep=1)


@pytest.mark.parametrize("files", [0, 1, 2, 3, 4])
def test_a_kill_between_files_costs_only_the_new_checkpoint(tmp_path: Path, files: int) -> None:
    first = save(tmp_path, 1, write_model, STATE, keep=2)
    partial = save(tmp_path, 2, write_model, STATE, keep=2).rename(tmp_path / ".tmp-step_2")
    for path in sorted(p for p in partial.rglob("*") if p.is_file())[files:]:
        path.unlink()
    assert newest(tmp_path) == first
    assert names(tmp_path) == ["step_1"]


def test_a_new_save_replaces_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / ".tmp-step_2").mkdir()
    (tmp_path / ".tmp-step_2" / "stale.bin").write_bytes(b"x")
    path = save(tmp_path, 2, write_model, STATE, keep=1)
    assert names(tmp_path) == ["step_2"]
    assert not (path / "stale.bin").exists()


def damage_truncate(path: Path) -> None:
    os.truncate(path / "model.safetensors", 100)


def damage_flip(path: Path) -> None:
    data = bytearray((path / "model.safetensors").read_bytes())
    data[5] ^= 1
    (path / "model.safetensors").write_bytes(data)


def damage_remove(path: Path) -> None:
    (path / "processor" / "vocab.json").unlink()


def damage_manifest(path: Path) -> None:
    os.truncate(path / "manifest.json", 20)


def damage_no_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def damage_odd_manifest(path: Path) -> None:
    (path / "manifest.json").write_text('{"files": ["model.safetensors"]}')


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_truncate, "model.safetensors has 100 bytes, not 2048"),
        (damage_flip, "model.safetensors has other contents"),
        (damage_remove, "processor/vocab.json is missing"),
        (damage_manifest, "manifest.json"),
        (damage_no_manifest, "manifest.json"),
        (damage_odd_manifest, "manifest.json"),
    ],
)
def test_a_damaged_checkpoint_is_skipped_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], named: str
) -> None:
    first = save(tmp_path, 1, write_model, STATE, keep=3)
    damage(save(tmp_path, 2, write_model, STATE, keep=3))
    with caplog.at_level(logging.WARNING):
        assert newest(tmp_path) == first
    assert "step_2" in caplog.text
    assert named in caplog.text


def test_a_damaged_checkpoint_is_replaced_when_training_reaches_it_again(tmp_path: Path) -> None:
    save(tmp_path, 1, write_model, STATE, keep=3)
    damage_truncate(save(tmp_path, 2, write_model, STATE, keep=3))
    again = save(tmp_path, 2, write_model, STATE, keep=3)
    assert newest(tmp_path) == again
    assert names(tmp_path) == ["step_1", "step_2"]


def test_a_kill_while_replacing_brings_the_old_one_back(tmp_path: Path) -> None:
    path = save(tmp_path, 2, write_model, STATE, keep=1)
    path.rename(tmp_path / ".tmp-replaced-step_2")
    assert newest(tmp_path) == path


def test_only_the_newest_are_kept_in_order_of_steps(tmp_path: Path) -> None:
    for step in (5, 9, 10, 100):
        save(tmp_path, step, write_model, STATE, keep=2)
    assert names(tmp_path) == ["step_10", "step_100"]
    assert newest(tmp_path) == tmp_path / "step_100"


def test_a_damaged_one_does_not_count_among_the_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, write_model, STATE, keep=2)
    damage_truncate(save(tmp_path, 2, write_model, STATE, keep=2))
    save(tmp_path, 3, write_model, STATE, keep=2)
    assert names(tmp_path) == ["step_1", "step_3"]


def test_a_resumed_run_is_not_pruned_by_damaged_later_ones(tmp_path: Path) -> None:
    save(tmp_path, 1, write_model, STATE, keep=1)
    damage_truncate(save(tmp_path, 9, write_model, STATE, keep=2))
    path = save(tmp_path, 5, write_model, STATE, keep=1)
    assert newest(tmp_path) == path


def test_other_things_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "step_best").mkdir()
    save(tmp_path, 1, write_model, STATE, keep=1)
    save(tmp_path, 2, write_model, STATE, keep=1)
    assert names(tmp_path) == ["notes.txt", "step_2", "step_best"]


@pytest.mark.parametrize("exists", [True, False])
def test_no_checkpoint_is_none(tmp_path: Path, exists: bool) -> None:
    assert newest(tmp_path if exists else tmp_path / "absent") is None


@pytest.mark.parametrize("name", ["trainer_state.pt", "trainer_state.json"])
def test_unreadable_state_is_a_user_error(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1, write_model, STATE, keep=1)
    (path / name).write_bytes(b"junk")
    with pytest.raises(UserError, match="step_1"):
        load_state(path)
