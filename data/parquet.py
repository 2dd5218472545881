"""Parquet files as one table of raw rows: row groups are read when a row of theirs is asked for, and a few are kept.

pyarrow is imported when this module is, which is when such a source is used. Column meanings are decided elsewhere.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlm_rl.errors import UserError

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    raise UserError(f"parquet files need pyarrow, which cannot be imported ({error}); pip install pyarrow") from None

KEPT_BYTES = 256 * 2**20


class Parquet:
    """Rows of `files`, one file after another. Reading one row decodes its whole row group; groups within KEPT_BYTES stay in memory."""

    def __init__(self, files: Sequence[Path], folder: Path):
        self.files, self.folder = list(files), folder
        groups, sizes = [], []
        for number, path in enumerate(self.files):
            metadata = _metadata(path)
            groups += [(number, group) for group in range(metadata.num_row_groups)]
            sizes += [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._groups = groups
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._kept: OrderedDict[int, pyarrow.Table] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def fields(self, index: int) -> dict[str, Any]:
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        try:
            table = self._group(group)
            return table.slice(index - int(self._starts[group]), 1).to_pylist()[0]
        except pyarrow.ArrowException as error:
            raise ValueError(f"not readable parquet: {str(error).splitlines()[0]}") from None

    def place(self, index: int) -> str:
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        number = self._groups[group][0]
        first = next(i for i, (other, _) in enumerate(self._groups) if other == number)
        return f"{self.files[number].name} row {index - int(self._starts[first])}"

    def default_id(self, index: int) -> str:
        return str(index)

    def _group(self, group: int) -> pyarrow.Table:
        with self._lock:
            if group not in self._kept:
                number, inside = self._groups[group]
                with pyarrow.parquet.ParquetFile(self.files[number]) as file:
                    self._kept[group] = file.read_row_group(inside)
                while len(self._kept) > 1 and sum(table.nbytes for table in self._kept.values()) > KEPT_BYTES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group]


def _metadata(path: Path) -> Any:
    try:
        return pyarrow.parquet.read_metadata(path)
    except FileNotFoundError:
        raise UserError(f"data.path: no such file {path}") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"data.path: {path} is not a readable parquet file: {str(error).splitlines()[0]}") from None
