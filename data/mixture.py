"""Several data sets as one: `Mixture`. Which of its rows a step draws, and how often, is the sampler's business."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data.rows import LazyRows, Rows, Subset
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Sample


@dataclass(frozen=True)
class Part:
    label: str
    weight: float
    rows: Rows


class Mixture(LazyRows):
    """The rows of all parts, one part after another. Ids become LABEL/ID, so that equal ids of two parts stay apart."""

    def __init__(self, parts: Sequence[Part]):
        labels = [part.label for part in parts]
        if len(set(labels)) < len(labels):
            raise UserError(f"data.parts: labels are used twice: {', '.join(labels)}")
        self.parts = tuple(parts)
        self._starts = np.concatenate([[0], np.cumsum([len(part.rows) for part in parts])])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, index: int) -> Sample:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        part = self.parts[number]
        try:
            sample = part.rows[index - int(self._starts[number])]
        except RowError as error:
            raise RowError(f"{part.label}/{error.row_id}", error.reason) from None
        return replace(sample, id=f"{part.label}/{sample.id}")

    @property
    def part_of_row(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self.parts)), [len(part.rows) for part in self.parts])


def shares_of(rows: Rows) -> tuple[NDArray[np.int64], tuple[float, ...]]:
    """The part that each row belongs to, and the parts' weights. Subsets of a mixture keep its parts; anything else is one part."""
    if isinstance(rows, Mixture):
        return rows.part_of_row, tuple(part.weight for part in rows.parts)
    if isinstance(rows, Subset):
        parts, weights = shares_of(rows.rows)
        return parts[np.asarray(rows.indices, dtype=np.int64)], weights
    return np.zeros(len(rows), np.int64), (1.0,)
