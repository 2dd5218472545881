"""One step of vlm-rl with its phases apart, from the parts that a training puts together."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Shape
from rewards.mixture import Mixture
from vlm_rl.asking import Asker
from vlm_rl.chat import Chat
from vlm_rl.config import AlgoConfig, OptimConfig, RewardConfig
from vlm_rl.engine.hf import HFEngine
from vlm_rl.optim import Optimiser
from vlm_rl.policy import Policy
from vlm_rl.step_batch import Limits
from vlm_rl.trainer import Clock, Hooks, Plan, Trainer
from vlm_rl.types import Prompt, Sample, Sampling, ScoredGroup
from vlm_rl.update import Updater

REWARDS = {"evenness": RewardConfig(use="benchmarks.cases:Evenness")}


class Kept(Optimiser):
    """Keeps the gradient of a step, clears it, and leaves the weights as they are."""

    kept: list[Tensor]

    def step(self, step: int, culprits: Any) -> dict[str, float]:
        self.kept = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.masters]
        self.adam.zero_grad(set_to_none=True)
        return {}


class Ours:
    """`step(samples)` gives the seconds of each phase. Completions never end before the limit, so that both sides write as many tokens."""

    def __init__(self, model: Any, chat: Chat, shape: Shape, seed: int, visual: bool = True, mode: Any = "shared_prefix"):
        self.policy = Policy(model, chat.visual_ids if visual else (), mode)
        self.chat, self.engine = chat, HFEngine(self.policy, chat)
        self.engine.eos = set()
        self.limits = Limits(1.0, 1 << 15, shape.new_tokens)
        self.optimiser = Optimiser(self.policy, OptimConfig(learning_rate=1e-6), 1000)
        self.updater = Updater(self.policy, self.optimiser, AlgoConfig(), self.limits)
        sampling = Sampling(shape.new_tokens, 1.0)
        plan = Plan(seed, 1000, shape.group, sampling, 1000, 1.0)
        hooks = Hooks(lambda *a: None, lambda step: {}, lambda step: None, lambda: False)
        self.mixture, self.ask = Mixture(REWARDS, 0.5), Asker({"policy": self.engine}, chat)
        self.trainer = Trainer(plan, lambda step: {}, self.engine, self.ask, self.mixture, self.updater, hooks)
        self.done = 0

    def step(self, rows: Sequence[Sample]) -> dict[str, float]:
        clock = Clock()
        prompts = [self.chat.prompt(row) for row in rows]
        clock.lap("prompts")
        scored = self.scored(prompts, clock)
        self.updater(scored, self.done)
        clock.lap("update")
        self.done += 1
        return {**clock.laps, "total": sum(clock.laps.values())}

    def scored(self, prompts: Sequence[Prompt], clock: Clock | None = None) -> list[ScoredGroup]:
        clock = clock or Clock()
        groups = self.trainer.rollout(dict(enumerate(prompts)), self.done + 1)
        clock.lap("rollout")
        scored = self.mixture.score(groups, self.done, self.ask)
        clock.lap("scoring")
        return scored

    def gradient(self, scored: Sequence[ScoredGroup]) -> tuple[dict[str, float], list[Tensor]]:
        """(metrics, gradient by parameter) of an update that changes nothing."""
        kept = Kept(self.policy, OptimConfig(), 1)
        metrics = Updater(self.policy, kept, AlgoConfig(), self.limits)(scored, 0)
        return metrics, kept.kept
