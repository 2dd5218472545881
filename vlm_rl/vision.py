"""One medium -> the processor's tensors and how it is spelled in a prompt. What differs between families is left to their processors.

The processor runs once per unique medium and its tensors are shared by reference, so engine and trainer are handed the same pixels. How
bytes become a picture or frames is decided elsewhere and handed in.
"""

import re
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
import transformers
from PIL import Image
from transformers.video_utils import VideoMetadata

from vlm_rl.config import ModelConfig
from vlm_rl.errors import RowError, UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Clip, Media, Outline, VideoBudget
from vlm_rl.vision_cache import Vision, VisionCache

IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
PADS = re.compile(f"(?:{re.escape(VIDEO_PAD)})+")
SNIPPET = f"<|vision_start|>{VIDEO_PAD}<|vision_end|>"
DecodeImage = Callable[[Media, str], Image.Image]
DecodeVideo = Callable[[Media, VideoBudget, str], Clip]


class VisualProcessor:
    """Callable: (medium, row id) -> Vision, from the cache where possible. Raises RowError for a medium that cannot be used."""

    def __init__(self, processor: Any, config: ModelConfig, decode: DecodeImage, decode_video: DecodeVideo | None = None):
        self.processor, self.config = processor, config
        self.decode, self.decode_video = decode, decode_video
        self.cache = VisionCache(config.processor_cache_mb << 20, config.processor_cache_dir)
        self.calls = 0

    def __call__(self, media: Media, row: str) -> Vision:
        try:
            key = f"{media.kind}-{media.id}-{self.settings[media.kind]:016x}"
        except (OSError, ValueError) as error:
            raise RowError(row, f"cannot read {media.path}: {error}") from None
        return self.cache.get(key, lambda: (self._image if media.kind == "image" else self._video)(media, row))

    @cached_property
    def settings(self) -> dict[str, int]:
        """By kind, a hash of all that the tensors depend on beside the medium."""
        image = (repr(self.processor.image_processor), self.image_size, self.config.video_backend)  # a picture may be a frame of a video
        video = (repr(self.processor.video_processor), sorted(asdict(self.budget).items()))
        common = (type(self.processor).__name__, transformers.__version__)
        return {"image": stable_hash(common, image), "video": stable_hash(common, video)}

    @cached_property
    def image_size(self) -> dict[str, dict[str, int]]:
        """The processor's own bounds unless the config has some; a new bound beyond the other one moves it along."""
        low, high = self.config.image_min_pixels, self.config.image_max_pixels
        if not low and not high:
            return {}
        own = self.processor.image_processor.size
        least = low or min(own["shortest_edge"], high or own["shortest_edge"])
        return {"size": {"shortest_edge": least, "longest_edge": high or max(own["longest_edge"], least)}}

    @cached_property
    def budget(self) -> VideoBudget:
        """The config's, with qwen-vl-utils' defaults: 128 to 768 visual tokens per two frames' patch, 0.9 x 128,000 tokens in all."""
        config, video = self.config, self.processor.video_processor
        factor = video.patch_size * video.merge_size
        token = factor**2
        low = config.video_min_pixels or min(128 * token, config.video_max_pixels or 128 * token)
        high = min(config.video_max_pixels or 768 * token, max(768 * token, int(1.05 * low)))
        return VideoBudget(
            fps=config.video_fps,
            min_frames=config.video_min_frames,
            max_frames=config.video_max_frames,
            min_pixels=low,
            max_pixels=max(low, high),
            total_pixels=config.video_total_pixels or 115_200 * token,
            factor=factor,
            backend=config.video_backend,
        )

    def outlined(self, media: Media, outline: Outline, row: str) -> Vision:
        """What a medium of this outline takes up in a prompt, by the processor's own rules and without its pixels: no tensors."""
        if media.kind == "video":
            video = self.processor.video_processor
            times = -(-len(outline.indices) // video.temporal_patch_size)
            grid = torch.tensor([[times, outline.height // video.patch_size, outline.width // video.patch_size]])
            spelled = self.processor.replace_video_token(
                {"video_grid_thw": grid, "video_metadata": [VideoMetadata(**about(outline), video_backend=self.budget.backend)]}, 0
            )
            runs = tuple(len(run) // len(VIDEO_PAD) for run in PADS.findall(spelled))
            return Vision({}, runs, SNIPPET.replace(VIDEO_PAD, PADS.sub(VIDEO_PAD, spelled)))
        bounds = self.image_size.get("size")
        limits = {"min_pixels": bounds["shortest_edge"], "max_pixels": bounds["longest_edge"]} if bounds else {}
        try:
            patches = self.processor.image_processor.get_number_of_image_patches(outline.height, outline.width, limits)
        except ValueError as error:
            raise _unusable(row, outline.width, outline.height, error) from None
        return Vision({}, (patches // self.processor.image_processor.merge_size**2,), IMAGE_PAD)

    def _image(self, media: Media, row: str) -> Vision:
        picture = self.decode(media, row)
        try:
            out = self.processor.image_processor(images=[picture], return_tensors="pt", **self.image_size)
        except ValueError as error:
            raise _unusable(row, picture.width, picture.height, error) from None
        self.calls += 1
        tokens = int(out["image_grid_thw"].prod()) // self.processor.image_processor.merge_size**2
        return Vision(dict(out), (tokens,), IMAGE_PAD, _size(out["image_grid_thw"], self.processor.image_processor.patch_size))

    def _video(self, media: Media, row: str) -> Vision:
        """Frames are sampled and resized already, so the processor is told to do neither. Where its family has times, it writes them."""
        if self.decode_video is None:
            raise UserError("no decoder of videos was given to Chat; pass decode_video")
        clip = self.decode_video(media, self.budget, row)
        how: dict[str, Any] = {"do_sample_frames": False, "do_resize": False, "return_tensors": "pt"}
        if "cap_pixels_per_frame" in self.processor.video_processor.valid_kwargs.__annotations__:
            how["cap_pixels_per_frame"] = False  # concerns resizing only; left out, it is warned about
        frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
        out = self.processor(
            text=[SNIPPET], videos=[frames], video_metadata=[VideoMetadata(**about(clip.outline), video_backend=self.budget.backend)], **how
        )
        self.calls += 1
        ids = out.pop("input_ids")[0].tolist()
        tensors = {name: torch.as_tensor(out[name]) for name in out if name.endswith(("_videos", "grid_thw", "grid_ts"))}
        return Vision(tensors, *self._runs(ids), _size(tensors["video_grid_thw"], self.processor.video_processor.patch_size))

    def _runs(self, ids: list[int]) -> tuple[tuple[int, ...], str]:
        """The lengths of the runs of placeholders, and the text with each run shortened to one."""
        tokenizer = self.processor.tokenizer
        pad = tokenizer.convert_tokens_to_ids(VIDEO_PAD)
        grouped = [(id_, len(list(same))) for id_, same in groupby(ids)]
        short = [i for id_, count in grouped for i in ([id_] if id_ == pad else [id_] * count)]
        text = tokenizer.decode(short, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return tuple(count for id_, count in grouped if id_ == pad), text


def _size(grid: torch.Tensor, patch: int) -> tuple[int, int]:
    """(height, width) in pixels of one medium, from its grid of patches (1, 3): frames, rows, columns."""
    _, rows, columns = grid[0].tolist()
    return rows * patch, columns * patch


def _unusable(row: str, width: int, height: int, error: ValueError) -> RowError:
    return RowError(row, f"the picture ({width}x{height}) cannot be processed: {error}")


def about(outline: Outline) -> dict[str, Any]:
    """What processors and engines are told of a video beside its frames."""
    return {
        "total_num_frames": outline.total,
        "fps": outline.fps,
        "width": outline.width,
        "height": outline.height,
        "duration": outline.total / outline.fps,
        "frames_indices": list(outline.indices),
    }
