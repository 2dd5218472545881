"""The run directory: who may work in it, what a start that failed leaves, which changes a resumed run allows."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from vlm_rl import rundir
from vlm_rl.config import TrainConfig
from vlm_rl.errors import UserError


def config(run_dir: Path, **sections: object) -> TrainConfig:
    tree = {"run_dir": str(run_dir), "model": {"path": "m"}, "data": {"name": "easy_vqa"}, "rewards": {"accuracy": {}}}
    return TrainConfig.model_validate({**tree, "train": {"steps": 3}, **sections})


def claim(*args, **sections) -> Path:
    with rundir.claimed(config(*args, **sections)) as run_dir:
        return run_dir


def written(run_dir: Path) -> dict:
    return yaml.safe_load((run_dir / "config.yaml").read_text())


def test_a_start_that_made_no_checkpoint_does_not_own_the_directory(tmp_path):
    run = claim(tmp_path / "run")
    for name in rundir.WRITTEN:
        if "." in name or name == "wandb_id":
            (run / name).write_text("{}")
        else:
            (run / name).mkdir()
            (run / name / "file").write_text("old")
    (run / "notes.txt").write_text("mine")
    claim(run, optim={"learning_rate": 0.5})
    assert written(run)["optim"]["learning_rate"] == 0.5
    assert sorted(path.name for path in run.iterdir()) == [".lock", "config.yaml", "notes.txt"]


def test_the_same_config_keeps_what_is_there(tmp_path):
    run = claim(tmp_path / "run")
    (run / "metrics.jsonl").write_text("{}")
    claim(run)
    assert (run / "metrics.jsonl").exists()


@pytest.mark.parametrize("trace", ["checkpoint", "result"])
def test_a_run_with_something_to_lose_is_not_replaced(tmp_path, trace):
    run = claim(tmp_path / "run")
    if trace == "checkpoint":
        (run / "checkpoints" / "step_2").mkdir(parents=True)
    else:
        (run / "summary.json").write_text('{"run/finished": true}')
    with pytest.raises(UserError, match=r"optim\.learning_rate: there 1e-06, now 0\.5"):
        claim(run, optim={"learning_rate": 0.5})
    assert written(run)["optim"]["learning_rate"] == 1e-6


@pytest.mark.parametrize(
    "sections",
    [
        {"guards": {"parity_limit": 1.0}},
        {"data": {"name": "easy_vqa", "on_bad_row": "skip"}},
        {"rollout": {"batch_size": 7}, "train": {"steps": 3, "token_budget": 99}},
        {"model": {"path": "m", "gradient_checkpointing": True, "decode_timeout_s": 9.0}},
        {"model": {"path": "m", "processor_cache_mb": 5, "processor_cache_dir": "c"}},
        {"checkpoint": {"keep": 1}, "tracker": {"tensorboard": False}},
    ],
)
def test_what_changes_nothing_computed_may_change(tmp_path, sections):
    run = claim(tmp_path / "run")
    (run / "checkpoints" / "step_2").mkdir(parents=True)
    claim(run, **sections)
    there = written(run)
    assert all(there[section][key] == value for section, keys in sections.items() for key, value in keys.items())


@pytest.mark.parametrize("sections", [{"rollout": {"group_size": 2}}, {"data": {"name": "easy_vqa", "seed": 1}}, {"seed": 1}])
def test_what_changes_the_numbers_may_not(tmp_path, sections):
    run = claim(tmp_path / "run")
    (run / "checkpoints" / "step_2").mkdir(parents=True)
    with pytest.raises(UserError, match="another config"):
        claim(run, **sections)


def test_a_start_killed_while_writing_its_config_leaves_a_usable_directory(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml.part").write_text("run_d")
    (tmp_path / "run" / ".lock").write_text("")
    assert written(claim(tmp_path / "run"))["seed"] == 0


def test_places_that_are_no_run_directories(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        claim(tmp_path / "file")
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        claim(tmp_path / "file" / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    with pytest.raises(UserError, match="not a run directory"):
        claim(tmp_path / "other")
    assert not (tmp_path / "other" / ".lock").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.yaml.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match="cannot be written: No space left"):
        claim(tmp_path / "full")
    run = claim(tmp_path / "run")
    (run / "summary.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        claim(run, seed=2)


def test_one_process_at_a_time_and_a_killed_one_lets_go(tmp_path):
    with rundir.claimed(config(tmp_path / "run")), pytest.raises(UserError, match=r"another process is working in .*run;"):
        claim(tmp_path / "run")
    hold = "from test_rundir import *\nwith rundir.claimed(config(Path(sys.argv[1]))):\n    print(1, flush=True)\n    time.sleep(99)"
    process = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "run")], cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"1\n"
    with pytest.raises(UserError, match="another process"):
        claim(tmp_path / "run")
    process.kill()
    process.communicate()
    started = time.monotonic()
    assert claim(tmp_path / "run").exists() and time.monotonic() - started < 1
