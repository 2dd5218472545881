"""Edits of pixels and of the order of frames: what `Media.edits` name, made when a medium is decoded, and how hard each severity is.

It reads no files and knows no rows. Severities go from 1 (mild) to 5; an edit depends on its own fields and the pixels, on nothing else.
"""

import io
import random
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from vlm_rl.seeds import stable_hash
from vlm_rl.types import Edit

GREY = (128, 128, 128)

# Severity 1 to 5. Lengths are shares of the picture's shorter side, so that a severity looks alike at any resolution. Blur and noise are
# those of ImageNet-C (arXiv 1903.12261) at its 224 pixels, noise with a grain as coarse; the other values are ours.
BLUR_RADIUS = tuple(sigma / 224 for sigma in (1, 2, 3, 4, 6))
NOISE_DEVIATION = (0.08, 0.12, 0.18, 0.26, 0.38)
JPEG_QUALITY = (25, 18, 15, 10, 7)
OCCLUDED_CELLS = (4, 8, 12, 18, 24)
ROTATION_DEGREES = (5, 10, 15, 20, 30)
DROPPED_SHARE = (0.2, 0.4, 0.6, 0.8, 0.9)
SHUFFLED_BLOCKS = (2, 4, 8, 16, 32)
FROZEN_SHARE = (0.2, 0.4, 0.6, 0.8, 1.0)

_GRAINS = 224
_CELLS = 6
LEAST_FRAMES = 4

Pixels = Callable[[Image.Image, Edit, int], Image.Image]
Order = Callable[[int, Edit], list[int]]


def edited_image(image: Image.Image, edits: Sequence[Edit], frame: int = 0) -> Image.Image:
    """The RGB picture after its edits, in order. `frame` is its place in a video: noise differs from frame to frame, all else does not."""
    for edit in edits:
        image = PIXELS[edit.name](image, edit, frame)
    return image


def edited_frames(frames: np.ndarray, places: Sequence[int], edits: Sequence[Edit]) -> np.ndarray:
    """(T, H, W, 3) uint8 RGB frames, which stood at `places` in the source, after those edits that change pixels."""
    changes = [edit for edit in edits if edit.name in PIXELS]
    if not changes:
        return frames
    images = (edited_image(Image.fromarray(frame), changes, place) for frame, place in zip(frames, places, strict=True))
    return np.stack([np.asarray(image) for image in images])


def frame_order(total: int, edits: Sequence[Edit]) -> Sequence[int]:
    """Which of a video's `total` frames each frame is after the edits: frame i shows the source's frame order[i]."""
    order: Sequence[int] = range(total)
    for edit in edits:
        if edit.name in ORDERS:
            order = [order[i] for i in ORDERS[edit.name](len(order), edit)]
    return order


def _blur(image: Image.Image, edit: Edit, frame: int) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(BLUR_RADIUS[edit.severity - 1] * min(image.size)))


def _noise(image: Image.Image, edit: Edit, frame: int) -> Image.Image:
    """Gaussian noise, each channel its own. The draw is the same at every severity, only larger."""
    grain = max(1, round(min(image.size) / _GRAINS))
    cells = (-(-image.height // grain), -(-image.width // grain), 3)
    noise = _generator(edit, frame).standard_normal(cells, np.float32).repeat(grain, 0).repeat(grain, 1)[: image.height, : image.width]
    noisy = np.asarray(image, np.float32) + 255 * NOISE_DEVIATION[edit.severity - 1] * noise
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def _random(image: Image.Image, edit: Edit, frame: int) -> Image.Image:
    """Every value drawn from 0 to 255: nothing of the picture is left but its size."""
    return Image.fromarray(_generator(edit, frame).integers(0, 256, (image.height, image.width, 3), np.uint8))


def _jpeg(image: Image.Image, edit: Edit, frame: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=JPEG_QUALITY[edit.severity - 1])
    return Image.open(out).convert("RGB")


def _occlude(image: Image.Image, edit: Edit, frame: int) -> Image.Image:
    """Grey cells of a 6 x 6 grid; those of a lower severity are among those of a higher one."""
    cells = _rng(edit).sample(range(_CELLS**2), OCCLUDED_CELLS[edit.severity - 1])
    corners = [(i % _CELLS, i // _CELLS) for i in cells]
    width, height = image.size
    return _painted(
        image, [(x * width // _CELLS, y * height // _CELLS, (x + 1) * width // _CELLS, (y + 1) * height // _CELLS) for x, y in corners]
    )


def _rotate(image: Image.Image, edit: Edit, frame: int) -> Image.Image:
    """Turned either way, all of it kept: shrunk to the size it had, on grey."""
    angle = ROTATION_DEGREES[edit.severity - 1] * _rng(edit).choice((-1, 1))
    turned = image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=GREY)
    return ImageOps.pad(turned, image.size, color=GREY)


def _crop(image: Image.Image, edit: Edit, frame: int) -> Image.Image:
    (box,) = edit.boxes
    return image.crop(_whole(box))


def _cover(image: Image.Image, edit: Edit, frame: int) -> Image.Image:
    return _painted(image, [_whole(box) for box in edit.boxes])


def _keep(image: Image.Image, edit: Edit, frame: int) -> Image.Image:
    kept = Image.new("RGB", image.size, GREY)
    for box in edit.boxes:
        kept.paste(image.crop(_whole(box)), _whole(box)[:2])
    return kept


def _drop(total: int, edit: Edit) -> list[int]:
    kept = max(min(total, LEAST_FRAMES), round(total * (1 - DROPPED_SHARE[edit.severity - 1])))
    return sorted(_rng(edit).sample(range(total), kept))


def _shuffle(total: int, edit: Edit) -> list[int]:
    """Blocks of neighbouring frames in another order: more and shorter ones at a higher severity."""
    count = min(total, SHUFFLED_BLOCKS[edit.severity - 1])
    blocks, rng = list(range(count)), _rng(edit)
    while count > 1 and blocks == sorted(blocks):
        rng.shuffle(blocks)
    return [i for block in blocks for i in range(block * total // count, (block + 1) * total // count)]


def _reverse(total: int, edit: Edit) -> list[int]:
    return list(range(total))[::-1]


def _freeze(total: int, edit: Edit) -> list[int]:
    """One stretch shows its first frame only."""
    length = min(total, max(2, round(total * FROZEN_SHARE[edit.severity - 1])))
    start = _rng(edit).randint(0, total - length)
    return [start if start <= i < start + length else i for i in range(total)]


def _painted(image: Image.Image, boxes: Sequence[tuple[int, int, int, int]]) -> Image.Image:
    painted = image.copy()
    for box in boxes:
        painted.paste(GREY, box)
    return painted


def _whole(box: Sequence[float]) -> tuple[int, int, int, int]:
    left, top, right, bottom = map(int, box)
    return left, top, right, bottom


def _rng(edit: Edit) -> random.Random:
    return random.Random(stable_hash(edit.name, edit.seed))


def _generator(edit: Edit, frame: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(stable_hash(edit.name, edit.seed, frame)))


PIXELS: dict[str, Pixels] = {
    "blur": _blur,
    "cover": _cover,
    "crop": _crop,
    "jpeg": _jpeg,
    "keep": _keep,
    "noise": _noise,
    "occlude": _occlude,
    "random": _random,
    "rotate": _rotate,
}
ORDERS: dict[str, Order] = {
    "drop": _drop,
    "freeze": _freeze,
    "reverse": _reverse,
    "shuffle": _shuffle,
}
