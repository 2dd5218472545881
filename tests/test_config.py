"""Configs: every shipped file parses, wrong keys are refused with the nearest one, files extend each other."""

from pathlib import Path

import pytest
import yaml

from eval.benchmarks import BENCHMARKS
from eval.making import make_evaluators
from vlm_rl.config import SftConfig, TrainConfig
from vlm_rl.config_claim import ClaimConfig
from vlm_rl.config_eval import EvalConfig
from vlm_rl.config_judge_eval import JudgeEvalConfig
from vlm_rl.errors import UserError
from vlm_rl.loading import load

ROOT = Path(__file__).parent.parent
MINIMAL = {"run_dir": "r", "model": {"path": "m"}, "data": {"name": "easy_vqa"}, "rewards": {"accuracy": {}}, "train": {"steps": 3}}


def write(path: Path, tree: dict) -> Path:
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=str)
def test_every_shipped_config_parses(path):
    if "fragments" in path.parts:
        return
    keys = yaml.safe_load(path.read_text())
    if path.parent.name in ("eval", "stress"):
        config = load(EvalConfig, path)
        assert config.benchmark is None or config.benchmark.name in BENCHMARKS
        make_evaluators(config.evaluators, config.benchmark and config.benchmark.name)
        return
    if path.parent.name == "claims":
        assert load(ClaimConfig, path).arms
        return
    if path.parent.name == "train":
        assert load(TrainConfig, path).rewards
        return
    if path.parent.name == "judge":
        assert load(JudgeEvalConfig, path).judges
        return
    schema = TrainConfig if "rewards" in keys else SftConfig
    assert load(schema, path).train.steps > 0


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["trian.steps=5"], ["override 'trian.steps=5'", "did you mean 'train'"]),
        (["train.stesp=5"], ["train.stesp", "did you mean 'steps'"]),
        (["rollout.group_size=1"], ["rollout.group_size", "greater than or equal to 2"]),
        (["train.steps=many"], ["train.steps", "many"]),
        (["rollout.engine=vlm"], ["rollout.engine", "'hf'"]),
        (["rewards.acc.weight=2"], ["no reward is labelled 'acc'", "accuracy", "rewards.acc.use"]),
        (["rewards=null", "rewards.acc.weight=2"], ["no reward is labelled 'acc' (labels: none)", "rewards.acc.use"]),
        (["rewards=3", "rewards.acc.weight=2"], ["no reward is labelled 'acc'"]),
        (["nonsense"], ["key.sub=value"]),
        (["seed=[1"], ["not valid YAML"]),
        (["model.path=null"], ["set exactly one of model.path and model.scratch"]),
    ],
)
def test_wrong_overrides_are_named_with_the_fix(tmp_path, overrides, said):
    path = write(tmp_path / "c.yaml", MINIMAL)
    with pytest.raises(UserError) as error:
        load(TrainConfig, path, overrides)
    for text in said:
        assert text in str(error.value)


def test_a_wrong_key_in_a_file_names_the_file(tmp_path):
    path = write(tmp_path / "c.yaml", {**MINIMAL, "optim": {"learning_rat": 1}})
    with pytest.raises(UserError, match=r"c\.yaml: unknown key 'optim\.learning_rat'; did you mean 'learning_rate'"):
        load(TrainConfig, path)


def test_overrides_and_new_reward_labels(tmp_path):
    path = write(tmp_path / "c.yaml", MINIMAL)
    config = load(TrainConfig, path, ["seed=3", "data.path=a b.jsonl", "rewards.short.use=mine:Short", "rewards.short.limit=9"])
    assert (config.seed, config.data.path) == (3, "a b.jsonl")
    assert config.rewards["short"].use == "mine:Short" and config.rewards["short"].arguments == {"limit": 9}
    assert MINIMAL["rewards"].keys() == {"accuracy"}


def test_extends_lays_files_over_each_other(tmp_path):
    write(tmp_path / "base.yaml", {**MINIMAL, "optim": {"learning_rate": 1.0, "grad_clip": 2.0}})
    write(tmp_path / "part.yaml", {"optim": {"grad_clip": 3.0}})
    child = write(tmp_path / "child.yaml", {"extends": ["base.yaml", "part.yaml"], "seed": 5})
    config = load(TrainConfig, child)
    assert (config.seed, config.optim.learning_rate, config.optim.grad_clip) == (5, 1.0, 3.0)


def test_extends_in_a_circle_and_missing_files_are_refused(tmp_path):
    write(tmp_path / "a.yaml", {"extends": "b.yaml"})
    write(tmp_path / "b.yaml", {"extends": "a.yaml"})
    with pytest.raises(UserError, match="extends itself"):
        load(TrainConfig, tmp_path / "a.yaml")
    with pytest.raises(UserError, match=r"no config file.*did you mean .*a\.yaml"):
        load(TrainConfig, tmp_path / "aa.yaml")
    for extends in (3, [3], {"a.yaml": 1}):
        with pytest.raises(UserError, match=r"c\.yaml: extends: .* is no file"):
            load(TrainConfig, write(tmp_path / "c.yaml", {"extends": extends}))
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(UserError, match="a config is a mapping"):
        load(TrainConfig, tmp_path / "list.yaml")


def test_a_reward_label_has_no_dot(tmp_path):
    path = write(tmp_path / "c.yaml", {**MINIMAL, "rewards": {"a.b": {}}})
    with pytest.raises(UserError, match=r"no '\.'"):
        load(TrainConfig, path)
