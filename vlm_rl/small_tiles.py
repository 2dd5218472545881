"""Small models of the families that cut pictures into square tiles: LLaVA-OneVision, Idefics3, SmolVLM, InternVL."""

from typing import Any

import transformers

from vlm_rl.config import ScratchConfig
from vlm_rl.small_parts import Recipe, patches, text_sizes, tower_sizes

# Media come first, then a line per text; no default system turn, so that short prompts stay short.
_LLAVA_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% if message['content'] is string %}{{ '\\n' + message['content'] }}{% else %}"
    "{% for kind in ['image', 'video'] %}{% for part in message['content'] if part['type'] == kind %}<{{ kind }}>{% endfor %}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ '\\n' + part['text'] }}{% endfor %}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAVA_MEDIA = {"image_token": "<image>", "video_token": "<video>"}
_LLAVA_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")


def _llava_grid(sizes: ScratchConfig) -> list[list[int]]:
    """Up to 2 x 2 tiles; released models have up to 6 x 6."""
    return [[rows * sizes.image_size, columns * sizes.image_size] for rows in (1, 2) for columns in (1, 2)]


def _llava_processor(sizes: ScratchConfig, tokenizer: Any) -> dict[str, Any]:
    size = {"height": sizes.image_size, "width": sizes.image_size}
    return {
        "image_processor": transformers.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=_llava_grid(sizes)),
        "video_processor": transformers.LlavaOnevisionVideoProcessor(size=size),
        "num_image_tokens": patches(sizes),
        "vision_feature_select_strategy": "full",
    }


def _llava_config(sizes: ScratchConfig, tokenizer: Any) -> dict[str, Any]:
    return {
        "text_config": text_sizes(sizes, tokenizer) | {"model_type": "qwen2"},
        "vision_config": tower_sizes(sizes) | {"model_type": "siglip_vision_model", "vision_use_head": False},
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "video_token_index": tokenizer.convert_tokens_to_ids("<video>"),
        "image_grid_pinpoints": _llava_grid(sizes),
        "tie_word_embeddings": True,
    }


RECIPES = {
    "llava_onevision": Recipe(
        tokens=_LLAVA_TOKENS,
        roles={
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "extra_special_tokens": {"image_token": "<image>", "video_token": "<video>"},
        },
        template=_LLAVA_TEMPLATE,
        classes=("LlavaOnevisionConfig", "LlavaOnevisionForConditionalGeneration", "LlavaOnevisionProcessor"),
        processor=_llava_processor,
        config=_llava_config,
    ),
}
