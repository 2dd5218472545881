"""Small models of the families that cut pictures into square tiles: LLaVA-OneVision, Idefics3, SmolVLM, InternVL."""

from typing import Any

import transformers

from vlm_rl.config import ScratchConfig
from vlm_rl.families import FAMILIES
from vlm_rl.small_parts import Recipe, patches, text_sizes, tower_sizes, turns

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


# A turn is "User:" or "User: " as a medium or a text follows.
_IDEFICS_OPENING = (
    "{{ message['role'] | capitalize }}:{% if message['content'][0]['type'] | default('text') == 'text' %}{{ ' ' }}{% endif %}"
)
_IDEFICS_TOKENS = (*FAMILIES["idefics3"].controls, "<image>", "<end_of_utterance>")


def _idefics_processor(sizes: ScratchConfig, tokenizer: Any, name: str) -> dict[str, Any]:
    """Up to 2 x 2 tiles beside the whole picture; released models have up to 4 x 4."""
    side: dict[str, Any] = {"size": {"longest_edge": 2 * sizes.image_size}, "max_image_size": {"longest_edge": sizes.image_size}}
    made = {"image_processor": getattr(transformers, f"{name}ImageProcessor")(**side), "image_seq_len": patches(sizes) // 4}
    return made | ({"video_processor": transformers.SmolVLMVideoProcessor(**side)} if name == "SmolVLM" else {})


def _idefics_config(sizes: ScratchConfig, tokenizer: Any) -> dict[str, Any]:
    return {
        "text_config": text_sizes(sizes, tokenizer) | {"model_type": "llama"},
        "vision_config": tower_sizes(sizes),
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "scale_factor": 2,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }


def _idefics(name: str, opening: str, padding: str, more: tuple[str, ...]) -> Recipe:
    marks = FAMILIES[name.lower()].marks
    return Recipe(
        tokens=(opening, *more, *_IDEFICS_TOKENS),
        roles={"bos_token": opening, "eos_token": "<end_of_utterance>", "pad_token": padding},
        template=opening + turns(_IDEFICS_OPENING, marks, "<end_of_utterance>\n", "Assistant:"),
        classes=(f"{name}Config", f"{name}ForConditionalGeneration", f"{name}Processor"),
        processor=lambda sizes, tokenizer: _idefics_processor(sizes, tokenizer, name),
        config=_idefics_config,
    )


_INTERN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>")
_INTERN_MEDIA = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def _intern_processor(sizes: ScratchConfig, tokenizer: Any) -> dict[str, Any]:
    """Up to 4 tiles and a thumbnail; released models have up to 12."""
    size = {"height": sizes.image_size, "width": sizes.image_size}
    return {
        "image_processor": transformers.GotOcr2ImageProcessor(size=size, max_patches=4),
        "video_processor": transformers.InternVLVideoProcessor(size=size),
        "image_seq_length": patches(sizes) // 4,
    }


def _intern_config(sizes: ScratchConfig, tokenizer: Any) -> dict[str, Any]:
    return {
        "text_config": text_sizes(sizes, tokenizer) | {"model_type": "qwen2"},
        "vision_config": tower_sizes(sizes),
        "image_token_id": tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        "image_seq_length": patches(sizes) // 4,
        "downsample_ratio": 0.5,
        "tie_word_embeddings": True,
    }


RECIPES = {
    "idefics3": _idefics("Idefics3", "<|begin_of_text|>", "<|finetune_right_pad_id|>", ("<|finetune_right_pad_id|>",)),
    "smolvlm": _idefics("SmolVLM", "<|im_start|>", "<|im_end|>", ("<|im_end|>", "<video>")),
    "internvl": Recipe(
        tokens=_INTERN_TOKENS,
        roles={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "extra_special_tokens": _INTERN_MEDIA},
        template=turns(
            "<|im_start|>{{ message['role'] }}{{ '\\n' }}",
            {kind: f"{mark}{{{{ '\\n' }}}}" for kind, mark in FAMILIES["internvl"].marks.items()},
            "<|im_end|>\n",
            "<|im_start|>assistant\n",
        ),
        classes=("InternVLConfig", "InternVLForConditionalGeneration", "InternVLProcessor"),
        processor=_intern_processor,
        config=_intern_config,
        blind=("embeddings.position_embeddings",),
    ),
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
