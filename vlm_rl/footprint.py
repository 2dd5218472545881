"""Bytes that a training step keeps on a device: a forward and backward at its fullest, the optimiser, caches and answers. Formulas only.

What layers keep for backward is counted in `footprint_layers`, of which b, Row and Trained are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vlm_rl.architecture import PARTS, Architecture
from vlm_rl.footprint_layers import SINGLE, Row, Trained, adapted_tower_layer, adapters, layers, merger, pixels, shared

BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2}
DOUBLE = 8
BUCKET, LIVE = 500_000_000, 1_000_000_000  # numbers that DeepSpeed sums at once, and that ZeRO-3 holds whole at once: its defaults
TILE = 1 << 26  # logits at once, on CUDA: projection.TILE


def vocabulary(arch: Architecture, row: Row, b: int) -> int:
    """Held at once for a tile of the vocabulary projection: logits as the model gives them, in float32, and their probabilities."""
    return (2 * SINGLE + (b if b < SINGLE else 0)) * min(TILE, row.written * arch.text.vocabulary)


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
    found = layers(arch, row, b, trained)
    stream, again = b * text.hidden * row.tokens, max(saved for count, saved in found if count)
    kept, first = (text.layers * stream, stream) if checkpointing else (sum(count * saved for count, saved in found), again)
    again = again if checkpointing else 0
    pictures, seen = pixels(arch, row.patches, b), 0
    if "tower" in trained.parts:
        seen = adapted_tower_layer(arch, row.patches, b, trained)
        pictures += tower.layers * (b * tower.hidden * row.patches if checkpointing else seen)
    if trained.parts != ("text",):
        pictures += merger(arch, row.patches, b) + adapters(arch, "projector", row.patches // arch.projector.joined, b, trained)
    whole = pictures + shared(arch, row, b) + kept
    size = b if trained.rank is None else SINGLE
    made = {part: size * trained.weights(arch, part) for part in PARTS}
    head = b * text.vocabulary * text.hidden if trained.rank is None and "text" in trained.parts else 0
    summed = head + (head // b * SINGLE if b < SINGLE else 0)  # the projection's gradient, in float32 and then as the weight is
    text_work, seen_work = layer_work(arch, row, b), tower_work(arch, row.patches, b)
    return {
        "forward of the tower": Moment(pictures + seen_work),
        "vocabulary": Moment(whole + vocabulary(arch, row, b) + b * text.hidden * row.written, summed),
        "last layer": Moment(whole + again + text_work, head),
        "first layer": Moment(pictures + first + again + text_work, made["text"]),
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
    repeated = 2 * b * (row.keys if row.form == "shared_prefix" else row.tokens) * (text.queries + text.keys)
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


def cache(arch: Architecture, rows: int, length: int, b: int) -> int:
    """Keys and values of `rows` sequences of this length in all layers, as far as a window reaches back; states in float32."""
    text, found = arch.text, arch.text.states
    held = (text.attending - text.windowed) * length + text.windowed * min(length, text.window)
    carried = 0
    if found is not None:
        mixed = 2 * found.key_heads * found.key + found.value_heads * found.value
        carried = found.layers * (SINGLE * found.value_heads * found.key * found.value + b * mixed * found.kernel)
    return rows * (2 * b * text.keys * held + carried)


def decoding(arch: Architecture, rows: int, length: int, b: int) -> int:
    """Beside the cache, while a token is drawn for each of `rows` of this length: keys and values of one layer, once more and repeated for
    every head; logits, log-probs, and probabilities and their sums in double precision."""
    text = arch.text
    layer = 2 * b * rows * length * (text.queries + text.keys)
    return max(layer, rows * text.vocabulary * (b + SINGLE + 2 * DOUBLE))


def reading(arch: Architecture, rows: int, length: int, patches: int, b: int) -> int:
    """While `rows` prompts of this length and with so many patches each are read without gradients: one layer of the text and its mask, or
    of the tower with its pictures."""
    text, tokens = arch.text, rows * length
    layer = b * tokens * (4 * text.hidden + 3 * text.queries + 3 * text.intermediate) + (1 + b) * tokens * length
    work = pixels(arch, rows * patches, b) + tower_work(arch, rows * patches, b) + 5 * b * rows * patches * arch.tower.hidden
    return max(layer, work)
