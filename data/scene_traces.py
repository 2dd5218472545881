"""Traces about scenes held against the truth. `verify_trace` is what an exact judge sees: which claims are true, which boxes hold what they
say, whether the conclusion follows, whether it is right. The grammar of traces is in `scene_reading`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from data.scene_logic import Box, Facts, Thing, answer, holds, iou, matches, motion, place
from data.scene_reading import Moves, NoneSeen, Related, Said, Seen, Sum, Total, read_trace
from data.scene_types import Scene, scene_from

HOLDS_AT = 0.5


@dataclass(frozen=True)
class Claim:
    """One thing said. `true` is None where the scene cannot tell. `iou` is the overlap of the box with what it is said to hold (0.0 when
    there is no such thing), None when no box was given.
    """

    text: str
    true: bool | None
    box: Box | None = None
    iou: float | None = None

    @property
    def box_holds(self) -> bool | None:
        """Whether the box holds what it is said to hold: an intersection over union of HOLDS_AT or more."""
        return None if self.iou is None else self.iou >= HOLDS_AT


@dataclass(frozen=True)
class TraceTruth:
    """A trace held against its scene.

    `conclusion` is the last stated answer, None without one. `follows`: the claims, true or not, entail it. `correct`: it is the gold
    answer. `unread` counts the sentences outside the grammar.
    """

    claims: tuple[Claim, ...]
    conclusion: str | None
    follows: bool
    correct: bool
    unread: int

    @cached_property
    def claim_truth(self) -> float | None:
        """Share of true claims among those that can be told, None without any."""
        told = [claim.true for claim in self.claims if claim.true is not None]
        return sum(told) / len(told) if told else None

    @cached_property
    def box_truth(self) -> float | None:
        """Share of boxes that hold what they are said to hold, None without boxes."""
        told = [claim.box_holds for claim in self.claims if claim.box_holds is not None]
        return sum(told) / len(told) if told else None

    @property
    def sound(self) -> bool:
        """All claims true, all boxes right, nothing unread, and the right conclusion follows."""
        return self.claim_truth == 1 and self.box_truth in (None, 1) and not self.unread and self.follows and self.correct


def verify_trace(trace: str, scene: Scene | Mapping[str, Any]) -> TraceTruth:
    """Hold a trace (or a whole response) against the truth of its scene (a Scene, or a row's meta["scene"]).

    A thing claimed is true when the scene has one with every attribute said, at the time said, left over by the claims before it; saying
    the very same again is as true as the first time. A box is held against things of the said colour and shape only. "That makes N" can
    be told only of a counting question. Raises ValueError when `scene` is no scene.
    """
    truth = scene if isinstance(scene, Scene) else scene_from(scene)
    reading = read_trace(trace)
    found = _Found(truth.things)
    claims = tuple(_hold(text, said, truth, found) for text, said in reading.said)
    entailed = answer(truth.query, reading.facts)
    said = reading.conclusion
    return TraceTruth(
        claims, said, said is not None and _same(entailed, said), said is not None and _same(truth.gold, said), reading.unread
    )


def _same(a: str | None, b: str) -> bool:
    return a is not None and _plain(a) == _plain(b)


def _plain(text: str) -> str:
    return re.sub(r"^(?:an?|the) ", "", " ".join(text.lower().strip(" .\"'").split()))


def _hold(text: str, said: Said, scene: Scene, found: "_Found") -> Claim:
    things = scene.things
    if isinstance(said, Seen):
        return Claim(text, found.has(said), said.thing.box, _overlap(said.thing, things))
    if isinstance(said, NoneSeen):
        return Claim(text, not any(_fits(thing, said.thing) for thing in things))
    if isinstance(said, Related):
        return Claim(text, _related(said, things))
    if isinstance(said, Total):
        return Claim(text, str(said.count) == scene.gold if scene.query["family"] == "count" else None)
    if isinstance(said, Sum):
        return Claim(text, (said.a + said.b if said.sign == "+" else said.a - said.b) == said.result)
    spoken_of = [thing for thing in things if _fits(thing, said.thing)]
    if said.thing == Thing():
        return Claim(text, None)
    return Claim(text, _moves(said.way, spoken_of) if isinstance(said, Moves) else _is_at(said.place, spoken_of, scene))


class _Found:
    """Which claims are about which things: as many claims as possible get a thing each, earlier ones before later ones."""

    def __init__(self, things: tuple[Thing, ...]):
        self._things = things
        self._owner: dict[int, Seen] = {}
        self._told: dict[Seen, bool] = {}

    def has(self, said: Seen) -> bool:
        if said not in self._told:
            self._told[said] = self._find(said, set())
        return self._told[said]

    def _find(self, said: Seen, tried: set[int]) -> bool:
        """Whether the claim gets a thing, if need be one whose claim can do with another: an augmenting path of bipartite matching."""
        for i in self._fitting(said.thing):
            if i not in tried:
                tried.add(i)
                if i not in self._owner or self._find(self._owner[i], tried):
                    self._owner[i] = said
                    return True
        return False

    def _fitting(self, claimed: Thing) -> list[int]:
        return [i for i, thing in enumerate(self._things) if _fits(thing, claimed)]


def _overlap(claimed: Thing, things: tuple[Thing, ...]) -> float | None:
    if claimed.box is None:
        return None
    alike = Thing(claimed.colour, claimed.shape, time=claimed.time)
    return max((iou(claimed.box, thing.box) for thing in things if thing.box and _fits(thing, alike)), default=0.0)


def _fits(thing: Thing, said: Thing) -> bool:
    """Whether the thing has every attribute said; its box is another matter."""
    target = {key: value for key, value in (("colour", said.colour), ("shape", said.shape), ("size", said.size)) if value}
    return matches(thing, target) and said.value in (None, thing.value) and said.time in (None, thing.time)


def _related(said: Related, things: tuple[Thing, ...]) -> bool | None:
    """False when the scene lacks a thing spoken of; None when neither way round is so, or it depends on which of several is meant."""
    first, second = (_earliest([t for t in things if _fits(t, side)]) for side in (said.a, said.b))
    if not first or not second:
        return False
    verdicts = {holds(said.relation, a, b) for a in first for b in second if a is not b}
    return verdicts.pop() if len(verdicts) == 1 else None


def _earliest(things: list[Thing]) -> list[Thing]:
    """Of sightings the first ones, of other things all."""
    start = min((thing.time for thing in things if thing.time is not None), default=None)
    return [thing for thing in things if thing.time == start]


def _moves(way: str, things: list[Thing]) -> bool | None:
    """None when several things are meant."""
    if len({thing.time for thing in things}) < len(things):
        return None
    return motion({"target": {}}, Facts(tuple(things))) == way


def _is_at(quarter: str, things: list[Thing], scene: Scene) -> bool | None:
    """None when the things meant are in different quarters, or one is so at different times."""
    quarters = {place(thing.box, scene.canvas) for thing in things if thing.box}
    return None if len(quarters) > 1 else quarter in quarters
