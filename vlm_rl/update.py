"""From scored groups to optimiser steps: what each needs is forwarded once, then loss, gradients, guards.

The log-probs of the sampling policy come out of the update's own forward; only mini-batches after the first, and a choice of tokens by
entropy over several packs, need a look ahead. Suffix: _T trained tokens of one pack.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vlm_rl.algo.kl import GRADIENTS, KL, adapted, k1
from vlm_rl.algo.losses import Tokens, aggregate, entropy_threshold
from vlm_rl.algo.mismatch import CORRECTIONS, drifted, ratio_metrics
from vlm_rl.algo.ratios import LEVELS
from vlm_rl.config import AlgoConfig
from vlm_rl.errors import UserError
from vlm_rl.halving import can_halve, release
from vlm_rl.lora import AdaptersOff
from vlm_rl.memory import guarded, is_out_of_memory
from vlm_rl.named import loss_of
from vlm_rl.optim import Optimiser
from vlm_rl.packing import Pack
from vlm_rl.policy import Policy, TokenStats
from vlm_rl.reference import Follower
from vlm_rl.replay import Replay
from vlm_rl.sharing import NOBODY, Shared
from vlm_rl.step_batch import Limits as Limits
from vlm_rl.step_batch import MiniBatch, StepBatch
from vlm_rl.types import ScoredGroup
from vlm_rl.update_checks import check_names as check_names
from vlm_rl.update_sums import Sums as Sums

Reference = Policy | AdaptersOff


class Updater:
    """Applies one algorithm to a policy. `reference` (frozen) is needed when algo.kl_weight > 0, `replay` when algo.replay is set.

    Of several processes every one forwards as often as the others, and sees pictures and videos when any does: `shared` pads.
    """

    def __init__(
        self,
        policy: Policy,
        optimiser: Optimiser,
        algo: AlgoConfig,
        limits: Limits,
        reference: Reference | None = None,
        replay: Replay | None = None,
        shared: Shared = NOBODY,
    ):
        check_names(algo)
        assert (reference is not None) == (algo.kl_weight > 0) and (replay is None) == (algo.replay is None)
        self.policy, self.optimiser, self.algo, self.limits, self.reference = policy, optimiser, algo, limits, reference
        self.replay, self.shared, self.ranks, self.halvings = replay, shared, shared.ranks, 0
        self.kl_weight, self.loss = algo.kl_weight, loss_of(algo)
        self.follower = Follower(reference, algo.reference) if isinstance(reference, Policy) and algo.reference.kind == "ema" else None

    @guarded("update")
    def __call__(self, scored: Sequence[ScoredGroup], step: int) -> dict[str, float]:
        """The optimiser steps of training step `step` (0-based). Returns metrics; raises UserError when something is not finite."""
        replayed = self.replay.take(step + 1) if self.replay else []
        batch = StepBatch(scored, self.algo, self.limits, replayed, self.ranks)
        in_reward = self._penalties(batch) if self.kl_weight and self.algo.kl_in == "reward" else {}
        batch.settle(in_reward)
        everything = self.algo.entropy_bonus > 0 or (self.kl_weight > 0 and self.algo.kl_in == "loss")
        minis = batch.mini_batches(lambda group: not everything and batch.is_flat(group))
        self._look_ahead(batch, minis)
        metrics: dict[str, float] = {}
        sums, moved, kl = Sums(), False, None
        for turn in range(self.limits.updates):
            sums = Sums()
            for k in range(len(minis)):
                minis = self._gradients(batch, minis, k, sums, moved)
                if minis[k].rounds:
                    number = step * self.limits.steps + turn * self.limits.mini_batches + k
                    metrics |= self.optimiser.step(number, lambda: batch.names)
                    moved = True
            sums = sums.over(self.ranks)
            kl = sums.share("loss/kl") if kl is None else kl
        metrics |= self._metrics(batch, sums, in_reward, everything)
        self._after(step, metrics["loss/kl"] if in_reward else kl, batch.own_rollouts)
        if self.replay:
            self._keep(batch, self.replay, step + 1)
            metrics |= self.replay.metrics(replayed, step + 1)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold beside weights and optimiser, so that a resumed run is the same."""
        reference = self.follower.state() if self.follower else None
        return {"kl_weight": self.kl_weight, "reference": reference, "halvings": self.halvings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kl_weight, self.halvings = state["kl_weight"], state.get("halvings", 0)
        if self.follower:
            self.follower.load(state["reference"])

    @torch.no_grad()
    def _penalties(self, batch: StepBatch) -> dict[int, Tensor]:
        """Weight x k1 per token against the reference, by rollout, with the log-probs that the engine told: they cost no forward."""
        for items in batch.packs(range(len(batch.scored))):
            self._ask_reference(batch, self.policy.pack(items))
        batch.store.spread("reference", self.ranks)
        told, asked = batch.store.values["engine"], batch.store.values.get("reference", {})
        return {i: self.kl_weight * k1(told[i], asked[i]) * batch.masks[i] for i in asked}

    def _ask_reference(self, batch: StepBatch, row: Pack) -> None:
        assert self.reference is not None
        if not batch.store.has("reference", row):
            with torch.no_grad():
                batch.store.put("reference", row, self.reference(row, self.limits.temperature).logprob_T)

    @torch.no_grad()
    def _look_ahead(self, batch: StepBatch, minis: Sequence[MiniBatch]) -> None:
        """Forward what must be known of the sampling policy before it changes, or before the first loss."""
        for k, mini in enumerate(minis):
            later = k > 0 and self.algo.old_logprobs == "trainer"
            if later or (self.algo.top_entropy < 1 and sum(map(len, mini.packs)) > 1):
                for row, stats in (self._forward(mini, turn) for turn in range(mini.rounds)):
                    _remember(batch, row, stats, moved=False)
                batch.store.spread("entropy", self.ranks)

    def _forward(self, mini: MiniBatch, turn: int, entropy_gradient: bool = False) -> tuple[Pack, TokenStats]:
        """Of this process's pack. What it lacks of what others forward in the same round is padded, and left out of what is returned."""
        own, kinds = mini.own(turn), mini.seen(turn) - mini.seen(turn, own=True)
        padding = [self.shared.padding(kind) for kind in sorted(kinds)] or ([] if own else [self.shared.padding("text")])
        row = self.policy.pack([*own, *padding])
        stats = self.optimiser.forward(row, self.limits.temperature, entropy_gradient)
        if not padding:
            return row, stats
        n = sum(sum(item.lengths[1]) for item in own)
        return self.policy.pack(own) if own else replace(row, items=()), TokenStats(*(values_T[:n] for values_T in stats))

    def _gradients(self, batch: StepBatch, minis: list[MiniBatch], k: int, sums: Sums, moved: bool) -> list[MiniBatch]:
        """Add the gradients of mini-batch `k`. Where a pack is more than memory holds, the mini-batch is begun again with packs under half
        the token budget, which stays in force; returns the mini-batches as they are then."""
        while True:
            begun, known = sums.copy(), batch.store.copy()
            try:
                for i in range(minis[k].rounds):
                    self._accumulate(batch, minis[k], i, sums, moved)
                return minis
            except (RuntimeError, MemoryError) as error:
                if not (is_out_of_memory(error) and can_halve(minis[k], self.ranks)):
                    raise
            # Here, not above, where the error still holds the failed pack's tensors.
            self.optimiser.drop()
            sums.restore(begun)
            batch.store.values = known
            minis = batch.halve(minis)
            self.halvings, self.limits = self.halvings + 1, batch.limits
            release(self.limits.token_budget)

    def _accumulate(self, batch: StepBatch, mini: MiniBatch, turn: int, sums: Sums, moved: bool) -> None:
        """Add the gradient of one pack."""
        row, stats = self._forward(mini, turn, self.algo.entropy_bonus > 0)
        loss = self._pack_loss(batch, mini, row, stats, sums, moved) if row.items else stats.logprob_T.sum()
        self.optimiser.backward(loss, last=turn == mini.rounds - 1)

    def _pack_loss(self, batch: StepBatch, mini: MiniBatch, row: Pack, stats: TokenStats, sums: Sums, moved: bool) -> Tensor:
        """The pack's share of the loss of the optimiser step."""
        _remember(batch, row, stats, moved)
        kept = batch.store.get("mask", row).bool()
        chosen_T = self._chosen(batch, mini, row)[kept]
        tokens = self._tokens(batch, row, stats.logprob_T[kept], kept)
        loss_T = self._loss(batch, row, tokens, kept, chosen_T, sums)
        loss = aggregate(loss_T, mini.weights_N.to(loss_T.device), tokens.rollout_of_T)
        entropy_T = stats.entropy_T[kept]
        if self.algo.entropy_bonus:
            loss = loss - self.algo.entropy_bonus * (entropy_T * chosen_T).sum() / self._count(batch, mini)
        if not torch.isfinite(loss):
            raise UserError(f"the loss is not finite; samples in this pack: {', '.join(i.prompt.sample.id for i in row.items)}")
        sums.add("tokens", kept.sum())
        sums.add("loss/total", loss.detach())
        sums.add("rollout/entropy", entropy_T.detach().sum())
        sums.log_ratios.append((tokens.log_ratio_T.detach().cpu(), tokens.rollout_of_T.cpu()))
        return loss

    def _tokens(self, batch: StepBatch, row: Pack, logp_T: Tensor, kept: Tensor) -> Tokens:
        algo, of_T = self.algo, row.rollout_T[kept]
        old_T = batch.store.get(algo.old_logprobs, row)[kept]
        weight_T = None
        if algo.correction:
            gap_T = old_T - batch.store.get("engine", row)[kept]
            weight_T = torch.ones_like(gap_T)
            for correction in algo.correction:
                weight_T = weight_T * CORRECTIONS[correction.use](gap_T, of_T, correction.low, correction.high)
        return Tokens(logp_T, old_T, batch.store.get("advantage", row)[kept], of_T, LEVELS[algo.ratio], weight_T)

    def _loss(self, batch: StepBatch, row: Pack, tokens: Tokens, kept: Tensor, chosen_T: Tensor, sums: Sums) -> Tensor:
        """The loss of each token, before it is weighted: policy term, what corrects and masks it, KL term."""
        algo = self.algo
        out = self.loss(tokens, algo.clip_low, algo.clip_high, **algo.loss_settings)
        loss_T = out.loss_T * chosen_T
        if tokens.weight_T is not None:
            loss_T = loss_T if out.corrected else loss_T * tokens.weight_T
            sums.add("mismatch/weight", tokens.weight_T.sum())
            sums.add("mismatch/rejected", (tokens.weight_T == 0).sum())
        if algo.off_policy_mask is not None:
            engine_T = batch.store.get("engine", row)[kept]
            away_T = drifted(engine_T, tokens.logp_T, tokens.advantages_T, tokens.rollout_of_T, algo.off_policy_mask)
            loss_T = loss_T.masked_fill(away_T, 0.0)
            sums.add("loss/drifted", away_T.sum())
        if self.kl_weight and algo.kl_in == "loss":
            self._ask_reference(batch, row)
            reference_T = batch.store.get("reference", row)[kept]
            kl_T = KL[algo.kl](tokens.logp_T, reference_T)
            sums.add("loss/kl", kl_T.detach().sum())
            loss_T = loss_T + self.kl_weight * GRADIENTS[algo.kl_gradient](kl_T, tokens.logp_T, reference_T, tokens.ratio_T)
        for name, mark_T in out.marks.items():
            sums.add(f"loss/{name}", mark_T.sum())
        return loss_T

    def _chosen(self, batch: StepBatch, mini: MiniBatch, row: Pack) -> Tensor:
        """1.0 at tokens trained on: those of the highest entropy under the sampling policy, of all that the optimiser step forwards."""
        if self.algo.top_entropy == 1.0:
            return torch.ones(row.target_T.shape, device=row.ids_L.device)
        return (batch.store.get("entropy", row) >= self._threshold(batch, mini)).float()

    def _threshold(self, batch: StepBatch, mini: MiniBatch) -> Tensor:
        return entropy_threshold(self._entropies(batch, mini), self.algo.top_entropy)

    def _entropies(self, batch: StepBatch, mini: MiniBatch) -> Tensor:
        known = batch.store.values.get("entropy", {})
        return torch.cat([known[i][batch.masks[i]] for i in mini.forwarded])

    def _count(self, batch: StepBatch, mini: MiniBatch) -> float:
        """Tokens that the entropy bonus acts on in this optimiser step."""
        if self.algo.top_entropy == 1.0:
            return float(max(batch.lengths_N[mini.rollouts].sum(), 1))
        return float((self._entropies(batch, mini) >= self._threshold(batch, mini)).sum())

    def _metrics(self, batch: StepBatch, sums: Sums, in_reward: dict[int, Tensor], everything: bool) -> dict[str, float]:
        """Means per token of the packs forwarded, of the last pass; all zero when every group was dropped."""
        flat = [batch.is_flat(g) for g in range(len(batch.scored))]
        sizes = torch.cat([a.abs() for a in batch.advantages] or [torch.zeros(1)])
        named = dict.fromkeys(("rollout/entropy", "loss/kl", "loss/clip_low", "loss/clip_high"))
        named |= {name: None for name in sums.value if name not in ("tokens", "loss/total")}
        found = {name: sums.share(name) for name in named} | {"loss/total": sums.value.get("loss/total", 0.0) / self.limits.mini_batches}
        if in_reward:
            tokens = sum(float(batch.masks[i].sum()) for i in in_reward)
            found["loss/kl"] = sum(float(p.sum()) for p in in_reward.values()) / self.kl_weight / max(tokens, 1.0)
        found |= {"algo/dropped_groups": 0.0 if everything else float(sum(flat)), "algo/advantage_abs": float(sizes.mean())}
        found |= {"algo/kl_weight": self.kl_weight} if self.reference is not None else {}
        batch.store.spread("trainer", self.ranks)
        found |= {"guard/halvings": float(self.halvings)} if self.halvings else {}
        return found | sums.drift(batch.own_rollouts, self.limits.steps > 1) | _parity(batch)

    def _keep(self, batch: StepBatch, replay: Replay, step: int) -> None:
        """The step's own groups that were forwarded, with what the trainer said of them while it was the policy that wrote them."""
        known = batch.store.values["trainer"]
        for g in range(batch.own):
            if not batch.is_flat(g):
                replay.add(step, batch.scored[g], [known.get(i) for i in batch.ranges[g]])

    def _after(self, step: int, kl: float | None, rollouts: int) -> None:
        """What changes between steps: the KL weight and a reference that follows."""
        if self.algo.kl_target is not None and kl is not None and rollouts:
            self.kl_weight = adapted(self.kl_weight, kl, self.algo.kl_target, self.algo.kl_horizon, rollouts)
        if self.follower:
            self.follower.follow((weight for _, weight in self.shared.weights(self.policy)), step + 1)


def _remember(batch: StepBatch, row: Pack, stats: TokenStats, moved: bool) -> None:
    """Keep what the sampling policy says: its log-probs only while its weights are unchanged (`moved` false). Of an empty row nothing."""
    if not row.items:
        return
    if not moved and not batch.store.has("trainer", row):
        batch.store.put("trainer", row, stats.logprob_T)
    if not batch.store.has("entropy", row):
        batch.store.put("entropy", row, stats.entropy_T)


def _parity(batch: StepBatch) -> dict[str, float]:
    """Engine against trainer: the same tokens and pictures under the same weights must have the same log-probs.

    guard/logprob_diff and _max: mean and largest |trainer - engine| per token, in nats; under mismatch/ see `ratio_metrics`.
    """
    known = [i for i in batch.store.values["trainer"] if i < batch.own_rollouts]
    trainer, engine = batch.store.values["trainer"], batch.store.values["engine"]
    gaps = [(trainer[i] - engine[i])[batch.masks[i]] for i in known]
    gap_T = torch.cat(gaps) if gaps else torch.zeros(0)
    of_T = torch.repeat_interleave(torch.arange(len(gaps)), torch.tensor([len(g) for g in gaps], dtype=torch.int64))
    found = {
        "guard/logprob_diff": float(gap_T.abs().mean()) if len(gap_T) else 0.0,
        "guard/logprob_diff_max": float(gap_T.abs().max()) if len(gap_T) else 0.0,
    }
    return found | {f"mismatch/{name}": value for name, value in ratio_metrics(gap_T, of_T).items()}
