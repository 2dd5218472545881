"""When the engine that sampled and the trainer that computes are not the same distribution: weights that correct, and numbers that tell.

All take d = log trainer - log engine of the policy that sampled, per trained token (suffix _T), and never a gradient. A token the engine
told no log-prob of has d = 0.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vlm_rl.algo.ratios import LOG_RATIO_LIMIT, mean_of_rollout, sum_of_rollout

Bound = float | None
Correction = Callable[[Tensor, Tensor, Bound, Bound], Tensor]


def _ratio(log_T: Tensor) -> Tensor:
    return log_T.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def _truncated(ratio_T: Tensor, low: Bound, high: Bound) -> Tensor:
    return ratio_T if low is None and high is None else ratio_T.clamp(low, high)


def _inside(ratio_T: Tensor, low: Bound, high: Bound) -> Tensor:
    inside_T = torch.ones_like(ratio_T, dtype=torch.bool)
    if low is not None:
        inside_T &= ratio_T >= low
    if high is not None:
        inside_T &= ratio_T <= high
    return inside_T


def token_truncate(d_T: Tensor, rollout_of_T: Tensor, low: Bound, high: Bound) -> Tensor:
    """w_t = clip(e^d_t, low, high): truncated importance sampling, TIS. Biased where it truncates; bounded variance."""
    return _truncated(_ratio(d_T), low, high)


def token_mask(d_T: Tensor, rollout_of_T: Tensor, low: Bound, high: Bound) -> Tensor:
    """w_t = e^d_t inside [low, high], 0 outside: masked importance sampling, MIS; IcePop with both bounds, arXiv 2510.18855."""
    ratio_T = _ratio(d_T)
    return ratio_T * _inside(ratio_T, low, high)


def sequence_truncate(d_T: Tensor, rollout_of_T: Tensor, low: Bound, high: Bound) -> Tensor:
    """w_i = clip(prod_t e^d_t, low, high), the same at all tokens of a rollout. Its variance grows with length."""
    return _truncated(_ratio(sum_of_rollout(d_T, rollout_of_T)), low, high)


def sequence_mask(d_T: Tensor, rollout_of_T: Tensor, low: Bound, high: Bound) -> Tensor:
    """w_i = prod_t e^d_t inside [low, high], 0 outside. TRL's default with high = 3."""
    ratio_T = _ratio(sum_of_rollout(d_T, rollout_of_T))
    return ratio_T * _inside(ratio_T, low, high)


def geometric_mask(d_T: Tensor, rollout_of_T: Tensor, low: Bound, high: Bound) -> Tensor:
    """w_i = 1 where exp(mean_t d_t) is inside [low, high], else 0: rejects whole rollouts, weighs none. verl's `seq_mean_k1`."""
    return _inside(_ratio(mean_of_rollout(d_T, rollout_of_T)), low, high).to(d_T.dtype)


CORRECTIONS: dict[str, Correction] = {
    "token_truncate": token_truncate,
    "token_mask": token_mask,
    "sequence_truncate": sequence_truncate,
    "sequence_mask": sequence_mask,
    "geometric_mask": geometric_mask,
}


def drifted(behaviour_T: Tensor, logp_T: Tensor, advantages_T: Tensor, rollout_of_T: Tensor, most: float) -> Tensor:
    """True at the tokens of rollouts to leave out: A < 0 and mean_t(behaviour - logp) > most. Off-policy sequence mask of DeepSeek-V3.2,
    arXiv 2512.02556."""
    return (mean_of_rollout(behaviour_T - logp_T.detach(), rollout_of_T) > most) & (advantages_T < 0)


def ratio_metrics(d_T: Tensor, rollout_of_T: Tensor) -> dict[str, float]:
    """Numbers of ratios r = e^d before any clipping, the tokens having been drawn under the denominator q, r = p / q.

    `ratio_p01`, `ratio_p50`, `ratio_p99`, `ratio_max`: of tokens. `kl`: KL(q || p) per token, mean of r - 1 - d; `kl_back`: KL(p || q),
    mean of r d - r + 1. `ess`, `ess_rollouts`: effective sample size over its count, (sum w)^2 / (n sum w^2), of tokens, and of rollouts
    by the product of their ratios. `error`: mean of e^|d|, the token-multiplicative error. Nothing for no tokens.
    """
    if not d_T.numel():
        return {}
    d_T = d_T.double().clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio_T, size = d_T.exp(), d_T.numel()
    sorted_T = ratio_T.sort().values
    whole_N = d_T.new_zeros(int(rollout_of_T.max()) + 1).index_add(0, rollout_of_T, d_T)[rollout_of_T.unique()]
    return {
        **{f"ratio_p{p:02}": float(sorted_T[round(p / 100 * (size - 1))]) for p in (1, 50, 99)},
        "ratio_max": float(sorted_T[-1]),
        "kl": float((ratio_T - 1 - d_T).mean()),
        "kl_back": float((ratio_T * d_T - ratio_T + 1).mean()),
        "ess": effective_share(d_T),
        "ess_rollouts": effective_share(whole_N),
        "error": float(d_T.abs().exp().mean()),
    }


def effective_share(log_weights: Tensor) -> float:
    """(sum w)^2 / (n sum w^2), from 1 / n (one weight rules) to 1 (all alike)."""
    weights = (log_weights - log_weights.max()).exp()
    return float(weights.sum().square() / (weights.numel() * weights.square().sum()))
