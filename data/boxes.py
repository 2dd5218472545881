"""Boxes on a picture: (left, top, right, bottom) in pixels of the upright picture. It knows not where they come from."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from vlm_rl.types import Box

SAME_AT = 0.95


def fitted(box: Any, width: int, height: int) -> Box:
    """The whole pixels that `box` touches, within the picture. Raises ValueError for what is no box or has no area there.

    fitted([-3, 2.5, 40, 9], 30, 20) -> (0, 2, 30, 9)
    """
    try:
        left, top, right, bottom = (float(side) for side in box)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{str(box)[:60]} is not a box [left, top, right, bottom]") from None
    if isinstance(box, (str, bytes)) or not all(map(math.isfinite, (left, top, right, bottom))):
        raise ValueError(f"{str(box)[:60]} is not a box [left, top, right, bottom]")
    inside = (max(0, math.floor(left)), max(0, math.floor(top)), min(width, math.ceil(right)), min(height, math.ceil(bottom)))
    if left >= right or top >= bottom or inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise ValueError(f"the box {str(box)[:60]} holds nothing of a picture of {width} x {height} pixels")
    return inside


def iou(a: Box, b: Box) -> float:
    """Intersection over union, 0.0 where neither has any area."""
    shared = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    both = area(a) + area(b) - shared
    return shared / both if both > 0 else 0.0


def area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def union_area(boxes: Sequence[Box]) -> float:
    """The area that the boxes cover together, shared parts once: union_area([(0, 0, 50, 50), (25, 25, 75, 75)]) -> 4375.0"""
    sides = sorted({side for box in boxes for side in (box[0], box[2])})
    return sum((right - left) * _covered([box for box in boxes if box[0] <= left and right <= box[2]]) for left, right in pairwise(sides))


def _covered(boxes: Sequence[Box]) -> float:
    """How much of the vertical axis they cover together."""
    total, end = 0.0, -math.inf
    for _, top, _, bottom in sorted(boxes, key=lambda box: box[1]):
        total += max(0.0, bottom - max(top, end))
        end = max(end, bottom)
    return total


def distinct(boxes: Iterable[Box], same_at: float = SAME_AT) -> tuple[Box, ...]:
    """In order, without those that overlap one already kept by `same_at` (intersection over union) or more."""
    kept: list[Box] = []
    for box in boxes:
        if all(iou(box, other) < same_at for other in kept):
            kept.append(box)
    return tuple(kept)


def fitted_all(boxes: Sequence[Any], width: int, height: int) -> tuple[Box, ...]:
    """All of them `fitted` and `distinct`. Raises ValueError as `fitted` does."""
    return distinct(fitted(box, width, height) for box in boxes)
