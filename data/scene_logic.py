"""What can be said about a generated scene, and what follows from it: things, questions as small programs, and their answers.

The same `answer` computes the gold answer from the true things and what follows from the things a trace claims; so "does the conclusion
follow" needs no second rule. It draws nothing, writes no text and reads none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Box = tuple[int, int, int, int]
Target = Mapping[str, str]
Query = Mapping[str, Any]

COLOURS = ("red", "green", "blue", "yellow", "purple", "gray")
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = ("small", "large")
PLACES = ("top left", "top right", "bottom left", "bottom right")
DIRECTIONS = ("left", "right", "up", "down")
_OPPOSITES = {"left of": "right of", "above": "below", "larger than": "smaller than", "higher than": "lower than", "before": "after"}
_OPPOSITE = _OPPOSITES | {second: first for first, second in _OPPOSITES.items()}
RELATIONS = tuple(relation for pair in _OPPOSITES.items() for relation in pair)


@dataclass(frozen=True)
class Thing:
    """A shape, a chart's bar (with `value`), or one sighting of a shape in a clip (at `time`, in seconds).

    `box` is (x0, y0, x1, y1) in pixels of the picture or frame. "" and None mean: not said. Thing("red", "circle", "small", (8, 8, 24, 24))
    """

    colour: str = ""
    shape: str = ""
    size: str = ""
    box: Box | None = None
    value: int | None = None
    time: int | None = None


@dataclass(frozen=True)
class Facts:
    """Things, and what was said about them beyond: relations as (relation, a, b), a total, results of sums, moves as (thing, direction),
    places as (thing, quarter), and things of which it was said that there are none. Of a scene's truth only `things` is set.
    """

    things: tuple[Thing, ...] = ()
    relations: tuple[tuple[str, Thing, Thing], ...] = ()
    total: int | None = None
    sums: tuple[int, ...] = ()
    moves: tuple[tuple[Thing, str], ...] = ()
    places: tuple[tuple[Thing, str], ...] = ()
    absent: tuple[Thing, ...] = ()


def matches(thing: Thing, target: Target) -> bool:
    """Whether the thing is known to have each of the target's attributes. The shape "shape" is any shape."""
    return all(getattr(thing, key) == wanted for key, wanted in target.items() if wanted != "shape")


def select(things: Sequence[Thing], target: Target) -> list[Thing]:
    return [thing for thing in things if matches(thing, target)]


def area(box: Box) -> int:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0.0 where either has no area."""
    shared = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    both = area(a) + area(b) - shared
    return shared / both if both > 0 else 0.0


def name(thing: Thing | Target) -> str:
    """How a thing or target is called: "small red circle"."""
    parts = (thing.size, thing.colour, thing.shape) if isinstance(thing, Thing) else (thing.get(k, "") for k in ("size", "colour", "shape"))
    return " ".join(part for part in parts if part)


def holds(relation: str, a: Thing, b: Thing) -> bool | None:
    """Whether a stands in `relation` to b; None when it cannot be told or neither way round is so."""
    measure, sign = _MEASURES[relation]
    first, second = measure(a), measure(b)
    return None if first is None or second is None or first == second else (second - first) * sign > 0


def place(box: Box, canvas: Sequence[int]) -> str:
    """The quarter of the canvas (width, height) that the box's centre lies in: "top left"."""
    x, y = box[0] + box[2], box[1] + box[3]
    return f"{'top' if y < canvas[1] else 'bottom'} {'left' if x < canvas[0] else 'right'}"


def answer(query: Query, facts: Facts) -> str | None:
    """What `facts` answer to the query, None when they do not determine it. What is seen counts first, what is merely stated second."""
    return _FAMILIES[query["family"]](query, facts)


def _centre(axis: int) -> Callable[[Thing], float | None]:
    return lambda thing: None if thing.box is None else thing.box[axis] + thing.box[axis + 2]


def _extent(thing: Thing) -> float | None:
    return SIZES.index(thing.size) if thing.size else None


_MEASURES: Mapping[str, tuple[Callable[[Thing], float | None], int]] = {
    "left of": (_centre(0), 1),
    "right of": (_centre(0), -1),
    "above": (_centre(1), 1),
    "below": (_centre(1), -1),
    "larger than": (_extent, -1),
    "smaller than": (_extent, 1),
    "higher than": (lambda thing: thing.value, -1),
    "lower than": (lambda thing: thing.value, 1),
    "before": (lambda thing: thing.time, 1),
    "after": (lambda thing: thing.time, -1),
}


def _one(values: Sequence[Any]) -> Any:
    """The value, when all are the same and there is one."""
    return values[0] if values and len(set(values)) == 1 else None


def _attribute(query: Query, facts: Facts) -> str | None:
    """{attribute, target}: the target's colour, shape or size."""
    return _one([getattr(t, query["attribute"]) for t in select(facts.things, query["target"])]) or None


def located(query: Query, facts: Facts) -> str | None:
    """{target, canvas}: the quarter of the picture it lies in."""
    seen = [place(t.box, query["canvas"]) for t in select(facts.things, query["target"]) if t.box is not None]
    return _one(seen or [where for thing, where in facts.places if matches(thing, query["target"]) or thing == Thing()])


def _count(query: Query, facts: Facts) -> str | None:
    """{target}, in clips {target, time}: how many of the things seen, if any are or the target is said to be absent."""
    seen = [t for t in facts.things if query.get("time") in (None, t.time)]
    if seen or any(_rules_out(absent, query) for absent in facts.absent):
        return str(len(select(seen, query["target"])))
    return None if facts.total is None else str(facts.total)


def _rules_out(absent: Thing, query: Query) -> bool:
    """Whether no `absent` means no target: it is as general or more."""
    said = ((key, getattr(absent, key)) for key in ("colour", "shape", "size"))
    return absent.time in (None, query.get("time")) and all(value in ("", query["target"].get(key)) for key, value in said)


def _first(things: Sequence[Thing], target: Target) -> Thing | None:
    found = select(things, target)
    return min(found, key=lambda t: -1 if t.time is None else t.time) if found else None


def _relation(query: Query, facts: Facts) -> str | None:
    """{relation, a, b}: yes or no."""
    a, b = (_first(facts.things, query[key]) for key in ("a", "b"))
    seen = holds(query["relation"], a, b) if a and b else None
    if seen is None:
        seen = _stated(query["relation"], query["a"], query["b"], facts)
    return None if seen is None else "yes" if seen else "no"


def _stated(relation: str, a: Target, b: Target, facts: Facts) -> bool | None:
    for said, first, second in facts.relations:
        if said == _OPPOSITE[relation]:
            first, second = second, first
        elif said != relation:
            continue
        if matches(first, a) and matches(second, b):
            return True
        if matches(first, b) and matches(second, a):
            return False
    return None


def _which(query: Query, facts: Facts) -> str | None:
    """{relation, a, b}: the one of the two that stands in the relation to the other, by name."""
    told = _relation(query, facts)
    return None if told is None else name(query["a" if told == "yes" else "b"])


def _extreme(query: Query, facts: Facts) -> str | None:
    """{relation, attribute or "all"}: of the thing that stands in the relation to all others. "all" describes it: "a small red circle"."""
    things = facts.things
    found = [t for t in things if all(o is t or holds(query["relation"], t, o) for o in things)]
    if len(found) != 1:
        return None
    return f"a {name(found[0])}" if query["attribute"] == "all" else getattr(found[0], query["attribute"]) or None


def _bar(query: Query, facts: Facts) -> str | None:
    """{target}: a bar's value."""
    value = _one([t.value for t in select(facts.things, query["target"])])
    return None if value is None else str(value)


def _sum(query: Query, facts: Facts) -> str | None:
    """{sign, a, b}: of two bars' values."""
    a, b = (_one([t.value for t in select(facts.things, query[key])]) for key in ("a", "b"))
    if a is not None and b is not None:
        return str(a + b if query["sign"] == "+" else a - b)
    return str(facts.sums[-1]) if facts.sums else None


def motion(query: Query, facts: Facts) -> str | None:
    """{target}: the direction of its longest way between the first and the last sighting."""
    seen = sorted((t for t in select(facts.things, query["target"]) if t.time is not None and t.box), key=lambda t: t.time or 0)
    if len(seen) >= 2 and seen[0].box and seen[-1].box and seen[0].time != seen[-1].time:
        return direction(seen[0].box, seen[-1].box)
    return _one([way for thing, way in facts.moves if matches(thing, query["target"]) or thing == Thing()])


def direction(before: Box, after: Box) -> str | None:
    """ "left", "right", "up" or "down", whichever the centre moved most; None when it did not move or both ways equally."""
    x, y = (after[i] + after[i + 2] - before[i] - before[i + 2] for i in (0, 1))
    if abs(x) == abs(y):
        return None
    return ("right" if x > 0 else "left") if abs(x) > abs(y) else ("down" if y > 0 else "up")


def _turned(query: Query, facts: Facts) -> str | None:
    """{target}: the colour of the shape when it is seen last, if it was seen in another before."""
    seen = [t for t in select(facts.things, query["target"]) if t.time is not None]
    end = max((t.time for t in seen if t.time is not None), default=None)
    last, before = _one([t.colour for t in seen if t.time == end]), {t.colour for t in seen if t.time != end}
    return last if last and before - {last, ""} else None


def _when(query: Query, facts: Facts) -> str | None:
    """{target}: the second it is first seen at."""
    found = _first(facts.things, query["target"])
    return None if found is None or found.time is None else str(found.time)


_FAMILIES: Mapping[str, Callable[[Query, Facts], str | None]] = {
    "attribute": _attribute,
    "place": located,
    "count": _count,
    "relation": _relation,
    "which": _which,
    "extreme": _extreme,
    "bar": _bar,
    "sum": _sum,
    "motion": motion,
    "turned": _turned,
    "when": _when,
}
FAMILIES = tuple(_FAMILIES)
