"""Policy losses per token, and the weights that make one number of them.

A loss function sees the tokens of one micro-batch; a weight function sees the lengths of the whole optimiser step, once. The loss of the
step is the sum over its micro-batches of `aggregate(loss_T, weights_N, rollout_of_T)`, so how the step is split changes nothing. The KL
term (algo/kl.py) is added to loss_T by the caller. Suffixes: _T one entry per completion token of the micro-batch, _N one per rollout of
the optimiser step (over all ranks and accumulation steps).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

# exp(88) overflows float32, and the gradient of an overflow is NaN even where the clipped branch is taken.
LOG_RATIO_LIMIT = 20.0


@dataclass(frozen=True, eq=False)
class LossOut:
    """`loss_T` to be weighted and summed. `marks` are boolean masks per token by metric name, for instance {"clip_high": ...}: their counts
    add up over micro-batches, and share = count / tokens of the step."""

    loss_T: Tensor
    marks: Mapping[str, Tensor] = field(default_factory=dict)


class TokenLoss(Protocol):
    """`logp_T` is the policy's log-prob (with gradient), `old_T` that of the policy that sampled, `advantages_T` the rollout's advantage at
    each of its tokens, `rollout_of_T` (int64) the index in the optimiser step of the rollout each token belongs to. All tokens of a
    rollout are in the same micro-batch. For one on-policy update pass `logp_T.detach()` as `old_T`."""

    def __call__(
        self, logp_T: Tensor, old_T: Tensor, advantages_T: Tensor, clip_low: float, clip_high: float, rollout_of_T: Tensor
    ) -> LossOut: ...


def grpo(logp_T: Tensor, old_T: Tensor, advantages_T: Tensor, clip_low: float, clip_high: float, rollout_of_T: Tensor) -> LossOut:
    """l_t = -min(r_t A, clip(r_t, 1 - clip_low, 1 + clip_high) A), r_t = exp(logp_t - old_t). GRPO, arXiv 2402.03300; with
    clip_high > clip_low it is DAPO's Clip-Higher, arXiv 2503.14476. `rollout_of_T` is not used.

    Marks: "clip_low" and "clip_high", the tokens whose gradient the lower (A < 0) or upper (A > 0) bound stops.
    Deviation: log-ratios are limited to +-20, beyond which the gradient is 0.
    """
    ratio_T = torch.exp((logp_T - old_T).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    clipped_T = ratio_T.clamp(1 - clip_low, 1 + clip_high)
    marks = {
        "clip_low": ((ratio_T < 1 - clip_low) & (advantages_T < 0)).detach(),
        "clip_high": ((ratio_T > 1 + clip_high) & (advantages_T > 0)).detach(),
    }
    return LossOut(-torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T), marks)


LOSSES: dict[str, TokenLoss] = {"grpo": grpo}


def sequence_mean(lengths_N: Tensor, max_length: int) -> Tensor:
    """w_i = 1 / (len_i N): mean over rollouts of the mean over tokens. GRPO, arXiv 2402.03300. `max_length` is not used.

    A rollout of length 0 adds nothing and still counts in N. Float32 weights on the device of `lengths_N`.
    """
    return (1.0 / (lengths_N.clamp(min=1).double() * lengths_N.numel())).float()


def token_mean(lengths_N: Tensor, max_length: int) -> Tensor:
    """w_i = 1 / sum(len): one mean over all tokens of the optimiser step. DAPO, arXiv 2503.14476. `max_length` is not used."""
    return (1.0 / lengths_N.sum().clamp(min=1).double()).float().expand(lengths_N.numel())


def token_sum_norm(lengths_N: Tensor, max_length: int) -> Tensor:
    """w_i = 1 / (N L_max): a constant divisor, so that long wrong answers are not excused. Dr. GRPO, arXiv 2503.20783.

    `max_length` is the completion limit in tokens. With 1 it is the mean over rollouts of the sum over tokens.
    """
    assert max_length >= 1
    return torch.full(lengths_N.shape, 1.0 / (lengths_N.numel() * max_length) if lengths_N.numel() else 0.0, device=lengths_N.device)


AGGREGATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "sequence_mean": sequence_mean,
    "token_mean": token_mean,
    "token_sum_norm": token_sum_norm,
}


def aggregate(loss_T: Tensor, weights_N: Tensor, rollout_of_T: Tensor) -> Tensor:
    """This micro-batch's share of the step's loss, a scalar: sum_t w[rollout of t] l_t.

    Example: two tokens of loss 2.0, both of a rollout of weight 0.25 -> 1.0.
    """
    return (loss_T * weights_N[rollout_of_T]).sum()
