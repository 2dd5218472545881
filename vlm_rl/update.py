"""From scored groups to one optimiser step: advantages, packs under the token budget, loss, gradients, guards.

Denominators are computed once over the whole step, so how it is split into packs changes nothing. Suffixes: _N rollouts of the step,
_T completion tokens of one pack.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vlm_rl.algo.advantages import ADVANTAGES, gdpo, whiten
from vlm_rl.algo.kl import KL
from vlm_rl.algo.losses import AGGREGATIONS, LOSSES, aggregate
from vlm_rl.config import AlgoConfig
from vlm_rl.errors import UserError, unknown
from vlm_rl.memory import guarded
from vlm_rl.optim import Optimiser
from vlm_rl.packing import Item, Pack, split
from vlm_rl.policy import Policy
from vlm_rl.types import Rollout, ScoredGroup


@dataclass(frozen=True)
class Limits:
    """Sizes the update needs: sampling temperature, tokens per forward, completion limit, updates on the same rollouts."""

    temperature: float
    token_budget: int
    max_new_tokens: int
    updates: int = 1


@dataclass
class Sums:
    """Running sums over the packs of one step; every metric is a ratio of them, so it does not depend on the split."""

    value: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, amount: Tensor | float) -> None:
        self.value[name] = self.value.get(name, 0.0) + float(amount)


class Updater:
    """Applies one algorithm to a policy. `reference` (frozen) is needed when algo.kl_weight > 0."""

    def __init__(self, policy: Policy, optimiser: Optimiser, algo: AlgoConfig, limits: Limits, reference: Policy | None = None):
        check_names(algo)
        assert (reference is not None) == (algo.kl_weight > 0)
        self.policy, self.optimiser, self.algo, self.limits, self.reference = policy, optimiser, algo, limits, reference

    @guarded("update")
    def __call__(self, scored: Sequence[ScoredGroup], step: int) -> dict[str, float]:
        """One gradient step per update on these groups. Returns metrics; raises UserError when something is not finite."""
        step_batch = Batch(scored, self.algo, self.limits)
        metrics = step_batch.metrics()
        for update in range(self.limits.updates):
            sums = Sums()
            for k, items in enumerate(step_batch.packs):
                self._accumulate(step_batch, k, items, sums)
            metrics |= step_batch.summary(sums)
            # Only before the first update do engine and trainer hold the same weights.
            metrics |= step_batch.parity(sums) if update == 0 else {}
            if step_batch.packs:
                metrics |= self.optimiser.step(step * self.limits.updates + update, lambda: _names(scored))
        return metrics

    def _accumulate(self, batch: "Batch", k: int, items: list[Item], sums: Sums) -> None:
        row = self.policy.pack(items)
        stats = self.policy(row, self.limits.temperature)
        logp_T, mask_T = stats.logprob_T, batch.mask(row)
        old_T = batch.old.setdefault(k, logp_T.detach())
        advantage_T = batch.advantages_N[row.rollout_T.cpu()].to(logp_T)
        out = LOSSES[self.algo.loss](logp_T, old_T, advantage_T, self.algo.clip_low, self.algo.clip_high, row.rollout_T)
        loss_T, weights_N = out.loss_T, batch.weights_N.to(logp_T.device)
        if self.reference is not None:
            with torch.no_grad():
                reference_T = self.reference(row, self.limits.temperature).logprob_T
            kl_T = KL[self.algo.kl](logp_T, reference_T)
            sums.add("loss/kl", (kl_T.detach() * mask_T).sum())
            loss_T = loss_T + self.algo.kl_weight * kl_T
        loss = aggregate(loss_T * mask_T, weights_N, row.rollout_T)
        if not torch.isfinite(loss):
            raise UserError(f"the loss is not finite; samples in this pack: {', '.join(i.prompt.sample.id for i in items)}")
        loss.backward()
        self.optimiser.gather()
        sums.add("loss/total", loss.detach())
        sums.add("rollout/entropy", (stats.entropy_T * mask_T).sum())
        for name, mark_T in out.marks.items():
            sums.add(f"loss/{name}", (mark_T & mask_T.bool()).sum())
        batch.compare(row, logp_T.detach(), mask_T, sums)


class Batch:
    """The step's rollouts with their advantages and weights, packed."""

    def __init__(self, scored: Sequence[ScoredGroup], algo: AlgoConfig, limits: Limits):
        self.scored = scored
        self.rollouts: list[Rollout] = [r for s in scored for r in s.group.rollouts]
        per_group = advantages(scored, algo)
        self.advantages_N = torch.cat(per_group)
        lengths_N = torch.tensor([sum(r.completion.loss_mask) for r in self.rollouts])
        self.weights_N = AGGREGATIONS[algo.aggregation](lengths_N, limits.max_new_tokens)
        # A group without spread has no policy gradient. Without a KL term its forward would only compute zeros; it still counts in N.
        kept = [bool(a.any()) or algo.kl_weight > 0 for a in per_group]
        self.dropped = kept.count(False)
        self.packs = split(self._items(kept), limits.token_budget)
        self.old: dict[int, Tensor] = {}

    def _items(self, kept: Sequence[bool]) -> list[Item]:
        items, start = [], 0
        for scored, keep in zip(self.scored, kept, strict=True):
            rollouts = scored.group.rollouts
            if keep:
                index = tuple(range(start, start + len(rollouts)))
                items.append(Item(scored.group.prompt, tuple(r.completion.token_ids for r in rollouts), index))
            start += len(rollouts)
        return items

    def mask(self, row: Pack) -> Tensor:
        """1.0 for tokens the model wrote, 0.0 for inserted ones, in the pack's order."""
        index = [i for item in row.items for i in item.rollouts]
        return torch.tensor([m for i in index for m in self.rollouts[i].completion.loss_mask], dtype=torch.float32, device=row.ids_L.device)

    def compare(self, row: Pack, logp_T: Tensor, mask_T: Tensor, sums: Sums) -> None:
        """Engine against trainer: the same tokens and pictures under the same weights must have the same log-probs."""
        index = [i for item in row.items for i in item.rollouts]
        engine_T = torch.tensor([p for i in index for p in self.rollouts[i].completion.logprobs]).to(logp_T)
        gap_T = (logp_T - engine_T).abs() * mask_T
        sums.add("tokens", mask_T.sum())
        sums.add("gap", gap_T.sum())
        sums.value["gap_max"] = max(sums.value.get("gap_max", 0.0), float(gap_T.max()))

    def metrics(self) -> dict[str, float]:
        spread = [abs(float(a)) for a in self.advantages_N]
        return {"algo/dropped_groups": float(self.dropped), "algo/advantage_abs": sum(spread) / len(spread)}

    def summary(self, sums: Sums) -> dict[str, float]:
        """Means per token of the packs forwarded; all zero when every group was dropped."""
        tokens = max(sums.value.get("tokens", 0.0), 1.0)
        names = ("rollout/entropy", "loss/kl", "loss/clip_low", "loss/clip_high")
        return {"loss/total": sums.value.get("loss/total", 0.0)} | {name: sums.value.get(name, 0.0) / tokens for name in names}

    def parity(self, sums: Sums) -> dict[str, float]:
        """Mean and largest |engine - trainer| log-prob per token, in nats."""
        tokens = max(sums.value.get("tokens", 0.0), 1.0)
        return {"guard/logprob_diff": sums.value.get("gap", 0.0) / tokens, "guard/logprob_diff_max": sums.value.get("gap_max", 0.0)}


def advantages(scored: Sequence[ScoredGroup], algo: AlgoConfig) -> list[Tensor]:
    """One advantage per rollout, group by group, float32. A group whose rewards have no spread gets exactly 0."""
    own = ADVANTAGES[algo.advantage]
    if algo.rewards == "sum_then_normalize":
        return [own(torch.tensor(s.totals, dtype=torch.float32), algo.advantage_eps) for s in scored]
    summed = [_summed(s, algo) for s in scored]
    white = whiten(torch.cat(summed), algo.advantage_eps).split([len(group) for group in summed])
    return [w if bool(group.any()) else torch.zeros_like(group) for w, group in zip(white, summed, strict=True)]


def _summed(scored: ScoredGroup, algo: AlgoConfig) -> Tensor:
    """Of one group; a part that was left out adds nothing."""
    kept = [parts for parts in scored.parts.values() if all(part.contribution is not None for part in parts)]
    if not kept:
        return torch.zeros(len(scored.totals))
    values_KG = torch.tensor([[part.value for part in parts] for parts in kept], dtype=torch.float32)
    factors_KG = torch.tensor([[part.weight * part.gate for part in parts] for parts in kept], dtype=torch.float32)
    return gdpo(values_KG, factors_KG, ADVANTAGES[algo.advantage], algo.advantage_eps, algo.least_std)


def check_names(algo: AlgoConfig) -> None:
    """Every algorithm name is checked before anything heavy loads."""
    for key, name, table in (
        ("algo.loss", algo.loss, LOSSES),
        ("algo.aggregation", algo.aggregation, AGGREGATIONS),
        ("algo.advantage", algo.advantage, ADVANTAGES),
    ):
        if name not in table:
            raise unknown(key, name, table)
    if algo.kl_weight > 0 and algo.kl == "k1":
        raise UserError("algo.kl=k1 has no gradient on average as a term of the loss, so it would regularise nothing; write k2 or k3")


def _names(scored: Sequence[ScoredGroup]) -> str:
    return ", ".join(s.group.sample.id for s in scored)
