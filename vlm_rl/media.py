"""Pictures and videos as the program hands them around: handles that are not decoded, what is looked at of a video, and what comes out.

Standard library only; decoding is `data.media`'s and `data.video`'s work. Other modules take these names from `vlm_rl.types`.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

Backend = Literal["decord", "pyav", "any"]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Edit:
    """A change of pixels or frames, made whenever the medium is decoded. Edit("blur", severity=3, seed=7)

    `boxes` are (left, top, right, bottom) in pixels of the upright picture as it is after the edits before this one.
    """

    name: str
    severity: int = 3
    seed: int = 0
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Media:
    """A handle to one picture or clip, not decoded: exactly one of `path` and `data` is set. Media("image", path=Path("cat.png"))

    `edits` are what is done to its pixels, in order, when it is decoded; they cost no memory until then. `start` and `end` are seconds of
    the file: the part of a video that is looked at, or, for a picture, the `start` at which a frame is taken of a video. A video may also
    be a folder of frames, in the order of their names, `fps` of them a second.
    """

    kind: Literal["image", "video"]
    path: Path | None = None
    data: bytes | None = None
    edits: tuple[Edit, ...] = ()
    start: float | None = None
    end: float | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        assert (self.path is None) != (self.data is None)

    @property
    def source(self) -> "Media":
        """The medium without its edits."""
        return replace(self, edits=()) if self.edits else self

    @property
    def bounded(self) -> bool:
        """Whether it is a part of its file."""
        return self.start is not None or self.end is not None

    def edited(self, edit: Edit) -> "Media":
        """The medium with one more edit."""
        return replace(self, edits=(*self.edits, edit))

    def read(self) -> bytes:
        """The encoded bytes of the file. Raises OSError when it cannot be read. An edited medium has none: decode it."""
        assert not self.edits, "the bytes of an edited medium are not what it shows; decode it, or read its source"
        return self.data if self.data is not None else self.path.read_bytes()  # type: ignore[union-attr]

    @cached_property
    def id(self) -> str:
        """Content hash, the same for equal bytes, bounds and edits wherever they lie: "3f2a..." (16 hex digits)."""
        if self.edits:
            return _hash(f"{self.source.id} {self.edits!r}".encode())
        if self.bounded or self.fps is not None:
            return _hash(f"{self.file_id} {self.start} {self.end} {self.fps}".encode())
        return self.file_id

    @cached_property
    def file_id(self) -> str:
        """Content hash of the whole file, whichever part of it this is and whatever its edits are."""
        if self.path is None:
            return _hash(self.data or b"")
        if self.path.is_dir():
            return _hash("\n".join(f"{file.name} {_hash_of(file)}" for file in sorted(self.path.iterdir()) if file.is_file()).encode())
        return _hash_of(self.path)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _hash_of(path: Path) -> str:
    status = path.stat()
    return _file_hash(path.absolute(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    """Read in pieces and remembered while the file stays as it is: a long video would cost a second each time its row is met."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@dataclass(frozen=True)
class VideoBudget:
    """How much of a video is looked at. Frames are drawn evenly at `fps` per second, from `min_frames` to `max_frames` of them.

    `min_pixels` and `max_pixels` bound a frame's area and `total_pixels` that of all frames together, as far as `min_pixels` allows; sides
    are multiples of `factor` pixels. `backend` names the decoder; "any" is for looking at a video, not for training on it.
    """

    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 768 * 28 * 28
    total_pixels: int = 115_200 * 28 * 28
    factor: int = 28
    backend: Backend = "decord"


@dataclass(frozen=True)
class Outline:
    """A medium without its pixels: height and width of the upright picture, or of a video's frames as they will be looked at.

    For a video also which frames those are: their `indices` in the source, which has `total` frames at `fps` a second.
    """

    height: int
    width: int
    indices: tuple[int, ...] = ()
    total: int = 1
    fps: float = 1.0


@dataclass(frozen=True, eq=False)
class Clip:
    """A decoded video: `frames` (T, H, W, 3) uint8 RGB array, their `indices` in the source, which has `total` frames at `fps` a second."""

    frames: Any
    indices: tuple[int, ...]
    total: int
    fps: float

    @property
    def timestamps(self) -> tuple[float, ...]:
        """Seconds from the start, one per frame, reading the source's rate as constant."""
        return tuple(index / self.fps for index in self.indices)

    @property
    def sampled_fps(self) -> float:
        return len(self.indices) / self.total * self.fps

    @property
    def outline(self) -> Outline:
        _, height, width, _ = self.frames.shape
        return Outline(height, width, self.indices, self.total, self.fps)
