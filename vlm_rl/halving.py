"""Going on after a pack that was more than memory holds: which packs can be smaller, and giving the failed one's memory back.

Log-probs differ in their last bits between packs of different sizes, so a run that halved its budget is not bit for bit one that did not.
"""

import logging

import torch

from vlm_rl.ranks import Ranks
from vlm_rl.step_batch import MiniBatch

log = logging.getLogger(__name__)


def can_halve(mini: MiniBatch, ranks: Ranks) -> bool:
    """Whether a pack holds more than one completion. Not where several processes train together: the others would wait for this one."""
    return ranks.world == 1 and any(sum(len(item.completions) for item in items) > 1 for items in mini.packs[0])


def release(token_budget: int) -> None:
    """Give cached memory back to the device and say what happens."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    log.warning(
        "out of memory in the update: its packs have at most %d tokens from now on, and the run is no longer reproducible bit for bit; "
        "write train.token_budget=%d to begin with that",
        token_budget,
        token_budget,
    )
