"""Rows as one self-contained HTML page: pictures, frame strips, the prompt's text, options with the right one marked, answer, meta.

It checks nothing: a row or medium that cannot be read is shown as such. All text is hostile and reaches the page only through the
template's escaping; the page forbids scripts and outside requests.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from data.media import decode_image, name_of, strip_png, thumbnail_png
from data.rows import Rows
from data.video import THUMBNAIL, decode_video
from vlm_rl.errors import RowError
from vlm_rl.types import LETTERS, Media, Sample

_LONGEST_TEXT = 4000
_LONGEST_META = 300
_MOST_META = 40
_SIDE = 320
_STRIP_HEIGHT = 120
_FRAMES_IN_STRIP = 3


@dataclass(frozen=True)
class Picture:
    """A medium as shown: data URLs of a thumbnail or of strips of frames, or `problem` in their stead."""

    kind: str
    caption: str
    addresses: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Card:
    """A row as shown; `problem` when it could not be read."""

    id: str
    kind: str = ""
    prompt: str = ""
    pictures: tuple[Picture, ...] = ()
    options: tuple[tuple[str, str, bool], ...] = ()
    answer: str = ""
    response: str = ""
    meta: tuple[tuple[str, str], ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Sheet:
    """One data set on the page: `facts` are (name, value) pairs, `cards` some of its rows."""

    title: str
    facts: tuple[tuple[str, str], ...]
    cards: tuple[Card, ...]


def cards_of(rows: Rows, indices: Sequence[int], write: Callable[[Sample], str], progress: Callable[[int, int], None]) -> tuple[Card, ...]:
    """The rows at `indices` with their prompts as `write` words them. `progress` gets (rows done, rows)."""
    cards = []
    for done, index in enumerate(indices, start=1):
        try:
            cards.append(_card(rows[index], write))
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


def _card(sample: Sample, write: Callable[[Sample], str]) -> Card:
    gold = sample.answer.split(",")
    return Card(
        id=sample.id,
        kind=sample.kind,
        prompt=_cut(write(sample), _LONGEST_TEXT),
        pictures=tuple(_picture(medium, sample.id) for medium in sample.media),
        options=tuple((letter, option, letter in gold) for letter, option in zip(LETTERS, sample.options, strict=False)),
        answer=_cut(sample.answer, _LONGEST_TEXT),
        response=_cut(sample.response or "", _LONGEST_TEXT),
        meta=_meta(sample.meta),
    )


def _picture(medium: Media, row: str) -> Picture:
    name = Path(name_of(medium)).name if medium.path is not None else name_of(medium)
    try:
        if medium.kind == "image":
            image = decode_image(medium, row)
            return Picture("image", f"{name}, {image.width}\N{MULTIPLICATION SIGN}{image.height}", (_url(thumbnail_png(image, _SIDE)),))
        clip = decode_video(medium, THUMBNAIL, row)
        seconds = clip.total / clip.fps if clip.fps else 0.0
        return Picture("video", f"{name}, {clip.total} frames, {seconds:.1f} s", _strips(clip.frames))
    except RowError as error:
        return Picture(medium.kind, name, problem=error.reason)


def _strips(frames: Sequence[Any]) -> tuple[str, ...]:
    """Strips of equally many frames, few enough each to be recognised on a telephone."""
    count = -(-len(frames) // _FRAMES_IN_STRIP)
    each = -(-len(frames) // count)
    return tuple(_url(strip_png(frames[start : start + each], _STRIP_HEIGHT)) for start in range(0, len(frames), each))


def _url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _meta(meta: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((str(key), _cut(_shown(value), _LONGEST_META)) for key, value in list(meta.items())[:_MOST_META])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_foreign)


def _foreign(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]} ... ({len(text) - longest} more characters)"
