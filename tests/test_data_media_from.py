"""Pictures and videos as data sets hold them."""

import base64
import io
from pathlib import Path

import pytest
import skimage
from PIL import Image

from data.media import decode_image, media_from
from vlm_rl.types import Media

PHOTOS = Path(skimage.__file__).parent / "data"
BASE = Path("/somewhere")


def photo(name: str) -> bytes:
    return (PHOTOS / name).read_bytes()


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (60, 40), "teal").save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "JPEG2000"])
def test_base64_of_every_kind_of_picture(kind):
    data = encoded(kind)
    text = base64.b64encode(data).decode()
    wrapped = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    for value in (text, wrapped, f"data:image/{kind.lower()};base64,{text}", f"DATA:image/x;charset=utf-8;base64,{wrapped}"):
        got = media_from(value, "image", BASE)
        assert got.data == data and got.id == Media("image", data=data).id
        assert decode_image(got, "r").size == (60, 40)


@pytest.mark.parametrize("name", ["astronaut.png", "rocket.jpg", "coffee.png", "retina.jpg"])
def test_photographs_as_column_bytes_and_path(name):
    want = Media("image", data=photo(name))
    for value in (
        photo(name),
        {"bytes": photo(name), "path": None},
        {"bytes": None, "path": name},
        name,
        PHOTOS / name,
        f"file://{PHOTOS / name}",
    ):
        got = media_from(value, "image", PHOTOS)
        assert got.id == want.id and decode_image(got, "r").width > 100
    text = base64.b64encode(photo(name)).decode()
    assert media_from({"bytes": text}, "image", BASE).id == media_from(text, "image", BASE).id == want.id


def test_pil_pictures_and_video_bytes():
    with Image.open(PHOTOS / "chelsea.png") as picture:
        got = media_from(picture, "image", BASE)
        assert decode_image(got, "r").tobytes() == picture.convert("RGB").tobytes()
    head = b"\0\0\0\x1cftypisom" + bytes(range(256))
    for value in (head, base64.b64encode(head).decode(), f"data:video/mp4;base64,{base64.b64encode(head).decode()}"):
        assert media_from(value, "video", BASE) == Media("video", data=head)


@pytest.mark.parametrize("name", ["a.png", "deep/b.jpg", "iVBORw0KGgo", "AAAA/" + "x" * 80 + ".png", "/abs/c.png", " spaced.png "])
def test_paths_stay_paths(name):
    assert media_from(name, "image", BASE).path == BASE / name.strip()


@pytest.mark.parametrize(
    "value, cause",
    [
        ("https://example.com/cat.png", "not a file; save it"),
        ("data:image/png;base64,@@@", "not valid base64"),
        ("data:image/png;base64,", "empty"),
        ("data:video/mp4;base64,AAAA", "not of the form"),
        ("data:,hello", "not of the form"),
        ("data:image/png," + "x" * 10_000, "not of the form"),
        ("", "file path"),
        ("a\0b", "file path"),
        (7, "not 7"),
        (None, "not None"),
        ({}, "column holds"),
        ({"bytes": b"", "path": ""}, "column holds"),
        (b"", "empty"),
        ([1], r"not \[1\]"),
    ],
)
def test_anything_else_is_refused_with_its_cause(value, cause):
    with pytest.raises(ValueError, match=cause) as error:
        media_from(value, "image", BASE)
    assert len(str(error.value)) < 250


def test_videos_with_bounds_and_folders_of_frames():
    assert media_from({"path": "a.mp4", "start": 3, "end": 9.5}, "video", BASE) == Media("video", path=BASE / "a.mp4", start=3.0, end=9.5)
    assert media_from({"bytes": b"x", "path": None, "start": 0.5}, "video", BASE) == Media("video", data=b"x", start=0.5)
    assert media_from({"path": "frames", "fps": 3}, "video", BASE) == Media("video", path=BASE / "frames", fps=3.0)


@pytest.mark.parametrize(
    "value, kind, cause",
    [
        ({"path": "a.mp4", "start": -1}, "video", '"start" of a video is a number from 0 on, not -1'),
        ({"path": "a.mp4", "end": "9"}, "video", '"end" of a video is a number'),
        ({"path": "a.mp4", "end": float("nan")}, "video", '"end" of a video is a number'),
        ({"path": "a.mp4", "start": 4, "end": 4}, "video", '"start" comes before "end"'),
        ({"path": "a.mp4", "end": 0}, "video", '"start" comes before "end"'),
        ({"path": "frames", "fps": 0}, "video", '"fps" is more than 0'),
        ({"bytes": b"x", "fps": 2}, "video", "path of a folder"),
        ({"path": "a.png", "start": 1}, "image", '"start" goes with a video'),
    ],
)
def test_bounds_that_make_no_sense_are_refused(value, kind, cause):
    with pytest.raises(ValueError, match=cause):
        media_from(value, kind, BASE)
