"""Log importance ratios log(policy / policy that sampled) at the level of tokens or whole rollouts. Pure functions.

Each takes the log-ratios of the tokens of one micro-batch and the rollout each belongs to (suffix _T), and gives one log-ratio per token.
All tokens of a rollout must be there.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# exp(88) overflows float32, and the gradient of an overflow is NaN even where the clipped branch is taken.
LOG_RATIO_LIMIT = 20.0

Level = Callable[[Tensor, Tensor], Tensor]


def sum_of_rollout(values_T: Tensor, rollout_of_T: Tensor) -> Tensor:
    """At each token the sum over its rollout. Example: values 1, 2, 5 of rollouts 0, 0, 3 -> 3, 3, 5."""
    size = int(rollout_of_T.max()) + 1 if rollout_of_T.numel() else 0
    return values_T.new_zeros(size).index_add(0, rollout_of_T, values_T)[rollout_of_T]


def mean_of_rollout(values_T: Tensor, rollout_of_T: Tensor) -> Tensor:
    """At each token the mean over its rollout. Example: values 1, 2, 5 of rollouts 0, 0, 3 -> 1.5, 1.5, 5."""
    return sum_of_rollout(values_T, rollout_of_T) / sum_of_rollout(torch.ones_like(values_T), rollout_of_T)


def token(log_ratio_T: Tensor, rollout_of_T: Tensor) -> Tensor:
    """log r_t itself. GRPO, PPO."""
    return log_ratio_T


def sequence(log_ratio_T: Tensor, rollout_of_T: Tensor) -> Tensor:
    """log s_i = mean over the rollout's tokens of log r_t. GSPO, arXiv 2507.18071."""
    return mean_of_rollout(log_ratio_T, rollout_of_T)


def sequence_token(log_ratio_T: Tensor, rollout_of_T: Tensor) -> Tensor:
    """log s_i in value, the token's own log r_t in gradient: sg[log s_i] + log r_t - sg[log r_t]. GSPO-token, arXiv 2507.18071.

    Equal to `sequence` in value and gradient where the advantage is the same at all tokens and the weights are.
    """
    return mean_of_rollout(log_ratio_T, rollout_of_T).detach() + log_ratio_T - log_ratio_T.detach()


def product(log_ratio_T: Tensor, rollout_of_T: Tensor) -> Tensor:
    """log prod_t r_t: the ratio of the whole rollout, not normalised by its length. RLOO, arXiv 2402.14740."""
    return sum_of_rollout(log_ratio_T, rollout_of_T)


LEVELS: dict[str, Level] = {"token": token, "sequence": sequence, "sequence_token": sequence_token, "product": product}
