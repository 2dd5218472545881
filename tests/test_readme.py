"""What the README shows is what the code does: its reward runs, its loop is the loop, its commands and files exist."""

import inspect
import json
import re
from pathlib import Path

from runs_small import train_config

from vlm_rl import cli_train
from vlm_rl.trainer import Trainer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def without_comments(text: str) -> list[str]:
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in text.splitlines()]
    return [line for line in lines if line]


def test_the_reward_of_the_readme_works_in_under_20_lines(tmp_path, monkeypatch):
    code = next(block for block in BLOCKS if "class Steady" in block)
    assert len(code.splitlines()) < 20
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    run = cli_train.train(train_config(tmp_path, "train.steps=2", "rewards.steady.use=mine:Steady", "rewards.steady.weight=0.2"))
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert abs(last["reward/steady/weight"] - 0.2) < 1e-9 and 0 <= last["reward/steady/raw"] <= 1


def test_the_loop_of_the_readme_is_the_loop():
    shown = without_comments(next(block for block in BLOCKS if "self.rollout(" in block))
    real = without_comments(inspect.getsource(Trainer.run))
    assert [line for line in real if line in shown] == shown


def test_paths_and_targets_of_the_readme_exist():
    for path in re.findall(r"\((docs/[^)#]+)\)", README) + re.findall(r"`((?:vlm_rl|data|rewards)/[\w/.]+)`", README):
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make ([\w-]+)", README, re.M):
        assert f"\n{target}:" in makefile, target
    for config in re.findall(r"configs/[\w/]+\.yaml", README):
        assert (ROOT / config).exists(), config
