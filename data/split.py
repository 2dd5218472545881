"""Held-out rows that share no medium with the training rows. Equality is of file bytes: a re-encoded copy is another medium."""

import logging
from collections import defaultdict
from pathlib import Path

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
    components = _components(rows)
    if len(components) < 2:
        raise UserError(f"cannot hold out some of {len(rows)} rows that all share a picture or question; name other rows as eval_data")
    target = min(max(1, round(share * len(rows))), len(rows) - 1)
    ordered = sorted(components, key=lambda name: (stable_hash("hold out", seed, name), name))
    held: set[int] = set()
    for name in ordered:
        if len(held) + len(components[name]) <= target:
            held.update(components[name])
    held = held or set(min((components[name] for name in ordered), key=len))
    return Subset(rows, [i for i in range(len(rows)) if i not in held]), Subset(rows, sorted(held))


def overlap(train: Rows, test: Rows) -> list[str]:
    """Ids of the rows of `test` that use a medium whose content occurs in `train`. Raises RowError for a medium that cannot be read."""
    contents = _Contents()
    seen = {content for sample in train for content in contents.of(sample)}
    return [sample.id for sample in test if not seen.isdisjoint(contents.of(sample))]


class _Contents:
    """Content ids of media, each file read once however many rows show it."""

    def __init__(self) -> None:
        self._by_path: dict[Path, str] = {}

    def of(self, sample: Sample) -> list[str]:
        return [self._content(medium, sample.id) for medium in sample.media]

    def _content(self, medium: Media, row: str) -> str:
        if medium.path is None:
            return medium.id
        if medium.path not in self._by_path:
            try:
                self._by_path[medium.path] = medium.id
            except (OSError, ValueError) as error:
                raise RowError(row, f"{medium.path} cannot be read: {error}") from None
        return self._by_path[medium.path]


def _components(rows: Rows) -> dict[str, list[int]]:
    """Row indices joined by equal keys (union-find); a component's name is its smallest key."""
    parent: dict[str, str] = {}

    def find(key: str) -> str:
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    contents, firsts, unread = _Contents(), [], 0
    for index in range(len(rows)):
        keys, readable = _keys(rows, index, contents)
        unread += not readable
        for key in keys:
            parent.setdefault(key, key)
            low, high = sorted((find(keys[0]), find(key)))
            parent[high] = low
        firsts.append(keys[0])
    if unread:
        logger.warning("%d of %d rows or their media cannot be read; they are split by path", unread, len(rows))
    components: defaultdict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(firsts):
        components[find(key)].append(index)
    return components


def _keys(rows: Rows, index: int, contents: _Contents) -> tuple[list[str], bool]:
    """What joins this row to others, and whether the row and its media could be read."""
    try:
        sample = rows[index]
    except RowError:
        return [f"row {index}"], False
    if not sample.media:
        return [f"question {stable_hash(sample.question.strip())}"], True
    try:
        return [f"medium {content}" for content in contents.of(sample)], True
    except RowError:
        return [f"path {medium.path}" if medium.path else f"medium {medium.id}" for medium in sample.media], False
