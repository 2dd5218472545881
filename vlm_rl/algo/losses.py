"""Policy losses per token, and the weights that make one number of them.

A loss function sees the trained tokens of one micro-batch; a weight function sees the lengths of the whole optimiser step, once. The loss
of the step is the sum over its micro-batches of `aggregate(loss_T, weights_N, rollout_of_T)`, so how the step is split changes nothing.
The KL term (algo/kl.py) is added to loss_T by the caller. Suffixes: _T one entry per trained token of the micro-batch, _N one per rollout
of the optimiser step (over all ranks and accumulation steps).

`low` and `high` are the distances of the ratio's bounds from 1: it is clipped to [1 - low, 1 + high], in every loss but `gmpo`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vlm_rl.algo.ratios import LOG_RATIO_LIMIT, Level, mean_of_rollout, sum_of_rollout, token

LEAST_WEIGHT = 1e-8  # of a whole rollout in VESPO


@dataclass(frozen=True, eq=False)
class Tokens:
    """`logp_T` is the policy's log-prob (with gradient), `old_T` that of the policy that sampled, `advantages_T` the advantage at each
    token, `rollout_of_T` (int64) the index in the optimiser step of the rollout each token belongs to. All tokens of a rollout are in the
    same micro-batch. For one on-policy update pass `logp_T.detach()` as `old_T`. `weight_T` corrects for an engine that samples from
    another distribution than the trainer computes (algo/mismatch.py)."""

    logp_T: Tensor
    old_T: Tensor
    advantages_T: Tensor
    rollout_of_T: Tensor
    level: Level = token
    weight_T: Tensor | None = None

    @property
    def log_ratio_T(self) -> Tensor:
        return self.logp_T - self.old_T

    @property
    def ratio_T(self) -> Tensor:
        """The importance ratio at the level asked for. Log-ratios are limited to +-20, beyond which the gradient is 0."""
        return torch.exp(self.level(self.log_ratio_T, self.rollout_of_T).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))


@dataclass(frozen=True, eq=False)
class LossOut:
    """`loss_T` to be weighted and summed. `marks` are boolean masks per token by metric name, for instance {"clip_high": ...}: their counts
    add up over micro-batches, and share = count / tokens of the step. `corrected` says that `Tokens.weight_T` is already in the loss."""

    loss_T: Tensor
    marks: Mapping[str, Tensor] = field(default_factory=dict)
    corrected: bool = False


Loss = Callable[..., LossOut]
"""loss(tokens, low, high, *, its own settings with their defaults)"""


def grpo(tokens: Tokens, low: float, high: float, *, dual_clip: float | None = None) -> LossOut:
    """l_t = -min(r_t A, clip(r_t, 1 - low, 1 + high) A), r_t the ratio at its level. GRPO, arXiv 2402.03300; with high > low it is DAPO's
    Clip-Higher, arXiv 2503.14476; with the ratio of the sequence GSPO, arXiv 2507.18071.

    With `dual_clip` = c also l_t <= -c A where A < 0 (dual clip, arXiv 1912.09729): the same as min(r_t, c) in place of r_t (TRL's `delta`)
    for c >= 1 + high. Marks: "clip_low", "clip_high" and "clip_dual", the tokens whose gradient a bound stops.
    """
    ratio_T, A_T = tokens.ratio_T, tokens.advantages_T
    loss_T = -torch.minimum(ratio_T * A_T, ratio_T.clamp(1 - low, 1 + high) * A_T)
    marks = {
        "clip_low": ((ratio_T < 1 - low) & (A_T < 0)).detach(),
        "clip_high": ((ratio_T > 1 + high) & (A_T > 0)).detach(),
    }
    if dual_clip is not None:
        loss_T = torch.where(A_T < 0, torch.minimum(loss_T, -dual_clip * A_T), loss_T)
        marks["clip_dual"] = ((ratio_T > dual_clip) & (A_T < 0)).detach()
    return LossOut(loss_T, marks)


def cispo(tokens: Tokens, low: float, high: float) -> LossOut:
    """l_t = -sg[clip(r_t, 1 - low, 1 + high)] A logp_t: the weight is clipped, every token keeps its gradient. CISPO, arXiv 2506.13585.

    Only the upper bound is the paper's: write low 1. Marks: "clip_low" and "clip_high", the tokens whose weight is clipped.
    """
    ratio_T = tokens.ratio_T.detach()
    marks = {"clip_low": ratio_T < 1 - low, "clip_high": ratio_T > 1 + high}
    return LossOut(-ratio_T.clamp(1 - low, 1 + high) * tokens.advantages_T * tokens.logp_T, marks)


def sapo(tokens: Tokens, low: float, high: float, *, tau_pos: float = 1.0, tau_neg: float = 1.05) -> LossOut:
    """l_t = -(4 / tau) sigmoid(tau (r_t - 1)) A, tau = tau_pos where A > 0, else tau_neg: a soft gate. SAPO, arXiv 2511.20347. Bounds are
    not used."""
    tau_T = torch.where(tokens.advantages_T > 0, tau_pos, tau_neg).to(tokens.logp_T.dtype)
    return LossOut(-4 / tau_T * torch.sigmoid(tau_T * (tokens.ratio_T - 1)) * tokens.advantages_T)


def gmpo(tokens: Tokens, low: float, high: float) -> LossOut:
    """l_t = -A exp(mean_t c_t), c_t = min(log r_t, high) where A > 0, else max(log r_t, -low): the geometric mean of the ratios, each
    clipped in log space on the side that does harm. GMPO, arXiv 2507.20673. Here `low` and `high` bound the log-ratio. The level is not
    used.

    Marks: "clip_low" and "clip_high".
    """
    log_T, A_T = tokens.log_ratio_T, tokens.advantages_T
    clipped_T = torch.where(A_T > 0, log_T.clamp(max=high), log_T.clamp(min=-low))
    ratio_T = torch.exp(mean_of_rollout(clipped_T, tokens.rollout_of_T).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    marks = {"clip_low": ((log_T < -low) & (A_T < 0)).detach(), "clip_high": ((log_T > high) & (A_T > 0)).detach()}
    return LossOut(-ratio_T * A_T, marks)


def vespo(
    tokens: Tokens,
    low: float,
    high: float,
    *,
    k_pos: float = 2.0,
    lambda_pos: float = 3.0,
    k_neg: float = 3.0,
    lambda_neg: float = 2.0,
) -> LossOut:
    """l_t = -sg[e^lambda w^k e^(-lambda w)] A logp_t, w = prod_t r_t of the rollout, limited to [1e-8, e^20]; (k, lambda) by the sign of A.
    VESPO, arXiv 2602.10693, as TRL 1.16 has it. The weights against the engine are part of w. Bounds and level are not used."""
    A_T, lowest = tokens.advantages_T, math.log(LEAST_WEIGHT)
    log_T = tokens.log_ratio_T.detach().clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    if tokens.weight_T is not None:
        log_T = log_T + tokens.weight_T.log().clamp(lowest, LOG_RATIO_LIMIT)
    log_w_T = sum_of_rollout(log_T, tokens.rollout_of_T).clamp(lowest, LOG_RATIO_LIMIT)
    k_T = torch.where(A_T >= 0, k_pos, k_neg).to(log_w_T.dtype)
    lambda_T = torch.where(A_T >= 0, lambda_pos, lambda_neg).to(log_w_T.dtype)
    phi_T = torch.exp(lambda_T + k_T * log_w_T - lambda_T * log_w_T.exp())
    return LossOut(-phi_T * A_T * tokens.logp_T, corrected=True)


LOSSES: dict[str, Loss] = {"grpo": grpo, "cispo": cispo, "sapo": sapo, "gmpo": gmpo, "vespo": vespo}


def settings_of(loss: Loss) -> dict[str, Any]:
    """A loss's own settings and their defaults. settings_of(sapo) -> {"tau_pos": 1.0, "tau_neg": 1.05}"""
    return dict(getattr(loss, "__kwdefaults__", None) or {})


def sequence_mean(lengths_N: Tensor, max_length: int) -> Tensor:
    """w_i = 1 / (len_i N): mean over rollouts of the mean over tokens. GRPO, arXiv 2402.03300. `max_length` is not used.

    A rollout of length 0 adds nothing and still counts in N. Float32 weights on the device of `lengths_N`.
    """
    return (1.0 / (lengths_N.clamp(min=1).double() * lengths_N.numel())).float()


def token_mean(lengths_N: Tensor, max_length: int) -> Tensor:
    """w_i = 1 / sum(len): one mean over all tokens of the optimiser step. DAPO, arXiv 2503.14476. `max_length` is not used."""
    return (1.0 / lengths_N.sum().clamp(min=1).double()).float().expand(lengths_N.numel())


def token_sum(lengths_N: Tensor, max_length: int) -> Tensor:
    """w_i = 1 / N: mean over rollouts of the sum over tokens. LUSPO, arXiv 2602.05261. `max_length` is not used."""
    return token_sum_norm(lengths_N, 1)


def token_sum_norm(lengths_N: Tensor, max_length: int) -> Tensor:
    """w_i = 1 / (N L_max): a constant divisor, so that long wrong answers are not excused. Dr. GRPO, arXiv 2503.20783.

    `max_length` is the completion limit in tokens, or any other constant.
    """
    assert max_length >= 1
    return torch.full(lengths_N.shape, 1.0 / (lengths_N.numel() * max_length) if lengths_N.numel() else 0.0, device=lengths_N.device)


AGGREGATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "sequence_mean": sequence_mean,
    "token_mean": token_mean,
    "token_sum": token_sum,
    "token_sum_norm": token_sum_norm,
}


def aggregate(loss_T: Tensor, weights_N: Tensor, rollout_of_T: Tensor) -> Tensor:
    """This micro-batch's share of the step's loss, a scalar: sum_t w[rollout of t] l_t.

    Example: two tokens of loss 2.0, both of a rollout of weight 0.25 -> 1.0.
    """
    return (loss_T * weights_N[rollout_of_T]).sum()


TIED = 1e-5  # nats; entropies nearer to each other than this differ by rounding


def entropy_threshold(entropy_T: Tensor, share: float) -> Tensor:
    """What the entropy of a token must reach to be of the `share` of highest entropy (2506.01939): the quantile 1 - share, interpolated.

    Less than that by `TIED`: first tokens of a group have one entropy and are chosen together, whatever rounding makes of it.
    """
    sorted_T = entropy_T.sort().values
    place = (1 - share) * (len(sorted_T) - 1)
    below = int(place)
    return torch.lerp(sorted_T[below], sorted_T[min(below + 1, len(sorted_T) - 1)], place - below) - TIED
