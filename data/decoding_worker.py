"""The script of the process that decodes videos: requests on stdin, replies on stdout, nothing of this project imported.

Decoders of hostile files hang, crash and eat memory, so they run here, under a memory limit, in a process that the parent kills. A request
is one JSON line, followed by `bytes` bytes of an encoded video when that is not 0; a reply is one JSON line, followed by `bytes` bytes of
raw RGB frames. An "error" in a reply says what is wrong with the file, "missing" names a library that is not installed. A file stays open
until another one is asked for: single frames of one long video are often wanted one after another, and opening it reads all of it.
"""

import io
import itertools
import json
import math
import os
import re
import resource
import signal
import sys
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

RAW = b"vlm-rl frames 1\n"
MEMORY_BYTES = 6 << 30
MAX_FRAME_PIXELS = 64_000_000
ORPHAN_SECONDS = 10
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
PREFIX = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ")  # time and source line in decord's messages


class Unreadable(Exception):
    """Something is wrong with the file; the text says what."""


class Decord:
    """Random access by decord. Its own threads are not used, which bounds memory and changes no pixel.

    Where a stream is damaged within, decord shows what its decoder made up and does not tell.
    """

    def __init__(self, source: Any):
        import decord

        try:
            self.reader = decord.VideoReader(source, num_threads=1)
        except decord.DECORDError as error:
            if "st_nb" in str(error):  # its words for there being no stream that it has a decoder for
                raise Unreadable("it has no video stream that decord can decode; for AV1 write model.video_backend=pyav") from None
            raise
        self.total, self.fps = len(self.reader), float(self.reader.get_avg_fps())
        self.height, self.width = self.reader[0].shape[:2] if self.total else (0, 0)

    def read(self, indices: list[int]) -> np.ndarray:
        return self.reader.get_batch(indices).asnumpy()


class PyAV:
    """Reads on from where it is, and from the start again for what lies before that.

    Refused are frames that the decoder says it could not decode whole, and those up to the next key frame, which are made from them.
    Damage that still is a valid stream stays unseen: 13 of 16 single wrong bytes in H.264 were told.
    """

    def __init__(self, source: Any):
        import av

        self.container: Any = av.open(source)
        if not self.container.streams.video:
            raise Unreadable("it has no video stream")
        stream = self.container.streams.video[0]
        self.total = stream.frames or self._count()
        self.fps = float(stream.average_rate or stream.guessed_rate or 0)
        self._rewind()
        first = next(self.frames, None)
        self.height, self.width = self._upright(first[0]).shape[:2] if first is not None else (0, 0)
        self.total = self.total if first is not None else 0
        self._rewind()

    def _count(self) -> int:
        count = sum(1 for packet in self.container.demux(video=0) if packet.size)
        self.container.seek(0)
        return count

    def _rewind(self) -> None:
        self.container.seek(0)
        self.frames, self.next = self._decoded(), 0

    def _decoded(self) -> Iterator[tuple[Any, bool]]:
        """Each frame, and whether it is damaged."""
        damaged = False
        for frame in self.container.decode(video=0):
            check_pixels(frame.width, frame.height)
            damaged = frame.is_corrupt or (damaged and not frame.key_frame)
            yield frame, damaged

    def _upright(self, frame: Any) -> np.ndarray:
        return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))

    def read(self, indices: list[int]) -> np.ndarray:
        if indices[0] < self.next:
            self._rewind()
        return np.stack([self._upright(self._at(index)) for index in indices])

    def _at(self, index: int) -> Any:
        frame, damaged = next(itertools.islice(self.frames, index - self.next, None), (None, False))
        if frame is None:
            raise Unreadable(f"truncated: frame {index + 1} of {self.total} cannot be decoded")
        if damaged:
            raise Unreadable(f"damaged: of frame {index + 1} of {self.total} a part is made up by the decoder")
        self.next = index + 1
        return frame


class Folder:
    """A folder of pictures, one a frame, in the order of the numbers and letters of their names."""

    def __init__(self, path: str, rate: float):
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.is_file() and entry.name.lower().endswith(PICTURES)]
        self.files = [os.path.join(path, name) for name in sorted(names, key=in_order)]
        self.total, self.fps = len(self.files), rate
        self.height, self.width = self._frame(0).shape[:2] if names else (0, 0)

    def read(self, indices: list[int]) -> np.ndarray:
        return np.stack([self._frame(index) for index in indices])

    def _frame(self, index: int) -> np.ndarray:
        from PIL import Image

        name = os.path.basename(self.files[index])
        try:
            with Image.open(self.files[index], formats=("JPEG", "PNG", "WEBP", "BMP")) as image:
                check_pixels(image.width, image.height)
                frame = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise Unreadable(f"its frame {name} is no picture or a damaged one ({str(error)[:80]})") from None
        if index and frame.shape[:2] != (self.height, self.width):
            raise Unreadable(f"its frame {name} is not of {self.width} x {self.height} pixels as the first one")
        return frame


def in_order(name: str) -> list[str | int]:
    """frame_2.jpg comes before frame_10.jpg."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]{1,18})", name)]


class Raw:
    """Frames made by this program: a JSON line {"frames", "height", "width", "fps"} with either "colour" or the "sizes" of zlib blocks."""

    def __init__(self, data: bytes):
        header, _, self.blocks = data[len(RAW) :].partition(b"\n")
        fields = json.loads(header)
        self.total, self.height, self.width = int(fields["frames"]), int(fields["height"]), int(fields["width"])
        self.fps, self.colour = float(fields["fps"]), fields.get("colour")
        sizes = [int(size) for size in fields.get("sizes", ())]
        self.ends = [0, *(sum(sizes[: i + 1]) for i in range(len(sizes)))]
        check_pixels(self.width, self.height)

    def read(self, indices: list[int]) -> np.ndarray:
        shape = (self.height, self.width, 3)
        if self.colour is not None:
            return np.broadcast_to(np.array(self.colour, np.uint8), (len(indices), *shape))
        return np.stack([np.frombuffer(self._frame(i, math.prod(shape)), np.uint8).reshape(shape) for i in indices])

    def _frame(self, index: int, size: int) -> bytes:
        return zlib.decompressobj().decompress(self.blocks[self.ends[index] : self.ends[index + 1]], size)


Opened = tuple[tuple[Any, ...] | None, Any]  # what tells the file from others, and its reader
NOTHING: Opened = (None, None)
READERS = {"decord": Decord, "pyav": PyAV}


def first_that_can(source: Any) -> Any:
    """Where it is only about what a video looks like, any decoder will do."""
    try:
        return Decord(source)
    except Exception as failed:  # decoders of hostile bytes raise anything
        if isinstance(source, io.BytesIO):
            source.seek(0)
        try:
            return PyAV(source)
        except ImportError:
            raise failed from None


def check_pixels(width: int, height: int) -> None:
    if width * height > MAX_FRAME_PIXELS:
        raise Unreadable(f"frames of {width} x {height} pixels, more than {MAX_FRAME_PIXELS // 10**6} megapixels")


def open_video(request: dict[str, Any], data: bytes) -> Any:
    if data.startswith(RAW):
        reader = Raw(data)
    elif request["rate"] is not None:
        reader = Folder(request["path"], request["rate"])
    else:
        reader = READERS.get(request["backend"], first_that_can)(io.BytesIO(data) if data else request["path"])
    if reader.total < 1:
        raise Unreadable("it has no frames")
    check_pixels(reader.width, reader.height)
    if not (math.isfinite(reader.fps) and reader.fps > 0):
        raise Unreadable(f"its frame rate is {reader.fps}")
    return reader


def file_key(request: dict[str, Any], data: bytes) -> tuple[Any, ...] | None:
    """What tells that the open file is still the one asked for. None for bytes, and for a folder, which can change within."""
    if data or request["rate"] is not None:
        return None
    status = os.stat(request["path"])
    return request["path"], request["backend"], status.st_mtime_ns, status.st_size, status.st_ino


def answer(request: dict[str, Any], data: bytes, opened: Opened) -> tuple[Opened, dict[str, Any], bytes]:
    """(what is open from now on, reply, raw frames)"""
    if request["op"] == "open":
        wanted = file_key(request, data)
        opened = opened if wanted is not None and wanted == opened[0] else (wanted, open_video(request, data))
    key, reader = opened
    if request["op"] == "open":
        return opened, {"frames": reader.total, "fps": reader.fps, "height": reader.height, "width": reader.width}, b""
    if request["op"] == "read":
        frames = reader.read(request["indices"])
        if frames.shape != (len(request["indices"]), reader.height, reader.width, 3):
            raise Unreadable(f"its frames change size from {reader.width} x {reader.height}")
        return opened, {}, np.ascontiguousarray(frames, dtype=np.uint8).tobytes()
    return opened if key is not None else NOTHING, {}, b""


def reply_to(request: dict[str, Any], data: bytes, opened: Opened) -> tuple[Opened, dict[str, Any], bytes]:
    try:
        return answer(request, data, opened)
    except ImportError as error:
        return NOTHING, {"missing": str(error)}, b""
    except Unreadable as error:
        return NOTHING, {"error": str(error)}, b""
    except MemoryError:
        return NOTHING, {"error": "decoding it takes too much memory"}, b""
    except Exception as error:  # decoders of hostile bytes raise anything
        said = PREFIX.sub("", " ".join(str(error).split()))[:160] or type(error).__name__
        return NOTHING, {"error": f"it cannot be decoded ({said})"}, b""


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    opened = NOTHING
    replies.write(b'{"bytes": 0}\n')
    replies.flush()
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request.get("bytes", 0))
        # The kernel ends this process even inside C code, should the parent be gone and nobody left to kill it.
        signal.alarm(math.ceil(request["seconds"]) + ORPHAN_SECONDS)
        opened, reply, frames = reply_to(request, data, opened)
        signal.alarm(0)
        replies.write(json.dumps({**reply, "bytes": len(frames)}).encode() + b"\n")
        replies.write(frames)
        replies.flush()


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not end up among the replies
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    serve(sys.stdin.buffer, channel)
