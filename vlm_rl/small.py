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

from vlm_rl import small_gemma, small_qwen, small_tiles
from vlm_rl.config import ScratchConfig
from vlm_rl.small_parts import Recipe

RECIPES: dict[str, Recipe] = {**small_qwen.RECIPES, **small_tiles.RECIPES, **small_gemma.RECIPES}


def train_tokenizer(texts: Iterable[str], vocab_size: int, family: str = "qwen2_5_vl") -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE, so any text can be written; the special tokens stand after the learnt vocabulary as in the real families."""
    recipe = RECIPES[family]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(recipe.tokens), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in recipe.tokens])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **recipe.roles)


def make_processor(sizes: ScratchConfig, tokenizer: transformers.PreTrainedTokenizerFast) -> Any:
    """The family's processor; `image_size` is the side of the squares that its tower sees, or, where it takes any shape, of their area."""
    recipe = RECIPES[sizes.family]
    parts = recipe.processor(sizes, tokenizer)
    return getattr(transformers, recipe.classes[2])(tokenizer=tokenizer, chat_template=recipe.template, **parts)


def make_model(sizes: ScratchConfig, tokenizer: transformers.PreTrainedTokenizerFast, seed: int = 0) -> Any:
    """A random model of the family, float32, on the CPU."""
    recipe = RECIPES[sizes.family]
    config = getattr(transformers, recipe.classes[0])(**recipe.config(sizes, tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, recipe.classes[1])._from_config(config, dtype=torch.float32)
        for name, weight in model.named_parameters():
            if name.endswith(recipe.blind):
                torch.nn.init.normal_(weight, std=sizes.initializer_range)
    return model


def save(directory: Path, model: Any, processor: Any) -> None:
    """Write model, tokenizer, processor and chat template as one Hugging Face directory."""
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
