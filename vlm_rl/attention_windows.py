"""Shared-prefix masks for models whose pictures see themselves both ways and some of whose layers see a window only (Gemma 3).

A layer without a window: causal, or both ways within the visual tokens of one picture. A layer with a window of W: of those, what lies
less than W positions back (arXiv 2503.19786, as transformers composes them). Positions are those of prompt and completion, not of the row.

Shapes: as in `attention`; K = P + R keys of a completion.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Lengths = Sequence[tuple[int, Sequence[int]]]


@dataclass(frozen=True, eq=False)
class Windows:
    """True where a query may look: prompts without and with a window, completions with one (without, they are as everywhere)."""

    prompt_N1PP: Tensor
    prompt_windowed_N1PP: Tensor
    completion_windowed_M1RK: Tensor

    def masks(self, windowed: bool, completion_M1RK: Tensor) -> tuple[Tensor, Tensor]:
        if windowed:
            return self.prompt_windowed_N1PP, self.completion_windowed_M1RK
        return self.prompt_N1PP, completion_M1RK


def windows(types_L: Tensor, prompt_NP: Tensor, completion_M1RK: Tensor, lengths: Lengths, window: int) -> Windows:
    """For a layout whose prompts are `prompt_NP` (indices into the row) and whose completions see `completion_M1RK`."""
    sizes_N = torch.tensor([p for p, _ in lengths])
    place_P = torch.arange(prompt_NP.shape[1])
    picture_NP = pictures(types_L.cpu())[prompt_NP.cpu()].masked_fill(place_P >= sizes_N[:, None], -1)
    same = (picture_NP[:, :, None] == picture_NP[:, None]) & (picture_NP >= 0)[:, None]
    back_PP = place_P[:, None] - place_P
    prompt = (back_PP >= 0) | same
    starts_M = torch.tensor([p for p, rs in lengths for _ in rs])
    after_R = torch.arange(completion_M1RK.shape[2])
    query_MR = starts_M[:, None] + after_R
    key_MK = torch.cat([place_P.expand(len(starts_M), -1), query_MR], dim=1)
    near = key_MK[:, None] > query_MR[:, :, None] - window
    device = prompt_NP.device
    completion = completion_M1RK & near[:, None].to(device)
    return Windows(prompt[:, None].to(device), (prompt & (back_PP < window))[:, None].to(device), completion)


def dense_masks(lengths: Lengths, types_L: Tensor, mask_11LL: Tensor, window: int) -> dict[str, Tensor]:
    """By type of layer, the additive masks of the oracle, from the one that knows neither pictures nor windows."""
    position_L = torch.cat([torch.cat([torch.arange(p), *(torch.arange(p, p + r) for r in rs)]) for p, rs in lengths]).to(mask_11LL.device)
    picture_L = pictures(types_L)
    same = (picture_L[:, None] == picture_L) & (picture_L >= 0)
    full = mask_11LL.masked_fill(same, 0)
    far = position_L <= position_L[:, None] - window
    return {"full_attention": full, "sliding_attention": full.masked_fill(far, torch.finfo(full.dtype).min)}


def pictures(types_L: Tensor) -> Tensor:
    """The number of the picture that each visual token belongs to, -1 for text: runs of visual tokens, between which text stands."""
    visual = types_L > 0
    begins = visual & ~torch.cat([visual.new_zeros(1), visual[:-1]])
    return (begins.long().cumsum(0) - 1).masked_fill(~visual, -1)
