"""Areas over curves of accuracy or agreement by the share of a trace kept (arXiv 2307.13702, 2602.16154). Numbers in, numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class OverCurve:
    """1 - area under a curve: `public` as the public code has it (a flat perfect curve over [0.2, 1] gives 0.2), `norm` with the area
    divided by its width first (it gives 0). High means that the end of the trace matters."""

    public: float
    norm: float


def area_over_curve(fractions: Sequence[float], values: Sequence[float]) -> OverCurve:
    """By trapezoids. area_over_curve((.2, .4, .6, .8, 1), (.2, .4, .6, .8, 1)) -> public 0.52, norm 0.4

    Raises ValueError unless there are two points or more and the fractions rise.
    """
    points = list(zip(fractions, values, strict=True))
    if len(points) < 2 or any(b[0] <= a[0] for a, b in pairwise(points)):
        raise ValueError(f"an area needs two points or more at rising fractions, not {list(fractions)}")
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    return OverCurve(public=1 - area, norm=1 - area / (points[-1][0] - points[0][0]))
