"""The command line as a user meets it: help, errors without tracebacks, exit statuses."""

import errno
import io
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rich.console
from runs_small import train_config, write_model, write_rows

from vlm_rl import cli, cli_setup
from vlm_rl.console import Console

ROOT = Path(__file__).parent.parent
TESTS = str(Path(__file__).parent)


def vlm_rl(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": TESTS}
    return subprocess.run(
        [sys.executable, "-m", "vlm_rl", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.mark.parametrize("command", [[], ["train"], ["sft"], ["data"], ["data", "check"], ["report"]])
def test_help_explains_itself(command):
    done = vlm_rl(*command, "--help")
    assert done.returncode == 0 and "Usage" in done.stdout and len(done.stdout) > 200


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["train", "configs/quickstart.yml"], "did you mean"),
        (["train", "configs/quickstart.yaml", "rewards.acuracy.use=acuracy"], "did you mean 'accuracy'"),
        (["train", "configs/quickstart.yaml", "algo.loss=grop"], "did you mean 'grpo'"),
        (["train", "configs/quickstart.yaml", "data.name=easyvqa"], "did you mean 'easy_vqa'"),
        (["train", "configs/quickstart.yaml", "rewards.accuracy.mod=strict"], "rewards.accuracy.mod"),
        (["train", "configs/quickstart.yaml", "data.name=jsonl", "data.path=none.jsonl"], "none.jsonl"),
        (["train", "configs/quickstart.yaml", "model.path=./nowhere"], "no such directory"),
        (["train", "configs/quickstart.yaml", "run_dir=Makefile"], "is a file"),
        (["report", "nowhere"], "not a run directory"),
        (["merge", "nowhere", "--out", "x"], "nowhere is no directory"),
    ],
)
def test_mistakes_are_named_without_a_traceback(tmp_path, arguments, said):
    if arguments[0] == "train":
        arguments = [*arguments[:2], f"run_dir={tmp_path}/run", *arguments[2:]]
    done = vlm_rl(*arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_users_own_rows_reward_and_run_directory(tmp_path):
    train_config(tmp_path)  # writes model, rows and base.yaml
    (tmp_path / "mine.py").write_text(
        "from vlm_rl.types import RewardResult\n\n\nclass Short:\n    def __init__(self, limit: int = 6):\n        self.limit = limit\n\n"
        "    def score(self, group, replies):\n"
        "        return [RewardResult(float(len(r.completion.token_ids) < self.limit)) for r in group.rollouts]\n"
    )
    overrides = ["train.steps=2", "rewards.short.use=mine:Short", "rewards.short.limit=5"]
    done = vlm_rl("train", "base.yaml", *overrides, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "reward/short/raw" in (tmp_path / "run" / "metrics.jsonl").read_text()
    again = vlm_rl("train", "base.yaml", *overrides, cwd=tmp_path)
    assert again.returncode == 0 and "is finished" in again.stderr + again.stdout
    assert vlm_rl("report", str(tmp_path / "run")).returncode == 0
    assert vlm_rl("data", "check", "base.yaml", cwd=tmp_path).returncode == 0
    (tmp_path / "rows" / "3.png").write_bytes(b"")
    checked = vlm_rl("data", "check", "base.yaml", cwd=tmp_path)
    assert checked.returncode == 1 and "r3" in checked.stdout + checked.stderr


def test_sft_makes_a_model_from_sizes_and_resumes(tmp_path):
    write_model(tmp_path / "model")
    rows = write_rows(tmp_path / "rows", responses=True)
    (tmp_path / "sft.yaml").write_text(
        f"run_dir: {tmp_path}/run\nmodel: {{scratch: {{hidden_size: 64, heads: 2, layers: 2, vision_hidden_size: 32, image_size: 56}}}}\n"
        f"data: {{name: jsonl, path: {rows}}}\ntrain: {{steps: 30, batch_size: 8}}\noptim: {{learning_rate: 5.0e-3}}\n"
        "eval: {questions: 2, samples: 0}\nrollout: {max_new_tokens: 30}\ntracker: {tensorboard: true}\n"
    )
    done = vlm_rl("sft", "sft.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    first, last = (float(line.split('"loss/total": ')[1].split(",")[0]) for line in (lines[0], lines[-1]))
    assert last < first / 2
    assert (tmp_path / "run" / "checkpoints" / "step_30" / "model.safetensors").exists()
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))


def test_a_users_folder_does_not_hide_the_packages(tmp_path):
    """A data/ of pictures, a rewards.py and an eval.py beside the config are what people have."""
    train_config(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "eval.py").write_text("raise SystemExit('the wrong one')\n")
    (tmp_path / "rewards.py").write_text("raise SystemExit('the wrong one')\n")
    done = vlm_rl("data", "check", "base.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(tmp_path):
    train_config(tmp_path)
    command = [sys.executable, "-m", "vlm_rl", "train", "base.yaml", "train.steps=100000", "checkpoint.every=1", "eval.questions=1"]
    environment = os.environ | {"PYTHONPATH": TESTS}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    try:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)
    finally:
        signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("run/checkpoints/step_*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on from the newest checkpoint" in err and "Traceback" not in err
    assert "accelerator" not in out + err


@pytest.fixture
def main_with(monkeypatch):
    """cli.main() with the commands replaced by one that raises."""

    def run(error: BaseException, *arguments: str) -> int:
        def app():
            raise error

        monkeypatch.setattr(cli, "app", app)
        monkeypatch.setattr(sys, "argv", ["vlm-rl", *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code

    return run


def test_a_full_disk_anywhere_is_named_without_a_traceback(main_with, capsys):
    assert main_with(OSError(errno.ENOSPC, "No space left on device", "run/summary.json.part"), "train") == 2
    assert "run/summary.json.part: No space left on device; free some space" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(130)])
def test_ctrl_c_promises_to_go_on_only_where_that_is_so(main_with, capsys, error):
    assert main_with(error, "data", "check") == 130
    assert capsys.readouterr().err == "stopped\n"
    assert main_with(SystemExit(1)) == 1 and capsys.readouterr().err == ""


def test_a_report_on_a_full_disk(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "report.html.part").symlink_to("/dev/full")
    done = vlm_rl("report", str(tmp_path))
    assert done.returncode == 2 and "No space left" in done.stderr and "Traceback" not in done.stderr


def test_log_lines_appear_above_a_live_progress_bar(capsys):
    shown = io.StringIO()
    logger = logging.Logger("apart")
    logger.addHandler(cli_setup.LiveHandler())
    with Console(3, output=rich.console.Console(file=shown, force_terminal=True, width=100)):
        logger.warning("a line while it is shown")
    logger.warning("a line after it")
    assert "a line while it is shown\n" in shown.getvalue()
    assert capsys.readouterr().err == "a line after it\n"


def test_a_remark_about_accelerators_is_dropped_and_other_warnings_are_not(main_with, caplog):
    main_with(SystemExit(0))
    logger = logging.getLogger("DeepSpeed")
    logger.warning("Setting accelerator to CPU. If you have GPU or other accelerator, we were unable to detect it.")
    logger.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
