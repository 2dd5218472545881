"""Small random models, prompts and completions for tests of the core."""

import io
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from data.video import decode_video, frames_media
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
    if family == "smolvlm":
        pytest.importorskip("num2words", reason="SmolVLM's processor writes numbers of frames as words")
    sizes = ScratchConfig(family=family, hidden_size=64, heads=2, layers=2, vision_hidden_size=32, initializer_range=0.2)
    tokenizer = small.train_tokenizer(TEXTS, 400, family)
    return sizes, tokenizer, small.make_processor(sizes, tokenizer)


def video(seed: int, frames: int = 12, size: tuple[int, int] = (64, 48)) -> Media:
    pixels = np.random.default_rng(seed).integers(0, 255, (frames, size[1], size[0], 3), dtype=np.uint8)
    return frames_media(pixels, 10.0)


def make_chat(family: str = "qwen2_5_vl", **settings) -> Chat:
    """Videos are looked at 4 times a second, 28 x 28 to 56 x 84 pixels a frame."""
    sizes, _, processor = parts(family)
    video_settings = {"video_fps": 4, "video_max_frames": 8, "video_min_pixels": 28 * 28, "video_max_pixels": 56 * 84}
    return Chat(
        processor,
        ModelConfig(scratch=sizes, **video_settings | settings),
        lambda s: s.question,
        lambda media, row: Image.open(io.BytesIO(media.read())).convert("RGB"),
        decode_video,
    )


def make(family: str = "qwen2_5_vl", mode: str = "shared_prefix", **kwargs) -> tuple[Policy, Chat]:
    sizes, tokenizer, _ = parts(family)
    chat = make_chat(family)
    return Policy(small.make_model(sizes, tokenizer, seed=1), chat.visual_ids, mode, **kwargs), chat


def completions(chat: Chat, lengths: list[int], seed: int = 0) -> tuple[tuple[int, ...], ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(tuple(torch.randint(0, 300, (n,), generator=generator).tolist()) for n in lengths)
