"""Small models of the Qwen-VL families: pictures of any shape on a grid of patches, mRoPE."""

from dataclasses import replace
from typing import Any

import transformers

from vlm_rl.config import ScratchConfig
from vlm_rl.small_parts import Recipe, text_sizes

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
ROLES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "additional_special_tokens": list(SPECIAL[1:])}

# ChatML with one vision triple per medium, as the Qwen-VL families write it; no default system turn, so that short prompts stay short.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Qwen3.5 opens the thought itself.
THINKING_TEMPLATE = CHAT_TEMPLATE.removesuffix("{% endif %}") + "<think>\n{% endif %}"


def _processor(sizes: ScratchConfig, video: str) -> dict[str, Any]:
    """Pictures are resized to about `image_size` squared pixels, keeping their aspect."""
    pixels = sizes.image_size**2
    size = {"shortest_edge": pixels, "longest_edge": pixels}
    shape = {"patch_size": sizes.patch_size, "merge_size": 2, "temporal_patch_size": 2, "size": size}
    return {"image_processor": transformers.Qwen2VLImageProcessor(**shape), "video_processor": getattr(transformers, video)(**shape)}


def _config(sizes: ScratchConfig, tokenizer: Any) -> dict[str, Any]:
    half = sizes.hidden_size // sizes.heads // 2
    section = [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]
    text = text_sizes(sizes, tokenizer) | {"bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>")}
    text["rope_parameters"] |= {"mrope_section": section}
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start", "vision_end")}
    return {
        "text_config": text,
        "vision_config": _vision(sizes),
        "image_token_id": ids["image_pad"],
        "video_token_id": ids["video_pad"],
        "vision_start_token_id": ids["vision_start"],
        "vision_end_token_id": ids["vision_end"],
        "tie_word_embeddings": True,
        "initializer_range": sizes.initializer_range,
    }


def _config_with_states(sizes: ScratchConfig, tokenizer: Any) -> dict[str, Any]:
    """Every second layer carries a state; released models have three of four."""
    config, head = _config(sizes, tokenizer), sizes.hidden_size // sizes.heads
    turned = head // 4  # half of half: a part of each head is turned by the position
    section = [turned - 2 * (3 * turned // 8), 3 * turned // 8, 3 * turned // 8]
    config["text_config"]["rope_parameters"] |= {"mrope_section": section, "mrope_interleaved": True, "partial_rotary_factor": 0.5}
    config["text_config"] |= {
        "layer_types": ["full_attention" if i % 2 else "linear_attention" for i in range(sizes.layers)],
        "linear_key_head_dim": head,
        "linear_value_head_dim": head,
        "linear_num_key_heads": max(1, sizes.heads // 2),
        "linear_num_value_heads": sizes.heads,
    }
    return config


def _vision(sizes: ScratchConfig) -> dict[str, Any]:
    width, hidden = sizes.vision_hidden_size, sizes.hidden_size
    shared = {"depth": sizes.vision_layers, "num_heads": 4, "patch_size": sizes.patch_size}
    shared |= {"spatial_merge_size": 2, "temporal_patch_size": 2}
    if sizes.family == "qwen2_vl":
        return shared | {"embed_dim": width, "hidden_size": hidden, "mlp_ratio": 2}
    shared |= {"hidden_size": width, "intermediate_size": 2 * width, "out_hidden_size": hidden}
    shared |= {"initializer_range": sizes.initializer_range}
    if sizes.family == "qwen3_5":
        return shared | {"num_position_embeddings": 144}
    if sizes.family == "qwen3_vl":
        return shared | {"deepstack_visual_indexes": list(range(sizes.vision_layers)), "num_position_embeddings": 144}
    return shared | {"fullatt_block_indexes": list(range(sizes.vision_layers)), "window_size": 8 * sizes.patch_size}


def _recipe(model: str, processor: str, video: str) -> Recipe:
    classes = (f"{model}Config", f"{model}ForConditionalGeneration", processor)
    return Recipe(SPECIAL, ROLES, CHAT_TEMPLATE, classes, lambda sizes, tokenizer: _processor(sizes, video), _config)


_QWEN3_5 = _recipe("Qwen3_5", "Qwen3VLProcessor", "Qwen3VLVideoProcessor")


RECIPES = {
    "qwen2_vl": _recipe("Qwen2VL", "Qwen2VLProcessor", "Qwen2VLVideoProcessor"),
    "qwen2_5_vl": _recipe("Qwen2_5_VL", "Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"),
    "qwen3_vl": _recipe("Qwen3VL", "Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
    "qwen3_5": replace(_QWEN3_5, config=_config_with_states, template=THINKING_TEMPLATE),
}
