"""A reference policy that follows the trained one: a mix of both after every so many steps. A fixed reference needs no such thing."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vlm_rl.config_algo import ReferenceConfig


class Follower:
    """Moves the frozen weights of `reference`. Mixtures are kept in float32, where a small share is not rounded away."""

    def __init__(self, reference: nn.Module, config: ReferenceConfig):
        self.config = config
        self.weights = list(reference.parameters())
        self.masters = [w if w.dtype == torch.float32 else w.detach().float().clone() for w in self.weights]

    @torch.no_grad()
    def follow(self, policy: Iterable[Tensor], done: int) -> None:
        """After `done` steps: mix x policy + (1 - mix) x reference, where it is time."""
        if done % self.config.every:
            return
        for own, other in zip(self.masters, policy, strict=True):
            own.mul_(1 - self.config.mix).add_(other.float(), alpha=self.config.mix)
        self._spread()

    def state(self) -> list[Tensor]:
        return [master.detach() for master in self.masters]

    @torch.no_grad()
    def load(self, state: list[Any]) -> None:
        for master, saved in zip(self.masters, state, strict=True):
            master.copy_(saved)
        self._spread()

    def _spread(self) -> None:
        for weight, master in zip(self.weights, self.masters, strict=True):
            if weight is not master:
                weight.copy_(master)
