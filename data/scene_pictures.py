"""Pictures of one to five shapes, and bar charts: what is in them, what is asked about them, and the drawing."""

import random
from collections.abc import Callable, Iterator
from functools import cache, partial

from PIL import Image, ImageDraw

from data.scene_logic import COLOURS, SHAPES, SIZES, Box, Query, Thing, holds
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
    """A picture and a question about it, each family equally often.

    In "test_pairs" the evidence has an unseen pair, in "test_more" there is one shape more than in training.
    """
    family = rng.choice(tuple(_PICTURE_FAMILIES))
    while True:
        scene = _PICTURE_FAMILIES[family](rng, split)
        if scene is not None and (split != "test_pairs" or any((t.colour, t.shape) in UNSEEN_SHAPES for t in scene.shown)):
            return scene


def _distinct(rng: random.Random, split: str, fewest: int = 1) -> tuple[Thing, ...]:
    """`fewest` or more shapes of which no two look the same; () when no room was found."""
    count = ONE_MORE if split == "test_more" else rng.randint(fewest, MOST_SEEN)
    unseen = rng.sample(pairs(unseen=True), min(2, count)) if split == "test_pairs" else []
    return _placed(rng, unseen + rng.sample(pairs(unseen=False), count - len(unseen)))


def _placed(rng: random.Random, looks: list[Pair]) -> tuple[Thing, ...]:
    """Shapes of these looks at places that do not touch, listed from left to right; () when no room was found."""
    rng.shuffle(looks)
    things: list[Thing] = []
    for colour, shape in looks:
        size = rng.choice(SIZES)
        box = _free_box(rng, SIDES[size], things)
        if box is None:
            return ()
        things.append(Thing(colour, shape, size, box))
    return tuple(sorted(things, key=lambda t: t.box or ()))


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


def _attribute(rng: random.Random, split: str, attribute: str) -> Scene | None:
    """About the one thing that its other attributes tell apart."""
    things = _distinct(rng, split)
    if not things:
        return None
    i = rng.randrange(len(things))
    thing, asks = things[i], {"colour": ("shape",), "shape": ("colour",), "size": ("colour", "shape")}[attribute]
    target = {"shape": "shape"} | {key: getattr(thing, key) for key in asks}
    alike = [t for t in things if all(getattr(t, key) == getattr(thing, key) for key in asks)]
    if len(alike) > 1:
        if attribute == "size" or sum(t.size == thing.size for t in alike) > 1:
            return None
        target["size"] = thing.size
    return _scene(things, {"family": "attribute", "attribute": attribute, "target": target}, (i,), 1)


def _place(rng: random.Random, split: str) -> Scene | None:
    things = _distinct(rng, split)
    if not things:
        return None
    i = rng.randrange(len(things))
    thing = things[i]
    assert thing.box is not None
    if any(abs(thing.box[axis] + thing.box[axis + 2] - SIDE) < 2 * GAP for axis in (0, 1)):
        return None
    query = {"family": "place", "target": {"colour": thing.colour, "shape": thing.shape}, "canvas": [SIDE, SIDE]}
    return _scene(things, query, (i,), 1)


def _count(rng: random.Random, split: str) -> Scene | None:
    """How many there are of a colour or a shape; the number is drawn first, so that none is likelier than the others."""
    number = rng.randint(0, ONE_MORE if split == "test_more" else MOST_SEEN)
    count = ONE_MORE if split == "test_more" else rng.randint(max(1, number), MOST_SEEN)
    first, part = rng.choice(pairs(unseen=split == "test_pairs")), rng.randrange(2)
    seen, wanted = pairs(unseen=False), first[part]
    alike, others = [p for p in seen if p[part] == wanted], [p for p in seen if p[part] != wanted]
    looks = [first, *(rng.choice(alike) for _ in range(number - 1))][:number] + [rng.choice(others) for _ in range(count - number)]
    things = _placed(rng, looks)
    key = ("colour", "shape")[part]
    found = tuple(i for i, t in enumerate(things) if getattr(t, key) == wanted)
    return _scene(things, {"family": "count", "target": {"shape": "shape", key: wanted}}, found, 2) if things else None


def _pair(rng: random.Random, split: str, family: str) -> Scene | None:
    """About two things; whichever comes first is drawn, so yes and no are equally likely."""
    things = _distinct(rng, split, fewest=2)
    if not things:
        return None
    i, j = rng.sample(range(len(things)), 2)
    relation = rng.choice(("left of", "right of", "above", "below", "larger than", "smaller than"))
    a, b = things[i], things[j]
    assert a.box is not None and b.box is not None
    axis = {"left of": 0, "right of": 0, "above": 1, "below": 1}.get(relation)
    if holds(relation, a, b) is None or (axis is not None and abs(a.box[axis] + a.box[axis + 2] - b.box[axis] - b.box[axis + 2]) < 24):
        return None
    called = [{"colour": t.colour, "shape": t.shape} for t in (a, b)]
    return _scene(things, {"family": family, "relation": relation, "a": called[0], "b": called[1]}, (i, j), 2)


def _extreme(rng: random.Random, split: str) -> Scene | None:
    things = _distinct(rng, split, fewest=2)
    relation = rng.choice(("left of", "right of", "above", "below"))
    lead = next((t for t in things if all(o is t or (holds(relation, t, o) and _clear(relation, t, o)) for o in things)), None)
    query = {"family": "extreme", "relation": relation, "attribute": rng.choice(("colour", "shape", "all"))}
    return _scene(things, query, tuple(range(len(things))), 3) if lead else None


def _clear(relation: str, a: Thing, b: Thing) -> bool:
    axis = 0 if relation in ("left of", "right of") else 1
    assert a.box is not None and b.box is not None
    return abs(a.box[axis] + a.box[axis + 2] - b.box[axis] - b.box[axis + 2]) >= 16


_PICTURE_FAMILIES: dict[str, Callable[[random.Random, str], Scene | None]] = {
    "colour": partial(_attribute, attribute="colour"),
    "shape": partial(_attribute, attribute="shape"),
    "size": partial(_attribute, attribute="size"),
    "place": _place,
    "count": _count,
    "relation": partial(_pair, family="relation"),
    "which": partial(_pair, family="which"),
    "extreme": _extreme,
}


def ground(rng: random.Random, side: int) -> Image.Image:
    """A light patchwork, by which two pictures of the same shapes still differ: no picture is in two splits.

    Red grows from left to right and blue from top to bottom, as under a light from one side: the towers of the families trained here know
    places only relative to each other, and a model too small to work out the rest can tell from the ground where it looks.
    """
    across, down = _slopes(side)
    patches = Image.frombytes("L", (PATCHES, PATCHES), bytes(rng.randrange(228, 253) for _ in range(PATCHES**2)))
    return Image.merge("RGB", (across, patches.resize((side, side), Image.Resampling.NEAREST), down))


@cache
def _slopes(side: int) -> tuple[Image.Image, Image.Image]:
    """Brighter from left to right, and from top to bottom."""
    down = Image.linear_gradient("L").resize((side, side)).point([200 + 55 * level // 255 for level in range(256)])
    return down.transpose(Image.Transpose.TRANSPOSE), down


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
