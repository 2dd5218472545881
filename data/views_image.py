"""Views of pictures, and of each frame of a video alike: worse pictures, none, another row's, or only what lies inside given boxes.

A view names an edit; pixels change when the medium is decoded (`data.edits` holds what each severity means).
"""

from dataclasses import replace
from functools import lru_cache

from PIL import Image

from data.boxes import fitted_all
from data.edits import GREY
from data.media import image_size, medium_id, png_media
from data.video import uniform_media
from data.views import Draw, NotApplicable
from data.views_video import video_info
from vlm_rl.errors import RowError
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Box, Edit, Media, Sample

_TRIES = 50


def image_blank(sample: Sample, draw: Draw) -> Sample:
    """Every medium replaced by a uniform grey one of the same upright size and length."""
    return replace(sample, media=tuple(_blank(medium, sample.id) for medium in _media(sample)))


def image_noise(sample: Sample, draw: Draw) -> Sample:
    """Gaussian noise on top of the picture."""
    return _edited(sample, draw, "noise")


def image_random(sample: Sample, draw: Draw) -> Sample:
    """Uniform noise instead of the picture, of the same size (arXiv 2510.23482 does it to crops)."""
    return _edited(sample, draw, "random")


def image_blur(sample: Sample, draw: Draw) -> Sample:
    """Gaussian blur."""
    return _edited(sample, draw, "blur")


def image_jpeg(sample: Sample, draw: Draw) -> Sample:
    """JPEG compression."""
    return _edited(sample, draw, "jpeg")


def image_occluded(sample: Sample, draw: Draw) -> Sample:
    """Some cells of a grid painted grey."""
    return _edited(sample, draw, "occlude")


def image_rotated(sample: Sample, draw: Draw) -> Sample:
    """Turned by some degrees to either side, whole, the size as before. Boxes fit no more."""
    return _unboxed(_edited(sample, draw, "rotate"))


def image_swapped(sample: Sample, draw: Draw) -> Sample:
    """The media of another row, one of `draw.others` with as many of the same kinds and none in common."""
    kinds, rng = [medium.kind for medium in _media(sample)], draw.rng("image_swapped", sample.id)
    for index in rng.sample(range(len(draw.others)), min(_TRIES, len(draw.others))):
        try:
            other = draw.others[index]
            fits = [medium.kind for medium in other.media] == kinds
            if fits and _ids(other).isdisjoint(_ids(sample)):
                return _unboxed(replace(sample, media=other.media))
        except RowError:
            continue
    raise NotApplicable(sample.id, "none of the other rows has as many other media of these kinds")


def boxes_cropped(sample: Sample, draw: Draw) -> Sample:
    """Each box its own picture, in order, without boxes that are nearly the same as an earlier one; nothing else is shown."""
    picture, boxes = _boxed(sample, draw)
    crops = tuple(picture.edited(Edit("crop", boxes=(box,))) for box in boxes)
    marks = "<image>" * len(crops)
    options = tuple(option.replace("<image>", marks) for option in sample.options)
    return _unboxed(replace(sample, question=sample.question.replace("<image>", marks), options=options, media=crops))


def boxes_covered(sample: Sample, draw: Draw) -> Sample:
    """The boxes painted grey: everything but the evidence."""
    picture, boxes = _boxed(sample, draw)
    return replace(sample, media=(picture.edited(Edit("cover", boxes=boxes)),))


def boxes_kept(sample: Sample, draw: Draw) -> Sample:
    """All else painted grey: the evidence where it was."""
    picture, boxes = _boxed(sample, draw)
    return replace(sample, media=(picture.edited(Edit("keep", boxes=boxes)),))


def _edited(sample: Sample, draw: Draw, name: str) -> Sample:
    """The seed is the medium's own, so that rows that share a picture share what becomes of it."""
    media = _media(sample)
    seeds = [stable_hash(draw.seed, medium_id(medium, sample.id)) for medium in media]
    edits = [Edit(name, draw.severity, seed) for seed in seeds]
    return replace(sample, media=tuple(medium.edited(edit) for medium, edit in zip(media, edits, strict=True)))


def _media(sample: Sample) -> tuple[Media, ...]:
    if not sample.media:
        raise NotApplicable(sample.id, "it has no picture or video")
    return sample.media


def _boxed(sample: Sample, draw: Draw) -> tuple[Media, tuple[Box, ...]]:
    known = sample.meta.get("boxes", ())
    boxes = None if known is None else draw.boxes or known
    if not boxes:
        raise NotApplicable(sample.id, "no boxes are known that fit its picture")
    if [medium.kind for medium in sample.media] != ["image"]:
        raise NotApplicable(sample.id, "boxes are of one picture, which it has not")
    if not isinstance(boxes, (list, tuple)):
        raise NotApplicable(sample.id, f"its meta.boxes is not a list of [left, top, right, bottom]: {str(boxes)[:60]}")
    try:
        return sample.media[0], fitted_all(boxes, *image_size(sample.media[0], sample.id))
    except ValueError as error:
        raise NotApplicable(sample.id, str(error)) from None


def _unboxed(sample: Sample) -> Sample:
    """Boxes given for the picture as it was are refused from here on, those of the draw too."""
    return replace(sample, meta={**sample.meta, "boxes": None})


def _ids(sample: Sample) -> set[str]:
    return {medium_id(medium, sample.id) for medium in sample.media}


def _blank(medium: Media, row: str) -> Media:
    if medium.kind == "video":
        return uniform_media(video_info(medium, row), GREY)
    return _grey(*image_size(medium, row))


@lru_cache(maxsize=256)
def _grey(width: int, height: int) -> Media:
    """One shared handle per size, so that whatever is cached by content is computed once."""
    return png_media(Image.new("RGB", (width, height), GREY))
