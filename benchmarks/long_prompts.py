"""Long video prompts: one forward and backward of a group's log-probs, prompts shared (packed) against repeated in batches by length."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import clip, make_chat, question_for, sizes
from vlm_rl import small
from vlm_rl.packing import Item, join_vision
from vlm_rl.policy import Policy
from vlm_rl.types import Prompt, Sample


@dataclass(frozen=True)
class Long:
    """A clip of `frames` squares of `side` pixels gives frames / 2 x (side / 28)^2 visual tokens; `text` tokens of prompt around them.
    Completions are from half to one and a half of `new_tokens` long. `batch` of them are repeated at once."""

    group: int = 16
    frames: int = 64
    side: int = 224
    text: int = 40
    new_tokens: int = 64
    batch: int = 4

    @property
    def prompt_tokens(self) -> int:
        return self.frames // 2 * (self.side // 28) ** 2 + self.text

    @property
    def lengths(self) -> list[int]:
        least, spread = self.new_tokens // 2, self.new_tokens
        lengths = [least + round(i * spread / (self.group - 1)) for i in range(self.group)]
        lengths[-1] += self.group * self.new_tokens - sum(lengths)
        return lengths

    @property
    def token_ratio(self) -> float:
        """Of real tokens, without the padding of batches."""
        p, written = self.prompt_tokens, sum(self.lengths)
        return (self.group * p + written) / (p + written)


def measure(case: Long, pairs: int, seed: int) -> dict[str, Any]:
    """Seconds of each side, alternating after one pair that warms up, and how far their gradients are apart."""
    scratch = sizes()
    pixels = case.side**2
    bounds = {"video_fps": 4, "video_max_frames": case.frames, "video_min_pixels": pixels, "video_max_pixels": pixels}
    chat = make_chat(scratch, **bounds)
    media = clip(seed, case.frames, case.side)
    prompt = chat.prompt(Sample("clip", question_for(chat, case.prompt_tokens, media), "A", media=(media,)))
    packed, plain = (Policy(small.make_model(scratch, chat.tokenizer, seed), chat.visual_ids, mode) for mode in ("shared_prefix", "plain"))
    generator = torch.Generator().manual_seed(seed)
    completions = [tuple(torch.randint(0, 300, (n,), generator=generator).tolist()) for n in case.lengths]
    whole = [list(range(case.group))]
    batches = [list(range(i, min(i + case.batch, case.group))) for i in range(0, case.group, case.batch)]
    seconds: dict[str, list[float]] = {"packed": [], "repeated": [], "tower": []}
    gaps = []
    for _ in range(pairs + 1):
        gradients = []
        for name, policy, parts in (("packed", packed, whole), ("repeated", plain, batches)):
            taken, gradient = _timed(policy, prompt, completions, parts)
            seconds[name].append(taken)
            gradients.append(gradient)
        seconds["tower"].append(_tower(packed, prompt))
        gaps.append(float((gradients[0] - gradients[1]).norm() / gradients[1].norm()))
    return {"case": vars(case), "prompt_tokens": case.prompt_tokens, "gradient_gap": max(gaps), "seconds": seconds} | _ratios(case, seconds)


def _ratios(case: Long, seconds: dict[str, list[float]]) -> dict[str, float]:
    """The median over pairs, also without the tower: it runs once on one side and once per completion on the other."""
    trios = list(zip(seconds["packed"], seconds["repeated"], seconds["tower"], strict=True))[1:]
    whole = sorted(r / p for p, r, _ in trios)[len(trios) // 2]
    text = sorted((r - case.group * t) / (p - t) for p, r, t in trios)[len(trios) // 2]
    return {"ratio": whole, "ratio_text_model": text, "token_ratio": case.token_ratio, "share": whole / case.token_ratio}


def _timed(policy: Policy, prompt: Prompt, completions: Sequence[tuple[int, ...]], parts: Sequence[list[int]]) -> tuple[float, Tensor]:
    """(seconds, gradient) of a weighted sum of log-probs, `parts` forwarded one after the other."""
    policy.zero_grad()
    start = time.perf_counter()
    for part in parts:
        row = policy.pack([Item(prompt, tuple(completions[i] for i in part), tuple(part))])
        weight_T = torch.where(row.rollout_T % 2 == 0, 1.0, -1.0) / len(completions)
        (policy(row).logprob_T * weight_T).sum().backward()
    taken = time.perf_counter() - start
    return taken, torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


def _tower(policy: Policy, prompt: Prompt) -> float:
    """Seconds of the tower alone, forward and backward, once."""
    policy.zero_grad()
    vision = join_vision([prompt], policy.device)
    start = time.perf_counter()
    tower = policy.model.model.visual
    out = tower(vision["pixel_values_videos"], grid_thw=vision["video_grid_thw"])
    out.pooler_output.sum().backward()
    return time.perf_counter() - start
