"""Encoded pictures in, upright RGB pictures out, and back. Any byte string is survivable: what cannot be used raises RowError.

Colour profiles are ignored. Resizing to a model's budget and decoding of videos are done elsewhere.
"""

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from PIL import ExifTags, Image, ImageOps

from vlm_rl.errors import RowError
from vlm_rl.types import Media

MAX_PIXELS = 64_000_000
MAX_BYTES = 512 * 2**20
# Pillow would also try formats that start other programs (EPS) or are rarely fuzzed; these are what data sets hold.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_SIDEWAYS = (5, 6, 7, 8)


def decode_image(media: Media, row: str) -> Image.Image:
    """The picture as RGB, upright (EXIF), first frame, on white where transparent.

    16-bit grey is scaled to 8 bits by 1/257; other integer or float greys by their own range. Raises RowError naming `row`, the file
    and the cause: missing, 0 bytes, not an image, corrupt, truncated, or more than MAX_PIXELS.
    """
    with _opened(media, row) as image:
        return _rgb(ImageOps.exif_transpose(image))


def image_size(media: Media, row: str) -> tuple[int, int]:
    """(width, height) in pixels of what `decode_image` returns, from the header where the format allows it. Raises RowError."""
    with _opened(media, row) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS else (width, height)


def check_file(media: Media, row: str) -> None:
    """Raises RowError unless the medium is a readable, non-empty regular file or bytes of bearable size. Reads nothing."""
    if media.path is None:
        size = len(media.data or b"")
    else:
        try:
            status = media.path.stat()
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            raise RowError(row, f"{_name(media)}: {'no such file' if missing else f'cannot be read: {error}'}") from None
        if not stat.S_ISREG(status.st_mode):
            raise RowError(row, f"{_name(media)}: not a file")
        size = status.st_size
    if size == 0:
        raise RowError(row, f"{_name(media)}: the file is empty (0 bytes)")
    if size > MAX_BYTES:
        raise RowError(row, f"{_name(media)}: {size} bytes, more than {MAX_BYTES}")


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
        raise RowError(row, f"{_name(media)}: a {media.kind} where a picture is expected")
    check_file(media, row)
    try:
        with Image.open(io.BytesIO(media.read()), formats=_formats()) as image:
            _check_pixels(image, media, row)
            yield image
    except RowError:
        raise
    except Image.UnidentifiedImageError:
        raise RowError(row, f"{_name(media)}: not an image, or none of {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RowError(row, f"{_name(media)}: more than {MAX_PIXELS // 10**6} megapixels") from None
    except Exception as error:  # decoders of hostile bytes raise anything: struct.error, SyntaxError, zlib.error, ...
        raise RowError(row, f"{_name(media)}: corrupt or truncated image ({error or type(error).__name__})") from None


def _check_pixels(image: Image.Image, media: Media, row: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        limit = f"more than {MAX_PIXELS // 10**6} megapixels"
        raise RowError(row, f"{_name(media)}: {width} x {height} pixels, {limit}; shrink the picture")
    if width * height < 1:
        raise RowError(row, f"{_name(media)}: {width} x {height} pixels")


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


def _name(media: Media) -> str:
    return str(media.path) if media.path is not None else f"{media.kind} in memory"
