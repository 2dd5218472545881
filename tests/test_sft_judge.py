"""A judge is trained, and reads afterwards exactly what it was trained on."""

import json
from pathlib import Path

import pytest
from runs_small import write_model

from data.graded_scenes import graded
from data.media import decode_image
from data.scenes import make
from data.templates import render
from rewards.judge_rows import lesson
from vlm_rl.chat import Chat
from vlm_rl.cli_judge_eval import judge_eval
from vlm_rl.cli_judges import Pictures
from vlm_rl.cli_sft import sft
from vlm_rl.config import ModelConfig, SftConfig
from vlm_rl.config_judge_eval import JudgeEvalConfig
from vlm_rl.config_judges import JudgeConfig
from vlm_rl.engine.hf_judge import make_local
from vlm_rl.loading import load
from vlm_rl.models import load_processor
from vlm_rl.types import Generate, Sample, Sampling


def test_a_trained_judge_is_asked_in_the_tokens_it_was_trained_on():
    settings = ModelConfig(path="data/policies/scenes")
    chat = Chat(load_processor(settings), settings, render("plain"), decode_image)
    local = make_local("tidy", JudgeConfig(kind="hf_chat", path="data/policies/scenes", device="cpu"), Pictures(1280 * 28 * 28, settings))
    for world in ("pictures", "charts"):
        row = lesson(graded(make(world, "test", 0, 2)), "trained", "score")
        trained = chat.prompt(row)
        [asked] = local.encode(Generate("tidy", Sample(row.id, row.question, "", media=row.media), Sampling(8, 0.0)))
        assert asked["input_ids"][0].tolist() == list(trained.expanded_ids)
        assert bool((asked["pixel_values"] == trained.vision[0].tensors["pixel_values"]).all())


def test_a_whole_training_and_its_judge_measured(tmp_path):
    write_model(tmp_path / "model")
    rows = {"name": "graded_scenes", "config": "charts", "limit": 40}
    tree = {"run_dir": str(tmp_path / "run"), "model": {"path": str(tmp_path / "model")}, "data": rows}
    tree |= {"judge": {"prompt": "trained", "per_bucket": 6}, "eval_data": {**rows, "split": "test", "limit": 4}}
    tree |= {"train": {"steps": 2, "batch_size": 4}, "rollout": {"max_new_tokens": 6}, "tracker": {"tensorboard": False}}
    run = sft(SftConfig.model_validate(tree | {"eval": {"questions": 4, "samples": 0, "every": 1, "every_questions": 2}}))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["eval/questions"] == 4 and summary["eval/unread"] == 1.0  # two steps teach nobody to write a score
    assert "eval/blank_unread" in summary and "eval/spearman" not in summary and "eval/accuracy" not in summary
    step = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert step["eval/unread"] == 1.0 and step["loss/total"] > 0
    judges = {"mine": {"kind": "hf_chat", "path": str(run / "checkpoints" / "step_2"), "device": "cpu"}}
    ask = {"mine": {"prompt": "trained", "max_new_tokens": 4}}
    tree = {"run_dir": str(tmp_path / "measured"), "judges": judges, "ask": ask, "data": tree["eval_data"], "key_rows": 1}
    judge_eval(JudgeEvalConfig.model_validate(tree), {})
    found = json.loads((tmp_path / "measured" / "summary.json").read_text())["judges"]["mine"]
    assert found["quality"]["unread"]["value"] == 1.0 and found["best_of"]["accuracy"]["value"] == 0.0


def test_phases_are_not_for_judges(tmp_path: Path):
    shipped = load(SftConfig, "configs/lab/thinking_rm.yaml")
    assert shipped.judge is not None and shipped.judge.prompt == "trained"
    phase = {"steps": 1, "data": {"name": "graded_scenes"}}
    with pytest.raises(ValueError, match="phases are not for the training of a judge"):
        SftConfig.model_validate(shipped.model_dump() | {"phases": [phase]})
