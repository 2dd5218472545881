"""From a rollout's advantage to the advantages of its tokens: the CREDITS table, or a function of one's own by module:Name.

A credit takes the rollout, its advantage and the penalty of each token (weight x KL where the KL is in the reward, else zeros; shape (T,)
with T all tokens of the rollout) and gives one number per token.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vlm_rl.errors import UserError
from vlm_rl.plugins import find_function
from vlm_rl.types import Rollout

Credit = Callable[[Rollout, float, Tensor], Tensor]


def uniform(rollout: Rollout, advantage: float, penalties_T: Tensor) -> Tensor:
    """A_t = A. Penalties are in the reward that A was made of."""
    return torch.full_like(penalties_T, advantage)


def to_go(rollout: Rollout, advantage: float, penalties_T: Tensor) -> Tensor:
    """A_t = A - sum of the penalties from t on: the return to go of a reward at the last token and a KL penalty at each, undiscounted.
    REINFORCE++, arXiv 2501.03262. Penalties are not in the reward that A was made of."""
    return advantage - penalties_T.flip(0).cumsum(0).flip(0)


CREDITS: dict[str, Credit] = {"uniform": uniform, "to_go": to_go}
PENALISED_LATER = ("to_go",)


def find_credit(name: str) -> Credit:
    """The credit of that name. Raises UserError when there is none."""
    return find_function("algo.credit", name, CREDITS, "(rollout, advantage, penalties_T)")


def checked(credit: Credit, rollout: Rollout, advantage: float, penalties_T: Tensor) -> Tensor:
    """What `credit` gives, as float32. Raises UserError unless it is one finite number per token."""
    given = torch.as_tensor(credit(rollout, advantage, penalties_T), dtype=torch.float32)
    if given.shape != penalties_T.shape or not torch.isfinite(given).all():
        raise UserError(f"algo.credit gave {tuple(given.shape)} numbers for {len(penalties_T)} tokens, or one that is not finite")
    return given
