"""Views of videos: frames left out, in another order, or standing still. Rate and number of frames stay, except for those left out."""

from dataclasses import replace
from functools import lru_cache

from data.decoding import VideoInfo
from data.edits import LEAST_FRAMES
from data.media import medium_id
from data.video import probe_video
from data.views import Draw, NotApplicable
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Edit, Media, Sample


def frames_dropped(sample: Sample, draw: Draw) -> Sample:
    """Some frames left out, so that the video is shorter and goes faster; LEAST_FRAMES stay."""
    return _reordered(sample, draw, "drop", LEAST_FRAMES + 1)


def frames_shuffled(sample: Sample, draw: Draw) -> Sample:
    """Blocks of neighbouring frames in another order; more and shorter ones at a higher severity."""
    return _reordered(sample, draw, "shuffle", 2)


def frames_reversed(sample: Sample, draw: Draw) -> Sample:
    """The last frame first."""
    return _reordered(sample, draw, "reverse", 2)


def frames_frozen(sample: Sample, draw: Draw) -> Sample:
    """A stretch that stands still at its first frame; the whole video at severity 5."""
    return _reordered(sample, draw, "freeze", 2)


def _reordered(sample: Sample, draw: Draw, name: str, least: int) -> Sample:
    videos = [medium for medium in sample.media if medium.kind == "video"]
    if not videos:
        raise NotApplicable(sample.id, "it has no video")
    if any(video_info(video, sample.id).frames < least for video in videos):
        raise NotApplicable(sample.id, f"its video has fewer than {least} frames")
    media = (_with(medium, name, draw, sample.id) if medium.kind == "video" else medium for medium in sample.media)
    return replace(sample, media=tuple(media))


def _with(video: Media, name: str, draw: Draw, row: str) -> Media:
    return video.edited(Edit(name, draw.severity, stable_hash(draw.seed, medium_id(video, row))))


def video_info(medium: Media, row: str) -> VideoInfo:
    """`probe_video`, remembered for files: several views of a row ask for it. Videos in memory would be kept alive by it."""
    return _remembered(medium, row) if medium.path is not None else probe_video(medium, row)


@lru_cache(maxsize=1024)
def _remembered(medium: Media, row: str) -> VideoInfo:
    return probe_video(medium, row)
