"""Advantages: the totals of one group's rollouts in, one advantage per rollout out; and what is done with them over the whole batch.

Which groups are dropped, and how several rewards become one total, is decided elsewhere. Suffixes: _G one entry per rollout of the group,
_N one per rollout of the batch.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vlm_rl.errors import UserError


def group_std(totals_G: Tensor, eps: float) -> Tensor:
    """A_i = (R_i - mean(R)) / (std(R) + eps), std with G - 1 in its denominator. GRPO, arXiv 2402.03300.

    Deviation: a group without spread gets exactly 0, where the bare formula divides rounding residue by eps.
    Raises UserError for a group of one.
    """
    centred_G = group_mean(totals_G, eps)
    return centred_G / (totals_G.std() + eps) if has_spread(totals_G) else centred_G


def group_mean(totals_G: Tensor, eps: float) -> Tensor:
    """A_i = R_i - mean(R). Dr. GRPO, arXiv 2503.20783; HARMO, arXiv 2510.05283. `eps` is not used.

    Deviation: a group without spread gets exactly 0. Raises UserError for a group of one.
    """
    return totals_G - totals_G.mean() if has_spread(totals_G) else torch.zeros_like(totals_G)


def leave_one_out(totals_G: Tensor, eps: float) -> Tensor:
    """A_i = R_i - mean(R_j, j != i) = G / (G - 1) * (R_i - mean(R)). RLOO, arXiv 2402.14740. `eps` is not used.

    Deviations: a group without spread gets exactly 0; the KL term is not part of the reward. Raises UserError for a group of one.
    """
    size = totals_G.numel()
    return group_mean(totals_G, eps) * (size / max(size - 1, 1))


def raw(totals_G: Tensor, eps: float) -> Tensor:
    """A_i = R_i: no baseline of the group. REINFORCE++, arXiv 2501.03262, together with `whiten_tokens`; also for rewards that are
    advantages already, such as pairwise wins (BRPO, arXiv 2506.00103). A group without spread keeps its reward. `eps` is not used."""
    return totals_G.clone()


def has_spread(totals_G: Tensor) -> bool:
    """Whether the totals differ by more than rounding: equal sums added up in another order are no signal.

    Raises UserError for a group of one.
    """
    if totals_G.numel() < 2:
        raise UserError("a group of one rollout has no group-relative advantage; set rollout.group_size to 2 or more")
    rounding = 4 * torch.finfo(totals_G.dtype).eps * totals_G.abs().max()
    # Negated, so that a NaN total counts as spread and shows up in the loss instead of vanishing as 0.
    return not bool(totals_G.max() - totals_G.min() <= rounding)


def gdpo(parts_KG: Tensor, factors_KG: Tensor, advantage: Callable[[Tensor, float], Tensor], eps: float, least_std: float = 0.0) -> Tensor:
    """A_i = sum_k factor_ki * N(R_k)_i, N being `advantage` of reward k alone; to be whitened over the batch. GDPO, arXiv 2601.05242.

    `factors_KG` are weight x gate: a gate before the normalisation would cancel. Deviation: a reward whose spread (ddof 1) is under
    `least_std` keeps that small spread instead of being blown up to one, N(R_k) * std / least_std.
    """
    total_G = torch.zeros_like(parts_KG[0])
    for values_G, factors_G in zip(parts_KG, factors_KG, strict=True):
        own_G = advantage(values_G, eps)
        std = float(values_G.std())
        total_G = total_G + factors_G * own_G * (std / least_std if std < least_std else 1.0)
    return total_G


def whiten(advantages_N: Tensor, eps: float) -> Tensor:
    """(A - mean(A)) / (std(A) + eps) over the whole batch, ddof 1; a batch without spread gets exactly 0."""
    if advantages_N.numel() < 2 or not has_spread(advantages_N):
        return torch.zeros_like(advantages_N)
    return (advantages_N - advantages_N.mean()) / (advantages_N.std() + eps)


def whiten_tokens(advantages: Sequence[Tensor], masks: Sequence[Tensor], eps: float) -> list[Tensor]:
    """(A - mean(A)) / sqrt(var(A) + eps^2) over all trained tokens of the batch, ddof 1, so that long rollouts count for more. REINFORCE++,
    arXiv 2501.03262. One tensor per rollout, one entry per token; `masks` are 1 where a token is trained.

    Deviation: a batch without spread gets exactly 0.
    """
    trained = torch.cat([a[m.bool()] for a, m in zip(advantages, masks, strict=True)])
    if trained.numel() < 2 or not has_spread(trained):
        return [torch.zeros_like(a) for a in advantages]
    mean, scale = trained.mean(), torch.rsqrt(trained.var() + eps**2)
    return [(a - mean) * scale for a in advantages]


def over_reward_std(advantages_N: Tensor, totals_N: Tensor, eps: float) -> Tensor:
    """A / (std(R) + eps), std of the whole batch's totals, ddof 1. Lite PPO, arXiv 2508.08221; TRL's `scale_rewards="batch"`."""
    return advantages_N / (totals_N.std() + eps) if totals_N.numel() > 1 else advantages_N


ADVANTAGES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "group_std": group_std,
    "group_mean": group_mean,
    "leave_one_out": leave_one_out,
    "raw": raw,
}
