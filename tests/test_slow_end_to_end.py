"""Whole commands on the embedded default, too long for every push: `make test-slow`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "vlm_rl", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(*arguments: str) -> None:
    process = start(*arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output.decode()[-3000:]


def metrics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "system/"))} for line in lines]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_quickstart_learns_to_use_the_picture(tmp_path, seed):
    finish("train", "configs/quickstart.yaml", f"run_dir={tmp_path}/run", f"seed={seed}")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["eval/questions"] >= 500
    assert 0.40 <= summary["eval/accuracy_before"] <= 0.60
    assert summary["eval/wellformed_before"] >= 0.98
    assert summary["eval/difference"] >= 0.15 and summary["eval/difference_ci95"][0] > 0
    assert summary["eval/sampled_after"] > summary["eval/sampled_before"]
    assert summary["eval/gain_over_blank"] > 0 and summary["eval/gain_over_blank_ci95"][0] > 0
    assert "data:image/png;base64" in (tmp_path / "run" / "report.html").read_text()


def test_scenes_are_learnt_by_looking(tmp_path):
    finish("train", "configs/lab/scenes.yaml", f"run_dir={tmp_path}/run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["eval/wellformed_before"] >= 0.98
    assert summary["eval/difference_ci95"][0] > 0 and summary["eval/gain_over_blank_ci95"][0] > 0
    assert summary["eval/truth/box_truth_before"] > 0.5
    assert 0 < summary["eval/truth/claim_truth_after"] < 1


def test_clips_are_learnt_by_watching(tmp_path):
    finish("train", "configs/quickstart_video.yaml", f"run_dir={tmp_path}/run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["eval/questions"] >= 400 and summary["eval/wellformed_before"] >= 0.95
    assert summary["eval/difference"] >= 0.1 and summary["eval/difference_ci95"][0] > 0
    assert summary["eval/gain_over_blank_ci95"][0] > 0
    assert summary["eval/truth/box_truth_before"] > 0.5


def test_killed_and_resumed_equals_unbroken_bit_for_bit(tmp_path):
    small = ["train.steps=9", "checkpoint.every=2", "eval.questions=40", "eval.samples=1", "rollout.prompts_per_step=4"]
    finish("train", "configs/quickstart.yaml", f"run_dir={tmp_path}/whole", *small)
    broken = tmp_path / "broken"
    for kill_at in (1, 3, 4, 8):
        process = start("train", "configs/quickstart.yaml", f"run_dir={broken}", *small)
        path = broken / "metrics.jsonl"
        while process.poll() is None and (not path.exists() or path.read_text().count("\n") < kill_at):
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    finish("train", "configs/quickstart.yaml", f"run_dir={broken}", *small)
    assert metrics(broken) == metrics(tmp_path / "whole")
    whole, resumed = (load_file(run / "checkpoints" / "step_9" / "model.safetensors") for run in (tmp_path / "whole", broken))
    assert all((whole[name] == resumed[name]).all() for name in whole)
