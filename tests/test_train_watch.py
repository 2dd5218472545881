"""Evaluators during a training: on the same questions each time, kept with intervals, drawn, and warned about."""

import json
from pathlib import Path

import pytest
from runs_small import train_config

from eval.evaluator import Figure, Section
from eval.tradeoff import kept, logged, tradeoff_chart, warning
from vlm_rl import cli_train
from vlm_rl.errors import UserError
from vlm_rl.tracker import read_jsonl

WATCHED = ["evaluators.begun.use=evaluators_small:Begun", "train.steps=2", "eval.every=1", "checkpoint.every=1", "eval.samples=0"]


def sections(right: str, consistent: str, robust: float | None = None) -> dict[str, Section]:
    """Accuracy and consistency from a 0 or 1 for each question."""

    def figure(name: str, bits: str) -> Figure:
        items = {f"q{i}": (float(bit), 1.0) for i, bit in enumerate(bits)}
        value = bits.count("1") / len(bits)
        return Figure(name, value, len(bits), max(0, value - 0.1), min(1, value + 0.1), items=items)

    found = {
        "accuracy": Section("Accuracy", "", (figure("accuracy", right),)),
        "traces": Section("Consistency", "", (figure("consistency/rule", consistent), Figure("consistency/empty", None, 0))),
    }
    return found | ({} if robust is None else {"perturb": Section("P", "", (Figure("perturb/robust_accuracy", robust, 4),))})


@pytest.mark.parametrize(
    "right, consistent, warns",
    [
        ("11110000", "00000011", True),  # accuracy +25 points, consistency -75
        ("11000000", "00000011", False),  # the score does not rise
        ("11110000", "11111111", False),  # consistency stays
        ("11110000", "11111110", False),  # one question less is what chance makes
    ],
)
def test_it_warns_when_accuracy_rises_while_consistency_falls(right: str, consistent: str, warns: bool):
    first, now = kept(sections("11000000", "11111111")), kept(sections(right, consistent))
    said = warning(first, now, {f"q{i}": i for i in range(8)})
    assert (said is not None) == warns
    if said:
        assert "accuracy +25.0" in said and "consistency -75.0" in said and "on 8 questions" in said


def test_figures_of_different_readings_are_not_compared():
    first = kept(sections("1100", "1111"))
    now = json.loads(json.dumps(kept(sections("1111", "0000"))).replace("consistency/rule", "consistency/exact"))
    assert warning(first, now, {f"q{i}": i for i in range(4)}) is None and warning({}, now, {}) is None


def test_metrics_and_the_chart():
    found = sections("1100", "1110", robust=0.25)
    assert logged(found) == {
        "eval/accuracy/accuracy": 0.5,
        "eval/traces/consistency/rule": 0.75,
        "eval/perturb/robust_accuracy": 0.25,
    }
    chart = tradeoff_chart([{"step": 0, **kept(found)}, {"step": 20, **kept(sections("1110", "1100"))}])
    assert chart is not None
    accuracy, consistency, robustness = chart.lines
    assert accuracy.points == ((0, 0.5), (20, 0.75)) and accuracy.whiskers[0] == (0, 0.4, 0.6)
    assert consistency.label == "consistency (consistency/rule)" and consistency.points == ((0, 0.75), (20, 0.5))
    assert robustness.points == ((0, 0.25),)
    assert tradeoff_chart([]) is None and tradeoff_chart([{"step": "x", "accuracy": 3}]) is None


def test_a_training_measures_as_it_goes_and_a_resumed_one_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cli_train.train(train_config(tmp_path, *WATCHED, f"run_dir={tmp_path}/whole"))
    lines = read_jsonl(tmp_path / "whole" / "eval" / "watched.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert all(line["accuracy"]["n"] == 2 and len(line["accuracy"]["items"]) == 2 for line in lines)
    metrics = {row["step"]: row for row in read_jsonl(tmp_path / "whole" / "metrics.jsonl")}
    assert metrics[1]["eval/begun/answered"] == 2
    assert json.loads((tmp_path / "whole" / "summary.json").read_text())["eval/begun/answered"] == 2
    assert "Accuracy, consistency and robustness" in (tmp_path / "whole" / "report.html").read_text()

    def stop(self, step: int) -> None:
        save(self, step)
        if step == 1:
            raise KeyboardInterrupt

    save = cli_train.TrainRun.save
    with monkeypatch.context() as patch:
        patch.setattr(cli_train.TrainRun, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            cli_train.train(train_config(tmp_path, *WATCHED, f"run_dir={tmp_path}/broken"))
    cli_train.train(train_config(tmp_path, *WATCHED, f"run_dir={tmp_path}/broken"))
    assert read_jsonl(tmp_path / "broken" / "eval" / "watched.jsonl") == lines


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["evaluators.consistncy={}"], "did you mean 'consistency'"),
        (["evaluators.consistency.judge=nobody"], "asks the judge 'nobody'"),
        (["evaluators.consistency={}", "eval.every=null"], "set; write for instance eval.every=20"),
    ],
)
def test_mistakes_are_named_before_anything_loads(tmp_path: Path, overrides: list[str], said: str):
    with pytest.raises(UserError, match=said):
        cli_train.train(train_config(tmp_path, *overrides))
