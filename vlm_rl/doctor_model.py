"""The doctor's checks of model, engine and trainer: each takes parts that were put together elsewhere, measures, and compares.

Log-probs are natural and per token, of the model's own tokens, at the sampling temperature, before any clipping. Suffix: _T such tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from vlm_rl.chat import Chat
from vlm_rl.doctor import Finding, failed, passed, spared
from vlm_rl.engine.base import GenerateRequest
from vlm_rl.memory import guarded
from vlm_rl.packing import Item, split
from vlm_rl.policy import Policy
from vlm_rl.types import Group, Part, Prompt, Rollout, Sampling, ScoredGroup
from vlm_rl.weights import AdapterEngine, Followed, SleepingEngine

SAMPLED = 512  # values of a gradient or weight tensor that are compared
LEAST_MOVE = 0.05  # of adapters' weights
TEMPERATURES = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5)  # tried to name the one an engine samples at


@dataclass(frozen=True)
class Tolerance:
    """Mean and largest difference of log-probs in nats; relative difference (of norms) of gradients."""

    mean: float
    most: float
    gradient: float


# Ours: float32 as seen between transformers and vLLM on a CPU, with room; bfloat16 has 8 bits of mantissa, and engines round elsewhere.
TOLERANCES: Mapping[str, Tolerance] = {"float32": Tolerance(5e-4, 1e-2, 1e-3), "bfloat16": Tolerance(0.03, 1.5, 0.15)}


def token_identity(chat: Chat, prompts: Sequence[Prompt], read: Callable[[Prompt], Sequence[int]]) -> Finding:
    """Prompt ids as the trainer has them against those that `read` gives (the engine's, or the processor's own), and runs of visual
    tokens against the grids of the media: as many as the model has features for, none missing at the end."""
    visual = 0
    for prompt in prompts:
        where = f"row {prompt.sample.id}"
        if cause := run_problem(chat, prompt):
            fix = "the prompt's ids are not those of its media: use the model's own processor and chat template, and no shortened prompt"
            return failed(f"{where}: {len(prompt.expanded_ids)} tokens", f"{where}: {cause}", fix)
        seen = tuple(read(prompt))
        if seen != prompt.expanded_ids:
            place = next((i for i, (a, b) in enumerate(zip(seen, prompt.expanded_ids, strict=False)) if a != b), "the end")
            cause = f"{where}: the engine reads {len(seen)} tokens, the trainer {len(prompt.expanded_ids)}, different from token {place} on"
            return failed(f"{where}: ids differ", cause, "use rollout.engine=hf, or an engine that uses the installed transformers")
        visual += sum(kind > 0 for kind in prompt.token_types)
    longest = max(len(prompt.expanded_ids) for prompt in prompts)
    measured = (
        f"{len(prompts)} prompts, {visual} visual tokens as the grids say, longest {longest} tokens: engine and trainer read the same"
    )
    return passed(measured, prompts=len(prompts), visual_tokens=visual, longest=longest)


def run_problem(chat: Chat, prompt: Prompt) -> str | None:
    """What is wrong with the runs of placeholders in a prompt, None when they are those of its media."""
    shown, kinds = set(chat.placeholder.values()), (None, "image", "video")
    if [id_ in shown for id_ in prompt.expanded_ids] != [type_ > 0 for type_ in prompt.token_types]:
        return "its token types do not mark the visual tokens and only them"
    if not chat.family.controls:  # media may stand side by side, with nothing between them to tell their tokens apart
        return _total_problem(chat, prompt)
    runs = [(kinds[type_], len(list(same))) for type_, same in groupby(prompt.token_types) if type_]
    for medium, vision in zip(prompt.sample.media, prompt.vision, strict=True):
        wanted, got = _visual_tokens(chat, medium.kind, vision), 0
        while got < wanted and runs and runs[0][0] == medium.kind:
            got += runs.pop(0)[1]
        if got < wanted:
            return f"the prompt is cut inside a {medium.kind}: {got} placeholders for {wanted} visual tokens"
        if got > wanted:
            twice = "; it was expanded twice" if got in (2 * wanted, wanted * wanted) else ""
            return f"{got} placeholders for the {wanted} visual tokens of a {medium.kind}{twice}"
    return f"{len(runs)} runs of placeholders belong to no medium; was a prompt expanded twice?" if runs else None


def _total_problem(chat: Chat, prompt: Prompt) -> str | None:
    for kind, type_ in (("image", 1), ("video", 2)):
        media = zip(prompt.sample.media, prompt.vision, strict=True)
        wanted, got = sum(_visual_tokens(chat, kind, v) for m, v in media if m.kind == kind), prompt.token_types.count(type_)
        if got != wanted:
            return f"{got} placeholders for the {wanted} visual tokens of its media of kind {kind}; was it cut, or expanded twice?"
    return None


def _visual_tokens(chat: Chat, kind: str, vision: Any) -> int:
    """By the grid of patches where the family has one, else as the processor spelled the medium alone."""
    if f"{kind}_grid_thw" not in vision.tensors:
        return vision.tokens
    processor = chat.processor.image_processor if kind == "image" else chat.processor.video_processor
    return int(vision.tensors[f"{kind}_grid_thw"].prod()) // processor.merge_size**2


def parity(policy: Policy, groups: Sequence[Group], temperature: float, budget: int, tolerance: Tolerance) -> Finding:
    """The engine's log-probs of what it wrote against the trainer's forward."""
    gap_T = gaps(policy, groups, temperature, budget)
    numbers = {"tokens": float(len(gap_T)), "mean": float(gap_T.mean()), "max": float(gap_T.max())}
    measured = (
        f"{len(gap_T)} tokens: differ by {numbers['mean']:.1e} nats on average (limit {tolerance.mean:g}), at most {numbers['max']:.1e}"
    )
    if agree(gap_T, tolerance):
        return passed(measured, **numbers)
    for other in TEMPERATURES:
        if agree(gaps(policy, groups, other, budget), tolerance):
            cause = f"the engine's log-probs are those of temperature {other:g}, not of rollout.temperature={temperature:g}"
            return failed(measured, cause, "give engine and trainer one temperature: rollout.temperature", **numbers)
    cause = "the policy that is sampled is not the one that is trained: other weights, dtype or pixels, or a cut or filtered support"
    fix = "see the checks of tokens and weights; the same model.dtype for both; no top-k or top-p; or rollout.engine=hf"
    return failed(measured, cause, fix, **numbers)


@torch.no_grad()
def gaps(policy: Policy, groups: Sequence[Group], temperature: float, budget: int) -> Tensor:
    """|trainer - engine| of each token that the model wrote, on the CPU."""
    rollouts = [rollout.completion for group in groups for rollout in group.rollouts]
    mine_T = torch.cat([policy(policy.pack(batch), temperature).logprob_T.float().cpu() for batch in split(items(groups), budget)])
    theirs_T = torch.tensor([value for completion in rollouts for value in completion.logprobs])
    written_T = torch.tensor([mark for completion in rollouts for mark in completion.loss_mask])
    return (mine_T - theirs_T).abs()[written_T]


def agree(gap_T: Tensor, tolerance: Tolerance) -> bool:
    return float(gap_T.mean()) <= tolerance.mean and float(gap_T.max()) <= tolerance.most


def items(groups: Sequence[Group]) -> list[Item]:
    listed, start = [], 0
    for group in groups:
        index = tuple(range(start, start + len(group.rollouts)))
        listed.append(Item(group.prompt, tuple(rollout.completion.token_ids for rollout in group.rollouts), index))
        start += len(index)
    return listed


def packing(policy: Policy, groups: Sequence[Group], temperature: float, tolerance: Tolerance) -> Finding:
    """The forward that shares prompts against the plain one: log-probs, and gradients of their mean."""
    if policy.mode == "plain":
        return spared("every completion is forwarded with its own prompt, so there is nothing to compare")
    ids, mode = policy.banned_V.nonzero()[:, 0].tolist(), "dense" if policy.mode == "dense" else "shared_prefix"
    mine_T, mine = _forward_backward(policy, groups, temperature)
    try:
        want_T, want = _forward_backward(Policy(policy.model, ids, "plain", policy.checkpointing), groups, temperature)
    finally:
        Policy(policy.model, ids, mode, policy.checkpointing)  # puts the attention back
    gap_T, total = (mine_T - want_T).abs(), sum(float(g.square().sum()) for g in want.values())
    off = sum(float((mine[name] - g).square().sum()) if name in mine else float("inf") for name, g in want.items())
    gradient = (off / max(total, 1e-30)) ** 0.5
    numbers = {"tokens": float(len(gap_T)), "mean": float(gap_T.mean()), "max": float(gap_T.max()), "gradient": gradient}
    measured = (
        f"{len(gap_T)} tokens, {mode} against plain: log-probs differ by at most {numbers['max']:.1e} nats, gradients by a relative "
        f"{gradient:.1e} (limit {tolerance.gradient:g})"
    )
    if agree(gap_T, tolerance) and gradient <= tolerance.gradient:
        return passed(measured, **numbers)
    cause = "sharing the prompt between completions changes what this model computes under the installed transformers"
    return failed(measured, cause, "write model.attention=plain, and report the model's family and versions", **numbers)


def _forward_backward(policy: Policy, groups: Sequence[Group], temperature: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs, and some values of every parameter's gradient."""
    logprob_T = policy(policy.pack(items(groups)), temperature).logprob_T
    logprob_T.mean().backward()
    found = {name: sampled(p.grad) for name, p in policy.model.named_parameters() if p.grad is not None}
    policy.zero_grad(set_to_none=True)
    return logprob_T.detach().float().cpu(), found


def sampled(tensor: Tensor) -> Tensor:
    """Evenly drawn values, float32 on the CPU."""
    flat = tensor.detach().flatten()
    return flat[:: max(1, len(flat) // SAMPLED)].float().cpu().clone()


@dataclass(frozen=True)
class SyncGaps:
    """After the weights were moved far and given to the engine: by how much that moved the log-probs of the same tokens (mean), and the
    gaps of engine and trainer on prompts that the engine has read before, and on others."""

    moved: float
    seen_T: Tensor
    fresh_T: Tensor


@dataclass(frozen=True)
class Asked:
    """Prompts to ask an engine twice and once, with how they are sampled and packed."""

    seen: Sequence[Prompt]
    fresh: Sequence[Prompt]
    sampling: Sampling
    budget: int

    def groups(self, engine: Any, prompts: Sequence[Prompt]) -> list[Group]:
        """Two completions each."""
        written = engine.generate([GenerateRequest(prompt, self.sampling, (1, 2)) for prompt in prompts])
        return [
            Group(prompt, tuple(Rollout(i, i + 1, c) for i, c in enumerate(completions)), 0)
            for prompt, completions in zip(prompts, written, strict=True)
        ]


def measure_sync(policy: Policy, engine: SleepingEngine, asked: Asked, scale: float = 0.5) -> SyncGaps:
    """Disturbs the policy's weights for good, `scale` of each tensor's spread, and gives them to the engine as training does. Of adapters
    that go there apart only those move, at least by LEAST_MOVE: half of them were zero a moment ago."""
    before = asked.groups(engine, asked.seen)
    asked.groups(engine, asked.seen)  # once more: now prompts and pictures are in whatever caches the engine has

    apart = isinstance(engine, AdapterEngine)
    moving, least = [p for p in policy.model.parameters() if p.requires_grad or not apart], LEAST_MOVE if apart else 0.0

    def disturb(scored: Sequence[ScoredGroup], step: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in moving:
                noise = torch.randn(weight.shape, generator=generator).to(weight)
                weight.add_(noise * (scale * weight.float().std(correction=0).nan_to_num()).clamp(least).to(weight))
        return {}

    Followed(disturb, policy, engine)([], 0)
    moved = float(gaps(policy, before, asked.sampling.temperature, asked.budget).mean())
    seen, fresh = (
        gaps(policy, asked.groups(engine, prompts), asked.sampling.temperature, asked.budget) for prompts in (asked.seen, asked.fresh)
    )
    return SyncGaps(moved, seen, fresh)


def weights_arrive(found: SyncGaps, tolerance: Tolerance) -> Finding:
    """On prompts that the engine never read, so that no cache plays a part."""
    mean = float(found.fresh_T.mean())
    measured = f"weights moved by {found.moved:.2g} nats per token; afterwards engine and trainer differ by {mean:.1e} on new prompts"
    numbers = {"moved": found.moved, "mean": mean, "max": float(found.fresh_T.max())}
    if found.moved < 3 * tolerance.mean:
        return failed(measured, "the model hardly answers to its own weights, so nothing can be told", "use a trained model", **numbers)
    if agree(found.fresh_T, tolerance):
        return passed(measured, **numbers)
    cause = "the engine does not have the trainer's weights after a sync"
    return failed(measured, cause, "use the versions this project was tried with (README), or rollout.engine=hf", **numbers)


def caches_dropped(found: SyncGaps, tolerance: Tolerance) -> Finding:
    """On prompts with pictures that it read before the sync."""
    mean = float(found.seen_T.mean())
    measured = f"after the sync engine and trainer differ by {mean:.1e} nats on prompts and pictures seen before"
    numbers = {"mean": mean, "max": float(found.seen_T.max())}
    if agree(found.seen_T, tolerance):
        return passed(measured, **numbers)
    if not agree(found.fresh_T, tolerance):
        return spared("cannot be told apart: the weights did not arrive")
    cause = "the engine answers from encoded pictures or cached prompts of the former weights, and only on what it saw before"
    return failed(measured, cause, "use the vLLM this project was tried with (README), or rollout.engine=hf", **numbers)


def with_spread(groups: Sequence[Group], labels: Sequence[str], every: int) -> list[ScoredGroup]:
    """The groups with made-up rewards, so that there is a gradient whatever the config's rewards say: 1 for `every` rollouts, 0 for the
    next, and so on, the same of every label."""
    scored = []
    for group in groups:
        values = [float(i // every % 2) for i in range(len(group.rollouts))]
        parts = tuple(Part(value, 1.0, value, value=value) for value in values)
        scored.append(ScoredGroup(group, tuple(value * len(labels) for value in values), dict.fromkeys(labels, parts)))
    return scored


@guarded("update")
def memory(policy: Policy, batch: Sequence[Item], temperature: float, total: int, peak: Callable[[], int]) -> Finding:
    """Forward and backward of the largest batch that a step may hold. `total` bytes are there; `peak` tells the most used so far."""
    policy(policy.pack(batch), temperature).logprob_T.mean().backward()
    policy.zero_grad(set_to_none=True)
    used, tokens = peak(), sum(item.tokens for item in batch)
    numbers = {"peak_gb": used / 1e9, "total_gb": total / 1e9, "tokens": float(tokens)}
    measured = f"{numbers['peak_gb']:.2f} GB at most of {numbers['total_gb']:.1f}, with {tokens} tokens in one forward and backward"
    if used <= 0.95 * total:
        return passed(measured, **numbers)
    fix = "lower train.token_budget, or what is seen (model.image_max_pixels), or write model.gradient_checkpointing=true"
    return failed(measured, "a step leaves less than a twentieth of the memory free", fix, **numbers)


def largest_batch(prompts: Sequence[Prompt], group_size: int, length: int, budget: int) -> list[Item]:
    """As many groups of completions of that length as a step has and the budget takes, the longest prompt first; ids are made up."""
    longest = sorted(prompts, key=lambda prompt: -len(prompt.expanded_ids))
    completions = tuple((prompts[0].expanded_ids[0],) * length for _ in range(group_size))
    groups = [Item(prompt, completions, tuple(range(i * group_size, (i + 1) * group_size))) for i, prompt in enumerate(longest)]
    return split(groups, budget)[0]
