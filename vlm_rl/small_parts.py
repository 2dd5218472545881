"""What the recipes of small models share: the form of a recipe, sizes of a text model, chat templates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vlm_rl.config import ScratchConfig


@dataclass(frozen=True)
class Recipe:
    """`tokens` are the family's special tokens, after the learnt vocabulary as in the real ones, `roles` what its tokenizer calls them.

    `processor(sizes, tokenizer)` gives the parts of the family's processor beside tokenizer and template, and `config(sizes, tokenizer)`
    what its config class takes. `blind` are weights that the library begins at zero, with which a small model would see nothing.
    """

    tokens: tuple[str, ...]
    roles: Mapping[str, Any]
    template: str
    classes: tuple[str, str, str]  # of the config, the model and the processor
    processor: Callable[[ScratchConfig, Any], dict[str, Any]]
    config: Callable[[ScratchConfig, Any], dict[str, Any]]
    blind: tuple[str, ...] = ()


def text_sizes(sizes: ScratchConfig, tokenizer: Any) -> dict[str, Any]:
    """Of the text model, as most config classes name them."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": sizes.hidden_size,
        "intermediate_size": 4 * sizes.hidden_size,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": max(1, sizes.heads // 2),
        "head_dim": sizes.hidden_size // sizes.heads,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "initializer_range": sizes.initializer_range,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def tower_sizes(sizes: ScratchConfig) -> dict[str, Any]:
    """Of a vision tower that sees squares of `image_size` pixels, as most config classes name them."""
    return {
        "hidden_size": sizes.vision_hidden_size,
        "intermediate_size": 2 * sizes.vision_hidden_size,
        "num_hidden_layers": sizes.vision_layers,
        "num_attention_heads": 4,
        "patch_size": sizes.patch_size,
        "image_size": sizes.image_size,
        "initializer_range": sizes.initializer_range,
    }


def patches(sizes: ScratchConfig) -> int:
    """Of one square that the tower sees."""
    return (sizes.image_size // sizes.patch_size) ** 2


def turns(opening: str, media: Mapping[str, str], closing: str, answer: str) -> str:
    """A chat template whose media stand where they are in the text: `opening` with {role}, `media` by kind, the end of a turn, and the
    beginning of the assistant's."""
    parts = "".join(f"{{% if part['type'] == '{kind}' %}}{mark}{{% endif %}}" for kind, mark in media.items())
    return (
        "{% for message in messages %}" + opening + "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}" + parts + "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
        "{% endif %}" + closing + "{% endfor %}{% if add_generation_prompt %}" + answer + "{% endif %}"
    )  # fmt: skip
