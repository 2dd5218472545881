"""Boxes that a model writes: found in its text, read in the convention its config names, made whole pixels of the picture.

    [8,12,28,32]                        plain, as in "I see a red circle [8,12,28,32]"
    "bbox_2d": [8, 12, 28, 32]          JSON or nearly so; keys may repeat within one object (GRIT, arXiv 2505.15879)
    <box>[[8,12,28,32]]</box>           and <|box_start|>(8,12),(28,32)<|box_end|>, or (8,12),(28,32) where a tokenizer hides its tags

The convention belongs to the checkpoint: it is given, never guessed from the numbers (`boxes_selftest` tries it out). What cannot be used
is rejected with a reason. Model output is hostile: reading is linear in the length of the text and runs nothing. Geometry: `data.boxes`.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

from data.boxes import distinct, fitted
from vlm_rl.errors import UserError
from vlm_rl.types import Box

Convention = Literal["abs_original", "abs_resized", "rel_1", "rel_1000"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
Reason = Literal["syntax", "count", "number", "order", "outside", "thin", "source", "many"]
MOST_BOXES = 16
MOST_SPOKEN = 1000  # are looked at, so that a response of nothing but boxes takes no longer than any other
MOST_RATIO = 100.0  # of a crop's sides; processors refuse 200

_NUMBER = r"[-+]?(?:[0-9]{1,15}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][-+]?[0-9]{1,3})?"
_ITEM = rf"\s{{0,9}}(?:{_NUMBER}|nan|[-+]?inf(?:inity)?)\s{{0,9}}"
_PLAIN = re.compile(
    rf"\[(?P<list>{_ITEM}(?:,{_ITEM}){{3}})\]|(?P<points>\({_NUMBER},{_NUMBER}\),\({_NUMBER},{_NUMBER}\))", re.IGNORECASE | re.ASCII
)
_INSIDE = r"[^\[\]]{0,200}(?:\[[^\[\]]{0,200}\][^\[\]]{0,200}){0,16}"
_DECLARED = re.compile(
    rf"bbox_2d[\"']?\s{{0,9}}:\s{{0,9}}(?:\[(?P<keyed>{_INSIDE})\])?"
    r"|(?:<box>|<\|box_start\|>)(?:(?P<tagged>[^<>]{0,400})(?:</box>|<\|box_end\|>))?"
)
_INNER = re.compile(r"\[([^\[\]]*)\]")
_SOURCE = re.compile(r"[\"'](source|target_image)[\"']\s{0,9}:\s{0,9}[\"']?([\w.-]{0,40})")
_NEAR = 200  # characters around a box in which its source is looked for


@dataclass(frozen=True)
class Picture:
    """What boxes are read on: its size in pixels, upright; `seen` is (height, width) as the model saw it, where that is known.

    A crop has its `corner` (left, top) in the picture it was cut from.
    """

    width: float
    height: float
    seen: tuple[int, int] | None = None
    corner: tuple[float, float] = (0, 0)


@dataclass(frozen=True)
class Rejected:
    """A box that cannot be used.

    syntax: announced, and nothing that can be read follows. count: not four numbers. number: one of them is none. order: left >= right or
    top >= bottom. outside: nothing of it lies on the picture. thin: sides in a ratio above MOST_RATIO. source: on a picture that is not
    there. many: beyond the number that is cut out.
    """

    text: str
    reason: Reason


@dataclass(frozen=True)
class Reading:
    """`boxes`: whole pixels of the picture, as they are cut out, in order, nearly equal ones once. `rejected`: the others."""

    boxes: tuple[Box, ...]
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True)
class Spoken:
    """A box as it was written: its numbers, or why there are not four. `source` 0 is the picture, i its i-th crop, None neither."""

    text: str
    numbers: Box | Reason
    source: int | None = 0


def spoken(text: str) -> Iterator[Spoken]:
    """The first MOST_SPOKEN boxes of a text, in order. Where keys or tags say what is a box, other lists of four numbers are none."""
    declared = list(islice(_DECLARED.finditer(text), MOST_SPOKEN))
    for match in islice(_PLAIN.finditer(text), MOST_SPOKEN) if not declared else ():
        yield Spoken(match[0], _numbers(match["list"] or match["points"]))
    ends = [0, *(match.end() for match in declared)]
    for match, last in zip(declared, ends, strict=False):
        body = match["keyed"] if match["keyed"] is not None else match["tagged"]
        source = _source(text, match, last)
        for part in _INNER.findall(body or "") or [body]:
            yield Spoken(match[0], "syntax" if part is None else _numbers(part), source)


def to_pixels(numbers: Box, convention: Convention, picture: Picture, pad: float = 0.0) -> Box:
    """In pixels of the picture, neither clamped nor rounded.

    abs_original: as they are. abs_resized: x * W / W_r, y * H / H_r with (H_r, W_r) = `picture.seen`. rel_1: x * W, y * H.
    rel_1000: x * W / 1000, y * H / 1000. `pad` of the picture's size is added on every side, as some crop tools do (Pixel-Reasoner: 0.1).
    On a crop the result is in pixels of what it was cut from. Raises UserError for abs_resized where `seen` is not known.
    """
    across, down = _unit(convention, picture)
    (x, y), (wide, high) = picture.corner, (pad * picture.width, pad * picture.height)
    left, top, right, bottom = numbers
    return x + left * across - wide, y + top * down - high, x + right * across + wide, y + bottom * down + high


def read_boxes(text: str, convention: Convention, picture: Picture, pad: float = 0.0, most: int = MOST_BOXES) -> Reading:
    """What the boxes of a text cut out of the picture: clamped to it, padded, on whole pixels; at most the first `most` of them."""
    cut: list[Box] = []
    rejected: list[Rejected] = []
    for said in spoken(text):
        outcome = _cut(said, convention, picture, pad, cut) if len(cut) < most else "many"
        if isinstance(outcome, str):
            rejected.append(Rejected(said.text[:_NEAR], outcome))
        else:
            cut.append(outcome)
    return Reading(distinct(cut), tuple(rejected))


def _cut(said: Spoken, convention: Convention, picture: Picture, pad: float, before: Sequence[Box]) -> Box | Reason:
    if isinstance(said.numbers, str):
        return said.numbers
    if said.numbers[0] >= said.numbers[2] or said.numbers[1] >= said.numbers[3]:
        return "order"
    source = _pictured(said.source, picture, before)
    if source is None or (said.source and convention == "abs_resized"):  # nobody knows at which size the crop was seen
        return "source"
    x, y = source.corner
    # Rounded, lest 28.999999999999996 begin a pixel too early.
    left, top, right, bottom = (round(side, 6) for side in to_pixels(said.numbers, convention, source, pad))
    try:
        inside = fitted((left - x, top - y, right - x, bottom - y), int(source.width), int(source.height))
    except ValueError:
        return "outside"
    width, height = inside[2] - inside[0], inside[3] - inside[1]
    if max(width, height) > MOST_RATIO * min(width, height):
        return "thin"
    return inside[0] + x, inside[1] + y, inside[2] + x, inside[3] + y


def _pictured(source: int | None, picture: Picture, before: Sequence[Box]) -> Picture | None:
    if source is None or source > len(before):
        return None
    if source == 0:
        return picture
    left, top, right, bottom = before[source - 1]
    return Picture(right - left, bottom - top, corner=(left, top))


def _unit(convention: Convention, picture: Picture) -> tuple[float, float]:
    """How many pixels one unit is, across and down."""
    if convention == "abs_original":
        return 1.0, 1.0
    if convention != "abs_resized":
        units = 1 if convention == "rel_1" else 1000
        return picture.width / units, picture.height / units
    if picture.seen is None:
        raise UserError(
            "boxes in the convention abs_resized need the size at which the model saw the picture, and the prompt does not say it"
        )
    return picture.width / picture.seen[1], picture.height / picture.seen[0]


def _numbers(text: str) -> Box | Reason:
    parts = [part.strip() for part in text.replace("(", "").replace(")", "").split(",")]
    if len(parts) != 4:
        return "count"
    if not all(re.fullmatch(_NUMBER, part) for part in parts):
        return "number"
    left, top, right, bottom = map(float, parts)
    return (left, top, right, bottom) if all(map(math.isfinite, (left, top, right, bottom))) else "number"


def _source(text: str, match: re.Match[str], last: int) -> int | None:
    """Which picture the box's JSON object names: "source": "original_image" or "observation_2", "target_image": 1 (the picture itself)."""
    start, end = match.span()
    _, opened, before = text[max(last, start - _NEAR) : start].rpartition("{")
    after = re.split(r"\}|bbox_2d", text[end : end + _NEAR], maxsplit=1)[0]
    named = _SOURCE.search((before if opened else "") + after)
    if named is None or named[2] == "original_image":
        return 0
    number = re.fullmatch(r"[1-9][0-9]{0,3}", named[2].removeprefix("observation_") if named[1] == "source" else named[2])
    return int(number[0]) - (named[1] == "target_image") if number else None
