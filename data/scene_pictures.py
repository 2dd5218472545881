"""Pictures of one to five shapes, and bar charts: what is in them, what is asked about them, and the drawing."""

import random
from collections.abc import Callable, Iterator
from functools import partial

from PIL import Image, ImageDraw

from data.scene_logic import COLOURS, SHAPES, SIZES, Box, Query, Thing, holds, place
from data.scene_types import Scene

SIDE = 112
SIDES = {"small": 20, "large": 32}
STEP = 4
GAP = 4
PATCHES = 4
RGB = {
    "red": (214, 39, 40),
    "green": (44, 150, 60),
    "blue": (40, 90, 220),
    "yellow": (240, 200, 20),
    "purple": (140, 60, 190),
    "gray": (120, 120, 120),
}
UNSEEN_SHAPES = frozenset({("red", "cross"), ("green", "triangle"), ("blue", "circle"), ("yellow", "square")})
UNSEEN_BARS = frozenset({("red", 7), ("green", 3), ("blue", 5), ("yellow", 8)})
MOST_SEEN, ONE_MORE = 4, 5
BASELINE, UNIT, WIDTH, PITCH, MARGIN = 104, 10, 16, 20, 8

Pair = tuple[str, str]


def pairs(unseen: bool) -> list[Pair]:
    """(colour, shape) pairs that are drawn in training, or only in the split of unseen pairs."""
    return [(c, s) for c in COLOURS for s in SHAPES if ((c, s) in UNSEEN_SHAPES) == unseen]


def picture(rng: random.Random, split: str) -> Scene:
    """A picture and a question about it. In "test_pairs" all evidence has unseen pairs, in "test_more" there is one shape more."""
    while True:
        family = rng.choice(tuple(_PICTURE_FAMILIES))
        count = ONE_MORE if split == "test_more" else rng.randint(_FEWEST.get(family, 1), MOST_SEEN)
        things = _things(rng, count, split == "test_pairs", family)
        scene = _PICTURE_FAMILIES[family](rng, things) if things else None
        if scene is not None and (split != "test_pairs" or any((t.colour, t.shape) in UNSEEN_SHAPES for t in scene.shown)):
            return scene


def _things(rng: random.Random, count: int, unseen: bool, family: str) -> tuple[Thing, ...]:
    """Shapes at places that do not touch; () when no room was found. Unless it is about counting, no two look the same."""
    chosen = _looks(rng, count, unseen, family == "count")
    things: list[Thing] = []
    for colour, shape in chosen:
        size = rng.choice(SIZES)
        box = _free_box(rng, SIDES[size], things)
        if box is None:
            return ()
        things.append(Thing(colour, shape, size, box))
    return tuple(things)


def _looks(rng: random.Random, count: int, unseen: bool, repeat: bool) -> list[Pair]:
    seen = pairs(unseen=False)
    if unseen:
        first = rng.sample(pairs(unseen=True), min(2, count))
        looks = [*first, *rng.sample(seen, count - len(first))]
    elif repeat:
        part, value = rng.choice([*((0, c) for c in COLOURS), *((1, s) for s in SHAPES)])
        alike = rng.randint(1, count)
        same = [pair for pair in seen if pair[part] == value]
        looks = [rng.choice(same) for _ in range(alike)] + [rng.choice(seen) for _ in range(count - alike)]
    else:
        looks = rng.sample(seen, count)
    rng.shuffle(looks)
    return looks


def _free_box(rng: random.Random, side: int, things: list[Thing]) -> Box | None:
    for _ in range(20):
        x, y = (rng.randrange(0, (SIDE - side) // STEP + 1) * STEP for _ in range(2))
        if all(t.box is None or _apart((x, y, x + side, y + side), t.box) for t in things):
            return x, y, x + side, y + side
    return None


def _apart(a: Box, b: Box) -> bool:
    return a[2] + GAP <= b[0] or b[2] + GAP <= a[0] or a[3] + GAP <= b[1] or b[3] + GAP <= a[1]


def _scene(things: tuple[Thing, ...], query: Query, evidence: tuple[int, ...], level: int) -> Scene:
    return Scene("pictures", (SIDE, SIDE), things, query, evidence, level)


def _attribute(rng: random.Random, things: tuple[Thing, ...], attribute: str) -> Scene | None:
    """About the one thing that its other attributes tell apart."""
    i = rng.randrange(len(things))
    thing, asks = things[i], {"colour": ("shape",), "shape": ("colour",), "size": ("colour", "shape")}[attribute]
    target = {"shape": "shape"} | {key: getattr(thing, key) for key in asks}
    alike = [t for t in things if all(getattr(t, key) == getattr(thing, key) for key in asks)]
    if len(alike) > 1:
        if attribute == "size" or sum(t.size == thing.size for t in alike) > 1:
            return None
        target["size"] = thing.size
    return _scene(things, {"family": "attribute", "attribute": attribute, "target": target}, (i,), 1)


def _place(rng: random.Random, things: tuple[Thing, ...]) -> Scene | None:
    i = rng.randrange(len(things))
    thing = things[i]
    assert thing.box is not None
    if any(abs(thing.box[axis] + thing.box[axis + 2] - SIDE) < 2 * GAP for axis in (0, 1)):
        return None
    target = {"colour": thing.colour, "shape": thing.shape}
    query = {"family": "place", "target": target, "canvas": [SIDE, SIDE]}
    return _scene(things, query, (i,), 1) if place(thing.box, (SIDE, SIDE)) else None


def _count(rng: random.Random, things: tuple[Thing, ...]) -> Scene | None:
    """How many there are of a colour or a shape; the number is drawn first, so that no number is much likelier than the others."""
    wanted = rng.randint(1, len(things)) if rng.random() < 0.85 else 0
    found = {
        (key, value): tuple(i for i, t in enumerate(things) if getattr(t, key) == value)
        for key, values in (("colour", COLOURS), ("shape", SHAPES))
        for value in values
    }
    fitting = [(key, value) for (key, value), which in found.items() if len(which) == wanted]
    if not fitting:
        return None
    key, value = rng.choice(fitting)
    return _scene(things, {"family": "count", "target": {"shape": "shape", key: value}}, found[key, value], 2)


def _pair(rng: random.Random, things: tuple[Thing, ...], family: str) -> Scene | None:
    """About two things; whichever comes first is drawn, so yes and no are equally likely."""
    i, j = rng.sample(range(len(things)), 2)
    relation = rng.choice(("left of", "right of", "above", "below", "larger than", "smaller than"))
    a, b = things[i], things[j]
    assert a.box is not None and b.box is not None
    axis = {"left of": 0, "right of": 0, "above": 1, "below": 1}.get(relation)
    if holds(relation, a, b) is None or (axis is not None and abs(a.box[axis] + a.box[axis + 2] - b.box[axis] - b.box[axis + 2]) < 24):
        return None
    called = [{"colour": t.colour, "shape": t.shape} for t in (a, b)]
    return _scene(things, {"family": family, "relation": relation, "a": called[0], "b": called[1]}, (i, j), 2)


def _extreme(rng: random.Random, things: tuple[Thing, ...]) -> Scene | None:
    relation = rng.choice(("left of", "right of", "above", "below"))
    order = sorted(things, key=lambda t: sum(holds(relation, t, o) is True for o in things))
    lead = order[-1]
    if not all(t is lead or (holds(relation, lead, t) and _clear(relation, lead, t)) for t in things):
        return None
    query = {"family": "extreme", "relation": relation, "attribute": rng.choice(("colour", "shape", "all"))}
    return _scene(things, query, tuple(range(len(things))), 3)


def _clear(relation: str, a: Thing, b: Thing) -> bool:
    axis = 0 if relation in ("left of", "right of") else 1
    assert a.box is not None and b.box is not None
    return abs(a.box[axis] + a.box[axis + 2] - b.box[axis] - b.box[axis + 2]) >= 16


_PICTURE_FAMILIES: dict[str, Callable[[random.Random, tuple[Thing, ...]], Scene | None]] = {
    "colour": partial(_attribute, attribute="colour"),
    "shape": partial(_attribute, attribute="shape"),
    "size": partial(_attribute, attribute="size"),
    "place": _place,
    "count": _count,
    "relation": partial(_pair, family="relation"),
    "which": partial(_pair, family="which"),
    "extreme": _extreme,
}
_FEWEST = {"relation": 2, "which": 2, "extreme": 2}


def ground(rng: random.Random, side: int) -> Image.Image:
    """A light patchwork of greys, by which two pictures of the same shapes still differ: no picture is in two splits."""
    greys = bytes(rng.randrange(228, 253) for _ in range(PATCHES**2))
    return Image.frombytes("L", (PATCHES, PATCHES), greys).resize((side, side), Image.Resampling.NEAREST).convert("RGB")


def draw_picture(things: tuple[Thing, ...], on: Image.Image) -> Image.Image:
    """Shapes on a copy of a ground."""
    image = on.copy()
    pen = ImageDraw.Draw(image)
    for thing in things:
        _draw(pen, thing)
    return image


def _draw(pen: ImageDraw.ImageDraw, thing: Thing) -> None:
    assert thing.box is not None
    x0, y0, x1, y1 = thing.box
    last, fill = (x0, y0, x1 - 1, y1 - 1), RGB[thing.colour]
    if thing.shape == "circle":
        pen.ellipse(last, fill)
    elif thing.shape == "triangle":
        pen.polygon([((x0 + x1 - 1) / 2, y0), (x1 - 1, y1 - 1), (x0, y1 - 1)], fill)
    elif thing.shape == "cross":
        third = (x1 - x0) // 3
        pen.rectangle((x0 + third, y0, x1 - 1 - third, y1 - 1), fill)
        pen.rectangle((x0, y0 + third, x1 - 1, y1 - 1 - third), fill)
    else:
        pen.rectangle(last, fill)


def chart(rng: random.Random, split: str) -> Scene:
    """Two to four bars (five in "test_more") of different colours, values 1 to 9, and a question. "test_pairs": unseen colour and value."""
    while True:
        count = ONE_MORE if split == "test_more" else rng.randint(2, MOST_SEEN)
        bars = tuple(_bar(rng, colour, i, split == "test_pairs") for i, colour in enumerate(rng.sample(COLOURS, count)))
        scene = _ask_chart(rng, bars)
        if scene is not None and (split != "test_pairs" or any((t.colour, t.value) in UNSEEN_BARS for t in scene.shown)):
            return scene


def _bar(rng: random.Random, colour: str, index: int, unseen: bool) -> Thing:
    value = next(v for v in _values(rng) if unseen or (colour, v) not in UNSEEN_BARS)
    x = MARGIN + PITCH * index
    return Thing(colour, "bar", box=(x, BASELINE - UNIT * value, x + WIDTH, BASELINE), value=value)


def _values(rng: random.Random) -> Iterator[int]:
    while True:
        yield rng.randint(1, 9)


def _ask_chart(rng: random.Random, bars: tuple[Thing, ...]) -> Scene | None:
    family = rng.choice(("bar", "sum", "sum", "relation", "extreme"))
    everything = tuple(range(len(bars)))
    if family == "extreme":
        relation = rng.choice(("higher than", "lower than"))
        single = sum(all(o is t or holds(relation, t, o) for o in bars) for t in bars) == 1
        query: Query = {"family": family, "relation": relation, "attribute": "colour"}
        return Scene("charts", (SIDE, SIDE), bars, query, everything, 3) if single else None
    i, j = rng.sample(everything, 2)
    a, b = ({"colour": bars[k].colour, "shape": "bar"} for k in (i, j))
    if family == "bar":
        return Scene("charts", (SIDE, SIDE), bars, {"family": "bar", "target": a}, (i,), 1)
    if family == "relation":
        query = {"family": family, "relation": rng.choice(("higher than", "lower than")), "a": a, "b": b}
        return Scene("charts", (SIDE, SIDE), bars, query, (i, j), 2) if bars[i].value != bars[j].value else None
    sign = rng.choice("+-")
    if sign == "-" and (bars[i].value or 0) < (bars[j].value or 0):
        i, j, a, b = j, i, b, a
    return Scene("charts", (SIDE, SIDE), bars, {"family": "sum", "sign": sign, "a": a, "b": b}, (i, j), 2)


def draw_chart(bars: tuple[Thing, ...], on: Image.Image) -> Image.Image:
    """Bars over a grid with a line per unit, darker at 5, on a copy of a ground."""
    image = on.copy()
    pen = ImageDraw.Draw(image)
    for unit in range(10):
        y = BASELINE - UNIT * unit
        pen.line((0, y, SIDE - 1, y), (90, 90, 90) if unit in (0, 5) else (180, 180, 180))
    for bar in bars:
        assert bar.box is not None
        x0, y0, x1, y1 = bar.box
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), RGB[bar.colour])
    return image
