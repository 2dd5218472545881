"""Small models of Gemma 3: every picture one square, visual tokens that see each other, layers with and without a window."""

from typing import Any

import transformers

from vlm_rl.config import ScratchConfig
from vlm_rl.families import FAMILIES
from vlm_rl.small_parts import Recipe, patches, text_sizes, tower_sizes, turns

_MEDIA = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
_TOKENS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", *_MEDIA.values())
WINDOW = 32  # shorter than small prompts, so that it shows; released models have 1024


def _processor(sizes: ScratchConfig, tokenizer: Any) -> dict[str, Any]:
    size = {"height": sizes.image_size, "width": sizes.image_size}
    return {"image_processor": transformers.Gemma3ImageProcessor(size=size), "image_seq_length": patches(sizes) // 4}


def _config(sizes: ScratchConfig, tokenizer: Any) -> dict[str, Any]:
    text = text_sizes(sizes, tokenizer)
    del text["rope_parameters"]  # one for each type of layer, the library's own
    # Embeddings are multiplied by the root of the width, and what a layer adds is normalised: as large as elsewhere, they would drown it.
    text |= {"initializer_range": sizes.initializer_range / 4}
    text |= {"query_pre_attn_scalar": text["head_dim"], "sliding_window": WINDOW}
    text["layer_types"] = ["full_attention" if i % 2 else "sliding_attention" for i in range(sizes.layers)]
    return {
        "text_config": text,
        "vision_config": tower_sizes(sizes) | {"vision_use_head": False},
        "mm_tokens_per_image": patches(sizes) // 4,
        "image_token_index": tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        "boi_token_index": tokenizer.convert_tokens_to_ids("<start_of_image>"),
        "eoi_token_index": tokenizer.convert_tokens_to_ids("<end_of_image>"),
        "initializer_range": sizes.initializer_range,
    }


RECIPES = {
    "gemma3": Recipe(
        tokens=_TOKENS,
        roles={"bos_token": "<bos>", "eos_token": "<end_of_turn>", "pad_token": "<pad>", "extra_special_tokens": _MEDIA},
        template="<bos>"
        + turns(
            "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}{{ '\\n' }}",
            FAMILIES["gemma3"].marks,
            "<end_of_turn>\n",
            "<start_of_turn>model\n",
        ),
        classes=("Gemma3Config", "Gemma3ForConditionalGeneration", "Gemma3Processor"),
        processor=_processor,
        config=_config,
        blind=("mm_input_projection_weight",),
    ),
}
