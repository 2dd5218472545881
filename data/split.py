"""Held-out rows that share no medium with the training rows. Equality is of file bytes: a re-encoded copy is another medium, two parts of
one video are the same.

What is remembered of a row is a few integers, so that a million rows part within a hundred megabytes. Nothing is written to disk.
"""

import logging
from array import array
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data.files import size_of
from data.rows import Rows, Subset
from vlm_rl.errors import RowError, UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Media, Sample

logger = logging.getLogger(__name__)


def hold_out(rows: Rows, share: float = 0.1, seed: int = 0) -> tuple[Rows, Rows]:
    """(train, held out): rows joined by a shared medium stay on one side; text-only rows are joined by an equal question.

    Joined sets are taken in an order drawn by `seed` from their content (not their position) until `share` of the rows is held out.
    One that would overshoot is passed over; if all would, the smallest is taken. Order within each side is that of `rows`. Rows and
    media that cannot be read do not stop this: the row checks report them. Raises UserError when the rows cannot be parted.
    """
    if not 0 < share < 1:
        raise UserError(f"cannot hold out a share of {share}; it lies between 0 and 1")
    component, names = _components(rows)
    if len(names) < 2:
        raise UserError(f"cannot hold out some of {len(rows)} rows that all share a picture or question; name other rows as eval_data")
    sizes = np.bincount(component, minlength=len(names))
    drawn = np.array([stable_hash("hold out", seed, int(name)) for name in names])
    chosen, held = np.zeros(len(names), bool), 0
    target = min(max(1, round(share * len(rows))), len(rows) - 1)
    for number in np.lexsort((names, drawn)):
        if held + sizes[number] <= target:
            chosen[number], held = True, held + sizes[number]
    if not held:
        chosen[np.lexsort((names, drawn, sizes))[0]] = True
    is_held = chosen[component]
    return Subset(rows, np.flatnonzero(~is_held)), Subset(rows, np.flatnonzero(is_held))


def overlap(train: Rows, test: Rows, on_bad_row: Callable[[RowError], None] | None = None) -> list[str]:
    """Ids of the rows of `test` that use a medium whose content occurs in `train`, or, having none, ask what a text-only row of it asks.

    Only media of a size that occurs in `test` are read. A row or medium that cannot be read raises RowError, or is handed to `on_bad_row`.
    """
    uses: list[tuple[str, set[int]]] = []
    sizes: set[int] = set()
    for index in range(len(test)):
        with_problem = _guarded(test, index, on_bad_row)
        if with_problem is not None:
            sample, media_sizes = with_problem
            sizes.update(media_sizes)
            uses.append((sample.id, set(_keys(sample, sample.media))))
    wanted = set().union(*(keys for _, keys in uses))
    found: set[int] = set()
    for index in range(len(train)):
        with_problem = _guarded(train, index, on_bad_row)
        if with_problem is not None:
            sample, media_sizes = with_problem
            alike = [medium for medium, size in zip(sample.media, media_sizes, strict=True) if size in sizes]
            found.update(wanted.intersection(_keys(sample, alike)))
    return [row_id for row_id, keys in uses if not found.isdisjoint(keys)]


def _guarded(rows: Rows, index: int, on_bad_row: Callable[[RowError], None] | None) -> tuple[Sample, list[int]] | None:
    """The row and its media's sizes in bytes; None when it cannot be read and that is bearable."""
    try:
        sample = rows[index]
        return sample, [_size(medium, sample.id) for medium in sample.media]
    except RowError as error:
        if on_bad_row is None:
            raise
        on_bad_row(error)
        return None


def _size(medium: Media, row: str) -> int:
    try:
        return size_of(medium)
    except (OSError, ValueError) as error:
        raise RowError(row, f"{medium.path} cannot be read: {error}") from None


def _keys(sample: Sample, media: Sequence[Media]) -> list[int]:
    """Hashes of the content of `media`, which are those of `sample` or some of them; of its question when it has none at all."""
    if not sample.media:
        return [stable_hash("question", " ".join(sample.question.split()))]
    return [_content(medium, sample.id) for medium in media]


def _content(medium: Media, row: str) -> int:
    try:
        return stable_hash("medium", medium.file_id)
    except (OSError, ValueError) as error:
        raise RowError(row, f"{medium.path} cannot be read: {error}") from None


def _components(rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(component of each row, name of each component): rows are joined by equal keys, a component's name is its smallest key."""
    keys, owners, unread = array("q"), array("q"), 0
    for index in range(len(rows)):
        found, readable = _row_keys(rows, index)
        unread += not readable
        keys.extend(found)
        owners.extend([index] * len(found))
    if unread:
        logger.warning("%d of %d rows or their media cannot be read; they are split by path", unread, len(rows))
    if not keys:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    owner = np.frombuffer(owners, np.int64)
    names, key = np.unique(np.frombuffer(keys, np.int64), return_inverse=True)
    component = _joined(owner, key, len(rows), len(names))
    smallest = np.full(component.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(smallest, component[owner], names[key])
    return component, smallest


def _joined(owner: NDArray[np.int64], key: NDArray[np.int64], rows: int, keys: int) -> NDArray[np.int64]:
    """Connected components of the graph between rows and keys, for each row."""
    edges = coo_array((np.ones(len(owner), np.int8), (owner, rows + key)), shape=(rows + keys, rows + keys))
    labels = connected_components(edges, directed=False)[1][:rows]
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _row_keys(rows: Rows, index: int) -> tuple[list[int], bool]:
    """What joins this row to others, and whether the row and its media could be read."""
    try:
        sample = rows[index]
    except RowError:
        return [stable_hash("unread row", index)], False
    try:
        return _keys(sample, sample.media), True
    except RowError:
        return [stable_hash("path", medium.path) if medium.path else _content(medium, sample.id) for medium in sample.media], False
