"""Every algorithm that ships trains the quickstart for 20 steps without a warning: `make test-slow`."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FRAGMENTS = sorted((ROOT / "configs/fragments").glob("algo_*.yaml"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda p: p.stem)
def test_twenty_steps_without_a_warning(path: Path, tmp_path: Path) -> None:
    settings = (f"extends={path}", "train.steps=20", "eval.questions=20", f"run_dir={tmp_path}/run")
    command = [sys.executable, "-W", "always", "-m", "vlm_rl", "train", "configs/quickstart.yaml", *settings]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert not re.search(r"warn|alarm|traceback|\bnan\b|\binf\b", done.stdout, re.IGNORECASE), done.stdout
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 20 and all(math.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
    assert all(line["monitor/alarms"] == 0 for line in lines) and any(line["loss/grad_norm"] > 0 for line in lines)
    accuracy = [line["reward/accuracy/raw"] for line in lines]
    assert sum(accuracy[-5:]) > sum(accuracy[:5]) and min(line["rollout/wellformed"] for line in lines) > 0.9
