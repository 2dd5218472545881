"""A medium's outline -> what a processor needs to spell it, as if it had seen the pixels: rows and columns of tiles, grids, shapes.

Each entry gives the inputs of the processor's own `replace_image_token` or `replace_video_token`; tensors have shapes and no memory.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vlm_rl.types import Outline

Bounds = Mapping[str, int] | None


def image_inputs(processor: Any, outline: Outline, bounds: Bounds, alone: bool) -> dict[str, Any]:
    """Of a picture, within `bounds` of its area where the family has such; `alone` in its prompt or one of several."""
    return _IMAGES[type(processor).__name__](processor, outline, bounds, alone)


def video_inputs(processor: Any, outline: Outline, metadata: Any) -> dict[str, Any]:
    """Of a video whose frames are those of the outline."""
    return _VIDEOS[type(processor).__name__](processor, outline) | {"video_metadata": [metadata]}


def _shape(*sizes: int) -> Tensor:
    return torch.empty(1).expand(*sizes)


def _grid(processor: Any, outline: Outline, bounds: Bounds, alone: bool) -> dict[str, Any]:
    limits = {"min_pixels": bounds["shortest_edge"], "max_pixels": bounds["longest_edge"]} if bounds else {}
    patches = processor.image_processor.get_number_of_image_patches(outline.height, outline.width, limits)
    return {"image_grid_thw": torch.tensor([[1, 1, patches]])}


def _anyres(processor: Any, outline: Outline, bounds: Bounds, alone: bool) -> dict[str, Any]:
    size = processor.image_processor.size
    tile = _shape(1, 1, 3, size["height"], size["width"])
    return {"batch_num_images": [1 if alone else 2], "image_sizes": [(outline.height, outline.width)], "pixel_values": tile}


def _rows_of_tiles(processor: Any, outline: Outline, bounds: Bounds, alone: bool) -> dict[str, Any]:
    _, rows, columns = processor.image_processor.get_number_of_image_patches(outline.height, outline.width, {})
    return {"rows": [[rows]], "cols": [[columns]]}


def _count_of_tiles(processor: Any, outline: Outline, bounds: Bounds, alone: bool) -> dict[str, Any]:
    tiles = processor.image_processor.get_number_of_image_patches(outline.height, outline.width, {"crop_to_patches": True})
    return {"num_patches": [tiles]}


def _crops(processor: Any, outline: Outline, bounds: Bounds, alone: bool) -> dict[str, Any]:
    """Gemma3Processor cuts out crops only where a call asks for it, whatever its files say; ours do not."""
    return {"num_crops": [0]}


def _grid_of_frames(processor: Any, outline: Outline) -> dict[str, Any]:
    video = processor.video_processor
    times = -(-len(outline.indices) // video.temporal_patch_size)
    return {"video_grid_thw": torch.tensor([[times, outline.height // video.patch_size, outline.width // video.patch_size]])}


def _frames_as_pictures(processor: Any, outline: Outline) -> dict[str, Any]:
    return {"pixel_values": _shape(1, len(outline.indices))}


def _frames(processor: Any, outline: Outline) -> dict[str, Any]:
    return {"pixel_values_videos": [_shape(len(outline.indices), 1)]}


_QWEN = ("Qwen2VLProcessor", "Qwen2_5_VLProcessor", "Qwen3VLProcessor")
_IMAGES: dict[str, Callable[[Any, Outline, Bounds, bool], dict[str, Any]]] = {
    **dict.fromkeys(_QWEN, _grid),
    "LlavaOnevisionProcessor": _anyres,
    "Idefics3Processor": _rows_of_tiles,
    "SmolVLMProcessor": _rows_of_tiles,
    "InternVLProcessor": _count_of_tiles,
    "Gemma3Processor": _crops,
}
_VIDEOS: dict[str, Callable[[Any, Outline], dict[str, Any]]] = {
    **dict.fromkeys(_QWEN, _grid_of_frames),
    "LlavaOnevisionProcessor": _frames,
    "SmolVLMProcessor": _frames_as_pictures,
    "InternVLProcessor": _frames,
}
