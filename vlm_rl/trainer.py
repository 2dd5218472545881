"""The training loop. It knows rewards, data and evaluation only as the functions it is handed; no reward's or paper's name stands here."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vlm_rl.engine.base import Engine, GenerateRequest
from vlm_rl.errors import UserError
from vlm_rl.memory import guarded
from vlm_rl.ranks import ALONE, Ranks
from vlm_rl.refill import Refill
from vlm_rl.seeds import stable_hash
from vlm_rl.sharing import agreed, gathered
from vlm_rl.types import Group, Prompt, Query, Reply, Rollout, Sampling, ScoredGroup

Metrics = dict[str, float]


class Rewarder(Protocol):
    """What scores groups: rewards.mixture.Mixture, or anything alike."""

    def score(self, groups: Sequence[Group], step: int, ask: Callable[[Sequence[Query]], Sequence[Reply]]) -> list[ScoredGroup]: ...

    def metrics(self, scored: Sequence[ScoredGroup]) -> Metrics: ...


@dataclass(frozen=True)
class Hooks:
    """What happens around a step, put together by the command: each may be called with a step that was done before (after a resume)."""

    log: Callable[[int, Mapping[str, float], Sequence[ScoredGroup]], None]
    evaluate: Callable[[int], Metrics]
    save: Callable[[int], None]
    stopped: Callable[[], bool]


@dataclass(frozen=True)
class Plan:
    """Seeds and limits of a run. Steps are counted from 1; `parity_limit` is checked on step 1 and every `parity_every`."""

    seed: int
    steps: int
    group_size: int
    sampling: Sampling
    parity_every: int
    parity_limit: float


@dataclass
class Trainer:
    """prompts(step, attempt) gives the step's prompts by their places in it, of several processes this one's share; update(scored, step)
    makes its optimiser steps and returns metrics. Groups are told to all processes, which do the rest alike."""

    plan: Plan
    prompts: Callable[..., Mapping[int, Prompt]]
    engine: Engine
    ask: Callable[[Sequence[Query]], Sequence[Reply]]
    rewarder: Rewarder
    update: Callable[[Sequence[ScoredGroup], int], Metrics]
    hooks: Hooks
    dynamic: Refill | None = None
    ranks: Ranks = ALONE

    def run(self, done: int = 0) -> None:
        """Train from step `done` + 1 to the plan's end, or until it is to be stopped."""
        for step in range(done + 1, self.plan.steps + 1):
            clock = Clock()
            groups = self.rollout(self.prompts(step), step)
            clock.lap("time/generate")
            scored = self.score(groups, step)
            clock.lap("time/score")
            chosen, scored = self.refill(scored, step)
            clock.lap("time/refill")
            metrics = self.update(chosen, step - 1)
            clock.lap("time/update")
            self.check_parity(step, metrics)
            metrics |= self.rewarder.metrics(scored) | rollout_metrics(scored, chosen)
            metrics |= self.hooks.evaluate(step)
            clock.lap("time/evaluate")
            self.hooks.log(step, metrics | clock.laps, scored)
            self.hooks.save(step)
            if self.hooks.stopped():
                break

    def refill(self, scored: list[ScoredGroup], step: int) -> tuple[list[ScoredGroup], list[ScoredGroup]]:
        """(groups to train on, all that were sampled). With dynamic sampling groups that teach nothing give way to those of further
        prompts, until there are as many as at first or no tries are left; then training goes on with those there are."""
        if self.dynamic is None:
            return scored, scored
        wanted, sampled = len(scored), list(scored)
        chosen = [group for group in scored if self.dynamic.keeps(group)]
        for attempt in range(1, self.dynamic.tries):
            if len(chosen) >= wanted:
                break
            groups = self.rollout(self.prompts(step, attempt), step, attempt)
            more = self.score(groups, step)
            sampled += more
            chosen += [group for group in more if self.dynamic.keeps(group)]
        return chosen[:wanted], sampled

    def score(self, groups: Sequence[Group], step: int) -> list[ScoredGroup]:
        return agreed(self.rewarder.score(groups, step - 1, self.ask), self.ranks)

    @guarded("generate")
    def rollout(self, prompts: Mapping[int, Prompt], step: int, attempt: int = 0) -> list[Group]:
        """One group per prompt; every draw derives from (run seed, step, sample id, attempt, rollout index)."""
        ids = self.ranks.merge("prompts", {place: prompt.sample.id for place, prompt in prompts.items()})
        seeds = dict(zip(ids, group_seeds(self.plan.seed, ids.values(), step, attempt), strict=True))
        each = {place: tuple(stable_hash(seeds[place], i) for i in range(self.plan.group_size)) for place in prompts}
        requests = [GenerateRequest(prompt, self.plan.sampling, each[place]) for place, prompt in prompts.items()]
        groups = {}
        for place, request, completions in zip(prompts, requests, self.engine.generate(requests), strict=True):
            rollouts = tuple(Rollout(i, s, c) for i, (s, c) in enumerate(zip(request.seeds, completions, strict=True)))
            groups[place] = Group(request.prompt, rollouts, seeds[place], self.ranks.rank)
        return gathered(groups, self.ranks)

    def check_parity(self, step: int, metrics: Mapping[str, float]) -> None:
        gap = metrics["guard/logprob_diff"]
        if (step == 1 or step % self.plan.parity_every == 0) and gap > self.plan.parity_limit:
            raise UserError(
                f"step {step}: engine and trainer disagree about the same tokens and pictures by {gap:.4f} nats per token on average "
                f"(largest {metrics['guard/logprob_diff_max']:.4f}, limit guards.parity_limit={self.plan.parity_limit}). The policy that "
                "is sampled is not the one that is trained: stale weights, another temperature or dtype, or other pixels."
            )


def group_seeds(run_seed: int, sample_ids: Iterable[str], step: int, attempt: int = 0) -> list[int]:
    """Of the groups of all prompts of a step: hash(run seed, step, sample id, how often the row was met in the step, attempt)."""
    again = (attempt,) if attempt else ()
    met: Counter[str] = Counter()  # a step that straddles two epochs may hold a row twice; its groups must not be copies
    seeds = []
    for sample_id in sample_ids:
        seeds.append(stable_hash(run_seed, step, sample_id, met[sample_id], *again))
        met[sample_id] += 1
    return seeds


class Clock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: Metrics = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def rollout_metrics(scored: Sequence[ScoredGroup], chosen: Sequence[ScoredGroup]) -> Metrics:
    """Lengths in generated tokens, the share cut off at the limit, and the mean of -log p per token as the engine told it (an unbiased
    estimate of the entropy), of all that was sampled; and how many groups of it are trained on."""
    groups = [s.group for s in scored]
    completions = [r.completion for g in groups for r in g.rollouts]
    lengths = [len(c.token_ids) for c in completions]
    told = [p for c in completions for p, written in zip(c.logprobs, c.loss_mask, strict=True) if written]
    return {
        "rollout/surprisal": -sum(told) / max(len(told), 1),
        "rollout/length": sum(lengths) / len(lengths),
        "rollout/length_max": float(max(lengths)),
        "rollout/truncated": sum(c.finish == "length" for c in completions) / len(lengths),
        "rollout/prompts": float(len(groups)),
        "rollout/trained_groups": float(len(chosen)),
        "rollout/prompt_length": sum(len(g.prompt.expanded_ids) for g in groups) / len(groups),
    }
