"""The shipped small policy: small, whole, loadable by anybody, and as its recipe says: well-formed, seeing, in love with option A."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import transformers

from data import load_rows
from data.media import decode_image
from data.scenes import make
from data.templates import render
from data.video import decode_video
from eval.runner import Plan, evaluate, unchanged
from eval.scene_truth import scene_truth
from vlm_rl import models
from vlm_rl.asking import Asker
from vlm_rl.chat import Chat
from vlm_rl.config import DataConfig, ModelConfig
from vlm_rl.engine.hf import HFEngine
from vlm_rl.errors import UserError
from vlm_rl.policy import Policy

PATH = Path(__file__).parent.parent / "data" / "policies" / "easy_vqa"


def load(path: Path, **looks: float):
    config = ModelConfig.model_validate({"path": str(path), **looks})
    chat = Chat(models.load_processor(config), config, render("plain"), decode_image, decode_video)
    return models.load_model(config, chat), chat


def test_it_is_small_and_loads_in_plain_transformers():
    assert sum(f.stat().st_size for f in PATH.iterdir()) <= 8_000_000
    model = transformers.AutoModelForImageTextToText.from_pretrained(PATH)
    assert model.config.model_type == "qwen2_5_vl" and 1e6 <= sum(p.numel() for p in model.parameters()) <= 3e6
    assert transformers.AutoProcessor.from_pretrained(PATH).chat_template


def test_it_sees_well_and_answers_poorly():
    model, chat = load(PATH)
    ask = Asker({"policy": HFEngine(Policy(model, chat.visual_ids), chat)}, chat)
    rows = load_rows(DataConfig(name="easy_vqa", split="test", limit=120))
    records = evaluate(rows, {"clean": unchanged}, Plan(0, 40), ask)
    assert sum(r.wellformed for r in records) >= 0.98 * len(records)
    assert 0.3 < sum(r.correct for r in records) / len(records) < 0.7
    assert Counter(r.answer for r in records)["A"] > 0.8 * len(records)
    known = [(row, r) for row, r in zip(rows, records, strict=True) if {"colour", "shape"} <= row.meta.keys()]
    seen = [f"{row.meta['colour']} {row.meta['shape']}." in r.completion for row, r in known]
    assert sum(seen) > 0.85 * len(seen) and len(seen) > 50


def test_the_scenes_policy_sees_most_of_what_it_claims_and_answers_poorly():
    folder = PATH.parent / "scenes"
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 8_000_000
    model, chat = load(folder)
    ask = Asker({"policy": HFEngine(Policy(model, chat.visual_ids), chat)}, chat)
    rows = [make(world, "test", 0, index) for world in ("pictures", "charts") for index in range(80)]
    records = evaluate(rows, {"clean": unchanged}, Plan(0, 112), ask)
    truth = scene_truth(records)
    assert sum(r.wellformed for r in records) >= 0.98 * len(records)
    assert 0.3 < sum(r.correct for r in records) / len(records) < 0.65
    assert 0.6 < truth["claim_truth"] < 0.95 and 0.6 < truth["box_truth"] < 0.95
    assert truth["concludes"] > 0.6 and truth["unread"] < 0.05


def test_the_clips_policy_sees_what_moves_turns_and_appears_and_answers_poorly():
    folder = PATH.parent / "clips"
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 8_000_000
    model, chat = load(folder, video_fps=2.0, video_min_pixels=7056, video_max_pixels=7056)
    ask = Asker({"policy": HFEngine(Policy(model, chat.visual_ids), chat)}, chat)
    rows = [make("clips", "test", 0, index) for index in range(80)]
    records = evaluate(rows, {"clean": unchanged}, Plan(0, 96), ask)
    truth = scene_truth(records)
    assert sum(r.wellformed for r in records) >= 0.95 * len(records)
    assert 0.3 < sum(r.correct for r in records) / len(records) < 0.7
    assert truth["claim_truth"] > 0.6 and truth["box_truth"] > 0.6
    assert truth["concludes"] > 0.55 and truth["unread"] < 0.1


def test_weights_with_another_tokenizer_or_with_parts_missing_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    other = shutil.copytree(PATH, tmp_path / "other")
    text = (other / "chat_template.jinja").read_text()
    (other / "chat_template.jinja").write_text(text.replace("assistant", "helper"))
    with pytest.raises(UserError, match="another tokenizer or chat template"):
        load(other)
    torn = shutil.copytree(PATH, tmp_path / "torn")
    weights = load_file(torn / "model.safetensors")
    name = next(n for n in weights if "down_proj" in n)
    save_file({n: w for n, w in weights.items() if n != name}, torn / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 tensors are missing"):
        load(torn)
