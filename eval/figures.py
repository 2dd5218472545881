"""Figures made of per-item values, each with its n and interval. A share of nothing is None with n = 0, never 0.

Values are given by question id, so that the same question can be found in another run; a plain sequence does where that has no meaning
(several values per question).
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from eval.evaluator import Figure, Table, Unit
from eval.metrics import paired_bootstrap, ratio_bootstrap, wilson

T = TypeVar("T")
Given = Sequence[T] | Mapping[str, T]


def share(name: str, flags: Given[bool], note: str = "") -> Figure:
    """How many of the items are so, with Wilson's interval. share("x", {"a": True, "b": True, "c": False}).value -> 0.667"""
    values, items = _values(flags), {i: (float(flag), 1.0) for i, flag in _by_id(flags).items()}
    if not values:
        return Figure(name, None, 0, note=note)
    low, high = wilson(sum(values), len(values))
    return Figure(name, sum(values) / len(values), len(values), low, high, "share", note, items)


def mean(name: str, values: Given[float], clusters: Given[Hashable], unit: Unit = "share", note: str = "") -> Figure:
    """The mean of one value per item, with a bootstrap interval over clusters of items."""
    given, items = _values(values), {i: (float(value), 1.0) for i, value in _by_id(values).items()}
    if not given:
        return Figure(name, None, 0, unit=unit, note=note)
    found = paired_bootstrap(given, _clusters(values, clusters))
    return Figure(name, found.value, found.n, found.low, found.high, unit, note, items)


def ratio(name: str, pairs: Given[tuple[float, float]], clusters: Given[Hashable], unit: Unit = "number", note: str = "") -> Figure:
    """sum of the first / sum of the second of each item's pair, both varying together in the bootstrap; None where the latter is 0."""
    given = _values(pairs)
    found = ratio_bootstrap([a for a, _ in given], [b for _, b in given], _clusters(pairs, clusters)) if given else None
    if found is None:
        return Figure(name, None, 0, unit=unit, note=note or "nothing to divide by")
    return Figure(name, found.value, found.n, found.low, found.high, unit, note, dict(_by_id(pairs)))


def with_tabled(figures: Sequence[Figure], tables: Sequence[Table]) -> tuple[Figure, ...]:
    """The figures and those of the tables, one of a name: what a summary holds and two runs are compared by.

    Of two with one name the table's stands, so that the page shows it once.
    """
    cells = [cell for table in tables for row in table.rows for cell in row if isinstance(cell, Figure)]
    return tuple({figure.name: figure for figure in (*figures, *cells)}.values())


def said(figure: Figure) -> str:
    """A figure in running text: "62.5% [46.0, 77.0] (n = 40)", "-10.0 points [-20.0, 1.0] (n = 40)", or that it is not defined."""
    if figure.value is None:
        return "not defined"
    scale, form = (100.0, ".1f") if figure.unit in ("share", "difference") else (1.0, ".2f")
    mark = {"share": "%", "difference": " points"}.get(figure.unit, "")
    sign = "+" if figure.unit == "difference" else ""
    bounds = "" if figure.low is None or figure.high is None else f" [{figure.low * scale:{form}}, {figure.high * scale:{form}}]"
    return f"{figure.value * scale:{sign}{form}}{mark}{bounds} (n = {figure.n})"


def _values(given: Given[T]) -> list[T]:
    return list(given.values()) if isinstance(given, Mapping) else list(given)


def _by_id(given: Given[T]) -> Mapping[str, T]:
    return given if isinstance(given, Mapping) else {}


def _clusters(values: Given[T], clusters: Given[Hashable]) -> list[Hashable]:
    """Clusters in the order of the values; by question id there may be more of them than values."""
    if isinstance(clusters, Mapping):
        if not isinstance(values, Mapping):
            raise ValueError("clusters by question id need values by question id")
        return [clusters[i] for i in values]
    return list(clusters)
