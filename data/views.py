"""Views: pure, seeded changes of a Sample. They touch neither models nor answers' grading."""

from dataclasses import replace
from functools import lru_cache

from PIL import Image

from data.decoding import VideoInfo
from data.media import image_size, png_media
from data.video import probe_video, uniform_media
from vlm_rl.types import Media, Sample

GREY = (128, 128, 128)


def blank(sample: Sample) -> Sample:
    """Every picture and video replaced by a uniform grey one of the same upright size and length: what can be answered without seeing.

    The sample keeps its id, so that answers with and without pictures pair up. Raises RowError for an unreadable medium.
    """
    return replace(sample, media=tuple(_blank(medium, sample.id) for medium in sample.media))


def _blank(medium: Media, row: str) -> Media:
    if medium.kind == "video":
        return uniform_media(_info(medium, row), GREY)
    return _grey(*image_size(medium, row))


@lru_cache(maxsize=64)
def _info(medium: Media, row: str) -> VideoInfo:
    return probe_video(medium, row)


@lru_cache(maxsize=256)
def _grey(width: int, height: int) -> Media:
    """One shared handle per size, so that whatever is cached by content is computed once."""
    return png_media(Image.new("RGB", (width, height), GREY))
