"""What the program must know of each model family, one frozen entry each: a new family is one entry, a recipe of its small model
(`vlm_rl.small`) and its name in tests/test_families.py.

`FAMILIES` is keyed by the `model_type` of a model's config. How a family spells its media is asked of its own processor, never written
here. Standard library only.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vlm_rl.errors import UserError

Part = Literal["text", "tower", "projector"]


@dataclass(frozen=True)
class Family:
    """`marks` are what the chat template writes for a medium, one each, and `shown` what stands at each of its visual tokens in the
    expanded prompt; a kind that is missing cannot be shown. `controls` are the other tokens that only the processor may write.

    parts         prefixes of parameter names, the longest one decides; names are those of the transformers class
    packs         the shared-prefix forward equals the plain one (tests/test_packing_equality.py); else every completion has its own prompt
    axes          rows of position ids: 3 for mRoPE, 1 for plain positions
    types         how the forward is told which tokens are visual, None where it is not
    windows       some layers see a window only, and visual tokens of one picture see each other both ways
    whole_frames  frames of videos are resized by the processor, not by our decoder
    pixel_bounds  the processor resizes pictures within bounds of their area, model.image_min_pixels and image_max_pixels
    alone         a picture that is the only one is cut into tiles, one among several is not
    nested        the processor's tensors of pictures have one more dimension in front, the prompt's
    boxes         the convention in which released checkpoints write boxes (rewards.boxes), None where their authors name none
    """

    processor: str
    marks: Mapping[str, str]
    shown: Mapping[str, str]
    controls: tuple[str, ...]
    parts: Mapping[Part, tuple[str, ...]]
    packs: bool = True
    axes: Literal[1, 3] = 1
    types: str | None = None
    windows: bool = False
    whole_frames: bool = True
    pixel_bounds: bool = False
    alone: bool = False
    nested: bool = False
    boxes: str | None = None

    @property
    def visual_tokens(self) -> tuple[str, ...]:
        """All that no completion may hold."""
        return tuple(dict.fromkeys([*self.marks.values(), *self.shown.values(), *self.controls]))


_QWEN = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
_QWEN_CONTROLS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")
_QWEN_PARTS: Mapping[Part, tuple[str, ...]] = {
    "text": ("model.language_model.", "lm_head."),
    "tower": ("model.visual.",),
    "projector": ("model.visual.merger.", "model.visual.deepstack_merger_list."),
}
_LLAVA_PARTS: Mapping[Part, tuple[str, ...]] = {
    "text": ("model.language_model.", "lm_head."),
    "tower": ("model.vision_tower.",),
    "projector": ("model.multi_modal_projector.", "model.image_newline"),
}
_IDEFICS_PARTS: Mapping[Part, tuple[str, ...]] = {
    "text": ("model.text_model.", "lm_head."),
    "tower": ("model.vision_model.",),
    "projector": ("model.connector.",),
}
# A model that writes one of these would spell the frame of a picture that is not there. 6 x 6 tiles are the most the processors know.
_IDEFICS_CONTROLS = (
    "<fake_token_around_image>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)


def _qwen(processor: str, boxes: str | None, packs: bool = True) -> Family:
    return Family(
        processor,
        marks=_QWEN,
        shown=_QWEN,
        controls=_QWEN_CONTROLS,
        parts=_QWEN_PARTS,
        packs=packs,
        axes=3,
        types="mm_token_type_ids",
        whole_frames=False,
        pixel_bounds=True,
        boxes=boxes,
    )


FAMILIES: dict[str, Family] = {
    # Boxes: Qwen2-VL scales to 1000 (arXiv 2409.12191), Qwen2.5-VL writes pixels of the picture as it is resized (2502.13923), Qwen3-VL
    # is back at 1000 (2511.21631).
    "qwen2_vl": _qwen("Qwen2VLProcessor", boxes="rel_1000"),
    "qwen2_5_vl": _qwen("Qwen2_5_VLProcessor", boxes="abs_resized"),
    "qwen3_vl": _qwen("Qwen3VLProcessor", boxes="rel_1000"),
    # Three layers in four carry a state from token to token (gated delta rule), which would leak from one completion to the next. Its
    # authors say nothing of boxes that we know.
    "qwen3_5": _qwen("Qwen3VLProcessor", boxes=None, packs=False),
    "llava_onevision": Family(
        "LlavaOnevisionProcessor",
        marks={"image": "<image>", "video": "<video>"},
        shown={"image": "<image>", "video": "<video>"},
        controls=(),
        parts=_LLAVA_PARTS,
        alone=True,
        nested=True,
    ),
    "idefics3": Family(
        "Idefics3Processor",
        marks={"image": "<image>"},
        shown={"image": "<image>"},
        controls=_IDEFICS_CONTROLS,
        parts=_IDEFICS_PARTS,
        nested=True,
    ),
    "smolvlm": Family(
        "SmolVLMProcessor",
        marks={"image": "<image>", "video": "<video>"},
        shown={"image": "<image>", "video": "<image>"},
        controls=_IDEFICS_CONTROLS,
        parts=_IDEFICS_PARTS,
        nested=True,
    ),
    # Boxes: <box>[[x1, y1, x2, y2]]</box> scaled to 1000 (InternVL's documentation, "grounding / detection data" of its chat format).
    "internvl": Family(
        "InternVLProcessor",
        marks={"image": "<IMG_CONTEXT>", "video": "<video>"},
        shown={"image": "<IMG_CONTEXT>", "video": "<IMG_CONTEXT>"},
        controls=("<img>", "</img>"),
        parts=_LLAVA_PARTS,
        boxes="rel_1000",
    ),
    "gemma3": Family(
        "Gemma3Processor",
        marks={"image": "<start_of_image>"},
        shown={"image": "<image_soft_token>"},
        controls=("<end_of_image>",),
        parts=_LLAVA_PARTS,
        types="token_type_ids",
        windows=True,
    ),
}


def names() -> tuple[str, ...]:
    return tuple(FAMILIES)


def family_of(model_type: str) -> Family:
    """The entry of a config's `model_type`. Raises UserError naming the known ones."""
    if model_type not in FAMILIES:
        near = difflib.get_close_matches(model_type, FAMILIES, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"models of type {model_type} are not supported; known: {', '.join(FAMILIES)}.{hint}")
    return FAMILIES[model_type]


def family_of_processor(processor: object) -> Family:
    """The entry whose processor this is; families that share one are rendered alike. Raises UserError naming the known ones."""
    name = type(processor).__name__
    found = next((family for family in FAMILIES.values() if family.processor == name), None)
    if found is None:
        known = ", ".join(dict.fromkeys(family.processor for family in FAMILIES.values()))
        raise UserError(f"prompts cannot be rendered by a {name}; known processors: {known}")
    return found
