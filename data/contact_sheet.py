"""Rows as one self-contained HTML page: pictures, frame strips, the prompt's text, options with the right one marked, answer, meta.

Beside each row its views, where some are asked for. Known boxes are drawn: those of the evidence, and those that a demonstration names.
It checks nothing: a row or medium that cannot be read is shown as such. All text is hostile and reaches the page only through the
template's escaping; the page forbids scripts and outside requests.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from PIL import Image, ImageDraw

from data.boxes import fitted
from data.files import name_of
from data.media import decode_image, strip_png, thumbnail_png
from data.rows import Rows
from data.video import THUMBNAIL, decode_video
from data.views import NotApplicable
from vlm_rl.errors import RowError
from vlm_rl.types import LETTERS, Backend, Box, Media, Sample

_LONGEST_TEXT = 4000
_LONGEST_META = 300
_MOST_META = 40
_SIDE = 320
_STRIP_HEIGHT = 120
_FRAMES_IN_STRIP = 3
_EVIDENCE, _NAMED = ("orange", "#ff7f0e"), ("blue", "#1565ff")
_NUMBER = r"\s*(-?\d{1,6}(?:\.\d{1,6})?)\s*"
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")
_MOST_BOXES = 100
Changes = Mapping[str, Callable[[Sample], Sample]]


@dataclass(frozen=True)
class Picture:
    """A medium as shown: data URLs of a thumbnail or of strips of frames, or `problem` in their stead."""

    kind: str
    caption: str
    addresses: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Card:
    """A row as shown, or what `view` makes of it; `problem` when it could not be read, `note` where the view does not apply."""

    id: str
    view: str = ""
    kind: str = ""
    prompt: str = ""
    pictures: tuple[Picture, ...] = ()
    options: tuple[tuple[str, str, bool], ...] = ()
    answer: str = ""
    response: str = ""
    prefill: str = ""
    meta: tuple[tuple[str, str], ...] = ()
    problem: str | None = None
    note: str | None = None
    views: tuple["Card", ...] = ()


@dataclass(frozen=True)
class Sheet:
    """One data set on the page: `facts` are (name, value) pairs, `cards` some of its rows."""

    title: str
    facts: tuple[tuple[str, str], ...]
    cards: tuple[Card, ...]

    @property
    def beside(self) -> bool:
        """Whether rows are shown beside their views."""
        return any(card.views for card in self.cards)


def cards_of(
    rows: Rows,
    indices: Sequence[int],
    write: Callable[[Sample], str],
    progress: Callable[[int, int], None],
    views: Changes | None = None,
    backend: Backend = "any",
) -> tuple[Card, ...]:
    """The rows at `indices` and what `views` make of them, prompts as `write` words them. `progress` gets (rows done, rows)."""
    cards = []
    for done, index in enumerate(indices, start=1):
        try:
            sample = rows[index]
            seen = tuple(_viewed(sample, name, change, write, backend) for name, change in (views or {}).items())
            cards.append(replace(_card(sample, write, backend), views=seen))
        except RowError as error:
            cards.append(Card(error.row_id, problem=error.reason))
        progress(done, len(indices))
    return tuple(cards)


def write_sheets(path: Path, title: str, sheets: Sequence[Sheet]) -> Path:
    """Write the page to `path`, whole or not at all, and return it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "pages"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template("contact_sheet.html").render(title=title, sheets=sheets)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.part")
    aside.write_text(html, encoding="utf-8", errors="replace")
    aside.replace(path)
    return path


def _viewed(sample: Sample, name: str, change: Callable[[Sample], Sample], write: Callable[[Sample], str], backend: Backend) -> Card:
    """A view of the row; of its meta only what the view changed."""
    try:
        seen = change(sample)
        meta = {key: value for key, value in seen.meta.items() if key not in sample.meta or sample.meta[key] != value}
        return replace(_card(seen, write, backend), view=name, meta=_meta(meta))
    except NotApplicable as error:
        return Card(error.row_id, name, note=f"does not apply: {error.reason}")
    except RowError as error:
        return Card(error.row_id, name, problem=error.reason)


def _card(sample: Sample, write: Callable[[Sample], str], backend: Backend) -> Card:
    gold = sample.answer.split(",")
    return Card(
        id=sample.id,
        kind=sample.kind,
        prompt=_cut(write(sample), _LONGEST_TEXT),
        pictures=tuple(_picture(medium, sample, backend) for medium in sample.media),
        options=tuple((letter, option, letter in gold) for letter, option in zip(LETTERS, sample.options, strict=False)),
        answer=_cut(sample.answer, _LONGEST_TEXT),
        response=_cut(sample.response or "", _LONGEST_TEXT),
        prefill=_cut(sample.prefill, _LONGEST_TEXT),
        meta=_meta(sample.meta),
    )


def _picture(medium: Media, sample: Sample, backend: Backend) -> Picture:
    row = sample.id
    name = Path(name_of(medium)).name if medium.path is not None else name_of(medium)
    try:
        if medium.kind == "image":
            image = decode_image(medium, row, backend)
            caption = f"{name}, {image.width}\N{MULTIPLICATION SIGN}{image.height}"
            caption += _draw_boxes(image, sample) if len(sample.media) == 1 else ""
            return Picture("image", caption, (_url(thumbnail_png(image, _SIDE)),))
        clip = decode_video(medium, replace(THUMBNAIL, backend=backend), row)
        seconds = clip.total / clip.fps if clip.fps else 0.0
        return Picture("video", f"{name}, {clip.total} frames, {seconds:.1f} s", _strips(clip.frames))
    except RowError as error:
        return Picture(medium.kind, name, problem=error.reason)


def _draw_boxes(image: Image.Image, sample: Sample) -> str:
    """Outline the evidence and what the demonstration names, where these fit the picture; returns what to add to its caption."""
    said, brush = "", ImageDraw.Draw(image)
    for boxes, what, (colour, ink) in (
        (sample.meta.get("boxes"), "evidence", _EVIDENCE),
        (_BOX.findall(sample.response or "")[:_MOST_BOXES], "response", _NAMED),
    ):
        outlines = _fitting(boxes, image)
        for left, top, right, bottom in outlines:
            brush.rectangle((left, top, right - 1, bottom - 1), outline=ink, width=max(1, round(2 * max(image.size) / _SIDE)))
        said += f", {what} {colour}" if outlines else ""
    return said


def _fitting(boxes: Any, image: Image.Image) -> list[Box]:
    fit = []
    for box in boxes[:_MOST_BOXES] if isinstance(boxes, (list, tuple)) else ():
        with suppress(ValueError):
            fit.append(fitted(box, image.width, image.height))
    return fit


def _strips(frames: Sequence[Any]) -> tuple[str, ...]:
    """Strips of equally many frames, few enough each to be recognised on a telephone."""
    count = -(-len(frames) // _FRAMES_IN_STRIP)
    each = -(-len(frames) // count)
    return tuple(_url(strip_png(frames[start : start + each], _STRIP_HEIGHT)) for start in range(0, len(frames), each))


def _url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _meta(meta: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    told = [(key, value) for key, value in meta.items() if value not in ("", None)][:_MOST_META]
    return tuple((str(key), _cut(_shown(value), _LONGEST_META)) for key, value in told)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_foreign)


def _foreign(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]} ... ({len(text) - longest} more characters)"
