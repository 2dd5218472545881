"""A judge is trained, and reads afterwards exactly what it was trained on."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from runs_small import write_model
from safetensors.torch import load_file

from data.graded_scenes import graded
from data.media import decode_image
from data.scenes import make
from data.templates import render
from rewards.judge_rows import lesson
from vlm_rl.chat import Chat
from vlm_rl.cli_judge_eval import judge_eval
from vlm_rl.cli_judges import Pictures
from vlm_rl.cli_sft import sft
from vlm_rl.config import ModelConfig, OptimConfig, SftConfig
from vlm_rl.config_judge_eval import JudgeEvalConfig
from vlm_rl.config_judges import JudgeConfig
from vlm_rl.engine.hf_judge import make_local
from vlm_rl.loading import load
from vlm_rl.models import load_model, load_processor, save_model
from vlm_rl.optim import Optimiser
from vlm_rl.policy import Policy
from vlm_rl.sft import Hooks
from vlm_rl.types import Generate, Sample, Sampling
from vlm_rl.value_head import FLOOR, features
from vlm_rl.value_sft import Valued, ValueTrainer, answered


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


@pytest.mark.parametrize("likelihood", [False, True])
def test_a_reward_model_scores_what_its_training_scored(tmp_path, likelihood):
    settings = ModelConfig(path="data/policies/scenes")
    chat = Chat(load_processor(settings), settings, render("plain"), decode_image)
    policy = Policy(load_model(settings, chat, None, 0), chat.visual_ids)
    valued = Valued(policy, None, likelihood)
    torch.manual_seed(0)
    torch.nn.init.normal_(valued.head.summary.weight, std=0.3)
    if valued.head.likelihood is not None:
        torch.nn.init.constant_(valued.head.likelihood.weight, 0.002)
    save_model(tmp_path, policy.model, chat)
    valued.head.save(tmp_path)
    rows = [lesson(graded(make(world, "test", 0, i)), None, "score") for world in ("pictures", "charts") for i in range(3)]
    items = answered(chat, rows)
    here = valued.scores(items, 400)
    plain = Valued(Policy(policy.model, chat.visual_ids, "plain"), tmp_path, likelihood).scores(items, 4000)
    assert plain == pytest.approx(here, abs=1e-5) and max(here) - min(here) > 0.01
    local = make_local("tidy", JudgeConfig(kind="reward_model", path=str(tmp_path), device="cpu"), Pictures(1280 * 28 * 28, settings))
    replies = local.answer([Generate("tidy", row, Sampling(1, 0.0)) for row in rows])
    assert [1 / (1 + math.exp(-float(reply.text))) for reply in replies] == pytest.approx(here, abs=1e-4)


def test_likelihood_is_that_of_the_response_alone():
    logprobs = torch.tensor([0.5, 0.25, 1e-9, 1.0]).log()
    found = features(logprobs, torch.tensor([2, 2]))
    first, second = [0.375, math.log(0.125) / 2, math.log(0.25)], [(1 + math.exp(FLOOR)) / 2, FLOOR / 2, FLOOR]
    assert found[0].tolist() == pytest.approx(first) and found[1].tolist() == pytest.approx(second)


def test_imitation_copies_only_what_is_faultless(tmp_path):
    write_model(tmp_path / "model")
    settings = ModelConfig(path=str(tmp_path / "model"))
    chat = Chat(load_processor(settings), settings, render("plain"), decode_image)
    valued = Valued(Policy(load_model(settings, chat, None, 0), chat.visual_ids), None)
    rows = [Sample(f"{i}", "what?", "", response="I see teal.", meta={"score": score}) for i, score in enumerate((1.0, 0.5))]
    optimiser = Optimiser(valued, OptimConfig(learning_rate=1e-3), 1)
    trainer = ValueTrainer(1, 4000, lambda _: rows, valued.policy, chat, optimiser, Hooks(print, lambda _: {}, print), valued, 2.0)
    [good, _] = items = answered(chat, rows)
    written = valued.policy(valued.policy.pack([good])).logprob_T
    metrics = trainer.update(items, rows, 1)
    assert metrics["loss/imitation"] == pytest.approx(-float(written.mean()), rel=1e-4)
    assert metrics["loss/total"] == pytest.approx(math.log(2) + 2 * metrics["loss/imitation"])


def test_a_whole_training_of_a_value_head_learns_and_resumes(tmp_path):
    write_model(tmp_path / "model")
    rows = {"name": "jsonl", "path": str(tmp_path / "rows.jsonl")}
    said = {1.0: "I see teal.", 0.0: "what what what"}
    lines = [{"id": f"{i}", "question": f"{i}?", "response": said[float(i % 2)], "score": float(i % 2)} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tree = {"run_dir": str(tmp_path / "run"), "model": {"path": str(tmp_path / "model")}, "data": rows, "judge": {"form": "value"}}
    tree |= {"train": {"steps": 12, "batch_size": 8}, "tracker": {"tensorboard": False}, "eval": {"questions": 4, "every": 6}}
    tree |= {"optim": {"learning_rate": 0.003}, "checkpoint": {"every": 6, "keep": 2}}
    run = sft(SftConfig.model_validate(tree))
    summary = json.loads((run / "summary.json").read_text())
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps[0]["loss/total"] == pytest.approx(math.log(2)) and steps[-1]["loss/total"] < 0.4
    assert summary["eval/mae"] < 0.35 and steps[5]["eval/mae"] > 0
    head = load_file(run / "checkpoints" / "step_12" / "value_head.safetensors")
    assert set(head) == {"v_head.summary.weight", "v_head.summary.bias"}
    shutil.rmtree(run / "checkpoints" / "step_12")
    (run / "summary.json").unlink()
    sft(SftConfig.model_validate(tree))
    again = load_file(run / "checkpoints" / "step_12" / "value_head.safetensors")
    assert all(torch.equal(head[name], again[name]) for name in head)


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
    shipped = load(SftConfig, "configs/lab/thinking_rm_text.yaml")
    assert shipped.judge is not None and (shipped.judge.form, shipped.judge.prompt) == ("text", "trained")
    phase = {"steps": 1, "data": {"name": "graded_scenes"}}
    with pytest.raises(ValueError, match="phases are not for the training of a judge"):
        SftConfig.model_validate(shipped.model_dump() | {"phases": [phase]})
    with pytest.raises(ValueError, match="likelihood and imitation are for form: value"):
        SftConfig.model_validate(shipped.model_dump() | {"judge": {"form": "text", "likelihood": True}})
