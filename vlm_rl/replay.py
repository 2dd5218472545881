"""Groups of earlier steps that are worth training on once more (algo.replay): a bounded store, and which of it a step gets.

A replayed group keeps all that it was sampled with: totals and parts, the engine's log-probs, and the trainer's of that time. So every
ratio is to the policy that wrote it, whatever the policy is by now. What a checkpoint holds of the store is in replay_file.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, tensor

from vlm_rl.algo.advantages import has_spread
from vlm_rl.config_algo import ReplayConfig
from vlm_rl.types import ScoredGroup


@dataclass(frozen=True, eq=False)
class Stored:
    """A group sampled and first trained on at `step` (from 1). `logprobs` are the trainer's of then, one tensor per rollout with an entry
    per token; None for one that was not forwarded, having no trained token."""

    step: int
    value: float
    scored: ScoredGroup
    logprobs: tuple[Tensor | None, ...]


def spread(totals_G: Tensor) -> float:
    """std(R), ddof 1: most for groups half right. As the variance-driven replay of RePO, arXiv 2506.09340."""
    return float(totals_G.std()) if has_spread(totals_G) else 0.0


def rare_success(totals_G: Tensor) -> float:
    """(max(R) - mean(R)) / std(R), the largest advantage: most for a success among failures. After the selective sample replay of
    VL-Rethinker, arXiv 2504.08837, which draws single rollouts by |A|; here whole groups, by the best one's."""
    return float((totals_G.max() - totals_G.mean()) / totals_G.std()) if has_spread(totals_G) else 0.0


VALUES: dict[str, Callable[[Tensor], float]] = {"spread": spread, "rare_success": rare_success}


class Replay:
    """At most `config.groups` groups, none older than `config.max_age` steps. Each is given out once, the most valuable and then the newest
    first; nothing is drawn by lot."""

    def __init__(self, config: ReplayConfig, prompts_per_step: int):
        self.config = config
        self.most = round(config.share * prompts_per_step)
        self.kept: list[Stored] = []

    def take(self, step: int) -> list[Stored]:
        """What step `step` (from 1) is to train on beside its own groups."""
        fresh = [s for s in self.kept if step - s.step <= self.config.max_age]
        self.kept = fresh[self.most :]
        return fresh[: self.most]

    def add(self, step: int, scored: ScoredGroup, logprobs: Sequence[Tensor | None]) -> None:
        """Keep a group of this step, if it has any value and there is room for one of its value."""
        value = VALUES[self.config.value](tensor(scored.totals))
        if value > 0 and self.most:
            self.kept.append(Stored(step, value, scored, tuple(logprobs)))
            self.kept.sort(key=lambda s: (-s.value, -s.step))
            self.kept = self.kept[: self.config.groups]

    def metrics(self, taken: Sequence[Stored], step: int) -> dict[str, float]:
        """replay/groups were trained on again in this step; replay/age and replay/value are their means, replay/kept how many wait."""
        count = max(len(taken), 1)
        return {
            "replay/groups": float(len(taken)),
            "replay/age": sum(step - s.step for s in taken) / count,
            "replay/value": sum(s.value for s in taken) / count,
            "replay/kept": float(len(self.kept)),
        }
