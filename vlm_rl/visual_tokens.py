"""Visual tokens of a picture or video by its size, as the processors of the Qwen-VL families make them, without a processor or pixels.

Pictures: both sides become multiples of a token's side, as near as may be to the picture's own, within bounds on their product. Videos: two
frames are one layer of tokens; the bounds on frames are those of `VideoBudget`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vlm_rl.architecture import Architecture
from vlm_rl.config import ModelConfig
from vlm_rl.types import VideoBudget

# The processors' own bounds in pixels where a config has none, from the preprocessor_config.json of the families.
OWN_BOUNDS: Mapping[str, tuple[int, int]] = {
    "qwen2_vl": (56 * 56, 28 * 28 * 16384),
    "qwen2_5_vl": (56 * 56, 28 * 28 * 16384),
    "qwen3_vl": (65536, 16777216),
}
TIME, TIMED = 10, ("qwen3_vl", "qwen3_5")  # tokens of a time and of the marks around two frames, where they are spelled


@dataclass(frozen=True)
class Look:
    """How a model looks: pixels of a token's side, and bounds of pictures in pixels."""

    side: int
    least: int
    most: int

    def picture(self, height: int, width: int) -> int:
        """Tokens of a picture of this size."""
        rows, columns = (max(self.side, round(x / self.side) * self.side) for x in (height, width))
        if rows * columns > self.most:
            scale = math.sqrt(height * width / self.most)
            rows, columns = (max(self.side, math.floor(x / scale / self.side) * self.side) for x in (height, width))
        elif rows * columns < self.least:
            scale = math.sqrt(self.least / (height * width))
            rows, columns = (math.ceil(x * scale / self.side) * self.side for x in (height, width))
        return rows * columns // self.side**2


def look(model: ModelConfig, arch: Architecture) -> Look:
    """A bound beyond the other one moves it along, as in `vlm_rl.vision`."""
    side = arch.side
    own_least, own_most = OWN_BOUNDS[arch.family]
    low, high = model.image_min_pixels, model.image_max_pixels
    least = low or min(own_least, high or own_least)
    return Look(side, least, high or max(own_most, least))


def most_of_picture(model: ModelConfig, arch: Architecture) -> int:
    """Tokens of the largest picture."""
    seen = look(model, arch)
    return seen.most // seen.side**2


def video_budget(model: ModelConfig, side: int) -> VideoBudget:
    """The config's, with qwen-vl-utils' defaults: 128 to 768 visual tokens per two frames' patch, 0.9 x 128,000 tokens in all."""
    token = side**2
    low = model.video_min_pixels or min(128 * token, model.video_max_pixels or 128 * token)
    high = min(model.video_max_pixels or 768 * token, max(768 * token, int(1.05 * low)))
    return VideoBudget(
        fps=model.video_fps,
        min_frames=model.video_min_frames,
        max_frames=model.video_max_frames,
        min_pixels=low,
        max_pixels=max(low, high),
        total_pixels=model.video_total_pixels or 115_200 * token,
        factor=side,
        backend=model.video_backend,
    )


def most_of_video(model: ModelConfig, arch: Architecture) -> int:
    """Tokens of the largest video: all frames that are allowed, each as large as these leave it; with the times that Qwen3-VL writes."""
    budget = video_budget(model, arch.side)
    layers = budget.max_frames // 2
    each = min(budget.max_pixels, max(budget.total_pixels // layers, int(1.05 * budget.min_pixels)))
    return layers * (each // budget.factor**2 + (TIME if arch.family in TIMED else 0))
