"""Whole runs of `train` on a tiny model: the files of a run directory, resuming, refusing, guards."""

import json
import math
from pathlib import Path

import pytest
import torch
import transformers
from runs_small import train_config, write_rows
from safetensors.torch import load_file

from vlm_rl import cli_run, cli_train
from vlm_rl.errors import UserError


def metrics(run: Path) -> list[dict]:
    """What does not depend on the clock or the machine."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "system/"))} for line in lines]


class Killed(BaseException):
    pass


def stop_after(monkeypatch, step: int) -> None:
    """End the process's work right after the log of `step`, before its checkpoint."""
    whole = cli_train.TrainRun.save

    def save(self, n):
        if n == step:
            raise Killed
        whole(self, n)

    monkeypatch.setattr(cli_train.TrainRun, "save", save)


def test_a_run_writes_what_it_promises(tmp_path):
    run = cli_train.train(train_config(tmp_path))
    lines = metrics(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    wanted = {"reward/total", "rollout/length", "rollout/truncated", "rollout/entropy", "loss/total", "loss/kl", "loss/clip_low"}
    wanted |= {f"reward/{label}/{kind}" for label in ("accuracy", "format", "brief") for kind in ("raw", "weight", "contribution")}
    wanted |= {"loss/clip_high", "loss/grad_norm", "algo/dropped_groups", "algo/unscored", "guard/logprob_diff"}
    assert not wanted - lines[0].keys()
    assert "eval/accuracy" in lines[1] and "eval/accuracy" not in lines[0]
    assert all(line["guard/logprob_diff"] < 1e-4 for line in lines)
    rollouts = [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
    assert len(rollouts) == 4 * 3 * 4
    first = rollouts[0]
    assert {"step", "sample_id", "prompt", "media_ids", "completion", "trace", "answer", "parts", "total", "gold"} <= first.keys()
    assert first["kind"] == "choice"
    assert all(row["correct"] == (row["parts"]["accuracy"]["raw"] == 1) for row in rollouts)
    total = sum(part["contribution"] for part in first["parts"].values())
    assert math.isclose(first["total"], total)
    summary = json.loads((run / "summary.json").read_text())
    keys = ["accuracy_before", "accuracy_after", "difference_ci95", "blank_before", "blank_after", "wellformed_before"]
    assert all(f"eval/{key}" in summary for key in keys) and summary["time/total"] > 0
    assert (run / "config.yaml").exists() and "<svg" in (run / "report.html").read_text()
    model = run / "checkpoints" / "step_4"
    start, end = load_file(tmp_path / "model" / "model.safetensors"), load_file(model / "model.safetensors")
    assert all((end[name] != tensor).any() for name, tensor in start.items())
    assert transformers.AutoModelForImageTextToText.from_pretrained(model).config.model_type == "qwen2_5_vl"
    assert transformers.AutoProcessor.from_pretrained(model).tokenizer.get_vocab()


def test_held_out_pictures_are_never_trained_on(tmp_path):
    run = cli_train.train(train_config(tmp_path, "train.steps=12"))
    trained = {m for line in (run / "rollouts.jsonl").read_text().splitlines() for m in json.loads(line)["media_ids"]}
    records = [json.loads(line) for line in (run / "eval" / "before.jsonl").read_text().splitlines()]
    held_out = {m for record in records if record["condition"] == "clean" for m in record["media_ids"]}
    assert len(trained) > 15 and held_out and not trained & held_out


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_broken_run_resumed_equals_the_unbroken_one(tmp_path, monkeypatch, stop):
    whole = cli_train.train(train_config(tmp_path, f"run_dir={tmp_path}/whole"))
    config = train_config(tmp_path, f"run_dir={tmp_path}/broken")
    with monkeypatch.context() as patch:
        stop_after(patch, stop)
        with pytest.raises(Killed):
            cli_train.train(config)
    broken = cli_train.train(config)
    assert metrics(broken) == metrics(whole)
    assert (broken / "rollouts.jsonl").read_text() == (whole / "rollouts.jsonl").read_text()
    for name, tensor in load_file(whole / "checkpoints" / "step_4" / "model.safetensors").items():
        assert torch.equal(tensor, load_file(broken / "checkpoints" / "step_4" / "model.safetensors")[name]), name


def test_micro_batching_and_forward_mode_change_nothing(tmp_path):
    whole = metrics(cli_train.train(train_config(tmp_path, f"run_dir={tmp_path}/a")))
    for i, override in enumerate(["train.token_budget=60", "model.attention=plain", "model.attention=dense", "rollout.batch_size=5"]):
        other = metrics(cli_train.train(train_config(tmp_path, f"run_dir={tmp_path}/b{i}", override)))
        for a, b in zip(whole, other, strict=True):
            names = ("reward/total", "loss/total", "loss/grad_norm", "rollout/entropy")
            assert [a[n] for n in names] == pytest.approx([b[n] for n in names], rel=2e-4, abs=1e-5), override


def test_finished_and_foreign_run_directories(tmp_path, caplog):
    config = train_config(tmp_path, "train.steps=1")
    cli_train.train(config)
    with caplog.at_level("INFO"):
        cli_train.train(config)
    assert "is finished" in caplog.text
    with pytest.raises(UserError, match=r"(?s)another config.*optim\.learning_rate: there 0\.001, now 0\.5.*run_dir=OTHER"):
        cli_train.train(train_config(tmp_path, "train.steps=1", "optim.learning_rate=0.5"))
    cli_train.train(train_config(tmp_path, "train.steps=1", "checkpoint.keep=1"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not a run directory"):
        cli_train.train(train_config(tmp_path, f"run_dir={tmp_path}/other"))


def broken_after(monkeypatch, tmp_path: Path, stop: int) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, stop)
        patch.setattr(cli_train.TrainRun, "seconds", lambda self: 1000.0)
        with pytest.raises(Killed):
            cli_train.train(train_config(tmp_path))


def edit_row(rows: Path, row_id: str, **changes: object) -> None:
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    rows.write_text("".join(json.dumps(row | changes if row["id"] == row_id else row) + "\n" for row in lines))


def before(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "eval" / "before.jsonl").read_text().splitlines()]


def test_a_resumed_run_counts_all_its_time_and_wants_the_same_training_rows(tmp_path, monkeypatch):
    config = train_config(tmp_path)
    broken_after(monkeypatch, tmp_path, 3)
    rows = tmp_path / "rows" / "rows.jsonl"
    whole = rows.read_text()
    rows.write_text(whole + whole.splitlines()[0].replace('"r0"', '"new"') + "\n")
    with pytest.raises(UserError, match=r"training data changed since .*step_2"):
        cli_train.train(config)
    rows.write_text(whole)
    summary = json.loads((cli_train.train(config) / "summary.json").read_text())
    assert 1000 < summary["time/total"] < 2000


@pytest.mark.parametrize("stop", [1, 3])
def test_an_evaluation_of_other_held_out_rows_is_not_trusted(tmp_path, monkeypatch, stop):
    config = train_config(tmp_path)
    broken_after(monkeypatch, tmp_path, stop)
    record = before(tmp_path / "run")[0]
    other = next(option for option in record["options"] if option != record["options"]["AB".index(record["gold"])])
    edit_row(tmp_path / "rows" / "rows.jsonl", record["sample_id"], answer=other)
    if stop == 3:
        with pytest.raises(UserError, match=rf"held-out row {record['sample_id']} is not the one of .*2 steps are done"):
            cli_train.train(config)
        return
    cli_train.train(config)
    again = before(tmp_path / "run")[0]
    assert again["sample_id"] == record["sample_id"] and again["gold"] != record["gold"]


def test_kl_and_several_updates_per_rollout(tmp_path):
    run = cli_train.train(train_config(tmp_path, "algo.kl_weight=0.1", "train.updates_per_rollout=2", "algo.aggregation=token_mean"))
    lines = metrics(run)
    assert lines[0]["loss/kl"] > 0 and lines[-1]["loss/kl"] > lines[0]["loss/kl"] / 10
    assert all(line["algo/dropped_groups"] == 0 for line in lines)


def test_bad_rows_stop_before_training_or_are_skipped(tmp_path):
    config = train_config(tmp_path, "train.steps=8")
    rows = write_rows(tmp_path / "rows")
    (tmp_path / "rows" / "5.png").write_bytes(b"not a picture")
    (tmp_path / "rows" / "6.png").write_bytes(b"")
    lines = rows.read_text().splitlines()
    lines[7] = json.dumps(json.loads(lines[7]) | {"answer": "purple"})
    rows.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"(?s)rows that would be used are bad.*on_bad_row=skip") as error:
        cli_train.train(config)
    assert "row r5" in str(error.value) and "purple" in str(error.value)
    run = cli_train.train(train_config(tmp_path, "train.steps=8", "data.on_bad_row=skip", f"run_dir={tmp_path}/skip"))
    assert min(line["rollout/prompts"] for line in metrics(run)) < 3
    with pytest.raises(UserError, match="bad_row_limit=0"):
        skip = ("data.on_bad_row=skip", "guards.bad_row_limit=0", f"run_dir={tmp_path}/none")
        cli_train.train(train_config(tmp_path, "train.steps=8", *skip))


def test_engine_and_trainer_that_disagree_stop_the_run(tmp_path, monkeypatch):
    policy = cli_run.Run.engine.func

    def stale(self):
        engine = policy(self)
        engine.policy = cli_train.Policy(
            cli_train.models.load_model(self.config.model, self.chat), self.chat.visual_ids, self.config.model.attention
        )
        with torch.no_grad():
            next(engine.policy.model.model.language_model.layers.parameters()).add_(0.05)
        return engine

    prop = cli_run.cached_property(stale)
    prop.__set_name__(cli_run.Run, "engine")
    monkeypatch.setattr(cli_run.Run, "engine", prop)
    with pytest.raises(UserError, match="engine and trainer disagree"):
        cli_train.train(train_config(tmp_path))


def test_a_non_finite_gradient_stops_with_the_samples(tmp_path, monkeypatch):
    load = cli_train.models.load_model

    def poisoned(*args, **kwargs):
        model = load(*args, **kwargs)
        model.model.language_model.norm.weight.register_hook(lambda gradient: gradient * float("nan"))
        return model

    monkeypatch.setattr(cli_train.models, "load_model", poisoned)
    with pytest.raises(UserError, match=r"not finite; samples in this step: r\d+"):
        cli_train.train(train_config(tmp_path))
