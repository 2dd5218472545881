"""Traces and captions written from scenes: right ones, and wrong ones that hang together. It reads none and checks none."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from data.scene_logic import COLOURS, SHAPES, SIZES, Box, Facts, Query, Thing, answer, iou, name
from data.scene_types import MOST, Scene

TRIES = 60


def trace(scene: Scene, things: Sequence[Thing] | None = None, conclusion: str | None = None) -> str:
    """The shortest trace of the grammar that shows the answer, from the scene's evidence or from `things` said in its stead.

    Without `conclusion` it ends with what follows from them. "I see a small red circle [8,12,28,32]. The answer is red."
    """
    shown = scene.shown if things is None else tuple(things)
    follows = answer(scene.query, _facts(shown))
    ends = conclusion if conclusion is not None else follows if follows is not None else scene.gold
    return " ".join([*_observations(scene, shown, boxes=True), *_steps(scene.query, shown), f"The answer is {ends}."])


def caption(scene: Scene, things: Sequence[Thing] | None = None) -> str:
    """What the trace says before its conclusion, without boxes; and which one lies furthest out, where that is asked and boxes tell it."""
    shown = scene.shown if things is None else tuple(things)
    said = " ".join([*_observations(scene, shown, boxes=False), *_steps(scene.query, shown), *_furthest(scene, shown)])
    return said.replace(" s I see ", " s there is ").replace("I see ", "There is ")


def mislead(scene: Scene, wrong: Sequence[str], rng: random.Random) -> tuple[tuple[Thing, ...], str] | None:
    """Evidence changed so that one of the `wrong` answers follows (any wrong one when none are listed), and that answer.

    None when no change that was tried leads there.
    """
    for _ in range(TRIES):
        things = list(scene.shown) or [_invented(scene.query)]
        for _ in range(rng.randint(1, 2)):
            things = _in_order(scene.query, _changed(scene, things, rng))
        follows = answer(scene.query, _facts(tuple(things)))
        if follows is not None and (follows in wrong if wrong else follows != scene.gold):
            return tuple(things), follows
    return None


def _in_order(query: Query, things: list[Thing]) -> list[Thing]:
    """As right traces have them: by second, and from left to right unless two things are spoken of in the question's order."""
    free = query["family"] in ("count", "extreme")
    return sorted(things, key=lambda t: (t.time or 0, t.box if t.box and free else ()))


def _facts(things: tuple[Thing, ...]) -> Facts:
    return Facts(things, absent=() if things else (Thing(),))


def _invented(query: Query) -> Thing:
    target = query["target"]
    return Thing(target.get("colour", COLOURS[0]), SHAPES[0] if target["shape"] == "shape" else target["shape"], SIZES[0], (20, 20, 40, 40))


def _changed(scene: Scene, things: list[Thing], rng: random.Random) -> list[Thing]:
    """One thing with an attribute or its place changed, two that change places, or, where they are counted, one fewer or more."""
    i = rng.randrange(len(things))
    counted, several = scene.query["family"] == "count", len(things) > 1
    kind = rng.choice(["attribute", "move", *["exchange"] * several, *["drop"] * (counted and several), *["add"] * counted])
    if kind == "drop":
        return things[:i] + things[i + 1 :]
    if kind == "add":
        return [*things, moved(things[i], scene.canvas, rng)]
    if kind == "exchange":
        j = (i + 1) % len(things)
        a, b = things[i], things[j]
        things[i] = replace(a, box=b.box, time=b.time, size=b.size, value=b.value)
        things[j] = replace(b, box=a.box, time=a.time, size=a.size, value=a.value)
        return things
    things[i] = moved(things[i], scene.canvas, rng) if kind == "move" else altered(things[i], rng)
    return things


def altered(thing: Thing, rng: random.Random) -> Thing:
    """The thing with its colour, shape, size, value or second changed to another."""
    changes: dict[str, list[Any]] = {"colour": [c for c in COLOURS if c != thing.colour]}
    if thing.shape in SHAPES:
        changes["shape"] = [s for s in SHAPES if s != thing.shape]
    if thing.size:
        changes["size"] = [s for s in SIZES if s != thing.size]
    if thing.value is not None:
        changes["value"] = [v for v in range(1, 10) if v != thing.value]
    if thing.time is not None:
        changes["time"] = [t for t in range(4) if t != thing.time]
    key = rng.choice(sorted(changes))
    changed: dict[str, Any] = {key: rng.choice(changes[key])}
    return replace(thing, **changed)


def moved(thing: Thing, canvas: tuple[int, int], rng: random.Random) -> Thing:
    """The thing with its box somewhere else, overlapping the true one by less than half."""
    if thing.box is None:
        return thing
    width, height = thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]
    for _ in range(20):
        x, y = rng.randrange(0, canvas[0] - width + 1, 4), rng.randrange(0, canvas[1] - height + 1, 4)
        box: Box = (x, y, x + width, y + height)
        if iou(box, thing.box) < 0.5:
            return replace(thing, box=box)
    return replace(thing, box=(0, 0, *canvas))


def _observations(scene: Scene, things: tuple[Thing, ...], boxes: bool) -> list[str]:
    if not things:
        return [f"I see no {name(scene.query['target'])}."]
    if scene.world == "charts":
        return [f"The {name(t)}{_box(t, boxes)} is {t.value}." for t in things]
    sentences = []
    for time, seen in groupby(things, key=lambda t: t.time):
        items = [f"a {name(t)}{_box(t, boxes)}" for t in seen]
        listed = ", ".join(items[:-1]) + (" and " if items[1:] else "") + items[-1]
        sentences.append(f"At {time} s I see {listed}." if time is not None else f"I see {listed}.")
    return sentences


def _furthest(scene: Scene, things: tuple[Thing, ...]) -> list[str]:
    if scene.query["family"] != "extreme" or scene.world != "pictures":
        return []
    return [f"The {MOST[scene.query['relation']]} shape is {answer({**scene.query, 'attribute': 'all'}, _facts(things))}."]


def _box(thing: Thing, wanted: bool) -> str:
    return f" [{','.join(map(str, thing.box))}]" if wanted and thing.box is not None else ""


def _steps(query: Query, things: tuple[Thing, ...]) -> list[str]:
    """What is reckoned from what was seen, for the families that need a step."""
    follows = answer(query, _facts(things))
    family = query["family"]
    if follows is None:
        return []
    if family == "count":
        return [f"That makes {follows}."] if things else []
    if family in ("relation", "which"):
        first, second = name(query["a"]), name(query["b"])
        if follows in ("no", second):
            first, second = second, first
        return [f"The {first} is {'seen ' if query['relation'] in ('before', 'after') else ''}{query['relation']} the {second}."]
    if family == "sum":
        a, b = (next(t.value for t in things if t.colour == query[key]["colour"]) for key in ("a", "b"))
        return [f"{a} {query['sign']} {b} = {follows}."]
    verb = {"motion": "moves", "place": "is at the"}.get(family)
    return [f"The {name(query['target'])} {verb} {follows}."] if verb else []
