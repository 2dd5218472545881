"""Sizes of a vision-language model, from its config.json or from the table of published models, and its number of parameters by part.

Formulas only: no weight is made. Parts are those of `vlm_rl.families`: text (vocabulary projection included), tower, projector.
Suffixes as in the papers: d hidden, f intermediate, H heads, D head size, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vlm_rl.config import ModelConfig, project_path
from vlm_rl.errors import UserError
from vlm_rl.families import Part

Family = Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
FAMILIES: tuple[Family, ...] = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
PARTS: tuple[Part, ...] = ("text", "tower", "projector")
CHANNELS, TEMPORAL = 3, 2  # of a patch, in all three families


@dataclass(frozen=True)
class Linear:
    """`count` layers of these widths."""

    inputs: int
    outputs: int
    bias: bool = True
    count: int = 1

    @property
    def parameters(self) -> int:
        return self.count * (self.inputs * self.outputs + self.outputs * self.bias)


@dataclass(frozen=True)
class Text:
    """The language model. `tied`: the vocabulary projection is the embedding."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool
    bias: bool
    qk_norm: bool

    @property
    def queries(self) -> int:
        return self.heads * self.head

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Without the vocabulary projection."""
        d, f, n = self.hidden, self.intermediate, self.layers
        attention = (Linear(d, self.queries, self.bias, n), Linear(d, self.keys, self.bias, 2 * n), Linear(self.queries, d, False, n))
        return (*attention, Linear(d, f, False, 2 * n), Linear(f, d, False, n))

    @property
    def parameters(self) -> int:
        norms = self.hidden * (2 * self.layers + 1) + 2 * self.head * self.layers * self.qk_norm
        return sum(linear.parameters for linear in self.linears) + norms + self.vocabulary * self.hidden * (1 if self.tied else 2)


@dataclass(frozen=True)
class Tower:
    """The vision tower. `positions` and `deepstack` (feature maps handed to the first text layers) are Qwen3-VL's, else 0."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    patch: int
    merge: int
    positions: int = 0
    deepstack: int = 0

    @property
    def pixels(self) -> int:
        """Numbers in a patch."""
        return CHANNELS * TEMPORAL * self.patch**2

    @property
    def merged(self) -> int:
        """Width of the patches that become one visual token."""
        return self.hidden * self.merge**2


@dataclass(frozen=True)
class Architecture:
    """A whole model. `source` says where its sizes come from."""

    family: Family
    text: Text
    tower: Tower
    source: str

    @property
    def gated_tower(self) -> bool:
        """Whether the tower's MLP is gated and its norms are RMS norms, as the text's."""
        return self.family == "qwen2_5_vl"

    def linears(self, part: Part) -> tuple[Linear, ...]:
        """The linear layers of a part, which LoRA adapts; without the vocabulary projection."""
        if part == "text":
            return self.text.linears
        tower = self.tower
        d, f, n = tower.hidden, tower.intermediate, tower.layers
        if part == "projector":
            mergers = 1 + tower.deepstack
            return (Linear(tower.merged, tower.merged, True, mergers), Linear(tower.merged, self.text.hidden, True, mergers))
        up = Linear(d, f, True, n * (2 if self.gated_tower else 1))
        return Linear(d, 3 * d, True, n), Linear(d, d, True, n), up, Linear(f, d, True, n)

    @property
    def parameters(self) -> Mapping[Part, int]:
        """Weights by part, each once."""
        tower, norm = self.tower, 1 if self.gated_tower else 2  # an RMS norm has no bias
        linear = {part: sum(layer.parameters for layer in self.linears(part)) for part in ("tower", "projector")}
        embedding = tower.pixels * tower.hidden + (tower.hidden if self.family == "qwen3_vl" else 0) + tower.positions * tower.hidden
        return {
            "text": self.text.parameters,
            "tower": linear["tower"] + embedding + 2 * norm * tower.hidden * tower.layers,
            "projector": linear["projector"] + norm * tower.hidden + 2 * tower.merged * tower.deepstack,
        }

    @property
    def total(self) -> int:
        return sum(self.parameters.values())


def _qwen2_5(name: str, text: tuple[int, int, int, int, int, int], tied: bool) -> Architecture:
    d, f, layers, heads, kv, vocabulary = text
    sizes = Text(d, f, layers, heads, kv, d // heads, vocabulary, tied, bias=True, qk_norm=False)
    return Architecture("qwen2_5_vl", sizes, Tower(1280, 3420, 32, 16, 14, 2), _published(name))


def _qwen3(name: str, text: tuple[int, int, int, int, int, int], tied: bool, tower: Tower) -> Architecture:
    d, f, layers, heads, kv, vocabulary = text
    sizes = Text(d, f, layers, heads, kv, 128, vocabulary, tied, bias=False, qk_norm=True)
    return Architecture("qwen3_vl", sizes, tower, _published(name))


def _published(name: str) -> str:
    return f"the published config.json of {name}, as this program knows it"


# As in the config.json of each hub repository; their numbers of parameters are those that the hub shows for the safetensors files
# (3,754,622,976; 8,292,166,656; 4,437,815,808; 8,767,123,696), which a test holds.
PUBLISHED: Mapping[str, Architecture] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen2_5("Qwen/Qwen2.5-VL-3B-Instruct", (2048, 11008, 36, 16, 2, 151936), tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen2_5("Qwen/Qwen2.5-VL-7B-Instruct", (3584, 18944, 28, 28, 4, 152064), tied=False),
    "Qwen/Qwen3-VL-4B-Instruct": _qwen3(
        "Qwen/Qwen3-VL-4B-Instruct", (2560, 9728, 36, 32, 8, 151936), True, Tower(1024, 4096, 24, 16, 16, 2, 2304, 3)
    ),
    "Qwen/Qwen3-VL-8B-Instruct": _qwen3(
        "Qwen/Qwen3-VL-8B-Instruct", (4096, 12288, 36, 32, 8, 151936), False, Tower(1152, 4304, 27, 16, 16, 2, 2304, 3)
    ),
}


def find(model: ModelConfig) -> Architecture:
    """The model that a config names: by a local directory's config.json, else by the table. Downloads nothing. Raises UserError."""
    if model.path is None:
        raise UserError("model.scratch makes a small model, which needs no plan; write model.path")
    folder = project_path(model.path)
    if folder.is_dir():
        import transformers  # only here is it needed

        try:
            return of_config(transformers.AutoConfig.from_pretrained(folder), f"{folder / 'config.json'}")
        except (OSError, ValueError) as error:
            raise UserError(f"model.path={model.path}: its config.json cannot be read: {str(error).strip().splitlines()[0]}") from None
    if model.path in PUBLISHED:
        return PUBLISHED[model.path]
    raise UserError(
        f"model.path={model.path}: there is no such directory, and its sizes are not among those known here ({', '.join(PUBLISHED)}); "
        "write the directory of a downloaded copy, of which the config.json is enough"
    )


def of_config(config: Any, source: str) -> Architecture:
    """From transformers' config object of one of FAMILIES. Raises UserError for another one."""
    family = config.model_type
    if family not in FAMILIES:
        raise UserError(f"{source} is of the family {family}; the sizes of {', '.join(FAMILIES)} can be planned")
    text, vision = config.get_text_config(), config.vision_config
    head = text.hidden_size // text.num_attention_heads if family != "qwen3_vl" else text.head_dim
    sizes = Text(
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head=head,
        vocabulary=text.vocab_size,
        tied=bool(config.tie_word_embeddings),
        bias=family != "qwen3_vl" or bool(text.attention_bias),
        qk_norm=family == "qwen3_vl",
    )
    older = family == "qwen2_vl"
    tower = Tower(
        hidden=vision.embed_dim if older else vision.hidden_size,
        intermediate=int(vision.embed_dim * vision.mlp_ratio) if older else vision.intermediate_size,
        layers=vision.depth,
        heads=vision.num_heads,
        patch=vision.patch_size,
        merge=vision.spatial_merge_size,
        positions=vision.num_position_embeddings if family == "qwen3_vl" else 0,
        deepstack=len(vision.deepstack_visual_indexes) if family == "qwen3_vl" else 0,
    )
    return Architecture(family, sizes, tower, source)
