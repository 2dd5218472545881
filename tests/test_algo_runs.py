"""Whole small runs: dynamic sampling, state of KL and reference through a resume, an end by an alarm, samplings that are refused."""

import json
from pathlib import Path

import pytest
import torch
from runs_small import train_config
from safetensors.torch import load_file

from vlm_rl import checkpoint, cli_train
from vlm_rl.alarms import Alarms
from vlm_rl.errors import UserError

EVERYTHING = (
    "algo.kl_weight=0.05",
    "algo.kl_target=0.001",
    "algo.kl_horizon=20",
    "algo.reference.kind=ema",
    "algo.reference.mix=0.5",
    "algo.reference.every=1",
    "algo.dynamic_sampling={reward: brief, tries: 3}",
    "algo.entropy_bonus=0.001",
    "train.mini_batches=2",
    "train.updates_per_rollout=2",
)


def lines(run: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def without_clock(run: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "system/"))} for line in lines(run)]


class Killed(BaseException):
    pass


def test_all_state_of_an_algorithm_goes_through_a_resume(tmp_path, monkeypatch):
    """Killed after step 3, whose checkpoint is not written: the run goes on from step 2 as if nothing had happened."""
    whole = cli_train.train(train_config(tmp_path, f"run_dir={tmp_path}/whole", *EVERYTHING))
    weights = [line["algo/kl_weight"] for line in lines(whole)]
    assert weights[0] == 0.05 and len(set(weights)) == 4
    saved = checkpoint.load_state(whole / "checkpoints" / "step_4")["algo"]
    start = load_file(tmp_path / "model" / "model.safetensors")
    assert any(not any(torch.equal(tensor, other) for other in start.values()) for tensor in saved["reference"])
    config = train_config(tmp_path, f"run_dir={tmp_path}/broken", *EVERYTHING)
    save = cli_train.TrainRun.save

    def dying(self, step):
        if step == 3:
            raise Killed
        save(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(cli_train.TrainRun, "save", dying)
        with pytest.raises(Killed):
            cli_train.train(config)
    broken = cli_train.train(config)
    assert without_clock(broken) == without_clock(whole)
    assert (broken / "rollouts.jsonl").read_text() == (whole / "rollouts.jsonl").read_text()
    ends = [load_file(run / "checkpoints" / "step_4" / "model.safetensors") for run in (whole, broken)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


class Seldom:
    """Differs between rollouts for one prompt in two only, by the row's id."""

    def score(self, group, replies):
        from vlm_rl.types import RewardResult

        odd = int(group.sample.id[1:]) % 2
        return [RewardResult(float(odd and i == 0)) for i in range(len(group.rollouts))]


def test_dynamic_sampling_draws_other_prompts(tmp_path):
    overrides = ("rewards.seldom.use=test_algo_runs:Seldom", "algo.dynamic_sampling={reward: seldom, tries: 6}", "train.steps=3")
    run = cli_train.train(train_config(tmp_path, *overrides))
    for line in lines(run):
        assert line["rollout/trained_groups"] == 3 <= line["rollout/prompts"]
    assert max(line["rollout/prompts"] for line in lines(run)) > 3
    rows = lines(run, "rollouts.jsonl")
    assert sum(line["rollout/prompts"] for line in lines(run)) * 4 == len(rows)


def test_a_step_that_finds_nothing_to_learn_goes_on(tmp_path):
    overrides = ("rewards.flat.use=test_algo_runs:Flat", "algo.dynamic_sampling={reward: flat, tries: 2}", "train.steps=2")
    run = cli_train.train(train_config(tmp_path, *overrides))
    assert [line["rollout/trained_groups"] for line in lines(run)] == [0.0, 0.0]
    assert [line["rollout/prompts"] for line in lines(run)] == [6.0, 6.0]


class Flat:
    def score(self, group, replies):
        from vlm_rl.types import RewardResult

        return [RewardResult(0.7) for _ in group.rollouts]


def test_an_alarm_that_rings_for_long_ends_training(tmp_path, monkeypatch):
    """The alarm is set so that it rings from step 2 on; killed before the end is written, the run does not train on."""
    overrides = ("train.steps=8", "guards.alarms.entropy=5.0", "guards.stop_on.entropy=2", "checkpoint.every=5")
    config = train_config(tmp_path, *overrides)
    finish = cli_train.TrainRun.finish
    with monkeypatch.context() as patch:
        patch.setattr(cli_train.TrainRun, "finish", lambda self, facts: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            cli_train.train(config)
    assert finish is cli_train.TrainRun.finish
    stopped = len(lines(tmp_path / "run"))
    assert 2 <= stopped < 8
    run = cli_train.train(config)
    assert len(lines(run)) == stopped and (run / "checkpoints" / f"step_{stopped}").exists()
    assert json.loads((run / "summary.json").read_text())["run/steps"] == stopped


def test_alarms_count_steps_in_a_row():
    alarms = Alarms({}, {"trace_length": 2})
    first, low = {"monitor/trace_tokens": 10.0}, {"monitor/trace_tokens": 2.0}
    for line, over in ((first, False), (low, False), (first, False), (low, False), (low, True)):
        alarms(line)
        assert (alarms.stop is not None) == over
    assert alarms.stop and "guards.stop_on.trace_length=2" in alarms.stop
    with pytest.raises(UserError, match=r"guards\.stop_on"):
        Alarms({}, {"tracelength": 2})
    with pytest.raises(UserError, match="never rings"):
        Alarms({"entropy": None}, {"entropy": 2})


ALIVE = {"rollout/surprisal": 0.5, "monitor/trace_tokens": 30.0, "monitor/duplicate_traces": 0.1, "rollout/truncated": 0.0}


@pytest.mark.parametrize(
    ("name", "collapsed"),
    [
        ("entropy", {"rollout/surprisal": 0.0}),  # all rollouts alike, no group with a spread
        ("trace_length", {"monitor/trace_tokens": 4.0}),
        ("truncated", {"rollout/truncated": 0.8}),
        ("duplicate_traces", {"monitor/duplicate_traces": 1.0}),
    ],
)
def test_a_collapse_of_each_kind_ends_training(name: str, collapsed: dict[str, float]) -> None:
    alarms = Alarms({}, {name: 3})
    assert alarms(ALIVE) == ({"monitor/alarms": 0.0}, [])
    for step in range(3):
        assert alarms.stop is None
        assert alarms(ALIVE | collapsed)[0] == {"monitor/alarms": 1.0} and (alarms.stop is not None) == (step == 2)
    assert alarms.stop and f"guards.stop_on.{name}=3" in alarms.stop


@pytest.mark.parametrize(
    ("name", "first", "said"),
    [
        ("duplicate_traces", {"monitor/duplicate_traces": 0.98}, "is 0.98 at the first step already and cannot rise by more than 0.3"),
        ("trace_length", {"monitor/trace_tokens": 0.0}, "is 0 at the first step already"),
        ("pleased_judge", {}, "monitor/trace_tokens is not measured"),
    ],
)
def test_a_stop_that_can_never_be_is_told_at_the_first_step(name: str, first: dict[str, float], said: str) -> None:
    [text] = Alarms({}, {name: 3})(first)[1]
    assert f"guards.stop_on.{name} cannot stop this run" in text and said in text
    assert Alarms({})(first)[1] == []


class OneAnswer:
    """Pays for one and the same response, so that a policy collapses onto it."""

    def score(self, group, replies):
        from vlm_rl.types import RewardResult

        return [RewardResult(-abs(len(r.completion.token_ids) - 1) - float(r.completion.token_ids[0] != 5)) for r in group.rollouts]


def test_a_policy_that_collapses_ends_its_own_training(tmp_path):
    """Its entropy falls until all rollouts are alike and no group has a spread; the alarm rings through that."""
    overrides = (
        "rewards={one: {use: 'test_algo_runs:OneAnswer', weight: 1.0}}",
        "train.steps=40",
        "optim.learning_rate=3.0e-2",
        "guards.stop_on={entropy: 3}",
        "eval.every=null",
        "checkpoint.every=100",
    )
    run = cli_train.train(train_config(tmp_path, *overrides))
    found = lines(run)
    assert 4 <= len(found) < 40
    assert all(line["rollout/surprisal"] < 0.2 * found[0]["rollout/surprisal"] for line in found[-3:])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rollout.top_p=0.9", "part of the vocabulary"),
        ("rollout.top_k=50", "lower rollout.temperature"),
        ("train.mini_batches=4", "rollout.prompts_per_step=3"),
        ("algo.dynamic_sampling={reward: acc}", "no reward's label"),
        ("algo.correction=[{use: token_mask}]", "needs a bound"),
        ("algo.correction=[{use: token_mask, low: 2, high: 1}]", "above high"),
        ("guards.stop_on.entropy=0", "greater than 0"),
        ("extends=nowhere.yaml", "no config file"),
    ],
)
def test_settings_that_are_refused(tmp_path, override, said):
    with pytest.raises(UserError) as error:
        train_config(tmp_path, override)
    assert said in str(error.value)
