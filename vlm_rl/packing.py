"""Groups of completions -> batches ("packs") under a token budget, each one row for the shared-prefix forward.

Order is kept, nothing is truncated, and a group larger than the budget is split into several packs that repeat its prompt. Packing
decides only what is forwarded together; no loss or denominator depends on it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm_rl.types import Prompt

RopeIndex = Callable[[Prompt], Tensor]


@dataclass(frozen=True, eq=False)
class Item:
    """A prompt with the completions to forward after it. `rollouts` are the completions' indices in the whole optimiser step."""

    prompt: Prompt
    completions: tuple[tuple[int, ...], ...]
    rollouts: tuple[int, ...]

    @property
    def lengths(self) -> tuple[int, tuple[int, ...]]:
        return len(self.prompt.expanded_ids), tuple(map(len, self.completions))

    @property
    def tokens(self) -> int:
        return self.lengths[0] + sum(self.lengths[1])


@dataclass(frozen=True, eq=False)
class Pack:
    """One row: L positions on A axes, T completion tokens. `predict_T[t]` is the position whose hidden state predicts `target_T[t]`."""

    items: tuple[Item, ...]
    ids_L: Tensor
    types_L: Tensor
    positions_AL: Tensor
    predict_T: Tensor
    target_T: Tensor
    rollout_T: Tensor
    vision: Mapping[str, Tensor]

    @property
    def lengths(self) -> list[tuple[int, tuple[int, ...]]]:
        return [item.lengths for item in self.items]


def split(items: Iterable[Item], budget: int) -> list[list[Item]]:
    """Fill batches in order up to `budget` tokens. A completion that exceeds it alone with its prompt gets a batch of its own.

    Attention pads prompts and completions to the longest of their batch; a batch ends before that would more than double its work.
    """
    batches: list[list[Item]] = []
    for item in items:
        for piece in _pieces(item, budget):
            if not batches or not _fits([*batches[-1], piece], budget):
                batches.append([])
            batches[-1].append(piece)
    return batches


def _fits(items: Sequence[Item], budget: int) -> bool:
    prompts, completions = [i.lengths[0] for i in items], [n for i in items for n in i.lengths[1]]
    needed = sum(p + sum(p + n for n in rs) for p, rs in (i.lengths for i in items))
    padded = len(prompts) * max(prompts) + len(completions) * (max(prompts) + max(completions))
    return sum(i.tokens for i in items) <= budget and padded <= 2 * needed


def _pieces(item: Item, budget: int) -> list[Item]:
    if item.tokens <= budget:
        return [item]
    pieces: list[list[int]] = []
    room = 0
    for i, completion in enumerate(item.completions):
        if not pieces or len(completion) > room:
            pieces.append([])
            room = budget - item.lengths[0]
        pieces[-1].append(i)
        room -= len(completion)
    return [Item(item.prompt, tuple(item.completions[i] for i in p), tuple(item.rollouts[i] for i in p)) for p in pieces]


def pack(items: Sequence[Item], rope_index: RopeIndex, device: torch.device | str = "cpu") -> Pack:
    """Lay the items out in one row. `rope_index(prompt)` gives its (A, P) positions; completions go on from its largest."""
    ids, types, positions, predict, target, rollout = [], [], [], [], [], []
    for item in items:
        prompt_end = len(ids) + len(item.prompt.expanded_ids) - 1
        ids += item.prompt.expanded_ids
        types += item.prompt.token_types
        positions.append(rope_index(item.prompt).cpu())
        following = int(positions[-1].max()) + 1
        for completion, index in zip(item.completions, item.rollouts, strict=True):
            first = len(ids)
            predict += [prompt_end, *range(first, first + len(completion) - 1)]
            target += completion
            rollout += [index] * len(completion)
            ids += completion
            types += [0] * len(completion)
            positions.append((torch.arange(len(completion)) + following).expand(len(positions[0]), -1))
    assert len(predict) == len(target), "an item holds an empty completion"
    tensors = (torch.tensor(x, dtype=torch.long) for x in (ids, types))
    indices = (torch.tensor(x, dtype=torch.long) for x in (predict, target, rollout))
    parts = (*tensors, torch.cat(positions, dim=1), *indices)
    return Pack(tuple(items), *(x.to(device) for x in parts), vision=join_vision([i.prompt for i in items], device))


def join_vision(prompts: Sequence[Prompt], device: torch.device | str, endings: tuple[str, ...] = ("",)) -> dict[str, Tensor]:
    """The processor's tensors of all media, in order, joined along their first dimension: those whose name ends in one of `endings`."""
    media = [vision.tensors for prompt in prompts for vision in prompt.vision]
    names = dict.fromkeys(name for tensors in media for name in tensors if name.endswith(endings))
    return {name: torch.cat([tensors[name] for tensors in media if name in tensors]).to(device) for name in names}
