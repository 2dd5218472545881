"""The file behind a medium, before anything is decoded: what it is called in an error, how large it is, whether it can be used at all."""

import stat
from pathlib import Path

from vlm_rl.errors import RowError
from vlm_rl.types import Media

MAX_BYTES = 512 * 2**20
MAX_VIDEO_BYTES = 32 * 2**30


def name_of(media: Media) -> str:
    """The medium's file, or what stands for it in an error, and which part of it is meant: "a.mp4 from 3.2 s to 9.8 s"."""
    name = str(media.path) if media.path is not None else f"{media.kind} in memory"
    if media.kind == "image":
        return name if media.start is None else f"{name} at {media.start:g} s"
    start = "" if media.start is None else f" from {media.start:g} s"
    return name + start + ("" if media.end is None else f" to {media.end:g} s")


def size_of(media: Media) -> int:
    """Encoded bytes of the whole file, or of all files in a folder of frames. Raises OSError or ValueError where it cannot be read."""
    if media.path is None:
        return len(media.data or b"")
    status = media.path.stat()
    return _folder_size(media.path) if stat.S_ISDIR(status.st_mode) else status.st_size


def check_file(media: Media, row: str) -> None:
    """Raises RowError unless the medium is a readable, non-empty regular file or folder of frames, or bytes, of bearable size."""
    if media.path is not None:
        _check_kind(media, media.path, row)
    size = size_of(media)
    if size == 0:
        raise RowError(row, f"{name_of(media)}: {'the folder' if media.fps else 'the file'} is empty (0 bytes)")
    filmed = media.kind == "video" or media.start is not None
    most = MAX_VIDEO_BYTES if filmed and media.path is not None else MAX_BYTES
    if size > most:
        raise RowError(row, f"{name_of(media)}: {size} bytes, more than {most}")


def _check_kind(media: Media, path: Path, row: str) -> None:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise RowError(row, f"{path}: {'no such file' if missing else f'cannot be read: {error}'}") from None
    folder = stat.S_ISDIR(mode)
    if folder and media.kind == "video" and media.fps is None:
        raise RowError(row, f'{path}: a folder; where it holds frames, write {{"path": ..., "fps": frames a second}}')
    if media.fps is not None and not folder:
        raise RowError(row, f"{path}: not a folder of frames, and only those need fps")
    if not (stat.S_ISREG(mode) or (folder and media.kind == "video")):
        raise RowError(row, f"{path}: not a file")


def _folder_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
