"""Which rows a training step uses. It knows indices only, neither rows nor ranks."""

import numpy as np
from numpy.typing import NDArray

from data.rows import seeded_order
from vlm_rl.errors import UserError
from vlm_rl.seeds import stable_hash


class Sampler:
    """An endless seeded stream of row indices cut into steps. Sampler(size=3, per_step=2, seed=0).batch(1) -> [1, 0]

    The stream is one reshuffled epoch after another: no row repeats within an epoch, and a step may straddle two of them. A batch depends
    on the arguments and the step alone, so a resumed run needs no state.
    """

    def __init__(self, size: int, per_step: int, seed: int):
        if size < 1:
            raise UserError("there are no rows to draw from; check data.path and data.limit")
        if per_step < 1:
            raise UserError(f"{per_step} rows per step; write rollout.prompts_per_step >= 1")
        self.size, self.per_step, self.seed = size, per_step, seed
        self._cached: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def batch(self, step: int) -> list[int]:
        """`per_step` row indices of step 0, 1, 2, ..."""
        if step < 0:
            raise ValueError(f"step {step} is before the first, which is 0")
        indices: list[int] = []
        position, end = step * self.per_step, (step + 1) * self.per_step
        while position < end:
            epoch, start = divmod(position, self.size)
            taken = self._order(epoch)[start : start + end - position].tolist()
            indices += taken
            position += len(taken)
        return indices

    def _order(self, epoch: int) -> NDArray[np.int64]:
        # Read and replaced as one tuple, so that two threads can at worst shuffle the same epoch twice.
        cached = self._cached
        if cached[0] != epoch:
            cached = self._cached = (epoch, seeded_order(self.size, stable_hash("epoch", self.seed, epoch)))
        return cached[1]
