"""Bytes that autograd saves of the layers of a model, as formulas of its sizes and of a row's lengths. Nothing is made or measured.

They follow from the forward code of transformers' models and of `vlm_rl.attention`, tensor by tensor, for a layer as Text, Tower and
Projector describe it; tests hold them against tensors counted by torch itself on small models of every family on a CPU. Kernels of other
devices may save other tensors.

b is the size of a number of `model.dtype`; a row has N prompts of P tokens and M completions of R, and S rows of the tower.
"""

from dataclasses import dataclass
from typing import Literal

from vlm_rl.architecture import PARTS, Architecture, Norm
from vlm_rl.families import Part

Form = Literal["shared_prefix", "dense", "plain"]
SINGLE = 4
CHUNK = 64  # tokens, of the gated delta rule in transformers


@dataclass(frozen=True)
class Row:
    """A packed row: N prompts of P tokens, M completions of R tokens, S rows of the tower. `form`: prompts are shared, or a mask has all
    tokens, or (plain) N = M, every completion behind its own prompt and padded to the longest."""

    prompts: int
    prompt: int
    completions: int
    completion: int
    patches: int
    form: Form = "shared_prefix"

    @property
    def tokens(self) -> int:
        return self.prompts * self.prompt + self.written

    @property
    def written(self) -> int:
        return self.completions * self.completion

    @property
    def keys(self) -> int:
        """What completions look at: each its prompt again, and itself."""
        return self.completions * (self.prompt + self.completion)


@dataclass(frozen=True)
class Trained:
    """What of a model trains: parts in full, or (with a rank) adapters in float32 on their linear layers. `checkpointing`: of layers only
    what they read is kept."""

    parts: tuple[Part, ...] = PARTS
    rank: int | None = None
    dora: bool = False
    checkpointing: bool = False

    def weights(self, arch: Architecture, part: Part) -> int:
        """Numbers of a part that train."""
        if part not in self.parts:
            return 0
        if self.rank is None:
            return arch.parameters[part]
        return sum(x.count * (self.rank * (x.inputs + x.outputs) + x.outputs * self.dora) for x in arch.linears[part])


def norm(kind: Norm, width: int, b: int) -> int:
    """Saved by a norm for each of its rows: the input (RMS norms in float32) and its statistics, and what the weight multiplies."""
    if kind == "layer":
        return b * width + 2 * SINGLE
    return {"none": 0, "rms": (SINGLE + b) * width + SINGLE, "offset": 2 * SINGLE * width + SINGLE}[kind]


def text_layer(arch: Architecture, row: Row, b: int) -> int:
    """Saved for the backward of one layer of the language model with attention, every weight of it trained.

    Norms; MLP: its input, gate, SiLU of the gate, up, their product. Attention: what `attention_layer` says, and the inputs of its
    projections.
    """
    text = arch.text
    heads = norm(text.norm, text.head, b) * (text.heads + text.kv_heads) if text.qk_norm else 0
    inputs = b * text.hidden + b * text.queries
    if text.gated:  # its sigmoid and what that multiplies; and the gates themselves, where queries are no copies beside them
        inputs += b * text.queries * (2 if b < SINGLE else 3)
    weights = SINGLE * (text.norms * text.hidden + 2 * text.head * text.qk_norm) * (text.norm == "offset")  # 1 + weight
    return row.tokens * (heads + inputs) + mlp_and_norms(arch, row, b) + attention_layer(arch, row, b) + weights


def mlp_and_norms(arch: Architecture, row: Row, b: int) -> int:
    text = arch.text
    return row.tokens * (text.norms * norm(text.norm, text.hidden, b) + b * text.hidden + 4 * b * text.intermediate)


def attention_layer(arch: Architecture, row: Row, b: int) -> int:
    """Prompts: queries, keys, values, outputs and log-sums. Completions: queries, outputs, log-sums, the mask as numbers, and the row's
    keys and values, of which those that completions look at are made again for backward. Where prompts have a mask (windows) and in forms
    that share none, keys and values are repeated for every head and the mask is kept; in the latter the outputs are what the output
    projection reads."""
    text = arch.text
    repeated = b * 4 * text.queries + SINGLE * text.heads
    if row.form != "shared_prefix":
        mask = b * row.completions * (row.prompt + row.completion) ** 2 if row.form == "plain" else 0
        return row.tokens * (repeated - b * text.queries * (not text.gated)) + mask
    read = row.prompts * row.prompt
    prompts = read * (b * 2 * (text.queries + text.keys) + SINGLE * text.heads)
    if text.windowed:
        prompts = read * repeated + b * read * row.prompt
    completions = row.written * (2 * b * text.queries + SINGLE * text.heads)
    sources = 2 * b * row.tokens * text.keys
    mask = b * row.keys * row.completion
    return prompts + completions + sources + mask


def tower_layer(arch: Architecture, patches: int, b: int) -> int:
    """Saved for the backward of one layer of the tower. Where positions turn queries and keys, the values of its attention are a view that
    holds those before they were turned, too."""
    tower = arch.tower
    d = tower.hidden
    norms = 2 * norm(tower.norm, d, b) + 2 * norm("rms", d, b) * tower.qk_norm
    attention = b * (7 if tower.turned else 4) * d + SINGLE * tower.heads
    return patches * (norms + 2 * b * d * (1 + tower.scaled) + attention + tower.activations * b * tower.intermediate)


def merger(arch: Architecture, patches: int, b: int) -> int:
    """Saved by the projector, the mergers of deepstack included, and by the tower's last norm: what norms, an average and linear layers
    read, GELU's input."""
    tower, own = arch.tower, arch.projector
    rows = tower.patches(patches) // own.joined
    row = norm(own.norm, own.reads, b) + b * own.reads + 2 * b * own.inner + b * own.joined * own.reads * own.pooled
    copies = own.copies * b * (own.reads + 2 * own.inner)
    return rows * (row + copies) + patches * norm(tower.norm, tower.hidden, b) * tower.closed


def shared(arch: Architecture, row: Row, b: int) -> int:
    """Saved once for the text: the last norm, the hidden states that predict completion tokens, and the turns of positions, for each type
    of layer its own."""
    text = arch.text
    turns = 2 * b * int(text.head * text.turned) * (2 if 0 < text.windowed < text.attending else 1)
    mask = b * row.tokens**2 * (2 if text.windowed else 1) if row.form == "dense" else 0
    return row.tokens * (norm(text.norm, text.hidden, b) + turns) + row.written * b * text.hidden + mask


def pixels(arch: Architecture, patches: int, b: int) -> int:
    """The pictures' patches as the processor gives them, and where `b` is smaller, or the tower takes a copy, as numbers
    of the model; the turns of their positions."""
    tower = arch.tower
    turns = 2 * SINGLE * tower.hidden // tower.heads if tower.turned else 0
    return patches * (tower.numbers * (SINGLE + (b if b < SINGLE or tower.copied else 0)) + turns)


def state_layer(arch: Architecture, row: Row, b: int) -> int:
    """`text_layer` of one that carries a state (gated delta rule) where no kernel of its own is installed: transformers works it out in
    float32 in chunks of CHUNK tokens, with a state kept for each."""
    text, found = arch.text, arch.text.states
    if found is None:
        return 0
    keys, values = found.key_heads * found.key, found.value_heads * found.value
    mixed = 2 * b * (2 * keys + values)  # what the convolution reads, and SiLU
    gate = (2 * SINGLE + SINGLE + 2 * b + b) * values  # SiLU of the gate, the norm, their product, what the output projection reads
    ahead = mixed + gate + b * text.hidden + found.value_heads * (b + 5 * SINGLE + 2 * SINGLE * found.key)
    head = 6 * found.key + 3 * found.value + 5 * CHUNK + found.key * found.value // CHUNK + 4
    padded = row.completions * -(-(row.prompt + row.completion) // CHUNK) * CHUNK  # of a state's row, which is always plain
    weights = SINGLE * text.norms * text.hidden * (text.norm == "offset")
    return row.tokens * ahead + padded * SINGLE * found.value_heads * head + mlp_and_norms(arch, row, b) + weights


def layers(arch: Architecture, row: Row, b: int, trained: Trained) -> tuple[tuple[int, int], ...]:
    """(how many, what one of them saves) of each kind of text layer."""
    text = arch.text
    kinds = ((text.attending, text_layer(arch, row, b)), (text.layers - text.attending, state_layer(arch, row, b)))
    if trained.rank is None and "text" in trained.parts:
        return kinds
    less = frozen(arch, row, b) - adapters(arch, "text", row.tokens, b, trained) // text.layers
    return tuple((count, saved - less) for count, saved in kinds)


def frozen(arch: Architecture, row: Row, b: int) -> int:
    """What a text layer need not save where its weights do not train: what they multiplied."""
    text = arch.text
    wide = SINGLE if text.norm == "offset" else b
    norms = wide * (text.norms * text.hidden + (text.queries + text.keys) * text.qk_norm)
    return row.tokens * (norms + b * _read(arch, "text"))


def adapted_tower_layer(arch: Architecture, patches: int, b: int, trained: Trained) -> int:
    """`tower_layer` as it is trained: whole, or frozen with adapters."""
    if trained.rank is None:
        return tower_layer(arch, patches, b)
    tower = arch.tower
    less = patches * b * (_read(arch, "tower") + 2 * tower.hidden * ((tower.norm == "rms") + tower.scaled))
    return tower_layer(arch, patches, b) - less + adapters(arch, "tower", patches, b, trained) // tower.layers


def adapters(arch: Architecture, part: Part, rows: int, b: int, trained: Trained) -> int:
    """Saved by all adapters of a part, which are float32: each a copy of what its layer reads where the model has smaller numbers (else
    layers that read the same share it), and what stands between their two halves."""
    if trained.rank is None or part not in trained.parts:
        return 0
    copies = sum(x.inputs * x.count for x in arch.linears[part])
    if b == SINGLE and part != "projector":
        copies = _read(arch, part) * (arch.text.layers if part == "text" else arch.tower.layers)
    return rows * SINGLE * (copies + sum(trained.rank * x.count for x in arch.linears[part]))


def _read(arch: Architecture, part: Part) -> int:
    """Numbers for each row that the linear layers of one layer read, each once; what attention keeps anyway left out."""
    if part == "text":
        return 2 * arch.text.hidden + arch.text.queries + arch.text.intermediate
    return (2 + arch.tower.turned) * arch.tower.hidden + arch.tower.intermediate
