import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.media import decode_image, image_size, png_media, thumbnail_png
from data.views import blank
from vlm_rl.errors import RowError
from vlm_rl.types import Media, Sample

RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()


def image_media(data: bytes) -> Media:
    return Media("image", data=data)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(width: int, height: int) -> bytes:
    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def two_colours() -> Image.Image:
    image = Image.new("RGB", (8, 4), RED)
    image.paste(BLUE, (4, 0, 8, 4))
    return image


def clear_left_half() -> Image.Image:
    image = Image.new("RGBA", (8, 4), (*RED, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 4))
    return image


def palette_with_hole() -> bytes:
    image = Image.new("P", (8, 4), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(0, (0, 0, 4, 4))
    return encoded(image, transparency=0)


def animation(kind: str) -> bytes:
    return encoded(Image.new("RGB", (8, 4), RED), kind, save_all=True, append_images=[Image.new("RGB", (8, 4), BLUE)], lossless=True)


def cmyk_jpeg() -> bytes:
    return encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)


# what, bytes, colour of the left edge, colour of the right edge
ZOO = {
    "rgb": (encoded(two_colours()), RED, BLUE),
    "rgba on white": (encoded(clear_left_half()), (255, 255, 255), RED),
    "half transparent": (encoded(Image.new("RGBA", (8, 4), (0, 0, 0, 51))), (204,) * 3, (204,) * 3),
    "grey with alpha": (encoded(Image.new("LA", (8, 4), (0, 0))), (255,) * 3, (255,) * 3),
    "palette": (encoded(two_colours().convert("P", palette=Image.Palette.ADAPTIVE)), RED, BLUE),
    "palette with a hole": (palette_with_hole(), (255, 255, 255), RED),
    "grey": (encoded(Image.new("L", (8, 4), 77)), (77,) * 3, (77,) * 3),
    "one bit": (encoded(Image.new("1", (8, 4), 1)), (255,) * 3, (255,) * 3),
    "16-bit": (encoded(Image.fromarray(np.full((4, 8), 257 * 100, np.uint16))), (100,) * 3, (100,) * 3),
    "16-bit tiff": (encoded(Image.fromarray(np.full((4, 8), 257 * 100, np.uint16)), "TIFF"), (100,) * 3, (100,) * 3),
    "float tiff": (encoded(Image.fromarray(np.full((4, 8), 0.2, np.float32)), "TIFF"), (51,) * 3, (51,) * 3),
    "not-a-number tiff": (encoded(Image.fromarray(np.full((4, 8), np.nan, np.float32)), "TIFF"), (0,) * 3, (0,) * 3),
    "cmyk": (cmyk_jpeg(), RED, RED),
    "animated gif": (animation("GIF"), RED, RED),
    "animated png": (animation("PNG"), RED, RED),
    "animated webp": (animation("WEBP"), RED, RED),
}


@pytest.mark.parametrize("what", ZOO)
def test_every_kind_of_picture_becomes_rgb(what: str):
    data, left, right = ZOO[what]
    image = decode_image(image_media(data), "7")
    assert image.mode == "RGB"
    seen = np.asarray(image)[0, [0, -1]]
    assert np.allclose(seen, [left, right], atol=3), seen


# EXIF orientation -> where the stored left edge is seen: (x, y) of a point that is then red
@pytest.mark.parametrize(
    ("orientation", "red", "size"),
    [(1, (1, 4), (16, 8)), (2, (14, 4), (16, 8)), (3, (14, 4), (16, 8)), (6, (4, 1), (8, 16)), (8, (4, 14), (8, 16))],
)
def test_exif_orientation_is_applied(orientation: int, red: tuple[int, int], size: tuple[int, int]):
    exif = Image.Exif()
    exif[0x0112] = orientation
    media = image_media(encoded(two_colours().resize((16, 8), Image.Resampling.NEAREST), "JPEG", quality=95, subsampling=0, exif=exif))
    image = decode_image(media, "7")
    assert image.size == size == image_size(media, "7")
    r, _, b = np.asarray(image)[red[1], red[0]]
    assert r > 200 and b < 60


WHOLE = encoded(Image.effect_noise((64, 64), 80).convert("RGB"))
WHOLE_JPEG = encoded(Image.effect_noise((64, 64), 80).convert("RGB"), "JPEG")
BROKEN = {
    "empty": (b"", "0 bytes"),
    "text": (b"hello, I am no picture", "not an image"),
    "html": (b"<html><body>404</body></html>", "not an image"),
    "truncated png": (WHOLE[: len(WHOLE) // 2], "corrupt or truncated"),
    "truncated jpeg": (WHOLE_JPEG[: len(WHOLE_JPEG) // 2], "corrupt or truncated"),
    "header only": (WHOLE[:20], ""),
    "scrambled png": (WHOLE[:60] + bytes(len(WHOLE) - 60), "corrupt or truncated"),
    "huge": (png_header(100_000, 100_000), "megapixels"),
    "rather huge": (png_header(9_000, 9_000), "megapixels"),
    "between Pillow's limits": (png_header(11_000, 11_000), "megapixels"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("what", BROKEN)
def test_unusable_pictures_are_row_errors_naming_file_and_cause(what: str, tmp_path: Path):
    data, reason = BROKEN[what]
    path = tmp_path / "cat.png"
    path.write_bytes(data)
    with pytest.raises(RowError) as caught:
        decode_image(Media("image", path=path), "row-9")
    assert caught.value.row_id == "row-9"
    assert str(path) in caught.value.reason and reason in caught.value.reason


@pytest.mark.parametrize(("name", "reason"), [("nowhere.png", "no such file"), (".", "not a file"), ("a\0b.png", "cannot be read")])
def test_paths_that_are_no_files(name: str, reason: str, tmp_path: Path):
    with pytest.raises(RowError, match=reason):
        decode_image(Media("image", path=tmp_path / name), "7")


def test_a_flipped_byte_anywhere_gives_a_picture_or_a_row_error():
    for data in (WHOLE[:3000], animation("GIF"), palette_with_hole(), cmyk_jpeg()):
        for at in range(0, len(data), max(1, len(data) // 60)):
            broken = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
            with contextlib.suppress(RowError):
                assert decode_image(image_media(broken), "7").mode == "RGB"


def test_a_video_is_not_decoded_as_a_picture():
    with pytest.raises(RowError, match="video"):
        decode_image(Media("video", data=b"xx"), "7")


def test_png_media_depends_on_pixels_only():
    image = two_colours()
    described = image.copy()
    described.info["icc_profile"] = b"profile"
    assert png_media(image).id == png_media(described).id != png_media(Image.new("RGB", (8, 4), RED)).id
    assert np.array_equal(np.asarray(decode_image(png_media(image), "7")), np.asarray(image))


def test_thumbnails_shrink_and_never_grow():
    wide, small = (Image.open(io.BytesIO(thumbnail_png(Image.new("RGB", size), side=192))) for size in ((800, 400), (64, 64)))
    assert wide.size == (192, 96) and small.size == (64, 64)


def test_blank_keeps_everything_but_the_pixels():
    picture = image_media(encoded(two_colours()))
    sample = Sample("7", "What?", "B", "choice", ("red", "blue"), (picture, picture), meta={"k": 1})
    seen = blank(sample)
    assert (seen.id, seen.question, seen.answer, seen.options, seen.meta) == ("7", "What?", "B", ("red", "blue"), {"k": 1})
    assert len(seen.media) == 2 and all(medium.id != picture.id for medium in seen.media)
    grey = decode_image(seen.media[0], "7")
    assert grey.size == (8, 4) and len(grey.getcolors() or []) == 1
    assert blank(sample) == seen
    with pytest.raises(RowError, match="video"):
        blank(Sample("8", "What?", "", media=(Media("video", data=b"x"),)))
