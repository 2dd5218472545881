"""Small models of real families, made from sizes: the laboratory's policy and the tests' random models.

Weights are random, the tokenizer is a byte-level BPE trained on given texts with the family's own special tokens, the processor and the
chat template are the family's. What `save` writes loads with `from_pretrained`. Nothing here is needed for real checkpoints.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from vlm_rl.config import ScratchConfig

SPECIAL = [
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
]

# ChatML with one vision triple per medium, as the Qwen-VL families write it; no default system turn, so that short prompts stay short.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CLASSES = {
    "qwen2_vl": ("Qwen2VLConfig", "Qwen2VLForConditionalGeneration", "Qwen2VLProcessor", "Qwen2VLVideoProcessor"),
    "qwen2_5_vl": ("Qwen2_5_VLConfig", "Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"),
    "qwen3_vl": ("Qwen3VLConfig", "Qwen3VLForConditionalGeneration", "Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
}


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE, so any text can be written; the special tokens stand after the learnt vocabulary as in the real families."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "additional_special_tokens": SPECIAL[1:]}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **roles)


def make_processor(sizes: ScratchConfig, tokenizer: transformers.PreTrainedTokenizerFast) -> Any:
    """The family's processor; pictures are resized to about `image_size` squared pixels, keeping their aspect."""
    _, _, processor_class, video_class = CLASSES[sizes.family]
    pixels = sizes.image_size**2
    size = {"shortest_edge": pixels, "longest_edge": pixels}
    shape = {"patch_size": sizes.patch_size, "merge_size": 2, "temporal_patch_size": 2, "size": size}
    return getattr(transformers, processor_class)(
        image_processor=transformers.Qwen2VLImageProcessor(**shape),
        video_processor=getattr(transformers, video_class)(**shape),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(sizes: ScratchConfig, tokenizer: transformers.PreTrainedTokenizerFast, seed: int = 0) -> Any:
    """A random model of the family, float32, on the CPU."""
    config_class, model_class, _, _ = CLASSES[sizes.family]
    config = getattr(transformers, config_class)(**_config(sizes, tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(transformers, model_class)._from_config(config, dtype=torch.float32)


def _config(sizes: ScratchConfig, tokenizer: transformers.PreTrainedTokenizerFast) -> dict[str, Any]:
    head, hidden = sizes.hidden_size // sizes.heads, sizes.hidden_size
    half = head // 2
    section = [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section}
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start", "vision_end")}
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": max(1, sizes.heads // 2),
        "head_dim": head,
        "max_position_embeddings": 8192,
        "rope_parameters": rope,
        "initializer_range": sizes.initializer_range,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
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


def _vision(sizes: ScratchConfig) -> dict[str, Any]:
    width, hidden = sizes.vision_hidden_size, sizes.hidden_size
    shared = {"depth": sizes.vision_layers, "num_heads": 4, "patch_size": sizes.patch_size}
    shared |= {"spatial_merge_size": 2, "temporal_patch_size": 2}
    if sizes.family == "qwen2_vl":
        return shared | {"embed_dim": width, "hidden_size": hidden, "mlp_ratio": 2}
    shared |= {"hidden_size": width, "intermediate_size": 2 * width, "out_hidden_size": hidden}
    shared |= {"initializer_range": sizes.initializer_range}
    if sizes.family == "qwen3_vl":
        return shared | {"deepstack_visual_indexes": list(range(sizes.vision_layers)), "num_position_embeddings": 144}
    return shared | {"fullatt_block_indexes": list(range(sizes.vision_layers)), "window_size": 8 * sizes.patch_size}


def save(directory: Path, model: Any, processor: Any) -> None:
    """Write model, tokenizer, processor and chat template as one Hugging Face directory."""
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
