"""Traces about scenes held against the truth. `verify_trace` is what an exact judge sees: which claims are true, which boxes hold what they
say, whether the conclusion follows, whether it is right. The grammar of traces is in `scene_reading`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from data.scene_logic import Box, Facts, Thing, answer, holds, iou, located, matches, motion
from data.scene_reading import At, Moves, NoneSeen, Related, Said, Seen, Sum, Total, read_trace
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

    A thing claimed is true when the scene has one with every attribute said, at the time said, that no earlier claim stands for; saying
    the very same again is as true as the first time. A box is held against things of the said colour and shape only. "That makes N" can
    be told only of a counting question. Raises ValueError when `scene` is no scene.
    """
    truth = scene if isinstance(scene, Scene) else scene_from(scene)
    reading = read_trace(trace)
    taken: dict[Thing, int | None] = {}
    claims = tuple(_hold(text, said, truth, taken) for text, said in reading.said)
    entailed = answer(truth.query, reading.facts)
    said = reading.conclusion
    return TraceTruth(
        claims, said, said is not None and _same(entailed, said), said is not None and _same(truth.gold, said), reading.unread
    )


def _same(a: str | None, b: str) -> bool:
    return a is not None and _plain(a) == _plain(b)


def _plain(text: str) -> str:
    return re.sub(r"^(?:an?|the) ", "", " ".join(text.lower().strip(" .\"'").split()))


def _hold(text: str, said: Said, scene: Scene, taken: dict[Thing, int | None]) -> Claim:
    things = scene.things
    if isinstance(said, Seen):
        return _hold_seen(text, said.thing, things, taken)
    if isinstance(said, NoneSeen):
        return Claim(text, not any(_fits(thing, said.thing) for thing in things))
    if isinstance(said, Related):
        return Claim(text, _related(said, things))
    if isinstance(said, Total):
        return Claim(text, str(said.count) == scene.gold if scene.query["family"] == "count" else None)
    if isinstance(said, Sum):
        return Claim(text, (said.a + said.b if said.sign == "+" else said.a - said.b) == said.result)
    query = {"target": _target(said.thing), "canvas": scene.canvas}
    told, truth = (said.way, motion(query, Facts(things))) if isinstance(said, Moves) else (said.place, located(query, Facts(things)))
    return Claim(text, None if said.thing == Thing() else truth == told)


def _hold_seen(text: str, claimed: Thing, things: tuple[Thing, ...], taken: dict[Thing, int | None]) -> Claim:
    overlap = None
    if claimed.box is not None:
        alike = [t.box for t in things if _fits(t, Thing(claimed.colour, claimed.shape, time=claimed.time)) and t.box]
        overlap = max((iou(claimed.box, box) for box in alike), default=0.0)
    if claimed not in taken:
        free = [i for i, t in enumerate(things) if i not in taken.values() and _fits(t, claimed)]
        taken[claimed] = max(free, key=lambda i: iou(claimed.box, things[i].box or claimed.box) if claimed.box else 0.0, default=None)
    return Claim(text, taken[claimed] is not None, claimed.box, overlap)


def _fits(thing: Thing, said: Thing) -> bool:
    """Whether the thing has every attribute said; its box is another matter."""
    return matches(thing, _target(said)) and said.value in (None, thing.value) and said.time in (None, thing.time)


def _target(said: Thing) -> dict[str, str]:
    return {key: value for key, value in (("colour", said.colour), ("shape", said.shape), ("size", said.size)) if value}


def _related(said: Related, things: tuple[Thing, ...]) -> bool | None:
    """None when the scene does not have the things spoken of, or the relation is not defined between them."""
    first, second = ([t for t in things if _fits(t, Thing(s.colour, s.shape, s.size))] for s in (said.a, said.b))
    if not first or not second:
        return False
    return holds(said.relation, first[0], second[0])
