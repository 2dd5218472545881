"""Estimators of KL(policy || reference) from the log-probs of tokens the policy sampled, one value per token (suffix _T), in nats.

All have d = logp - ref. Where they are added (reward or loss) and with what weight is the caller's choice; the names and the comparison are
from J. Schulman, "Approximating KL divergence" (2020). GRADIENTS says what gradient an estimator in the loss has.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# A token the reference finds impossible must not make the whole step infinite.
LOG_RATIO_LIMIT = 20.0


def k1(logp_T: Tensor, ref_T: Tensor) -> Tensor:
    """d: unbiased, of either sign. Its gradient as a loss has mean 0, so it belongs into a reward."""
    return logp_T - ref_T


def k2(logp_T: Tensor, ref_T: Tensor) -> Tensor:
    """d^2 / 2: biased and low in variance; its gradient as a loss is the unbiased one."""
    return (logp_T - ref_T).square() / 2


def k3(logp_T: Tensor, ref_T: Tensor) -> Tensor:
    """exp(-d) + d - 1: unbiased and never negative; GRPO's term, arXiv 2402.03300.

    Deviation: d is limited to +-20, beyond which the gradient is 0.
    """
    d_T = (logp_T - ref_T).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return torch.expm1(-d_T) + d_T


KL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}


def own(kl_T: Tensor, logp_T: Tensor, ref_T: Tensor, ratio_T: Tensor) -> Tensor:
    """The estimator's own gradient. k1's has mean 0, k3's is that of the reversed KL: only k2's is unbiased."""
    return kl_T


def ratio(kl_T: Tensor, logp_T: Tensor, ref_T: Tensor, ratio_T: Tensor) -> Tensor:
    """r_t kl_t with the gradient through r_t too: unbiased off-policy in value and gradient. DeepSeek-V3.2, arXiv 2512.02556; TRL's
    `use_bias_correction_kl`."""
    return ratio_T * kl_T


def straight(kl_T: Tensor, logp_T: Tensor, ref_T: Tensor, ratio_T: Tensor) -> Tensor:
    """The estimator's value with k2's gradient, which is unbiased on-policy. verl's trailing "+"."""
    other_T = k2(logp_T, ref_T)
    return kl_T.detach() + other_T - other_T.detach()


GRADIENTS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {"own": own, "ratio": ratio, "straight": straight}


def adapted(weight: float, kl: float, target: float, horizon: float, rollouts: int) -> float:
    """The KL weight of the next step: weight (1 + clip(kl / target - 1, -0.2, 0.2) min(rollouts / horizon, 1)). Ziegler et al., arXiv
    1909.08593; the last min is ours, so that the weight stays positive.

    Example: adapted(0.1, 0.02, target=0.01, horizon=1000, rollouts=50) -> 0.101.
    """
    return weight * (1.0 + min(max(kl / target - 1.0, -0.2), 0.2) * min(rollouts / horizon, 1.0))
