"""Encoded pictures in, upright RGB pictures out, and back. Any byte string is survivable: what cannot be used raises RowError.

Colour profiles are ignored. Resizing to a model's budget and decoding of videos are done elsewhere.
"""

import base64
import binascii
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

from data.edits import edited_image
from data.files import check_file, name_of
from data.video import decode_frame
from vlm_rl.errors import RowError
from vlm_rl.types import Backend, Media

MAX_PIXELS = 64_000_000
# Pillow would also try formats that start other programs (EPS) or are rarely fuzzed; these are what data sets hold.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_SIDEWAYS = (5, 6, 7, 8)
_DATA_URL = re.compile(r"data:(?P<kind>[a-z]{1,20})/[^;,]{1,100}(?:;[^;,]{1,100})*?;base64,", re.IGNORECASE)
# What base64 of PNG, JPEG, GIF, RIFF (WebP, AVI), TIFF, JPEG 2000, MP4 and MKV files begins with.
_BASE64_SIGNS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "SUkqA", "TU0AK", "AAAADGpQ", "AAAA", "GkXfo")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{64,}={0,2}")


def decode_image(media: Media, row: str, backend: Backend = "any") -> Image.Image:
    """The picture as RGB, upright (EXIF), first frame, on white where transparent, with its edits made; or a frame of a video.

    16-bit grey is scaled to 8 bits by 1/257; other integer or float greys by their own range. `backend` decodes videos. Raises RowError
    naming `row`, the file and the cause: missing, 0 bytes, not an image, corrupt, truncated, or more than MAX_PIXELS.
    """
    if media.start is not None:
        return edited_image(Image.fromarray(decode_frame(media, row, backend)), media.edits)
    with _opened(media, row) as image:
        return edited_image(_rgb(ImageOps.exif_transpose(image)), media.edits)


def image_size(media: Media, row: str) -> tuple[int, int]:
    """(width, height) in pixels of what `decode_image` returns, from the header where format and edits allow it. Raises RowError."""
    if media.edits or media.start is not None:
        return decode_image(media, row).size
    with _opened(media, row) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS else (width, height)


def medium_id(media: Media, row: str) -> str:
    """`media.id`. Raises RowError where the file cannot be read."""
    try:
        return media.id
    except (OSError, ValueError) as error:
        raise RowError(row, f"{name_of(media)}: cannot be read: {error}") from None


def media_from(value: Any, kind: Literal["image", "video"], base: Path) -> Media:
    """A handle from what data sets hold: a path (relative to `base`), a data URL, base64 text, bytes, a PIL picture, or a Hugging Face
    column's {"bytes": ..., "path": ...}. Nothing is decoded. Raises ValueError for anything else, remote addresses included.

    A video in a column may also say which seconds of it are looked at, {"path": ..., "start": 3.2, "end": 9.8}, and that it is a folder of
    frames, {"path": ..., "fps": 3}.
    """
    if isinstance(value, Mapping):
        return _from_column(value, kind, base)
    if isinstance(value, (bytes, bytearray)):
        if not value:
            raise ValueError(f"the {kind} is empty (0 bytes)")
        return Media(kind, data=bytes(value))
    if isinstance(value, Image.Image) and kind == "image":
        return png_media(_rgb(ImageOps.exif_transpose(value)))
    if isinstance(value, Path):
        return Media(kind, path=base / value)
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"{'an' if kind == 'image' else 'a'} {kind} is a file path, a base64 data URL or bytes, not {_shown(value)}")
    return _from_text(value.strip(), kind, base)


def _from_text(text: str, kind: Literal["image", "video"], base: Path) -> Media:
    if text[:5].lower() == "data:":
        head = _DATA_URL.match(text[:600])
        if head is None or head["kind"].lower() not in (kind, "application"):
            raise ValueError(f'{_shown(text)} is not of the form "data:{kind}/...;base64,..."')
        return Media(kind, data=_unbase64(text[head.end() :]))
    if text.startswith(_BASE64_SIGNS) and _BASE64.fullmatch(joined := "".join(text.split())):
        return Media(kind, data=_unbase64(joined))
    if text[:7].lower() == "file://":
        text = text[7:]
    elif "://" in text:
        raise ValueError(f"{_shown(text)} is not a file; save it to one first")
    return Media(kind, path=base / text)


def _from_column(value: Mapping[str, Any], kind: Literal["image", "video"], base: Path) -> Media:
    encoded, path = value.get("bytes"), value.get("path")
    bounds = {name: _seconds(value[name], name) for name in ("start", "end", "fps") if value.get(name) is not None}
    if bounds and kind == "image":
        raise ValueError(f'"{next(iter(bounds))}" goes with a video, not with an image')
    if bounds.get("start", 0.0) >= bounds.get("end", math.inf) or bounds.get("fps") == 0:
        raise ValueError(f'"start" comes before "end", and "fps" is more than 0; they are {_shown(bounds)}')
    if encoded and "fps" in bounds:
        raise ValueError('"fps" goes with the path of a folder of frames, not with bytes')
    if encoded:
        return replace(media_from(_unbase64(encoded) if isinstance(encoded, str) else encoded, kind, base), **bounds)
    if path:
        return replace(media_from(path, kind, base), **bounds)
    raise ValueError(f'{"an" if kind == "image" else "a"} {kind} column holds {{"bytes": ..., "path": ...}}, not {_shown(dict(value))}')


def _seconds(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f'"{name}" of a video is a number from 0 on, not {_shown(value)}')
    return float(value)


def _unbase64(text: str) -> bytes:
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not valid base64: {error}") from None
    if not data:
        raise ValueError("the base64 text is empty")
    return data


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def strip_png(frames: Sequence[np.ndarray], height: int = 96) -> bytes:
    """PNG bytes of (H, W, 3) uint8 frames side by side, each `height` pixels high."""
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    small = [image.resize((max(1, round(image.width * height / image.height)), height)) for image in images]
    strip = Image.new("RGB", (sum(image.width + 2 for image in small) - 2, height), "white")
    left = 0
    for image in small:
        strip.paste(image, (left, 0))
        left += image.width + 2
    return _png(strip)


def thumbnail_png(image: Image.Image, side: int = 192) -> bytes:
    """PNG bytes of the picture shrunk to fit a square of `side` pixels; small pictures stay as they are."""
    small = image.copy()
    small.thumbnail((side, side))
    return _png(small)


def png_media(image: Image.Image) -> Media:
    """An in-memory PNG medium. Equal pixels give equal bytes (per zlib build), so equal ids."""
    return Media("image", data=_png(image))


def _png(image: Image.Image) -> bytes:
    clean = image.convert("RGB")
    clean.info = {}  # profiles and text blocks would be written too and change the hash
    out = io.BytesIO()
    clean.save(out, format="PNG", compress_level=6)
    return out.getvalue()


@contextmanager
def _opened(media: Media, row: str) -> Iterator[Image.Image]:
    """The picture with its header read and its size checked; whatever Pillow raises inside the block becomes a RowError."""
    if media.kind != "image":
        raise RowError(row, f"{name_of(media)}: a {media.kind} where a picture is expected")
    check_file(media, row)
    try:
        with Image.open(io.BytesIO(media.source.read()), formats=_formats()) as image:
            _check_pixels(image, media, row)
            yield image
    except RowError:
        raise
    except Image.UnidentifiedImageError:
        raise RowError(row, f"{name_of(media)}: not an image, or none of {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RowError(row, f"{name_of(media)}: more than {MAX_PIXELS // 10**6} megapixels") from None
    except Exception as error:  # decoders of hostile bytes raise anything: struct.error, SyntaxError, zlib.error, ...
        raise RowError(row, f"{name_of(media)}: corrupt or truncated image ({error or type(error).__name__})") from None


def _check_pixels(image: Image.Image, media: Media, row: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        limit = f"more than {MAX_PIXELS // 10**6} megapixels"
        raise RowError(row, f"{name_of(media)}: {width} x {height} pixels, {limit}; shrink the picture")
    if width * height < 1:
        raise RowError(row, f"{name_of(media)}: {width} x {height} pixels")


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits. Pillow's own conversion clips it at 255, which turns most 16-bit pictures white."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I") and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif image.mode == "F" and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = (values - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(np.rint(scaled).clip(0, 255).astype(np.uint8)).convert("RGB")
