"""One medium -> the processor's tensors and how it is spelled in a prompt. What differs between families is left to their processors.

The processor runs once per unique medium and its tensors are shared by reference, so engine and trainer are handed the same pixels. How
bytes become a picture or frames is decided elsewhere and handed in.
"""

import re
from collections.abc import Callable, Iterable, Mapping
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
from vlm_rl.families import family_of_processor
from vlm_rl.outlines import image_inputs, video_inputs
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Clip, Media, Outline, VideoBudget
from vlm_rl.vision_cache import Vision, VisionCache
from vlm_rl.visual_tokens import video_budget

DecodeImage = Callable[[Media, str], Image.Image]
DecodeVideo = Callable[[Media, VideoBudget, str], Clip]
ANY = 1 << 40  # pixels: frames keep their size
# What processors give beside the tensors of media.
_TEXT = {"input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids", "batch_num_images", "num_patches", "video_metadata"}


class VisualProcessor:
    """Callable: (medium, row id) -> Vision, from the cache where possible. Raises RowError for a medium that cannot be used."""

    def __init__(self, processor: Any, config: ModelConfig, decode: DecodeImage, decode_video: DecodeVideo | None = None):
        self.processor, self.config = processor, config
        self.family = family_of_processor(processor)
        self.decode, self.decode_video = decode, decode_video
        self.cache = VisionCache(config.processor_cache_mb << 20, config.processor_cache_dir)
        self.calls = 0

    def __call__(self, media: Media, row: str, alone: bool = True) -> Vision:
        """`alone`: whether it is the only picture of its prompt, which some families process differently."""
        self._check_kind(media, row)
        alone = alone or not self.family.alone or media.kind == "video"
        try:
            key = f"{media.kind}-{media.id}-{self.settings[media.kind]:016x}{'' if alone else '-several'}"
        except (OSError, ValueError) as error:
            raise RowError(row, f"cannot read {media.path}: {error}") from None
        return self.cache.get(key, lambda: self._image(media, row, alone) if media.kind == "image" else self._video(media, row))

    @cached_property
    def settings(self) -> dict[str, int]:
        """By kind, a hash of all that the tensors depend on beside the medium."""
        image = (repr(self.processor.image_processor), self.image_size, self.config.video_backend)  # a picture may be a frame of a video
        common = (type(self.processor).__name__, transformers.__version__)
        if "video" not in self.family.marks:
            return {"image": stable_hash(common, image)}
        video = (repr(self.processor.video_processor), sorted(asdict(self.budget).items()))
        return {"image": stable_hash(common, image), "video": stable_hash(common, video)}

    @cached_property
    def image_size(self) -> dict[str, dict[str, int]]:
        """The processor's own bounds unless the config has some; a new bound beyond the other one moves it along."""
        low, high = self.config.image_min_pixels, self.config.image_max_pixels
        if not low and not high:
            return {}
        if not self.family.pixel_bounds:
            name = type(self.processor).__name__
            raise UserError(
                f"model.image_min_pixels and model.image_max_pixels: a {name} has no bounds of a picture's area; leave them out, and set "
                "the size of its tiles in its preprocessor_config.json"
            )
        own = self.processor.image_processor.size
        least = low or min(own["shortest_edge"], high or own["shortest_edge"])
        return {"size": {"shortest_edge": least, "longest_edge": high or max(own["longest_edge"], least)}}

    @cached_property
    def budget(self) -> VideoBudget:
        """The config's, with qwen-vl-utils' defaults. Where the processor resizes frames itself they are handed to it whole, unless the
        config bounds them."""
        config = self.config
        if not self.family.whole_frames:
            video = self.processor.video_processor
            return video_budget(config, video.patch_size * video.merge_size)
        return VideoBudget(
            fps=config.video_fps,
            min_frames=config.video_min_frames,
            max_frames=config.video_max_frames,
            min_pixels=config.video_min_pixels or 1,
            max_pixels=max(config.video_min_pixels or 1, config.video_max_pixels or ANY),
            total_pixels=config.video_total_pixels or ANY,
            factor=1,
            backend=config.video_backend,
        )

    def outlined(self, media: Media, outline: Outline, row: str, alone: bool = True) -> Vision:
        """What a medium of this outline takes up in a prompt, by the processor's own rules and without its pixels: no tensors."""
        self._check_kind(media, row)
        if media.kind == "video":
            metadata = VideoMetadata(**about(outline), video_backend=self.budget.backend)
            return self._spelled("video", self.processor.replace_video_token(video_inputs(self.processor, outline, metadata), 0))
        try:
            inputs = image_inputs(self.processor, outline, self.image_size.get("size"), alone or not self.family.alone)
        except ValueError as error:
            raise _unusable(row, outline.width, outline.height, error) from None
        return self._spelled("image", self.processor.replace_image_token(inputs, 0))

    def _spelled(self, kind: str, text: str) -> Vision:
        """From the text that the processor puts in place of a medium's mark."""
        shown = self.family.shown[kind]
        runs = re.compile(f"(?:{re.escape(shown)})+")
        return Vision({}, tuple(len(run) // len(shown) for run in runs.findall(text)), runs.sub(lambda run: shown, text))

    def _check_kind(self, media: Media, row: str) -> None:
        if media.kind not in self.family.marks:
            raise RowError(row, f"it shows a {media.kind}, and a {type(self.processor).__name__} takes none; drop the row")

    def _image(self, media: Media, row: str, alone: bool) -> Vision:
        picture = self.decode(media, row)
        several = 1 if alone else 2  # processed as one of several: as its own twin, which is then forgotten
        try:
            out = self.processor(
                text=[self.family.marks["image"] * several],
                images=[[picture] * several],
                return_tensors="pt",
                add_special_tokens=False,
                **self.image_size,
            )
        except ValueError as error:
            raise _unusable(row, picture.width, picture.height, error) from None
        tensors = self._tensors(out)
        if self.family.alone:
            tensors |= {"image_sizes": tensors["image_sizes"][:1], "alone": torch.tensor([alone])}
        self.calls += 1
        ids = out["input_ids"][0].tolist()
        return Vision(tensors, *self._runs("image", ids[: len(ids) // several]), self._size("image", tensors))

    def _video(self, media: Media, row: str) -> Vision:
        """Frames are sampled already, and resized where the family leaves that to us, so the processor is told not to. Where its family has
        times, it writes them."""
        if self.decode_video is None:
            raise UserError("no decoder of videos was given to Chat; pass decode_video")
        clip = self.decode_video(media, self.budget, row)
        how: dict[str, Any] = {"do_sample_frames": False, "return_tensors": "pt", "add_special_tokens": False}
        if not self.family.whole_frames:
            how["do_resize"] = False
        if "cap_pixels_per_frame" in self.processor.video_processor.valid_kwargs.__annotations__:
            how["cap_pixels_per_frame"] = False  # concerns resizing only; left out, it is warned about
        frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
        metadata = VideoMetadata(**about(clip.outline), video_backend=self.budget.backend)
        out = self.processor(text=[self.family.marks["video"]], videos=[[frames]], video_metadata=[[metadata]], **how)
        self.calls += 1
        tensors = self._tensors(out)
        return Vision(tensors, *self._runs("video", out["input_ids"][0].tolist()), self._size("video", tensors))

    def _tensors(self, out: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Those that the forward takes, of one medium: each can be joined with its like along the first dimension."""
        tensors = {name: torch.as_tensor(out[name]) for name in out if name not in _TEXT}
        if self.family.nested:
            tensors |= {name: tensor[0] for name, tensor in tensors.items() if name.startswith("pixel_")}
            if "pixel_values_videos" in tensors:
                tensors["frames"] = torch.tensor([len(tensors["pixel_values_videos"])])
        return tensors

    def _size(self, kind: str, tensors: Mapping[str, torch.Tensor]) -> tuple[int, int] | None:
        """(height, width) in pixels of one medium, from its grid of patches (1, 3): frames, rows, columns. None for tiles."""
        if f"{kind}_grid_thw" not in tensors:
            return None
        processor = self.processor.image_processor if kind == "image" else self.processor.video_processor
        _, rows, columns = tensors[f"{kind}_grid_thw"][0].tolist()
        return rows * processor.patch_size, columns * processor.patch_size

    def _runs(self, kind: str, ids: Iterable[int]) -> tuple[tuple[int, ...], str]:
        """The lengths of the runs of visual tokens, and the text with each run shortened to one. Raises UserError for a text that its
        tokenizer does not read back: the prompt would hold other tokens than the processor wrote."""
        tokenizer = self.processor.tokenizer
        shown = tokenizer.convert_tokens_to_ids(self.family.shown[kind])
        grouped = [(id_, len(list(same))) for id_, same in groupby(ids)]
        short = [i for id_, count in grouped for i in ([id_] if id_ == shown else [id_] * count)]
        text = tokenizer.decode(short, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if tokenizer(text, add_special_tokens=False)["input_ids"] != short:
            raise UserError(f"the tokenizer does not read back how a {kind} is spelled: {text!r}")
        return tuple(count for id_, count in grouped if id_ == shown), text


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
