"""A tiny model on disk and a tiny JSONL data set, for runs of whole commands in tests."""

import json
import os
from pathlib import Path

import numpy as np
from models_small import TEXTS
from PIL import Image

from vlm_rl import models, small
from vlm_rl.chat import Chat
from vlm_rl.config import ModelConfig, ScratchConfig, TrainConfig
from vlm_rl.loading import load

COLOURS = {"red": (200, 30, 30), "teal": (0, 128, 128), "blue": (30, 30, 200), "gray": (128, 128, 128)}


def write_model(directory: Path, family: str = "qwen2_5_vl", seed: int = 3) -> Path:
    sizes = ScratchConfig(family=family, hidden_size=64, heads=2, layers=2, vision_hidden_size=32, initializer_range=0.2, image_size=56)
    tokenizer = small.train_tokenizer(TEXTS, 400, family)
    chat = Chat(small.make_processor(sizes, tokenizer), ModelConfig(scratch=sizes), str, lambda media, row: Image.new("RGB", (8, 8)))
    models.save_model(directory, small.make_model(sizes, tokenizer, seed), chat)
    return directory


def write_rows(directory: Path, count: int = 24, responses: bool = False) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    rows, names = [], list(COLOURS)
    for i in range(count):
        name, other = names[i % 4], names[(i + 1 + i // 4 % 3) % 4]
        pixels = np.full((40, 40, 3), COLOURS[name], np.uint8)
        pixels[i % 40] = 255 - i
        Image.fromarray(pixels).save(directory / f"{i}.png")
        options = [name, other] if i % 3 else [other, name]
        row = {"id": f"r{i}", "question": "what color is it?", "images": [f"{i}.png"], "options": options, "answer": name}
        letter = "AB"[options.index(name)]
        rows.append(row | ({"response": f"<think>I see {name}.</think><answer>{letter}</answer>"} if responses else {}))
    path = directory / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train_config(tmp_path: Path, *overrides: str) -> TrainConfig:
    """A run of a few seconds; its model and rows are made when they are not there yet."""
    if not (tmp_path / "model").exists():
        write_model(tmp_path / "model")
        write_rows(tmp_path / "rows")
    base, writing = tmp_path / "base.yaml", tmp_path / f"base.{os.getpid()}"
    writing.write_text(
        f"run_dir: {tmp_path}/run\nmodel: {{path: {tmp_path}/model}}\ndata: {{name: jsonl, path: {tmp_path}/rows/rows.jsonl}}\n"
        "rewards: {accuracy: {weight: 1.0}, format: {weight: 0.1}, brief: {use: 'runs_small:Brief'}}\n"
        "train: {steps: 4}\nrollout: {prompts_per_step: 3, group_size: 4, max_new_tokens: 8}\n"
        "optim: {learning_rate: 1.0e-3}\neval: {questions: 4, samples: 2, every: 2, every_questions: 2}\n"
        "checkpoint: {every: 2}\ntracker: {tensorboard: false}\n"
    )
    writing.replace(base)  # in one stroke: another process of the same training may be reading it
    return load(TrainConfig, base, overrides)


class Brief:
    """A stranger's reward, so that groups of a random model have spread: the share of short words."""

    def score(self, group, replies):
        from vlm_rl.types import RewardResult

        words = [r.text.split() or ["?"] for r in group.rollouts]
        return [RewardResult(sum(len(w) < 4 for w in said) / len(said)) for said in words]
