"""The joined tensors of all media of a batch -> what the family's forward takes.

Media are processed one by one and joined along their first dimension, so that a picture that many rows share is processed once; some
families' forwards want them by prompt, or tell pictures that were cut into tiles from those that were not.
"""

import inspect
from collections.abc import Callable, Mapping
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from vlm_rl.errors import UserError


def visual_inputs(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Named as the model's forward names them, floats in its dtype."""
    own = {name: t.to(model.dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    how = _FAMILIES.get(model.config.model_type)
    return how(model, own) if how and own else own


def _llava_onevision(model: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Which pictures were alone in their prompts is told as each prompt's number of pictures. Videos of unequal numbers of frames cannot
    be stacked: their features are made one by one."""
    given: dict[str, Any] = dict(tensors)
    if "alone" in given:
        runs = [(alone, len(list(same))) for alone, same in groupby(given.pop("alone").tolist())]
        given["batch_num_images"] = [n for alone, count in runs for n in ([1] * count if alone else [count])]
    if "frames" not in given:
        return given
    clips = given.pop("pixel_values_videos").split(given.pop("frames").tolist())
    if len({len(clip) for clip in clips}) == 1:
        return given | {"pixel_values_videos": torch.stack(clips)}
    if "mm_encoder_outputs" not in inspect.signature(model.model.forward).parameters:
        raise UserError(
            f"videos of {', '.join(map(str, sorted({len(clip) for clip in clips})))} frames cannot go through one forward of the installed "
            "transformers; install 5.19, or let all have as many: model.video_min_frames and model.video_max_frames alike"
        )
    features = [model.model.get_video_features(clip[None], return_dict=True).pooler_output for clip in clips]
    outputs = {"video": SimpleNamespace(pooler_output=torch.cat(features, dim=1))}
    if "pixel_values" in given:
        outputs["image"] = model.model.get_image_features(**given, return_dict=True)
    return {"mm_encoder_outputs": outputs}


def _prompts_of_tiles(model: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """All tiles as those of one prompt: the forward takes them in order, whichever prompt they belong to."""
    return {name: tensor[None] for name, tensor in tensors.items()}


_FAMILIES: dict[str, Callable[[Any, dict[str, Tensor]], dict[str, Any]]] = {
    "llava_onevision": _llava_onevision,
    "idefics3": _prompts_of_tiles,
    "smolvlm": _prompts_of_tiles,
}
