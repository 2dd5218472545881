"""Which rows a training step uses: an endless seeded stream, weighted over the parts of a mixture, easy rows first where asked for.

A step's rows are a pure function of the arguments and the step: a resumed run needs no state, and neither workers nor ranks change them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.mixture import shares_of
from data.rows import Rows, seeded_order
from data.select import difficulties
from vlm_rl.config import DataConfig
from vlm_rl.errors import UserError
from vlm_rl.seeds import stable_hash

Indices = NDArray[np.int64]


class Sampler:
    """An endless seeded stream of row indices cut into steps. Sampler(size=3, per_step=2, seed=0).batch(1) -> [1, 0]

    The stream is one reshuffled epoch after another: no row repeats within an epoch, and a step may straddle two of them.
    """

    def __init__(self, size: int, per_step: int, seed: int):
        if size < 1:
            raise UserError("there are no rows to draw from; check data.path and data.limit")
        if per_step < 1:
            raise UserError(f"{per_step} rows per step; write rollout.prompts_per_step >= 1")
        self.size, self.per_step, self.seed = size, per_step, seed
        self._cached: tuple[int, Indices] = (-1, np.empty(0, np.int64))

    def batch(self, step: int, rank: int = 0, world: int = 1) -> list[int]:
        """Row indices of step 0, 1, 2, ...: all `per_step` of them, or the slice of one of `world` ranks.

        The slices of all ranks in order are the batch of one process; their sizes differ by at most one.
        """
        if step < 0:
            raise ValueError(f"step {step} is before the first, which is 0")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        rows = self._rows(step)
        return rows[rank * len(rows) // world : (rank + 1) * len(rows) // world].tolist()

    def _rows(self, step: int) -> Indices:
        return self._stream(step * self.per_step, (step + 1) * self.per_step)

    def _stream(self, position: int, end: int) -> Indices:
        taken = []
        while position < end:
            epoch, start = divmod(position, self.size)
            taken.append(self._epoch(epoch)[start : start + end - position])
            position += len(taken[-1])
        return np.concatenate(taken)

    def _epoch(self, epoch: int) -> Indices:
        # Read and replaced as one tuple, so that two threads can at worst make the same epoch twice.
        cached = self._cached
        if cached[0] != epoch:
            cached = self._cached = (epoch, self._order(epoch))
        return cached[1]

    def _order(self, epoch: int) -> Indices:
        return seeded_order(self.size, stable_hash("epoch", self.seed, epoch))


class MixtureSampler(Sampler):
    """Rows of several parts by weight. `parts[k]` holds the row indices of part k.

    An epoch has as many draws as there are rows, shared out by weight and shuffled. Each part is its own endless stream, so none of its
    rows comes again before all have come; a part of large weight comes round several times in an epoch, one of small weight less than once.
    """

    def __init__(self, parts: Sequence[Indices], weights: Sequence[float], per_step: int, seed: int):
        filled = [(part, weight) for part, weight in zip(parts, weights, strict=True) if len(part)]
        self._parts = [part for part, _ in filled]
        self._quotas = _quotas(sum(map(len, self._parts)), [weight for _, weight in filled])
        self._streams = [Sampler(len(part), quota, stable_hash("part", seed, k)) for k, (part, quota) in enumerate(self._pairs())]
        super().__init__(sum(self._quotas), per_step, seed)

    def _pairs(self) -> list[tuple[Indices, int]]:
        return list(zip(self._parts, self._quotas, strict=True))

    def _order(self, epoch: int) -> Indices:
        drawn = np.concatenate([part[stream.batch(epoch)] for part, stream in zip(self._parts, self._streams, strict=True)])
        return drawn[super()._order(epoch)]


class CurriculumSampler(Sampler):
    """`inner`, but in step s < `warm_steps` each row is drawn anew from the easiest share (s + 1) / warm_steps of its part.

    `parts[k]` holds part k's row indices, easiest first. A pool smaller than what a step needs of it is used more than once. From step
    `warm_steps` on the batches are those of `inner`.
    """

    def __init__(self, inner: Sampler, parts: Sequence[Indices], part_of_row: Indices, warm_steps: int):
        super().__init__(inner.size, inner.per_step, inner.seed)
        self._inner, self._parts, self._part_of_row, self._warm_steps = inner, parts, part_of_row, warm_steps

    def _rows(self, step: int) -> Indices:
        rows = self._inner._rows(step)
        if step >= self._warm_steps:
            return rows
        owners, drawn = self._part_of_row[rows], rows.copy()
        for k, part in enumerate(self._parts):
            places = np.flatnonzero(owners == k)
            pool = part[: max(1, -(-len(part) * (step + 1) // self._warm_steps))]
            if len(places):
                drawn[places] = pool[Sampler(len(pool), len(places), stable_hash("warm", self.seed, step, k))._rows(0)]
        return drawn


def make_sampler(rows: Rows, config: DataConfig, per_step: int, seed: int) -> Sampler:
    """The sampler that `config` describes for `rows`, which may be a part of what it loads (the rows not held out).

    With a curriculum every row is read once. Raises UserError when no row has a number under its field.
    """
    owners, weights = shares_of(rows)
    parts = [np.flatnonzero(owners == k) for k in range(len(weights))]
    sampler = Sampler(len(rows), per_step, seed) if len(weights) == 1 else MixtureSampler(parts, weights, per_step, seed)
    if config.curriculum is None:
        return sampler
    hardness = difficulties(rows, config.curriculum.field)
    hardness = -hardness if config.curriculum.order == "hard_first" else hardness
    # Rows without a number are nan, which sorts last either way round.
    eased = [part[np.argsort(hardness[part], kind="stable")] for part in parts]
    return CurriculumSampler(sampler, eased, owners, config.curriculum.warm_steps)


def _quotas(total: int, weights: Sequence[float]) -> list[int]:
    """`total` shared out by weight with the largest remainders, at least 1 each. _quotas(10, [2.0, 1.0]) -> [7, 3]"""
    exact = [total * weight / sum(weights) for weight in weights]
    quotas = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda k: (quotas[k] - exact[k], k))
    for k in by_remainder[: total - sum(quotas)]:
        quotas[k] += 1
    return [max(1, quota) for quota in quotas]
