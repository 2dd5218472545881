"""Training prompts under views by shares, alarms, and whole runs of the lab configs with the judge that knows scenes."""

import json
from collections import Counter
from pathlib import Path

import pytest
from helpers_rewards import CHOICE, make_group
from hypothesis import given, settings
from hypothesis import strategies as st
from runs_small import train_config, write_model

from data.augment import CLEAN, CONDITION, REFUSED, Augmentation, condition_of, refused
from vlm_rl import cli_train
from vlm_rl.alarms import ALARMS, Alarms
from vlm_rl.cli_lab import serving
from vlm_rl.config import TrainConfig
from vlm_rl.errors import UserError
from vlm_rl.loading import load
from vlm_rl.types import Sample, ScoredGroup

LAB = Path(__file__).parent.parent / "configs" / "lab"
ROWS = [Sample(str(i), "What colour?", "B", "choice", ("red", "teal", "blue")) for i in range(400)]
PAPER = {"think_right": 0.1, "think_wrong": 0.1, "caption_right": 0.1, "caption_wrong": 0.1}


def test_conditions_come_in_their_shares_and_are_functions_of_step_and_row() -> None:
    augment = Augmentation(PAPER, seed=3)
    drawn = Counter(augment.condition(row.id, step) for row in ROWS for step in range(1, 11))
    assert {name: round(count / 4000, 1) for name, count in drawn.items()} == {**PAPER, CLEAN: 0.6}
    again = Augmentation(PAPER, seed=3)
    assert [augment(row, 4) for row in ROWS] == [again(row, 4) for row in reversed(ROWS)][::-1]
    assert [condition_of(augment(row, 4)) for row in ROWS] != [condition_of(augment(row, 5)) for row in ROWS]
    assert [condition_of(augment(row, 4)) for row in ROWS] != [condition_of(Augmentation(PAPER, 4)(row, 4)) for row in ROWS]


def test_a_share_of_one_is_all_and_none_is_none() -> None:
    assert {condition_of(Augmentation({"caption_wrong": 1.0}, 0)(row, 1)) for row in ROWS} == {"caption_wrong"}
    assert {condition_of(Augmentation({"caption_wrong": 0.0}, 0)(row, 1)) for row in ROWS} == {CLEAN}
    assert all(Augmentation({}, 0)(row, 1) is row for row in ROWS)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1 << 40), st.integers(1, 10_000), st.sampled_from(["caption_wrong", "think_wrong", "think_right"]))
def test_what_is_right_stays_right_and_what_is_said_pushes_what_the_view_says(seed: int, step: int, name: str) -> None:
    [row] = ROWS[:1]
    changed = Augmentation({name: 1.0}, seed)(row, step)
    assert (changed.id, changed.answer, changed.options) == (row.id, row.answer, row.options)
    assert (changed.meta["pushed_answer"] == "B") is (name == "think_right")
    assert changed.question.startswith("Caption: ") is (name == "caption_wrong")
    assert changed.prefill.startswith("<think>") is (name != "caption_wrong") and "</think>" not in changed.prefill


def test_a_row_without_anything_to_change_stays_clean_and_says_so() -> None:
    expression = Sample("7", "?", "x^2", "math")
    changed = Augmentation({"think_wrong": 1.0}, 0)(expression, 1)
    assert changed == refused(expression, "think_wrong")
    assert changed.meta == {CONDITION: CLEAN, REFUSED: "think_wrong"} and changed.prefill == ""


def scored(sample: Sample, *totals: float) -> ScoredGroup:
    return ScoredGroup(make_group(["x"] * len(totals), sample), totals, {})


def test_metrics_by_condition() -> None:
    augment = Augmentation({"think_wrong": 0.5}, 0)
    wrong = Augmentation({"think_wrong": 1.0}, 0)(CHOICE, 1)
    groups = [scored(wrong, 1, 0), scored(CHOICE, 1, 1), scored(refused(CHOICE, "think_wrong"), 0, 0), scored(CHOICE, 1, 0)]
    assert augment.metrics(groups) == {
        "augment/clean/share": 0.75,
        "augment/clean/reward": 0.5,
        "augment/think_wrong/share": 0.25,
        "augment/think_wrong/reward": 0.5,
        "augment/think_wrong/not_applicable": 1.0,
    }
    assert "augment/think_wrong/reward" not in augment.metrics(groups[1:]) and Augmentation({}, 0).metrics(groups) == {}


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"caption_wrnog": 0.1}, "did you mean 'caption_wrong'"),
        ({"caption_wrong": 0.6, "think_wrong": 0.6}, "sum to 1 at most"),
        ({"caption_wrong": -0.1}, "sum to 1 at most"),
        ({"no_such_module:view": 0.1}, "no_such_module"),
    ],
)
def test_mistakes_are_named(shares: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match="augment") as caught:
        Augmentation(shares, 0)
    assert words in str(caught.value)


# Alarms.

FIRST = {
    "monitor/trace_tokens": 40.0,
    "monitor/common_prefix": 0.1,
    "rollout/surprisal": 1.0,
    "rollout/length": 60.0,
    "reward/f/judged": 0.5,
}


@pytest.mark.parametrize(
    ("changes", "rung"),
    [
        ({}, set()),
        ({"monitor/trace_tokens": 21.0, "monitor/common_prefix": 0.39}, set()),
        ({"monitor/trace_tokens": 19.0}, {"trace_length"}),
        ({"monitor/trace_tokens": 19.0, "reward/f/judged": 0.6}, {"trace_length", "pleased_judge"}),
        ({"monitor/trace_tokens": 90.0, "reward/f/judged": 0.9}, set()),
        ({"rollout/length": 11.0, "reward/f/judged": 0.6}, {"pleased_judge_length"}),
        ({"rollout/length": 13.0, "reward/f/judged": 0.6}, set()),
        ({"rollout/length": 1.0, "reward/f/judged": 0.5}, set()),
        ({"monitor/common_prefix": 0.45}, {"common_prefix"}),
        ({"rollout/surprisal": 0.21}, set()),
        ({"rollout/surprisal": 0.19}, {"entropy"}),
        ({"rollout/surprisal": 0.0}, {"entropy"}),
    ],
)
def test_alarms(changes: dict[str, float], rung: set[str]) -> None:
    alarms = Alarms({})
    assert alarms(FIRST) == ({"monitor/alarms": 0.0}, [])
    counted, texts = alarms({**FIRST, **changes})
    assert {text.split()[1].rstrip(":") for text in texts} == rung and counted == {"monitor/alarms": float(len(rung))}


def after_first(thresholds: dict[str, float | None]) -> Alarms:
    alarms = Alarms(thresholds)
    alarms(FIRST)
    return alarms


def test_an_alarm_is_told_when_it_begins() -> None:
    alarms, low = Alarms({}), {**FIRST, "monitor/trace_tokens": 5.0}
    told = [alarms(metrics)[1] for metrics in (FIRST, low, low, FIRST, low)]
    assert [len(texts) for texts in told] == [0, 1, 0, 0, 1]
    for words in ("alarm trace_length", "monitor/trace_tokens is 5", "was 40", "guards.alarms.trace_length=0.5"):
        assert words in told[1][0]
    assert after_first({})(low) == ({"monitor/alarms": 1.0}, told[1])


def test_thresholds_can_be_set_and_silenced_by_name() -> None:
    low = {**FIRST, "monitor/trace_tokens": 15.0}
    assert after_first({"trace_length": 0.3})(low)[0] == after_first({"trace_length": None})(low)[0] == {"monitor/alarms": 0.0}
    with pytest.raises(UserError, match=r"unknown alarm 'trace_lenght' in guards\.alarms; did you mean 'trace_length'"):
        Alarms({"trace_lenght": 0.3})
    assert all(0 < alarm.threshold < 1 for alarm in ALARMS.values())


# Whole runs.


def lines(run: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def test_a_run_with_augmented_prompts(tmp_path, caplog) -> None:
    shares = ["augment.caption_wrong=0.4", "augment.think_wrong=0.4"]
    whole = cli_train.train(train_config(tmp_path, *shares, f"run_dir={tmp_path}/whole"))
    rollouts, metrics = lines(whole, "rollouts.jsonl"), lines(whole)
    by_group: dict[tuple, set[str]] = {}
    for row in rollouts:
        by_group.setdefault((row["step"], row["sample_id"]), set()).add(row["condition"])
        assert ("Caption: " in row["prompt"]) is (row["condition"] == "caption_wrong")
        assert row["prompt"].rpartition("assistant")[2].strip().startswith("<think>") is (row["condition"] == "think_wrong")
    assert all(len(conditions) == 1 for conditions in by_group.values())
    assert set.union(*by_group.values()) == {CLEAN, "caption_wrong", "think_wrong"}
    for step, line in enumerate(metrics, 1):
        drawn = [conditions for (s, _), conditions in by_group.items() if s == step]
        for name in (CLEAN, "caption_wrong", "think_wrong"):
            assert line[f"augment/{name}/share"] == pytest.approx(sum(c == {name} for c in drawn) / len(drawn))
        assert line["augment/think_wrong/not_applicable"] == 0 and line["guard/logprob_diff"] < 1e-4
        assert {"monitor/trace_tokens", "monitor/common_prefix", "monitor/alarms"} <= line.keys()
    assert {row["condition"] for row in lines(whole, "eval/before.jsonl")} == {"clean", "blank"}
    tight = train_config(tmp_path, "augment.think_wrong=1.0", "model.max_prompt_tokens=70", f"run_dir={tmp_path}/tight")
    assert all(line["augment/think_wrong/not_applicable"] == 3 for line in lines(cli_train.train(tight)))


def test_an_augmented_run_resumed_equals_the_unbroken_one(tmp_path, monkeypatch) -> None:
    shares = ["augment.caption_wrong=0.4", "augment.think_wrong=0.4", "guards.alarms.trace_length=0.9"]
    whole = cli_train.train(train_config(tmp_path, *shares, f"run_dir={tmp_path}/whole"))
    config = train_config(tmp_path, *shares, f"run_dir={tmp_path}/broken")
    save = cli_train.TrainRun.save

    def killed(self, step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt
        save(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(cli_train.TrainRun, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            cli_train.train(config)
    broken = cli_train.train(config)
    assert (broken / "rollouts.jsonl").read_text() == (whole / "rollouts.jsonl").read_text()
    assert [line["monitor/alarms"] for line in lines(broken)] == [line["monitor/alarms"] for line in lines(whole)]


def test_names_are_checked_before_anything_loads(tmp_path) -> None:
    for override, words in (("augment.caption_wrnog=0.1", "did you mean 'caption_wrong'"), ("guards.alarms.entropie=1", "'entropy'")):
        with pytest.raises(UserError, match=words):
            cli_train.train(train_config(tmp_path, override))
    assert not (tmp_path / "run").exists()


def lab(tmp_path: Path, name: str, url: str, *overrides: str) -> TrainConfig:
    """A shipped config with a tiny untrained model, whose traces begin in its prompts: by itself it writes none."""
    small = ["train.steps=2", "rollout.prompts_per_step=4", "rollout.group_size=3", "rollout.max_new_tokens=6", "eval.questions=2"]
    small += ["eval.samples=0", "eval.every=null", "tracker.tensorboard=false", f"run_dir={tmp_path}/run", f"model.path={tmp_path}/model"]
    write_model(tmp_path / "model")
    begun = ["augment={think_right: 0.5, think_wrong: 0.5}", f"judges.exact.url={url}", "judges.exact.retries=0"]
    return load(TrainConfig, LAB / f"{name}.yaml", [*small, *begun, *overrides])


@pytest.mark.parametrize(
    ("name", "overrides", "logged"),
    [
        ("trust", ["rewards.thinking.skip=null"], ["thinking/judged", "thinking/gate", "thinking/wrong"]),
        ("faithful", [], ["faithful/judged", "faithful/accuracy", "faithful/no_trace"]),
        ("hybrid", [], ["hybrid/verifiable", "hybrid/raw", "length_penalty/no_reference"]),
    ],
)
def test_shipped_configs_with_the_judge_that_knows_scenes(tmp_path, name, overrides, logged) -> None:
    with serving() as server:
        run = cli_train.train(lab(tmp_path, name, server.url, *overrides))
    for line in lines(run):
        assert {f"reward/{metric}" for metric in logged} <= line.keys()
        assert line["algo/unscored"] == 0 and line["guard/logprob_diff"] < 1e-4
        parts = [value for metric, value in line.items() if metric.startswith("reward/") and metric.endswith("/contribution")]
        assert line["reward/total"] == pytest.approx(sum(parts))


def test_a_judge_that_is_down_stops_the_run_before_it_starts(tmp_path) -> None:
    with serving() as server:
        url = server.url
    with pytest.raises(UserError, match=r"judge 'exact' at .* does not answer"):
        cli_train.train(lab(tmp_path, "trust", url))
