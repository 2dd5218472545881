"""The rollouts of one training step as the update needs them: which tokens are trained on, their advantages, and packs by optimiser step.

Denominators are computed once over an optimiser step, so how it is split into packs changes nothing. Suffixes: _N one entry per rollout of
the training step, _T one per token.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vlm_rl import credit
from vlm_rl.algo.advantages import gdpo, over_reward_std, whiten, whiten_tokens
from vlm_rl.algo.losses import AGGREGATIONS
from vlm_rl.config import AlgoConfig
from vlm_rl.named import advantage_of
from vlm_rl.packing import Item, Pack, split
from vlm_rl.ranks import ALONE, Ranks
from vlm_rl.replay import Stored
from vlm_rl.types import Rollout, ScoredGroup


@dataclass(frozen=True)
class Limits:
    """Sizes the update needs: sampling temperature, tokens per forward, completion limit, passes over the same rollouts, and optimiser
    steps in each pass."""

    temperature: float
    token_budget: int
    max_new_tokens: int
    updates: int = 1
    mini_batches: int = 1

    @property
    def steps(self) -> int:
        """Optimiser steps per training step."""
        return self.updates * self.mini_batches


@dataclass(frozen=True, eq=False)
class MiniBatch:
    """What one optimiser step is made of. `weights_N` is 0 for rollouts of other mini-batches; `rollouts` are all it has, forwarded or
    not.

    `packs` are those of each process, `rank` is this one. All forward equally often (`rounds`); `own` of a round may be empty.
    """

    packs: list[list[list[Item]]]
    weights_N: Tensor
    rollouts: list[int]
    rank: int = 0

    @property
    def rounds(self) -> int:
        return max(map(len, self.packs))

    @property
    def forwarded(self) -> list[int]:
        """The rollouts that any process forwards."""
        return [i for packs in self.packs for items in packs for item in items for i in item.rollouts]

    def own(self, turn: int) -> list[Item]:
        return self.packs[self.rank][turn] if turn < len(self.packs[self.rank]) else []

    def seen(self, turn: int, own: bool = False) -> set[str]:
        """The kinds of media that any process, or this one, forwards in a round."""
        packs = [self.own(turn)] if own else [packs[turn] for packs in self.packs if turn < len(packs)]
        return {medium.kind for items in packs for item in items for medium in item.prompt.sample.media}


class Store:
    """Numbers per token by what they are ("old") and the rollout's index, so that they fit any pack that holds the rollout."""

    def __init__(self) -> None:
        self.values: dict[str, dict[int, Tensor]] = {}

    def put(self, name: str, row: Pack, values_T: Tensor) -> None:
        """`values_T` has one entry per completion token of the row; what is known of a rollout already stays."""
        pieces = values_T.detach().float().cpu().split([n for item in row.items for n in item.lengths[1]])
        known = self.values.setdefault(name, {})
        known.update({i: piece for i, piece in zip(indices(row), pieces, strict=True) if i not in known})

    def has(self, name: str, row: Pack) -> bool:
        return all(i in self.values.get(name, {}) for i in indices(row))

    def copy(self) -> dict[str, dict[int, Tensor]]:
        return {name: dict(known) for name, known in self.values.items()}

    def get(self, name: str, row: Pack) -> Tensor:
        return torch.cat([self.values[name][i] for i in indices(row)]).to(row.ids_L.device)

    def spread(self, name: str, ranks: Ranks) -> None:
        """Tell all processes what each knows under `name`."""
        if ranks.world > 1:
            self.values[name] = ranks.merge(f"'{name}' of tokens", self.values.get(name, {}))


class StepBatch:
    """The step's rollouts, those of `replayed` groups last: `own` is how many groups come before them. `masks` has one bool per token of
    each: what the model wrote, and nothing of a rollout left out as truncated."""

    def __init__(
        self, scored: Sequence[ScoredGroup], algo: AlgoConfig, limits: Limits, replayed: Sequence[Stored] = (), ranks: Ranks = ALONE
    ):
        self.own, self.algo, self.limits, self.ranks = len(scored), algo, limits, ranks
        self.scored = [*scored, *(stored.scored for stored in replayed)]
        self.rollouts: list[Rollout] = [r for s in self.scored for r in s.group.rollouts]
        self.masks = [_trained(r, algo.mask_truncated) for r in self.rollouts]
        self.lengths_N = torch.tensor([int(m.sum()) for m in self.masks], dtype=torch.int64)
        starts = [0]
        for s in self.scored:
            starts.append(starts[-1] + len(s.group.rollouts))
        self.ranges = [range(a, b) for a, b in itertools.pairwise(starts)]
        self.store = Store()
        self.store.values["engine"] = {i: torch.tensor(r.completion.logprobs) for i, r in enumerate(self.rollouts)}
        self.store.values["mask"] = {i: m.float() for i, m in enumerate(self.masks)}
        before = (zip(r, stored.logprobs, strict=True) for r, stored in zip(self.ranges[self.own :], replayed, strict=True))
        self.store.values["trainer"] = {i: logprobs for group in before for i, logprobs in group if logprobs is not None}

    @property
    def own_rollouts(self) -> int:
        return sum(map(len, self.ranges[: self.own]))

    @property
    def names(self) -> str:
        return ", ".join(s.group.sample.id for s in self.scored)

    def packs(self, groups: Sequence[int], rank: int | None = None) -> list[list[Item]]:
        """Those of these groups that this process or another `rank` holds, under the token budget, without rollouts that have no trained
        token."""
        holder = self.ranks.rank if rank is None else rank
        items = []
        for g in groups:
            if self.ranks.world > 1 and self.scored[g].group.rank != holder:
                continue
            index = tuple(i for i in self.ranges[g] if self.lengths_N[i])
            if index:
                items.append(Item(self.scored[g].group.prompt, tuple(self.rollouts[i].completion.token_ids for i in index), index))
        return split(items, self.limits.token_budget)

    def settle(self, penalties: Mapping[int, Tensor]) -> None:
        """Make the advantages, one tensor per rollout with an entry per token. `penalties` are subtracted: KL where it is in the reward."""
        zeros = {i: penalties.get(i, torch.zeros(len(m))) for i, m in enumerate(self.masks)}
        per_rollout = torch.cat(advantages(self.scored, self.algo, self._totals(zeros)) or [torch.zeros(0)])
        give = credit.find_credit(self.algo.credit)
        given = [credit.checked(give, r, float(per_rollout[i]), zeros[i]) for i, r in enumerate(self.rollouts)]
        if batch_rule(self.algo) == "whiten_tokens":
            kept = [self.algo.advantage == "raw" or any(bool(given[i].any()) for i in r) for r in self.ranges for _ in r]
            white = whiten_tokens(given, self.masks, self.algo.advantage_eps)
            given = [w if keep else torch.zeros_like(w) for w, keep in zip(white, kept, strict=True)]
        self.advantages = given
        self.store.values["advantage"] = dict(enumerate(given))

    def _totals(self, penalties: Mapping[int, Tensor]) -> list[tuple[float, ...]]:
        if self.algo.credit in credit.PENALISED_LATER:
            return [s.totals for s in self.scored]
        taken = [float((penalties[i] * m).sum()) for i, m in enumerate(self.masks)]
        return [tuple(t - taken[i] for t, i in zip(s.totals, r, strict=True)) for s, r in zip(self.scored, self.ranges, strict=True)]

    def mini_batches(self, needless: Callable[[int], bool]) -> list[MiniBatch]:
        """Whole groups in order, own and replayed ones alike in as many parts as there are to be. What is `needless` (by group) is not
        forwarded, and still counts."""
        count = min(self.limits.mini_batches, max(self.own, len(self.scored) - self.own))
        made = []
        for own, replayed in zip(_in_parts(0, self.own, count), _in_parts(self.own, len(self.scored), count), strict=True):
            groups = [*own, *replayed]
            index = [i for g in groups for i in self.ranges[g]]
            weights_N = torch.zeros(len(self.rollouts))
            length = self.algo.norm_length or self.limits.max_new_tokens
            weights_N[index] = AGGREGATIONS[self.algo.aggregation](self.lengths_N[index], length)
            needed = [g for g in groups if not needless(g)]
            packs = [self.packs(needed, rank) for rank in range(self.ranks.world)]
            made.append(MiniBatch(packs, weights_N, index, self.ranks.rank))
        return made

    def halve(self, minis: Sequence[MiniBatch]) -> list[MiniBatch]:
        """The same mini-batches in packs under half the token budget, as they would be had it been that from the start."""
        self.limits = replace(self.limits, token_budget=max(self.limits.token_budget // 2, 1))
        forwarded = {i for mini in minis for i in mini.forwarded}
        return self.mini_batches(lambda group: forwarded.isdisjoint(self.ranges[group]))

    def is_flat(self, group: int) -> bool:
        """Whether no token of the group has an advantage."""
        return not any(bool(self.advantages[i].any()) for i in self.ranges[group])


def indices(row: Pack) -> list[int]:
    """The rollouts of a row, in its order."""
    return [i for item in row.items for i in item.rollouts]


def _in_parts(start: int, end: int, count: int) -> list[range]:
    bounds = [start + k * (end - start) // max(count, 1) for k in range(count + 1)]
    return [range(a, b) for a, b in itertools.pairwise(bounds)]


def _trained(rollout: Rollout, mask_truncated: bool) -> Tensor:
    mask = torch.tensor(rollout.completion.loss_mask, dtype=torch.bool)
    return torch.zeros_like(mask) if mask_truncated and rollout.completion.finish == "length" else mask


def batch_rule(algo: AlgoConfig) -> str:
    """What is done with advantages over the batch."""
    return algo.batch or ("whiten" if algo.rewards == "normalize_then_sum" else "none")


def advantages(scored: Sequence[ScoredGroup], algo: AlgoConfig, totals: Sequence[Sequence[float]] | None = None) -> list[Tensor]:
    """One advantage per rollout, group by group, float32, before the tokens are whitened. A group whose rewards have no spread gets
    exactly 0 (unless the advantage has no baseline). `totals` stand in for the groups' own."""
    own, eps = advantage_of(algo), algo.advantage_eps
    sums = [torch.tensor(t, dtype=torch.float32) for t in (totals if totals is not None else [s.totals for s in scored])]
    if algo.rewards == "whiten_then_sum":
        sums = _whitened_sums(scored, algo)
    groups = [_normalised(s, algo) for s in scored] if algo.rewards == "normalize_then_sum" else [own(t, eps) for t in sums]
    rule = batch_rule(algo)
    if rule not in ("whiten", "reward_std") or not groups:
        return groups
    flat_N = torch.cat(groups)
    changed_N = whiten(flat_N, eps) if rule == "whiten" else over_reward_std(flat_N, torch.cat(sums), eps)
    pieces = changed_N.split([len(group) for group in groups])
    kept = [bool(group.any()) or algo.advantage == "raw" for group in groups]
    return [piece if keep else torch.zeros_like(piece) for piece, keep in zip(pieces, kept, strict=True)]


def _parts(scored: ScoredGroup) -> tuple[list[str], Tensor, Tensor]:
    """Labels, values and weight x gate of the rewards that were not left out of a group; shapes (K, G)."""
    kept = {label: parts for label, parts in scored.parts.items() if all(part.contribution is not None for part in parts)}
    values_KG = torch.tensor([[part.value for part in parts] for parts in kept.values()], dtype=torch.float32)
    factors_KG = torch.tensor([[part.weight * part.gate for part in parts] for parts in kept.values()], dtype=torch.float32)
    return list(kept), values_KG, factors_KG


def _normalised(scored: ScoredGroup, algo: AlgoConfig) -> Tensor:
    """Of one group; a part that was left out adds nothing."""
    labels, values_KG, factors_KG = _parts(scored)
    if not labels:
        return torch.zeros(len(scored.totals))
    return gdpo(values_KG, factors_KG, advantage_of(algo), algo.advantage_eps, algo.least_std)


def _whitened_sums(scored: Sequence[ScoredGroup], algo: AlgoConfig) -> list[Tensor]:
    """Totals of rewards that are each whitened over all rollouts of the step where they were not left out, then x weight x gate."""
    parts = [_parts(s) for s in scored]
    said: dict[str, list[Tensor]] = {}
    for labels, values_KG, _ in parts:
        for label, values_G in zip(labels, values_KG, strict=True):
            said.setdefault(label, []).append(values_G)
    scale: dict[str, tuple[Tensor, Tensor]] = {}
    for label, groups in said.items():
        values_N = torch.cat(groups)
        std = values_N.std() if len(values_N) > 1 else torch.zeros(())
        scale[label] = (values_N.mean(), std.clamp(min=algo.least_std) + algo.advantage_eps)
    sums = []
    for s, (labels, values_KG, factors_KG) in zip(scored, parts, strict=True):
        total = torch.zeros(len(s.totals))
        for label, values_G, factors_G in zip(labels, values_KG, factors_KG, strict=True):
            mean, std = scale[label]
            total = total + factors_G * (values_G - mean) / std
        sums.append(total)
    return sums
