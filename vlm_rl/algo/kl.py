"""Estimators of KL(policy || reference) from the log-probs of tokens the policy sampled, one value per token (suffix _T), in nats.

All have d = logp - ref. Where they are added (reward or loss) and with what weight is the caller's choice; the names and the comparison are
from J. Schulman, "Approximating KL divergence" (2020).
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
