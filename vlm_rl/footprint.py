"""Bytes that a training step keeps on a device, as formulas of a model's sizes and of a packed row's lengths. Nothing is made or measured.

What autograd saves follows from the forward code of transformers' Qwen-VL families and of `vlm_rl.attention`, tensor by tensor; tests hold
it against tensors counted by torch itself on small models on a CPU. Kernels of other devices may save other tensors.

b is the size of a number of `model.dtype`; L tokens of a row: N prompts of P tokens and M completions of R; S patches of its pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vlm_rl.architecture import PARTS, Architecture
from vlm_rl.families import Part

BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2}
SINGLE, DOUBLE = 4, 8
BUCKET, LIVE = 500_000_000, 1_000_000_000  # numbers that DeepSpeed sums at once, and that ZeRO-3 holds whole at once: its defaults
TILE = 1 << 26  # logits at once, on CUDA: projection.TILE


@dataclass(frozen=True)
class Row:
    """A packed row: N prompts of P tokens, M completions of R tokens, S patches."""

    prompts: int
    prompt: int
    completions: int
    completion: int
    patches: int

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


def text_layer(arch: Architecture, row: Row, b: int) -> int:
    """Saved for the backward of one layer of the language model, every weight of it trained.

    Norms: the input in float32 and what the weight multiplies. MLP: its input, gate, SiLU of the gate, up, their product. Attention: what
    `attention_layer` says, and the input of the output projection.
    """
    text, tokens = arch.text, row.tokens
    norm = (SINGLE + b) * text.hidden + SINGLE
    heads = ((SINGLE + b) * text.head + SINGLE) * (text.heads + text.kv_heads) if text.qk_norm else 0
    inputs = 2 * b * text.hidden + b * text.queries
    return tokens * (2 * norm + heads + inputs + 4 * b * text.intermediate) + attention_layer(arch, row, b)


def attention_layer(arch: Architecture, row: Row, b: int) -> int:
    """Prompts: queries, keys, values, outputs and log-sums. Completions: queries, outputs, log-sums, the mask as numbers, and the row's
    keys and values, of which those that completions look at are made again for backward."""
    text = arch.text
    read = row.prompts * row.prompt
    prompts = read * (b * 2 * (text.queries + text.keys) + SINGLE * text.heads)
    completions = row.written * (2 * b * text.queries + SINGLE * text.heads)
    sources = 2 * b * row.tokens * text.keys
    mask = b * row.keys * row.completion
    return prompts + completions + sources + mask


def tower_layer(arch: Architecture, patches: int, b: int) -> int:
    """Saved for the backward of one layer of the tower. The values of its attention are a view that holds queries and keys before they
    were turned, too."""
    tower = arch.tower
    d, f = tower.hidden, tower.intermediate
    norms = 2 * ((SINGLE + b) * d + SINGLE) if arch.gated_tower else 2 * (b * d + 2 * SINGLE)
    activations = {"qwen2_vl": 3, "qwen2_5_vl": 4, "qwen3_vl": 2}[arch.family]  # quick GELU keeps its sigmoid; a gated MLP four
    attention = b * (5 * d + d + d) + SINGLE * tower.heads
    return patches * (norms + 2 * b * d + attention + activations * b * f)


def merger(arch: Architecture, patches: int, b: int) -> int:
    """Saved by the projector, the mergers of deepstack included: norm, what both linear layers read, GELU's input."""
    tower = arch.tower
    norm = (SINGLE + b) * tower.hidden + SINGLE if arch.gated_tower else b * tower.hidden + 2 * SINGLE
    return patches * (norm + 3 * b * tower.hidden + 3 * b * tower.hidden * tower.deepstack)


def shared(arch: Architecture, row: Row, b: int) -> int:
    """Saved once for the text: the last norm, the hidden states that predict completion tokens, and the turns of positions."""
    text = arch.text
    return row.tokens * ((SINGLE + b) * text.hidden + SINGLE + 2 * b * text.head) + row.written * b * text.hidden


def vocabulary(arch: Architecture, row: Row, b: int) -> int:
    """Held at once for a tile of the vocabulary projection: logits as the model gives them, in float32, and their probabilities."""
    return (2 * SINGLE + (b if b < SINGLE else 0)) * min(TILE, row.written * arch.text.vocabulary)


def pixels(arch: Architecture, patches: int, b: int) -> int:
    """The pictures' patches as the processor gives them, and where `b` is smaller as numbers of the model; the turns of their positions."""
    tower = arch.tower
    return patches * (tower.pixels * (SINGLE + (b if b < SINGLE else 0)) + 2 * SINGLE * tower.hidden // tower.heads)


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
        return sum(x.count * (self.rank * (x.inputs + x.outputs) + x.outputs * self.dora) for x in arch.linears(part))


def adapted_layer(arch: Architecture, row: Row, b: int, rank: int) -> int:
    """`text_layer` with frozen weights and adapters in float32: frozen weights need none of what they multiplied, adapters each a copy of
    what their layer reads in float32 where the model has smaller numbers, and what stands between their two halves."""
    text, layers = arch.text, arch.text.layers
    norms = b * (2 * text.hidden + (text.queries + text.keys) * text.qk_norm)
    reads = b * (2 * text.hidden + text.queries + text.intermediate) if b < SINGLE else 0
    copies = sum((x.inputs if b < SINGLE else 0) * x.count // layers for x in text.linears)
    between = sum(rank * x.count // layers for x in text.linears)
    return text_layer(arch, row, b) + row.tokens * (SINGLE * (copies + between) - norms - reads)


@dataclass(frozen=True)
class Moment:
    """Bytes of a forward and backward: what is saved and worked on, and gradients of weights made so far."""

    activations: int
    gradients: int = 0

    @property
    def total(self) -> int:
        return self.activations + self.gradients


def backward(arch: Architecture, row: Row, b: int, trained: Trained) -> Mapping[str, Moment]:
    """Beside weights and optimiser, at the moments of a forward and backward where they may be largest.

    An upper bound: what a layer frees while its backward goes on is not taken off.
    """
    text, tower, checkpointing = arch.text, arch.tower, trained.checkpointing
    layer = text_layer(arch, row, b) if trained.rank is None else adapted_layer(arch, row, b, trained.rank)
    kept, again = (b * text.hidden * row.tokens, layer) if checkpointing else (layer, 0)
    pictures, seen = pixels(arch, row.patches, b), 0
    if "tower" in trained.parts:
        seen = tower_layer(arch, row.patches, b)
        pictures += tower.layers * (b * tower.hidden * row.patches if checkpointing else seen)
    if trained.parts != ("text",):
        pictures += merger(arch, row.patches, b)
    whole = pictures + shared(arch, row, b) + text.layers * kept
    size = b if trained.rank is None else SINGLE
    made = {part: size * trained.weights(arch, part) for part in PARTS}
    head = b * text.vocabulary * text.hidden if trained.rank is None and "text" in trained.parts else 0
    summed = head + (head // b * SINGLE if b < SINGLE else 0)  # the projection's gradient, in float32 and then as the weight is
    text_work, seen_work = layer_work(arch, row, b), tower_work(arch, row.patches, b)
    return {
        "forward of the tower": Moment(pictures + seen_work),
        "vocabulary": Moment(whole + vocabulary(arch, row, b) + b * text.hidden * row.written, summed),
        "last layer": Moment(whole + again + text_work, head),
        "first layer": Moment(pictures + kept + again + text_work, made["text"]),
        "embedding": Moment(pictures, made["text"] + head),
        "tower": Moment(pictures + seen_work + (seen if checkpointing else 0), made["text"] + made["projector"]),
        "end": Moment(0, sum(made.values())),
    }


def layer_work(arch: Architecture, row: Row, b: int) -> int:
    """Gradients inside one layer of the text at its fullest: in the MLP those of three of its activations, or in attention those of
    repeated keys and values and of what they are summed to, with the MLP's own gone by then."""
    text = arch.text
    outer = 2 * b * text.hidden * row.tokens
    mlp = 3 * b * text.intermediate * row.tokens
    repeated = 2 * b * row.keys * (text.queries + text.keys)
    return outer + max(mlp, repeated + b * text.queries * row.tokens - 4 * b * text.intermediate * row.tokens)


def tower_work(arch: Architecture, patches: int, b: int) -> int:
    """The same of the tower."""
    return patches * b * (2 * arch.tower.hidden + 3 * arch.tower.intermediate)


@dataclass(frozen=True)
class States:
    """Bytes a device holds between forwards, and at most while gradients are gathered or the optimiser steps (`step`, without them).

    Of whole weights: AdamW's two moments in float32; numbers smaller than float32 have float32 masters, where gradients are gathered.
    """

    weights: int
    masters: int
    moments: int
    gathered: int
    step: int

    @property
    def resident(self) -> int:
        return self.weights + self.masters + self.moments


def states(arch: Architecture, b: int, trained: Trained) -> States:
    """On one device: `vlm_rl.optim`. CUDA's AdamW makes its denominator for all weights at once, as large as a moment."""
    count = sum(trained.weights(arch, part) for part in PARTS)
    own = b if trained.rank is None else SINGLE
    mastered = own < SINGLE
    weights = b * arch.total + (SINGLE * count if trained.rank is not None else 0)
    gathering, stepping = (own + SINGLE) * count if mastered else SINGLE * count, 2 * SINGLE * count
    return States(weights, SINGLE * count * mastered, 2 * SINGLE * count, SINGLE * count * mastered, max(gathering, stepping))


@dataclass(frozen=True)
class Sharing:
    """How `count` devices share a training: the stage of ZeRO, and what waits in the CPU's memory."""

    count: int = 1
    zero: int = 0
    offload: str = "none"


def shared_states(arch: Architecture, b: int, trained: Trained, sharing: Sharing) -> States:
    """`states` on each of several devices, by DeepSpeed with gradients summed in float32 (`vlm_rl.zero`): 1 shares out moments and float32
    masters, which float32 weights have too, 2 gradients, 3 weights, of which only so many are whole at a time."""
    whole, zero, count = states(arch, b, trained), sharing.zero, sharing.count
    if not zero:
        return whole
    numbers = sum(trained.weights(arch, part) for part in PARTS)
    share = SINGLE * numbers // count
    weights = whole.weights if zero < 3 else b * min(LIVE, arch.total) + (b * arch.total // count if sharing.offload != "all" else 0)
    if sharing.offload != "none":
        return States(weights, 0, 0, 0, 0)
    return States(weights, share, 2 * share, share if zero > 1 else SINGLE * numbers, 2 * share)


def reduced(gradients: int, b: int, sharing: Sharing) -> int:
    """Of the gradients of a backward, what a device holds before it is summed over the devices, with the sum itself in float32."""
    if not sharing.zero:
        return gradients
    return (min(gradients, b * BUCKET) if sharing.zero > 1 else gradients) + SINGLE * min(BUCKET, gradients // b)


def cache(arch: Architecture, tokens: int, b: int) -> int:
    """Keys and values of so many tokens in all layers."""
    return 2 * b * arch.text.keys * arch.text.layers * tokens


def decoding(arch: Architecture, rows: int, length: int, b: int) -> int:
    """Beside the cache, while a token is drawn for each of `rows` of this length: keys and values of one layer, once more and repeated for
    every head; logits, log-probs, and probabilities and their sums in double precision."""
    text = arch.text
    layer = 2 * b * rows * length * (text.queries + text.keys)
    return max(layer, rows * text.vocabulary * (b + SINGLE + 2 * DOUBLE))


def reading(arch: Architecture, tokens: int, patches: int, b: int) -> int:
    """While prompts are read without gradients: one layer of the text, or of the tower with its pictures."""
    text = arch.text
    layer = b * tokens * (4 * text.hidden + 3 * text.queries + 3 * text.intermediate)
    return max(layer, pixels(arch, patches, b) + tower_work(arch, patches, b) + 5 * b * patches * arch.tower.hidden)
