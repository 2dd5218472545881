"""The store of algo.replay in a checkpoint: `replay/groups.json`, and the numbers per token in `replay/tokens.safetensors`.

Prompts are not written: they follow from the step that a group was sampled at, as its seed does, and are made anew. In a folder of its own,
since vLLM reads every .safetensors beside a model. Details of rewards (logged once) and alternatives of first tokens are left out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlm_rl.errors import UserError
from vlm_rl.replay import Stored
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Completion, Group, Part, Prompt, Rollout, ScoredGroup, Segment

FOLDER = "replay"
Prompts = Callable[[int, set[int]], Mapping[int, Prompt]]
"""prompts(step, seeds) -> the prompts of that step whose groups have these seeds, by seed"""


def save(directory: Path, kept: Sequence[Stored]) -> None:
    """Write `directory/replay`."""
    folder = directory / FOLDER
    folder.mkdir()
    rollouts = [(r.completion, p) for s in kept for r, p in zip(s.scored.group.rollouts, s.logprobs, strict=True)]
    empty = torch.zeros(0)
    tensors = {
        "token_ids": torch.tensor([t for c, _ in rollouts for t in c.token_ids], dtype=torch.int64),
        # As the engine told them: Python's numbers are float64.
        "engine": torch.tensor([p for c, _ in rollouts for p in c.logprobs], dtype=torch.float64),
        "trainer": torch.cat([empty, *(p if p is not None else torch.zeros(len(c.token_ids)) for c, p in rollouts)]),
    }
    save_file(tensors, folder / "tokens.safetensors")
    (folder / "groups.json").write_text(json.dumps([_plain(s) for s in kept], allow_nan=False), encoding="utf-8")


def load(directory: Path, prompts: Prompts) -> list[Stored]:
    """What `save` wrote. Raises UserError when it cannot be read, or when a prompt is not what it was."""
    folder = directory / FOLDER
    try:
        tensors = load_file(folder / "tokens.safetensors")
        groups = json.loads((folder / "groups.json").read_text(encoding="utf-8"))
        by_step: dict[int, set[int]] = {}
        for group in groups:
            by_step.setdefault(group["step"], set()).add(group["seed"])
        found = {step: prompts(step, seeds) for step, seeds in by_step.items()}
        tokens = _Tokens(tensors["token_ids"].tolist(), tensors["engine"].tolist(), tensors["trainer"])
        return [_group(group, found[group["step"]].get(group["seed"]), tokens) for group in groups]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        raise UserError(
            f"the groups kept for algo.replay in {folder} cannot be read ({error}); remove that checkpoint to go on from an earlier "
            "one, or write run_dir=OTHER"
        ) from error


class _Tokens:
    """Hands out the numbers per token in the order they were written."""

    def __init__(self, ids: list[int], engine: list[float], trainer: Tensor):
        self.ids, self.engine, self.trainer, self.place = ids, engine, trainer, 0

    def segment(self, length: int, written: bool) -> Segment:
        start, self.place = self.place, self.place + length
        if not 0 <= start <= self.place <= len(self.ids) or len(self.ids) != len(self.engine):
            raise ValueError("fewer tokens than segments say")
        return Segment(tuple(self.ids[start : self.place]), tuple(self.engine[start : self.place]) if written else None)

    def rollout(self, index: int, plain: Mapping[str, Any]) -> tuple[Rollout, Tensor | None]:
        start = self.place
        segments = tuple(self.segment(length, written) for length, written in plain["segments"])
        logprobs = self.trainer[start : self.place].clone() if plain["forwarded"] else None
        return Rollout(index, plain["seed"], Completion(plain["text"], segments, plain["finish"])), logprobs


def _plain(stored: Stored) -> dict[str, Any]:
    group = stored.scored.group
    return {
        "step": stored.step,
        "seed": group.seed,
        "sample": group.sample.id,
        "prompt": _mark(group.prompt),
        "value": stored.value,
        "totals": stored.scored.totals,
        "parts": {
            label: [[p.raw, p.weight, p.contribution, p.value, p.gate] for p in parts] for label, parts in stored.scored.parts.items()
        },
        "rollouts": [
            {
                "seed": r.seed,
                "text": r.completion.text,
                "finish": r.completion.finish,
                "segments": [[len(s.token_ids), s.logprobs is not None] for s in r.completion.segments],
                "forwarded": logprobs is not None,
            }
            for r, logprobs in zip(group.rollouts, stored.logprobs, strict=True)
        ],
    }


def _group(plain: Mapping[str, Any], prompt: Prompt | None, tokens: _Tokens) -> Stored:
    if prompt is None or _mark(prompt) != plain["prompt"]:
        raise ValueError(f"the prompt of row {plain['sample']} at step {plain['step']} is another one now")
    rollouts, logprobs = zip(*(tokens.rollout(i, r) for i, r in enumerate(plain["rollouts"])), strict=True)
    parts = {
        label: tuple(Part(raw, weight, given, {}, value, gate) for raw, weight, given, value, gate in rows)
        for label, rows in plain["parts"].items()
    }
    scored = ScoredGroup(Group(prompt, rollouts, plain["seed"]), tuple(plain["totals"]), parts)
    return Stored(plain["step"], plain["value"], scored, logprobs)


def _mark(prompt: Prompt) -> int:
    """By which another prompt is noticed; pictures count by their place and size."""
    return stable_hash(prompt.text, prompt.expanded_ids, prompt.sizes, [m.id for m in prompt.sample.media])
