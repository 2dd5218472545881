"""The config.json of published models whose sizes this program knows, as far as sizes go; the rest is transformers' default."""

from collections.abc import Mapping
from typing import Any


def _qwen2_5(text: tuple[int, int, int, int, int, int], tied: bool) -> Mapping[str, Any]:
    vision = {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16, "patch_size": 14, "out_hidden_size": text[0]}
    return _config("qwen2_5_vl", _text(*text), vision, tied)


def _qwen3(text: tuple[int, int, int, int, int, int], tied: bool, vision: tuple[int, int, int, list[int]]) -> Mapping[str, Any]:
    width, inner, depth, deepstack = vision
    tower = {
        "hidden_size": width,
        "intermediate_size": inner,
        "depth": depth,
        "num_heads": 16,
        "patch_size": 16,
        "out_hidden_size": text[0],
    }
    seen = {"out_hidden_size": text[0], "num_position_embeddings": 2304, "deepstack_visual_indexes": deepstack}
    return _config("qwen3_vl", _text(*text) | {"head_dim": 128}, tower | seen, tied)


def _text(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocabulary: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
    }


def _config(family: str, text: Mapping[str, Any], vision: Mapping[str, Any], tied: bool) -> Mapping[str, Any]:
    return {
        "model_type": family,
        "text_config": {**text, "tie_word_embeddings": tied},
        "vision_config": dict(vision),
        "tie_word_embeddings": tied,
    }


# As in the config.json of each hub repository; their numbers of parameters are those that the hub shows for the safetensors files
# (3,754,622,976; 8,292,166,656; 4,437,815,808; 8,767,123,696), which a test holds.
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen2_5((2048, 11008, 36, 16, 2, 151936), tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen2_5((3584, 18944, 28, 28, 4, 152064), tied=False),
    "Qwen/Qwen3-VL-4B-Instruct": _qwen3((2560, 9728, 36, 32, 8, 151936), True, (1024, 4096, 24, [5, 11, 17])),
    "Qwen/Qwen3-VL-8B-Instruct": _qwen3((4096, 12288, 36, 32, 8, 151936), False, (1152, 4304, 27, [8, 16, 24])),
}
