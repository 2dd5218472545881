"""Sums over the packs of an update, of which its metrics are ratios."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vlm_rl.algo.mismatch import ratio_metrics
from vlm_rl.ranks import Ranks


@dataclass
class Sums:
    """Running sums over the packs of one pass; every metric is a ratio of them, so it does not depend on the split."""

    value: dict[str, float] = field(default_factory=dict)
    log_ratios: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, name: str, amount: Tensor | float) -> None:
        self.value[name] = self.value.get(name, 0.0) + float(amount)

    def over(self, ranks: Ranks) -> "Sums":
        """Those of all processes together."""
        if ranks.world == 1:
            return self
        whole = Sums()
        for value, log_ratios in ranks.exchange("sums of an update", (self.value, self.log_ratios)):
            whole.log_ratios += log_ratios
            for name, amount in value.items():
                whole.add(name, amount)
        return whole

    def copy(self) -> "Sums":
        return Sums(dict(self.value), list(self.log_ratios))

    def restore(self, before: "Sums") -> None:
        self.value, self.log_ratios = before.value, before.log_ratios

    def share(self, name: str) -> float:
        return self.value.get(name, 0.0) / max(self.value.get("tokens", 0.0), 1.0)

    def drift(self, own: int, several: bool) -> dict[str, float]:
        """How far the last pass is from the policies that sampled: drift/ of the step's `own` rollouts (where it takes several updates),
        replay/ of older ones."""
        if not self.log_ratios:
            return {}
        log_T, of_T = (torch.cat(part) for part in zip(*self.log_ratios, strict=True))
        own_T = of_T < own
        drift = ratio_metrics(log_T[own_T], of_T[own_T]) if several else {}
        older = ratio_metrics(log_T[~own_T], of_T[~own_T])
        return {f"drift/{name}": value for name, value in drift.items()} | {f"replay/{name}": value for name, value in older.items()}
