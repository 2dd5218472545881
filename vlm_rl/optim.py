"""AdamW with a schedule, gradient clipping and a refusal of non-finite gradients; its state saves and resumes exactly."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vlm_rl.algo.schedules import learning_rate
from vlm_rl.config import OptimConfig
from vlm_rl.errors import UserError


class Optimiser:
    """One optimiser step at a time: accumulate gradients with `backward`, then `step`."""

    def __init__(self, module: nn.Module, config: OptimConfig, steps: int):
        self.config, self.steps = config, steps
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        decayed = [p for p in self.parameters if p.ndim >= 2]
        others = [p for p in self.parameters if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)

    def step(self, step: int, culprits: Callable[[], str]) -> dict[str, float]:
        """Clip, set the rate for `step` (0-based), update, clear. Raises UserError naming `culprits()` when a gradient is not finite."""
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip))
        if not torch.isfinite(torch.tensor(norm)):
            raise UserError(f"step {step}: the gradient is not finite; samples in this step: {culprits()}")
        rate = learning_rate(self.config.learning_rate, self.config.schedule, step, self.steps, self.config.warmup_steps)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return {"loss/grad_norm": norm, "loss/learning_rate": rate}

    def state_dict(self) -> dict[str, Any]:
        return self.adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state)
