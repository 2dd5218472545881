"""Shared-prefix attention: the prompt of a group is attended once, every completion sees the prompt and itself.

One row holds, group by group, [prompt | completion 1 | ... | completion G]; several groups may follow each other. Two forms of the same
thing: `dense_mask` is the oracle, an additive mask any attention takes; `shared_prefix_attention` is the fast form, registered with
transformers' AttentionInterface under the name "shared_prefix": prompts as a batch of causal sequences, completions as a batch of queries
over [their prompt's keys, own keys]. Without a layout it is plain scaled-dot-product attention, so one module serves generation too.

Shapes: L row length, N groups, P longest prompt, M completions, R longest completion, H heads, D head size.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from vlm_rl.attention_windows import Windows

NAME = "shared_prefix"


@dataclass(frozen=True, eq=False)
class SharedPrefix:
    """Where things are in a row: gather indices into L (padding points at 0 and is masked), and `restore` back to the row's order."""

    prompt_NP: Tensor
    completion_MR: Tensor
    group_M: Tensor
    mask_M1RK: Tensor
    restore_L: Tensor
    windows: Windows | None = None


def layout(lengths: Sequence[tuple[int, Sequence[int]]], device: torch.device | str = "cpu") -> SharedPrefix:
    """`lengths` has one (prompt length, completion lengths) per group, in row order. All lengths are at least 1."""
    longest_p = max(p for p, _ in lengths)
    longest_r = max(r for _, rs in lengths for r in rs)
    prompts, completions, groups, restore, keys, start = [], [], [], [], [], 0
    padded = len(lengths) * longest_p
    for n, (p, rs) in enumerate(lengths):
        prompts.append(_run(start, p, longest_p))
        restore.append(torch.arange(p) + n * longest_p)
        start += p
        for r in rs:
            restore.append(torch.arange(r) + padded + len(completions) * longest_r)
            completions.append(_run(start, r, longest_r))
            groups.append(n)
            keys.append(p)
            start += r
    own = torch.ones(longest_r, longest_r, dtype=torch.bool).tril().expand(len(keys), -1, -1)
    prompt = (torch.arange(longest_p)[None] < torch.tensor(keys)[:, None])[:, None].expand(-1, longest_r, -1)
    mask = torch.cat([prompt, own], dim=-1)[:, None]
    tensors = torch.stack(prompts), torch.stack(completions), torch.tensor(groups), mask, torch.cat(restore)
    on_device: list[Any] = [t.to(device) for t in tensors]
    return SharedPrefix(*on_device)


def _run(start: int, length: int, padded: int) -> Tensor:
    index = torch.zeros(padded, dtype=torch.long)
    index[:length] = torch.arange(start, start + length)
    return index


def dense_mask(lengths: Sequence[tuple[int, Sequence[int]]], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """(1, 1, L, L) additive mask, 0 where a position may look, the dtype's minimum elsewhere. The oracle of the fast form."""
    total = sum(p + sum(rs) for p, rs in lengths)
    allowed = torch.zeros(total, total, dtype=torch.bool)
    start = 0
    for p, rs in lengths:
        prompt = slice(start, start + p)
        allowed[prompt, prompt] = torch.ones(p, p, dtype=torch.bool).tril()
        start += p
        for r in rs:
            own = slice(start, start + r)
            allowed[own, prompt] = True
            allowed[own, own] = torch.ones(r, r, dtype=torch.bool).tril()
            start += r
    return torch.full((total, total), torch.finfo(dtype).min, dtype=dtype).masked_fill(allowed, 0)[None, None].to(device)


def shared_prefix_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    shared_prefix: SharedPrefix | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature: query (1, H, L, D), key and value (1, H_kv, L, D) -> (1, L, H, D)."""
    if shared_prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    where = shared_prefix
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (L, heads, D)
    k_p, v_p = (x[where.prompt_NP].transpose(1, 2) for x in (k, v))  # (N, H_kv, P, D)
    times = q.shape[1] // k.shape[1]  # CUDA's fused kernels take a mask or grouped heads, not both
    k_r, v_r = (_of_completions(x, p, where, times) for x, p in ((k, k_p), (v, v_p)))
    mask_p, mask_r = (None, where.mask_M1RK)
    if where.windows is not None:
        mask_p, mask_r = where.windows.masks(kwargs.get("sliding_window") is not None, mask_r)
        k_p, v_p = (x.repeat_interleave(times, dim=1) for x in (k_p, v_p))
    q_p = q[where.prompt_NP].transpose(1, 2)
    grouped = q_p.shape[1] != k_p.shape[1]
    out_p = scaled_dot_product_attention(q_p, k_p, v_p, mask_p, is_causal=mask_p is None, scale=scaling, enable_gqa=grouped)
    q_r = q[where.completion_MR].transpose(1, 2)
    # Checkpointed layers are made again as a whole, and what is kept here would be kept beside them.
    with nullcontext() if module.training else _made_again({k_r.data_ptr(): k, v_r.data_ptr(): v}, where, times):
        out_r = scaled_dot_product_attention(q_r, k_r, v_r, attn_mask=mask_r, scale=scaling)
    flat = torch.cat([x.transpose(1, 2).flatten(0, 1) for x in (out_p, out_r)])  # (N*P + M*R, H, D)
    return flat[where.restore_L][None], None


def _of_completions(x_LHD: Tensor, prompt_NHPD: Tensor, where: SharedPrefix, times: int) -> Tensor:
    """(M, H x times, P + R, D): keys or values of each completion's prompt, then its own."""
    joined = torch.cat([prompt_NHPD[where.group_M], x_LHD[where.completion_MR].transpose(1, 2)], dim=2)
    return joined.repeat_interleave(times, dim=1) if times > 1 else joined


def _made_again(sources: Mapping[int, Tensor], where: SharedPrefix, times: int) -> saved_tensors_hooks:
    """What attention keeps for backward of keys and values at these addresses is made again from their sources: copies of the prompt for
    every completion would otherwise take as much memory as a prompt that is repeated."""

    def keep(saved: Tensor) -> Tensor | tuple[Tensor, torch.Size]:
        source = sources.get(saved.data_ptr())
        fits = source is not None and saved.shape[1::2] == (source.shape[1] * times, source.shape[2]) and saved.is_contiguous()
        return (source.detach(), saved.shape) if fits and source is not None else saved

    def give(kept: Tensor | tuple[Tensor, torch.Size]) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        x_LHD, shape = kept
        made = _of_completions(x_LHD, x_LHD[where.prompt_NP].transpose(1, 2), where, times)
        assert made.shape == shape
        return made

    return saved_tensors_hooks(keep, give)


def register() -> None:
    """Make the name known to transformers; calling it again changes nothing."""
    AttentionInterface.register(NAME, shared_prefix_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
