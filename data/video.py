"""Encoded videos in, evenly drawn and resized frames out. Any byte string is survivable: what cannot be used raises RowError.

Which frames and what size follow qwen-vl-utils' rules; its own reader is not used, because it swallows errors and has no time limit.
Decoding happens in worker processes (data.decoding). Sound and subtitles are not read. Damage inside a stream that a decoder conceals is
told of by PyAV, mostly, and by decord not at all.
"""

import io
import json
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np

from data.decoding import DecodeError, MissingLibrary, Reader, VideoInfo, pool
from data.decoding_worker import RAW
from data.edits import edited_frames, frame_order
from data.files import check_file, name_of
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Backend, Clip, Media, Outline, VideoBudget

SECONDS = 60.0
_PIECE_BYTES = 64 << 20
# Containers by their first bytes. Anything else is kept from the decoders: a playlist, for instance, would make them open other files.
_SIGNS = ((b"\x1aE\xdf\xa3", 0), (b"AVI ", 8), (b"FLV", 0), (b"OggS", 0), (b"\x30\x26\xb2\x75", 0), (b"\0\0\1\xba", 0), (b"GIF8", 0))
_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"free", b"wide", b"skip", b"uuid", b"udta", b"meta", b"pnot")
_MOST_BOXES = 100_000
_PICTURES = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
THUMBNAIL = VideoBudget(fps=0.5, min_frames=4, max_frames=6, min_pixels=1, max_pixels=128 * 128, factor=2, backend="any")


def decode_video(media: Media, budget: VideoBudget, row: str, seconds: float = SECONDS) -> Clip:
    """The frames that `budget` allows. Raises RowError naming `row`, the file and the cause; UserError when a library is missing.

    Frames are chosen within the medium's bounds, as qwen-vl-utils does for video_start and video_end, and among those that its edits leave;
    pixels are edited before frames are resized. At most `seconds` are spent waiting for the decoder, and no more than the chosen, resized
    frames and 64 MB are held in memory.
    """
    with _opened(media, budget.backend, row, seconds) as reader:
        return _drawn(reader, media, budget, row)


def decode_frame(media: Media, row: str, backend: Backend = "any", seconds: float = SECONDS) -> np.ndarray:
    """The (H, W, 3) uint8 RGB frame that is shown at `media.start` seconds, unedited. Raises as `decode_video` does."""
    with _opened(media, backend, row, seconds) as reader:
        place = int((media.start or 0.0) * reader.info.fps + 1e-6)
        if not 0 <= place < reader.info.frames:
            raise RowError(row, f"{name_of(media)}: the video ends at {reader.info.frames / reader.info.fps:.2f} s")
        return reader.read([place])[0].copy()


def probe_video(media: Media, row: str, backend: str = "any", seconds: float = SECONDS) -> VideoInfo:
    """Number of frames within the bounds and after edits, rate and size; decodes one frame. Raises as `decode_video` does."""
    with _opened(media, backend, row, seconds) as reader:
        return _seen(reader.info, media, row)[0]


def check_video(media: Media, row: str, backend: Backend = "any", seconds: float = SECONDS) -> VideoInfo:
    """What `probe_video` gives; raises RowError unless a few frames from the first to the last can be decoded."""
    with _opened(media, backend, row, seconds) as reader:
        _drawn(reader, media, replace(THUMBNAIL, backend=backend), row)
        return _seen(reader.info, media, row)[0]


def outline_of(info: VideoInfo, budget: VideoBudget) -> Outline:
    """What `decode_video` gives of such a video, without its pixels. Raises ValueError where no frame can be drawn or made small enough."""
    indices = frame_indices(budget, info)
    height, width = frame_size(budget, len(indices), info)
    return Outline(height, width, tuple(indices), info.frames, info.fps)


def frame_indices(budget: VideoBudget, info: VideoInfo) -> list[int]:
    """Evenly from the first frame to the last, an even number of them. Raises ValueError for fewer than two frames."""
    import torch

    rules = _rules()
    if info.frames < rules.FRAME_FACTOR:
        raise ValueError(f"a video of {info.frames} frame; {rules.FRAME_FACTOR} are needed, give it as an image")
    wanted = {"fps": budget.fps, "min_frames": budget.min_frames, "max_frames": min(budget.max_frames, info.frames)}
    count = rules.smart_nframes(wanted, total_frames=info.frames, video_fps=info.fps)
    return torch.linspace(info.first, info.first + info.frames - 1, count).round().long().tolist()


def frame_size(budget: VideoBudget, frames: int, info: VideoInfo) -> tuple[int, int]:
    """(height, width) that keeps the aspect within the budget. Raises ValueError for sides more than 200 to 1."""
    share = max(min(budget.max_pixels, budget.total_pixels / frames * _rules().FRAME_FACTOR), int(budget.min_pixels * 1.05))
    most = max(budget.min_pixels, min(budget.max_pixels, share))
    height, width = _rules().smart_resize(info.height, info.width, budget.factor, budget.min_pixels, most)
    return max(height, budget.factor), max(width, budget.factor)  # its rounding gives 0 for thin frames


def frames_media(frames: np.ndarray, fps: float) -> Media:
    """An in-memory video of the given (T, H, W, 3) uint8 frames, without loss. Equal frames give equal ids (per zlib build)."""
    blocks = [zlib.compress(np.ascontiguousarray(frame, dtype=np.uint8).tobytes(), 1) for frame in frames]
    sizes = {"sizes": [len(block) for block in blocks]}
    return Media("video", data=_raw_header(VideoInfo(len(frames), fps, *frames.shape[1:3]), sizes) + b"".join(blocks))


@lru_cache(maxsize=256)
def uniform_media(info: VideoInfo, colour: tuple[int, int, int]) -> Media:
    """An in-memory video of one colour, as long and as large as `info` says, its frames at the same times, in a few bytes."""
    whole = replace(info, frames=info.first + info.frames, first=0)
    start = (info.first - 0.5) / info.fps if info.first else None
    return Media("video", data=_raw_header(whole, {"colour": list(colour)}), start=start)


def _raw_header(info: VideoInfo, more: dict[str, Any]) -> bytes:
    fields = {"frames": info.frames, "height": info.height, "width": info.width, "fps": info.fps, **more}
    return RAW + json.dumps(fields).encode() + b"\n"


@contextmanager
def _opened(media: Media, backend: str, row: str, seconds: float) -> Iterator[Reader]:
    if media.kind != "video" and media.start is None:
        raise RowError(row, f"{name_of(media)}: a picture where a video is expected")
    check_file(media, row)
    try:
        if media.fps is None:
            _check_container(media)
        with pool().open(media.path or media.source.read(), backend, seconds, media.fps) as reader:
            yield reader
    except (DecodeError, OSError) as error:
        raise RowError(row, f"{name_of(media)}: {error}") from None
    except MissingLibrary as error:
        raise UserError(
            f"model.video_backend={backend}: {error}; install it (pip install {'av' if backend == 'pyav' else backend}), "
            f"or write model.video_backend={'decord' if backend == 'pyav' else 'pyav'}"
        ) from None


def _seen(info: VideoInfo, media: Media, row: str) -> tuple[VideoInfo, Sequence[int]]:
    """The video as it is looked at, and which of the file's frames each of its frames is."""
    seconds = info.frames / info.fps
    first = 0 if media.start is None else math.ceil(min(media.start, seconds) * info.fps)
    last = info.frames - 1 if media.end is None else min(math.floor(min(media.end, seconds) * info.fps), info.frames - 1)
    if media.bounded and first >= last:
        length = f"of {info.frames} frames at {info.fps:g} a second"
        raise RowError(row, f"{name_of(media)}: the video {length} has fewer than two frames there")
    order = [first + place for place in frame_order(last + 1 - first, media.edits)]
    return replace(info, frames=len(order), first=first), order


def _drawn(reader: Reader, media: Media, budget: VideoBudget, row: str) -> Clip:
    info, order = _seen(reader.info, media, row)
    try:
        outline = outline_of(info, budget)
    except ValueError as error:
        raise RowError(row, f"{name_of(media)}: {error}") from None
    step = max(1, _PIECE_BYTES // (info.height * info.width * 3))
    wanted = [order[i - info.first] for i in outline.indices]
    sources = sorted(set(wanted))  # decoders read forwards
    parts = [sources[i : i + step] for i in range(0, len(sources), step)]
    pieces = [_resized(edited_frames(reader.read(part), part, media.edits), outline.height, outline.width) for part in parts]
    frames = np.concatenate(pieces)
    shown = frames if sources == wanted else frames[np.searchsorted(sources, wanted)]
    return Clip(shown, outline.indices, info.frames, info.fps)


def _check_container(media: Media) -> None:
    with io.BytesIO(media.data) if media.data is not None else _file(media) as file:
        head = file.read(400)
        if head.startswith(RAW) and media.data is not None:
            return
        for sign, kind in _PICTURES.items():
            if head.startswith(sign):
                raise DecodeError(f"the file is a {kind} picture, not a video; give it under images")
        boxes = head[4:8] in _BOXES
        known = boxes or any(head[at : at + len(sign)] == sign for sign, at in _SIGNS)
        transport = any(head[at : at + 1] == b"G" and head[at + step : at + step + 1] == b"G" for at, step in ((0, 188), (4, 192)))
        if not known and not transport:
            raise DecodeError("not a video, or none of MP4, MOV, MKV, WebM, AVI, FLV, Ogg, WMV, MPEG and GIF")
        if boxes:
            _check_boxes(file)


def _check_boxes(file: BinaryIO) -> None:
    """A cut MP4 must be found here: where its index comes first, decoders may take what is left for the whole."""
    end = file.seek(0, io.SEEK_END)
    at = 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if size < 8 or kind not in _BOXES:  # to the end of the file, or nothing this walk knows
            return
        at += size
        if at > end:
            raise DecodeError(f"truncated: {end} bytes are there, at least {at} were written")
        if at == end:
            return


def _file(media: Media) -> BinaryIO:
    assert media.path is not None
    return media.path.open("rb")


def _resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resize

    pixels = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2)
    small = resize(pixels, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return small.permute(0, 2, 3, 1).contiguous().numpy()


def _rules() -> Any:
    try:
        from qwen_vl_utils import vision_process
    except ImportError as error:
        raise UserError(f"videos need qwen-vl-utils, which cannot be imported ({error}); pip install qwen-vl-utils") from None
    return vision_process
