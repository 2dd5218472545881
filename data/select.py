"""Which rows of a data set are kept: those that meet conditions, those that say something new. And what a row's fields are worth.

Rows that cannot be read are kept, so that the row checks report them instead of their being lost here.
"""

import logging
import math
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.rows import Rows, Subset
from vlm_rl.errors import RowError, UserError, unknown
from vlm_rl.seeds import stable_hash
from vlm_rl.types import LETTERS, Sample

logger = logging.getLogger(__name__)

_ABSENT = object()


def matching(rows: Rows, conditions: Mapping[str, Any]) -> Rows:
    """The rows that meet every condition: {"level": 3, "subject": ["algebra", "geometry"], "images": {"max": 1}}.

    A field is id, kind, question or answer, the number of images, videos or options, or something of the row's meta ("info.level" goes
    into an object). Values are compared as text, ignoring case; where the field is a list, one entry that fits is enough. A row without
    the field is left out. Raises UserError for a field that no row has and when nothing is left.
    """
    kept, met, names = array("q"), dict.fromkeys(conditions, False), dict.fromkeys(_FIELDS)
    for index in range(len(rows)):
        try:
            sample = rows[index]
        except RowError:
            kept.append(index)
            continue
        values = {name: field_of(sample, name) for name in conditions}
        met.update({name: True for name, value in values.items() if value is not _ABSENT})
        names.update(dict.fromkeys(sample.meta) if index < 1000 else {})
        if all(_fits(values[name], wanted) for name, wanted in conditions.items()):
            kept.append(index)
    for name, found in met.items():
        if not found:
            raise unknown("field", name, names, "data.where")
    if not kept:
        raise UserError(
            f"data.where: none of {len(rows)} rows has {', '.join(f'{name} = {wanted}' for name, wanted in conditions.items())}"
        )
    logger.info("data.where keeps %d of %d rows", len(kept), len(rows))
    return Subset(rows, np.frombuffer(kept, np.int64))


def distinct(rows: Rows) -> Rows:
    """The first of rows with equal question, options and media content; spacing and case of the texts do not count.

    Says how many of the others contradict it: the same question with another answer is an error of the data.
    """
    asked, answered = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    for index in range(len(rows)):
        asked[index], answered[index] = _hashes(rows, index)
    _, firsts, inverse = np.unique(asked, return_index=True, return_inverse=True)
    contrary = int((answered != answered[firsts][inverse]).sum())
    dropped = len(rows) - len(firsts)
    if dropped:
        logger.info("deduplicate drops %d of %d rows", dropped, len(rows))
    if contrary:
        logger.warning("%d of the dropped rows give another answer than the row that is kept", contrary)
    return Subset(rows, np.sort(firsts)) if dropped else rows


def difficulties(rows: Rows, name: str) -> NDArray[np.float64]:
    """The number under `name` of every row, nan where there is none. Raises UserError, with the nearest field, when no row has one."""
    values, names = np.full(len(rows), np.nan), dict.fromkeys(_FIELDS)
    for index in range(len(rows)):
        try:
            sample = rows[index]
        except RowError:
            continue
        values[index] = _number(field_of(sample, name))
        names.update(dict.fromkeys(sample.meta) if index < 1000 else {})
    absent = int(np.isnan(values).sum())
    if absent == len(rows):
        raise unknown("field with a number", name, names, "data.curriculum.field")
    if absent:
        logger.warning("curriculum: %d of %d rows have no number under '%s' and count as the hardest", absent, len(rows), name)
    return values


_FIELDS = {
    "id": lambda sample: sample.id,
    "kind": lambda sample: sample.kind,
    "question": lambda sample: sample.question,
    "answer": lambda sample: sample.answer,
    "options": lambda sample: len(sample.options),
    "images": lambda sample: sum(medium.kind == "image" for medium in sample.media),
    "videos": lambda sample: sum(medium.kind == "video" for medium in sample.media),
}


def field_of(sample: Sample, name: str) -> Any:
    """What `data.where` and `data.curriculum` see under `name`; a value that equals nothing when there is no such field."""
    if name in _FIELDS:
        return _FIELDS[name](sample)
    if name in sample.meta:
        return sample.meta[name]
    value: Any = sample.meta
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _ABSENT
        value = value[part]
    return value


def _fits(value: Any, wanted: Any) -> bool:
    if value is _ABSENT or value is None:
        return False
    if isinstance(value, (list, tuple)):
        return any(_fits(entry, wanted) for entry in value)
    if isinstance(wanted, Mapping):
        return wanted.get("min", -math.inf) <= _number(value) <= wanted.get("max", math.inf)
    choices = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    return any(value == choice or _plain(value) == _plain(choice) for choice in choices)


def _number(value: Any) -> float:
    """nan for what is no number, which lies in no range."""
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _hashes(rows: Rows, index: int) -> tuple[int, int]:
    """What row `index` asks, and what it answers; the text of the right options, because their letters mean nothing elsewhere."""
    try:
        sample = rows[index]
        media = [medium.id for medium in sample.media]
    except (RowError, OSError, ValueError):
        return stable_hash("unread", index), 0
    gold = [sample.options[LETTERS.index(letter)] for letter in sample.answer.split(",")] if sample.options and sample.answer else []
    asked = stable_hash(_plain(sample.question), *map(_plain, sample.options), "media", *media)
    return asked, stable_hash(*map(_plain, gold or [sample.answer]))


def _plain(value: Any) -> str:
    return " ".join(str(value).split()).casefold()
