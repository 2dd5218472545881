"""Sizes of a vision-language model, from its config.json or that of a published one, and its number of parameters by part.

No weight is made: parameters and linear layers are counted on transformers' own model on the meta device. What a layer keeps follows from
a description of it (Text, Tower, Projector), which families fill in; a layer that is not described is refused by name. Parts are those
of `vlm_rl.families`: text (vocabulary projection included), tower, projector.
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from vlm_rl.config import ModelConfig, project_path
from vlm_rl.errors import UserError
from vlm_rl.families import FAMILIES, Part, family_of
from vlm_rl.published import PUBLISHED

PARTS: tuple[Part, ...] = ("text", "tower", "projector")
Norm = Literal["rms", "offset", "layer", "none"]  # offset: an RMS norm that multiplies by 1 + weight, all of it in float32


@dataclass(frozen=True)
class Linear:
    """`count` linear layers of these widths."""

    inputs: int
    outputs: int
    count: int = 1


@dataclass(frozen=True)
class States:
    """Layers that carry a state from token to token (gated delta rule) in the place of attention."""

    layers: int
    key_heads: int
    value_heads: int
    key: int
    value: int
    kernel: int


@dataclass(frozen=True)
class Text:
    """The language model: a gated MLP, `norms` of the model's width in a layer. `tied`: the vocabulary projection is the embedding.
    `windowed` layers see `window` tokens back only; `turned`: the share of a head that positions turn; `gated`: attention's output is
    multiplied by a gate."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool
    qk_norm: bool = False
    norm: Norm = "rms"
    norms: int = 2
    windowed: int = 0
    window: int = 0
    turned: float = 1.0
    gated: bool = False
    states: States | None = None

    @property
    def queries(self) -> int:
        return self.heads * self.head

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head

    @property
    def attending(self) -> int:
        """Layers with attention."""
        return self.layers - (self.states.layers if self.states else 0)


@dataclass(frozen=True)
class Tower:
    """The vision tower, whose rows are patches: a grid of any shape, or tiles of `tile` rows each, `first` of them no patches.

    `numbers` of the picture in a row; `activations`: tensors of the MLP's width that are kept; `turned`: queries, keys and values are made
    by one matrix and turned by positions; `scaled`: what a layer adds is multiplied by weights; `closed`: a norm follows the last
    layer; `copied`: it reads a copy of the pictures, without empty tiles."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    patch: int
    numbers: int
    tile: int = 0
    first: int = 0
    norm: Norm = "layer"
    activations: int = 2
    turned: bool = False
    scaled: bool = False
    qk_norm: bool = False
    closed: bool = False
    copied: bool = False

    def patches(self, rows: int) -> int:
        """Of so many rows."""
        return rows * (self.tile - self.first) // self.tile if self.tile else rows


@dataclass(frozen=True)
class Projector:
    """`joined` patches become a row of `reads` numbers, normed, through one linear layer, or two with `inner` numbers between.
    `pooled`: they are averaged. `copies` for feature maps handed to text layers (deepstack)."""

    reads: int
    joined: int
    inner: int = 0
    norm: Norm = "none"
    pooled: bool = False
    copies: int = 0


@dataclass(frozen=True)
class Architecture:
    """A whole model. `linears` are the layers that LoRA adapts, without the vocabulary projection; `source`: where sizes are from."""

    family: str
    text: Text
    tower: Tower
    projector: Projector
    parameters: Mapping[Part, int]
    linears: Mapping[Part, tuple[Linear, ...]]
    source: str

    @property
    def total(self) -> int:
        return sum(self.parameters.values())

    @property
    def side(self) -> int:
        """Pixels of a visual token's side, where pictures are a grid of any shape."""
        return self.tower.patch * math.isqrt(self.projector.joined)

    @property
    def packs(self) -> bool:
        """Whether the completions of a prompt share its forward, as `vlm_rl.policy` decides it."""
        family = FAMILIES[self.family]
        return family.packs and self.text.states is None and (family.windows or not self.text.windowed)


def find(model: ModelConfig) -> Architecture:
    """The model that a config names: by a local directory's config.json, else by the table. Downloads nothing. Raises UserError."""
    if model.path is None:
        raise UserError("model.scratch makes a small model, which needs no plan; write model.path")
    folder = project_path(model.path)
    if folder.is_dir():
        return of_config(_read(folder, model.path), f"{folder / 'config.json'}")
    if model.path in PUBLISHED:
        return published(model.path)
    raise UserError(
        f"model.path={model.path}: there is no such directory, and its sizes are not among those known here ({', '.join(PUBLISHED)}); "
        "write the directory of a downloaded copy, of which the files without weights are enough"
    )


@cache
def published(name: str) -> Architecture:
    import transformers  # only here and below are it and torch needed

    return of_config(transformers.AutoConfig.for_model(**PUBLISHED[name]), f"the published config.json of {name}, as this program knows it")


def _read(folder: Any, path: str) -> Any:
    """transformers' config object. Raises UserError for a file that is none."""
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(folder)
    except Exception as error:  # a config of unknown make fails in its own ways
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"model.path={path}: its config.json cannot be read: {said[0]}") from None


def of_config(config: Any, source: str) -> Architecture:
    """From transformers' config object of one of FAMILIES. Raises UserError for another one, and for layers that are not described."""
    family_of(config.model_type)
    text, vision = config.get_text_config(), config.vision_config
    for kind, known, what in ((text.model_type, _TEXTS, "language model"), (vision.model_type, _TOWERS, "vision tower")):
        if kind not in known:
            raise UserError(f"{source}: its {what} is a {kind}, whose layers cannot be planned; known: {', '.join(known)}")
    tower = _tower(vision)
    parameters, linears = _counted(config, source)
    return Architecture(config.model_type, _text(config, text), tower, _projector(config, tower), parameters, linears, source)


def _counted(config: Any, source: str) -> tuple[Mapping[Part, int], Mapping[Part, tuple[Linear, ...]]]:
    """Weights by part, each once, and widths of linear layers. Raises UserError where transformers makes no model of the config."""
    import torch
    import transformers

    from vlm_rl.parts import part_of

    quiet = logging.getLogger("transformers")
    level = quiet.level
    try:
        quiet.setLevel(logging.ERROR)
        with torch.device("meta"):
            model: Any = transformers.AutoModelForImageTextToText.from_config(config)
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{source}: transformers makes no model of it: {said[0]}") from None
    finally:
        quiet.setLevel(level)
    family, head = config.model_type, model.get_output_embeddings()
    parameters: dict[Part, int] = dict.fromkeys(PARTS, 0)
    for name, weight in model.named_parameters():
        parameters[part_of(family, name)] += weight.numel()
    found = Counter(
        (part_of(family, name), layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    )
    linears: dict[Part, tuple[Linear, ...]] = {
        part: tuple(Linear(i, o, count) for (own, i, o), count in found.items() if own == part) for part in PARTS
    }
    return parameters, linears


# By the model_type of the language model and of the tower: what their configs do not say.
_TEXTS: Mapping[str, Mapping[str, Any]] = {
    "qwen2_vl_text": {},
    "qwen2_5_vl_text": {},
    "qwen3_vl_text": {"qk_norm": True},
    "qwen3_5_text": {"qk_norm": True, "norm": "offset", "gated": True},
    "llama": {},
    "qwen2": {},
    "qwen3": {"qk_norm": True},
    "gemma3_text": {"qk_norm": True, "norm": "offset", "norms": 4},
}
_TOWERS: Mapping[str, Mapping[str, Any]] = {
    "qwen2_vl_vision": {"turned": True, "activations": 3},  # quick GELU keeps its sigmoid
    "qwen2_5_vl_vision": {"turned": True, "activations": 4, "norm": "rms"},  # a gated MLP
    "qwen3_vl_vision": {"turned": True},
    "qwen3_5_vision": {"turned": True},
    "siglip_vision_model": {"closed": True},
    "idefics3_vision": {"closed": True, "copied": True},
    "smolvlm_vision": {"closed": True, "copied": True},
    "internvl_vision": {"first": 1, "scaled": True},
}


def _text(config: Any, text: Any) -> Text:
    kinds: Counter[str] = Counter(text.to_dict().get("layer_types") or ())
    states = None
    if count := kinds["linear_attention"]:
        heads = text.linear_num_key_heads, text.linear_num_value_heads
        states = States(count, *heads, text.linear_key_head_dim, text.linear_value_head_dim, text.linear_conv_kernel_dim)
    windowed = kinds["sliding_attention"]
    rope = text.to_dict().get("rope_parameters") or {}
    return Text(
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head=text.to_dict().get("head_dim") or text.hidden_size // text.num_attention_heads,
        vocabulary=text.vocab_size,
        tied=bool(config.tie_word_embeddings),
        windowed=windowed,
        window=text.sliding_window if windowed else 0,
        turned=rope.get("partial_rotary_factor", 1.0),
        states=states,
        **_TEXTS[text.model_type],
    )


def _tower(vision: Any) -> Tower:
    known, said = _TOWERS[vision.model_type], vision.to_dict()
    patch = _side(vision.patch_size)
    hidden = said.get("embed_dim") or vision.hidden_size
    sizes = {
        "hidden": hidden,
        "intermediate": said.get("intermediate_size") or int(hidden * vision.mlp_ratio),
        "layers": said.get("depth") or vision.num_hidden_layers,
        "heads": said.get("num_heads") or vision.num_attention_heads,
        "patch": patch,
    }
    if "image_size" not in said:
        return Tower(**sizes, numbers=said.get("in_channels", 3) * vision.temporal_patch_size * patch**2, **known)
    side = _side(vision.image_size)
    rows = (side // patch) ** 2 + known.get("first", 0)
    norms = {"norm": "rms"} if said.get("norm_type") == "rms_norm" else {}
    norms |= {"qk_norm": bool(said.get("use_qk_norm"))}
    return Tower(**sizes, numbers=-(-vision.num_channels * side**2 // rows), tile=rows, **{**known, **norms})


def _side(size: Any) -> int:
    return size if isinstance(size, int) else int(size[0])


def _projector(config: Any, tower: Tower) -> Projector:
    """By what the family's config says of how patches become visual tokens."""
    said, width = config.to_dict(), config.get_text_config().hidden_size
    if (merge := said["vision_config"].get("spatial_merge_size")) is not None:
        copies = len(said["vision_config"].get("deepstack_visual_indexes") or ())
        joined = tower.hidden * merge**2
        return Projector(joined, merge**2, inner=joined, norm=tower.norm, copies=copies)
    if (scale := said.get("scale_factor")) is not None:
        return Projector(tower.hidden * scale**2, scale**2)
    if (tokens := said.get("mm_tokens_per_image")) is not None:
        return Projector(tower.hidden, tower.tile // tokens, norm="offset", pooled=True)
    if (ratio := said.get("downsample_ratio")) is not None:
        joined = int(1 / ratio) ** 2
        return Projector(tower.hidden * joined, joined, inner=width, norm="layer")
    return Projector(tower.hidden, 1, inner=width)  # LLaVA-OneVision: rows of tiles are joined behind it
