"""A stranger's reward in the laboratory, exactly as docs/lab.md has it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vlm_rl import cli_lab_plan

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "lab.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def directory(tmp_path, monkeypatch) -> Path:
    (code,), (claim,) = blocks("python"), blocks("yaml")
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "mine.yaml").write_text(claim)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_short_and_can_be_planned(directory):
    assert len([line for text in (*blocks("python"), *blocks("yaml")) for line in text.splitlines() if line.strip()]) < 30
    experiment = cli_lab_plan.plan("mine.yaml", True, Path("runs/lab"))
    assert [unit.name for unit in experiment.units] == ["grpo, seed 0", "boxed, seed 0", "grpo, seed 1", "boxed, seed 1"]


def test_every_claim_is_told():
    named = set(re.findall(r"`(\w+)`", PAGE.partition("## The claims that come with it")[2]))
    assert named == {path.stem for path in (ROOT / "configs" / "claims").glob("*.yaml")}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_runs_as_written(directory):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "vlm_rl", "lab", "run", "mine.yaml", "--quick"]
    done = subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads((directory / "runs/lab/mine-quick/summary.json").read_text())
    assert summary["primary"]["seeds"] == 2 and summary["verdict"] in ("holds", "does not hold", "undecided")
    assert "value" in summary["secondary"][1] and not summary["unfinished"]
