"""Traces about scenes read back into what they claim. It does not know whether that is true.

The grammar, sentence by sentence, letter case ignored:

    I see a small red circle [8,12,28,32] and a blue square [60,20,92,52].     I see no red shape.
    At 2 s I see a red circle [8,12,32,36].
    The red bar [8,54,24,104] is 5.
    The red circle is left of the blue square.      That makes 3.      5 - 3 = 2.
    The red circle moves right.                     The red circle is at the top left.
    The answer is red.

Boxes are [x0,y0,x1,y1] in pixels of the picture as the model reads it. A sentence outside the grammar claims nothing and is counted.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from data.scene_logic import COLOURS, DIRECTIONS, PLACES, RELATIONS, SHAPES, SIZES, Box, Facts, Thing

MOST_CHARACTERS = 20_000

_BOX = r"\[\s*-?\d{1,5}\s*,\s*-?\d{1,5}\s*,\s*-?\d{1,5}\s*,\s*-?\d{1,5}\s*\]"
_THING = rf"(?:(?:{'|'.join(SIZES)}) )?(?:(?:{'|'.join(COLOURS)}) )?(?:{'|'.join(SHAPES)}|shape|bar)"
_SEEN = rf"(?:an? |the |another )?{_THING}(?: ?{_BOX})?"
_SENTENCE_END = re.compile(r"\.(?:\s+|$)|\n+")
_SEE = re.compile(rf"(?:at (?P<time>\d{{1,3}}) s,? )?i see (?P<seen>{_SEEN}(?:(?:,| and|, and) {_SEEN}){{0,30}})")
_NONE = re.compile(rf"(?:at (?P<time>\d{{1,3}}) s,? )?i see (?:nothing|no (?P<thing>{_THING})(?:e?s)?)")
_BAR = re.compile(rf"the (?P<thing>{_THING}) ?(?P<box>{_BOX})? ?is (?P<value>\d{{1,3}})")
_RELATION = re.compile(rf"the (?P<a>{_THING}) is (?:seen )?(?P<relation>{'|'.join(RELATIONS)}) the (?P<b>{_THING})")
_TOTAL = re.compile(r"that makes (?P<total>\d{1,3})")
_SUM = re.compile(r"(?P<a>\d{1,4}) (?P<sign>[+-]) (?P<b>\d{1,4}) = (?P<result>-?\d{1,5})")
_MOVE = re.compile(rf"(?:it|the (?P<thing>{_THING})) moves (?P<way>{'|'.join(DIRECTIONS)})")
_AT = re.compile(rf"(?:it|the (?P<thing>{_THING})) is at the (?P<place>{'|'.join(PLACES)})")
_CONCLUSION = re.compile(r"(?:so )?the answer is:? (?P<answer>.{1,200})")
_ITEM = re.compile(rf"(?P<another>another )?(?P<thing>{_THING})(?: ?(?P<box>{_BOX}))?")


@dataclass
class Reading:
    """What a trace says, in order, as (text, what is claimed), and the facts that makes. `read_trace` fills it.

    `alike` counts how many things are said to be seen that are described in the same words.
    """

    said: list[tuple[str, "Said"]] = field(default_factory=list)
    conclusion: str | None = None
    unread: int = 0
    alike: Counter[Thing] = field(default_factory=Counter)

    def of(self, kind: type["_Said"]) -> list[Any]:
        return [said for _, said in self.said if isinstance(said, kind)]

    @property
    def facts(self) -> Facts:
        totals = self.of(Total)
        return Facts(
            things=tuple(said.thing for said in dict.fromkeys(self.of(Seen))),
            relations=tuple((said.relation, said.a, said.b) for said in self.of(Related)),
            total=totals[-1].count if totals else None,
            sums=tuple(said.result for said in self.of(Sum)),
            moves=tuple((said.thing, said.way) for said in self.of(Moves)),
            places=tuple((said.thing, said.place) for said in self.of(At)),
            absent=tuple(said.thing for said in self.of(NoneSeen)),
        )


class _Said:
    """Something claimed."""


@dataclass(frozen=True)
class Seen(_Said):
    """Equal ones are one thing. `again` tells apart those said alike without boxes: "a circle and a circle", "another circle"."""

    thing: Thing
    again: int = 0


@dataclass(frozen=True)
class NoneSeen(_Said):
    thing: Thing


@dataclass(frozen=True)
class Related(_Said):
    relation: str
    a: Thing
    b: Thing


@dataclass(frozen=True)
class Total(_Said):
    count: int


@dataclass(frozen=True)
class Sum(_Said):
    a: int
    sign: str
    b: int
    result: int


@dataclass(frozen=True)
class Moves(_Said):
    thing: Thing
    way: str


@dataclass(frozen=True)
class At(_Said):
    thing: Thing
    place: str


Said = Seen | NoneSeen | Related | Total | Sum | Moves | At


def read_trace(trace: str) -> Reading:
    """The claims of a trace; of a whole response, those inside its think block. At most MOST_CHARACTERS are read."""
    text = trace[:MOST_CHARACTERS].lower()
    if "<think>" in text:
        text = text.partition("<think>")[2]
    text = text.partition("</think>")[0].partition("<answer>")[0]
    reading = Reading()
    for sentence in _SENTENCE_END.split(text):
        _read(" ".join(sentence.split()).rstrip("."), reading)
    return reading


def _read(sentence: str, reading: Reading) -> None:
    if not sentence:
        return
    if match := _CONCLUSION.fullmatch(sentence):
        reading.conclusion = match["answer"].strip().rstrip(".")
        return
    for pattern, read in _READERS:
        if match := pattern.fullmatch(sentence):
            reading.said += read(match, reading)
            return
    reading.unread += 1


def _thing(words: str, **known: Any) -> Thing:
    """ "a small red circle" as a Thing; what is not said stays open."""
    found: dict[str, Any] = {}
    for word in words.split():
        for key, values in (("size", SIZES), ("colour", COLOURS), ("shape", (*SHAPES, "bar"))):
            found |= {key: word} if word in values else {}
    return Thing(**found, **known)


def _box(text: str | None) -> Box | None:
    if not text:
        return None
    x0, y0, x1, y1 = (int(number) for number in text.strip("[] ").split(","))
    return x0, y0, x1, y1


def _see(match: re.Match[str], reading: Reading) -> list[tuple[str, Said]]:
    said: list[tuple[str, Said]] = []
    here: Counter[Thing] = Counter()
    for item in _ITEM.finditer(match["seen"]):
        thing = _thing(item["thing"], box=_box(item["box"]), time=_time(match))
        again = 0 if thing.box else (reading.alike if item["another"] else here)[thing]
        here[thing] = again + 1
        reading.alike[thing] = max(reading.alike[thing], again + 1)
        said.append((item[0], Seen(thing, again)))
    return said


def _time(match: re.Match[str]) -> int | None:
    return None if match["time"] is None else int(match["time"])


def _spoken_of(match: re.Match[str], reading: Reading) -> Thing:
    """The thing named; "it" is the one seen last."""
    if match["thing"]:
        return _thing(match["thing"])
    seen = [said.thing for said in reading.of(Seen)]
    return Thing(seen[-1].colour, seen[-1].shape, seen[-1].size) if seen else Thing()


_READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Reading], list[tuple[str, Said]]]], ...] = (
    (_NONE, lambda m, _: [(m[0], NoneSeen(_thing(m["thing"] or "", time=_time(m))))]),
    (_SEE, _see),
    (_BAR, lambda m, _: [(m[0], Seen(_thing(m["thing"], box=_box(m["box"]), value=int(m["value"]))))]),
    (_RELATION, lambda m, _: [(m[0], Related(m["relation"], _thing(m["a"]), _thing(m["b"])))]),
    (_TOTAL, lambda m, _: [(m[0], Total(int(m["total"])))]),
    (_SUM, lambda m, _: [(m[0], Sum(int(m["a"]), m["sign"], int(m["b"]), int(m["result"])))]),
    (_MOVE, lambda m, reading: [(m[0], Moves(_spoken_of(m, reading), m["way"]))]),
    (_AT, lambda m, reading: [(m[0], At(_spoken_of(m, reading), m["place"]))]),
)
