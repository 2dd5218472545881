"""What a data set is to the rest of the program: a sequence of Samples, built when they are asked for. It reads no files."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from vlm_rl.types import Sample

Rows = Sequence[Sample]


class LazyRows(Sequence[Sample]):
    """A sequence whose items are made at access by `row`, so that its length costs little memory. A slice is a `Subset`."""

    @abstractmethod
    def row(self, index: int) -> Sample:
        """The row at 0 <= index < len(self). Raises RowError."""

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Subset": ...
    def __getitem__(self, index: int | slice) -> "Sample | Subset":
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.row(position)


class Subset(LazyRows):
    """The rows at `indices`, in that order."""

    def __init__(self, rows: Rows, indices: Sequence[int] | NDArray[np.int64]):
        self.rows, self.indices = rows, indices

    def __len__(self) -> int:
        return len(self.indices)

    def row(self, index: int) -> Sample:
        return self.rows[int(self.indices[index])]


def seeded_order(size: int, seed: int) -> NDArray[np.int64]:
    """A permutation of range(size), the same in every process and numpy version for equal arguments; seed >= 0.

    It sorts raw generator output because numpy promises stable raw streams but not a stable `permutation`.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(size), kind="stable")
