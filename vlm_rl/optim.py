"""AdamW with a schedule, gradient clipping and a refusal of non-finite gradients; its state saves and resumes exactly.

Weights of lower precision than float32 get float32 masters: at the rates of reinforcement learning most updates are smaller than half a
bfloat16 step and would be rounded away without a word. Gradients of the packs of a step are summed in float32 too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vlm_rl.algo.schedules import learning_rate
from vlm_rl.config import OptimConfig
from vlm_rl.errors import UserError
from vlm_rl.ranks import ALONE, Ranks


class Optimiser:
    """One optimiser step at a time: `backward` for each pack (or one's own and `gather`), then once `step`. Of several `ranks` each has the
    whole of it, and gradients are summed over them."""

    def __init__(self, module: nn.Module, config: OptimConfig, steps: int, rates: Mapping[int, float] | None = None, ranks: Ranks = ALONE):
        """Of the weights that take gradients; `rates` are those of weights, by id(), that have another than the config's."""
        self.module, self.config, self.steps, self.ranks = module, config, steps, ranks
        self.weights = [p for p in module.parameters() if p.requires_grad]
        self.masters = [p if p.dtype == torch.float32 else nn.Parameter(p.detach().float().clone()) for p in self.weights]
        self.adam = adamw(self.masters, config, [(rates or {}).get(id(weight)) for weight in self.weights])

    def forward(self, *inputs: Any) -> Any:
        """What `backward` is to be called with the loss of."""
        return self.module(*inputs)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradients of one pack, `last` of an optimiser step or not."""
        loss.backward()
        self.gather()

    def gather(self) -> None:
        """Add the gradients of one pack to the masters' and clear them."""
        for weight, master in self._pairs():
            if weight.grad is not None:
                gradient = weight.grad.float()
                master.grad = gradient if master.grad is None else master.grad + gradient
                weight.grad = None

    def drop(self) -> None:
        """Forget the gradients of the packs so far."""
        for tensor in (*self.weights, *self.masters):
            tensor.grad = None

    def step(self, step: int, culprits: Callable[[], str]) -> dict[str, float]:
        """Clip, set the rate for `step` (0-based), update, clear. Raises UserError naming `culprits()` when a gradient is not finite."""
        self.ranks.sum_gradients(self.masters)
        norm = nn.utils.clip_grad_norm_(self.masters, self.config.grad_clip)
        if not torch.isfinite(norm):
            raise UserError(f"step {step}: the gradient is not finite; samples in this step: {culprits()}")
        rate = learning_rate(self.config.learning_rate, self.config.schedule, step, self.steps, self.config.warmup_steps)
        for group in self.adam.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        with torch.no_grad():
            for weight, master in self._pairs():
                weight.copy_(master)
        return {"loss/grad_norm": float(norm), "loss/learning_rate": rate}

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "masters": [master.detach() for _, master in self._pairs()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        with torch.no_grad():
            for (_, master), saved in zip(self._pairs(), state["masters"], strict=True):
                master.copy_(saved)

    def _pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(weight, master) where they differ."""
        return [(w, m) for w, m in zip(self.weights, self.masters, strict=True) if w is not m]


def adamw(masters: Sequence[nn.Parameter], config: OptimConfig, rates: Sequence[float | None]) -> torch.optim.AdamW:
    """Matrices decay, biases and norms do not; each at its rate, the config's where that is None."""
    own = [config.learning_rate if rate is None else rate for rate in rates]
    groups = []
    for rate in dict.fromkeys([config.learning_rate, *own]):
        same = [master for master, wanted in zip(masters, own, strict=True) if wanted == rate]
        share = {"share": rate / config.learning_rate}
        groups.append({"params": [p for p in same if p.ndim >= 2], "weight_decay": config.weight_decay, **share})
        groups.append({"params": [p for p in same if p.ndim < 2], "weight_decay": 0.0, **share})
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)
