"""Small random models, prompts and completions for tests of the core."""

import io
from functools import cache

import numpy as np
import torch
from PIL import Image

from vlm_rl import small
from vlm_rl.chat import Chat
from vlm_rl.config import ModelConfig, ScratchConfig
from vlm_rl.policy import Policy
from vlm_rl.types import Media, Sample

TEXTS = ["what color is the teal circle? <think>I see a teal circle.</think><answer>B</answer>", "A. red\nB. teal\nuser assistant"] * 8


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> Media:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return Media("image", data=buffer.getvalue())


def sample(name: str, pictures: int = 1, question: str = "what color is it?", size: tuple[int, int] = (64, 64)) -> Sample:
    media = tuple(picture(hash_of(name, i), size) for i in range(pictures))
    return Sample(id=name, question=question, answer="A", options=("red", "teal"), kind="choice", media=media)


def hash_of(name: str, i: int) -> int:
    return sum(map(ord, name)) * 31 + i


@cache
def parts(family: str):
    sizes = ScratchConfig(family=family, hidden_size=64, heads=2, layers=2, vision_hidden_size=32, initializer_range=0.2)
    tokenizer = small.train_tokenizer(TEXTS, 400)
    return sizes, tokenizer, small.make_processor(sizes, tokenizer)


def make(family: str = "qwen2_5_vl", mode: str = "shared_prefix", **kwargs) -> tuple[Policy, Chat]:
    sizes, tokenizer, processor = parts(family)
    chat = Chat(
        processor,
        ModelConfig(scratch=sizes),
        lambda s: s.question,
        lambda media, row: Image.open(io.BytesIO(media.read())).convert("RGB"),
    )
    return Policy(small.make_model(sizes, tokenizer, seed=1), chat.visual_ids, mode, **kwargs), chat


def completions(chat: Chat, lengths: list[int], seed: int = 0) -> tuple[tuple[int, ...], ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(tuple(torch.randint(0, 300, (n,), generator=generator).tolist()) for n in lengths)
