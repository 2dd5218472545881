"""What is measured: a small random Qwen2.5-VL, new pictures for every step, a reward that differs between rollouts of random weights."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from data.video import decode_video, frames_media
from rewards.base import Reward
from vlm_rl import small
from vlm_rl.chat import Chat
from vlm_rl.config import ModelConfig, RewardConfig, ScratchConfig
from vlm_rl.types import Completion, Group, Media, Prompt, Reply, RewardResult, Rollout, Sample, Segment

TEXTS = ["what color is the teal circle? <think>I see a teal circle.</think><answer>B</answer>", "A. red\nB. teal\nuser assistant"] * 8


@dataclass(frozen=True)
class Shape:
    """Sizes of a step: prompts, completions of each, tokens of a prompt (a picture's included) and of a completion, side of a picture."""

    prompts: int = 8
    group: int = 8
    prompt_tokens: int = 289
    new_tokens: int = 48
    side: int = 448

    @property
    def completions(self) -> int:
        return self.prompts * self.group

    @property
    def token_ratio(self) -> float:
        """Tokens that repeated prompts forward, over those of shared ones: G (P + R) / (P + G R)."""
        p, r, g = self.prompt_tokens, self.new_tokens, self.group
        return g * (p + r) / (p + g * r)


def sizes(image_size: int = 448, **changes: Any) -> ScratchConfig:
    """About 3.6 million parameters; heads of 64, which vLLM takes."""
    return ScratchConfig(**{"hidden_size": 256, "layers": 3, "heads": 4, "image_size": image_size, **changes})


def make_chat(scratch: ScratchConfig, **settings: Any) -> Chat:
    tokenizer = small.train_tokenizer(TEXTS, scratch.vocab_size, scratch.family)
    processor = small.make_processor(scratch, tokenizer)
    config = ModelConfig(scratch=scratch, **settings)
    return Chat(
        processor, config, lambda s: s.question, lambda media, row: Image.open(io.BytesIO(media.read())).convert("RGB"), decode_video
    )


def picture(seed: int, side: int) -> Media:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return Media("image", data=buffer.getvalue())


def clip(seed: int, frames: int, side: int) -> Media:
    """4 frames a second."""
    return frames_media(np.random.default_rng(seed).integers(0, 255, (frames, side, side, 3), dtype=np.uint8), 4.0)


def question_for(chat: Chat, tokens: int, media: Media) -> str:
    """Words until the whole prompt, the medium included, has exactly so many tokens."""
    for n in range(tokens):
        question = "red" + " red" * n
        found = len(chat.prompt(Sample("length", question, "A", media=(media,))).expanded_ids)
        if found == tokens:
            return question
        if found > tokens:
            break
    raise ValueError(f"no question makes a prompt of {tokens} tokens with this medium")


def samples(chat: Chat, shape: Shape, steps: int, seed: int) -> list[list[Sample]]:
    """By step; no picture is met twice."""
    question = question_for(chat, shape.prompt_tokens, picture(seed, shape.side))
    made = []
    for step in range(steps):
        first = seed + 1 + step * shape.prompts
        made.append([Sample(f"s{i}", question, "A", media=(picture(i, shape.side),)) for i in range(first, first + shape.prompts)])
    return made


def evenness(ids: Sequence[int]) -> float:
    """The share of even token ids: it costs nothing and no two rollouts of random weights agree in it for long."""
    return sum(i % 2 == 0 for i in ids) / max(len(ids), 1)


class Evenness(Reward):
    """As a reward of ours."""

    def score(self, group: Group, replies: Sequence[Reply]) -> Sequence[RewardResult]:
        return [RewardResult(evenness(rollout.completion.token_ids)) for rollout in group.rollouts]


# Rewards that ask the policy, in the order in which they are added.
ASKING: dict[str, RewardConfig] = {
    "acre": RewardConfig(),
    "acre_likelihood": RewardConfig.model_validate({"use": "acre", "form": "likelihood"}),
    "self_aligned": RewardConfig(),
    "trace_only": RewardConfig(weight=0.0),
    "co_reward": RewardConfig.model_validate({"max_new_tokens": 8}),
}


def asking(count: int) -> dict[str, RewardConfig]:
    """Accuracy, which asks nothing, and the first `count` of those that do."""
    return {"accuracy": RewardConfig()} | dict(list(ASKING.items())[:count])


def answered(chat: Chat, prompt: Prompt, group: int, seed: int) -> Group:
    """A group whose completions are all well-formed, so that every reward has something to ask; half of them are right."""
    rollouts = []
    for i in range(group):
        text = f"<think>I see a teal circle, number {i}.</think><answer>{'AB'[i % 2]}</answer>"
        ids = chat.ids_of(text)
        rollouts.append(Rollout(i, seed + i, Completion(text, (Segment(ids, (-1.0,) * len(ids)),))))
    return Group(prompt, tuple(rollouts), seed)
