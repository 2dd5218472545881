"""The formulas of `vlm-rl plan` against parameters, tensors and peaks counted by torch itself, on small models on the CPU."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import models_small
import pytest
import torch
import transformers
from models_small import completions, sample
from torch.autograd.graph import saved_tensors_hooks

from vlm_rl import attention, footprint, lora, projection, small
from vlm_rl import footprint_layers as kept
from vlm_rl.architecture import PARTS, of_config, published
from vlm_rl.config import LoraConfig, OptimConfig, ScratchConfig
from vlm_rl.families import FAMILIES, Part
from vlm_rl.footprint import BYTES, Sharing
from vlm_rl.footprint_layers import Form, Row, Trained
from vlm_rl.optim import Optimiser
from vlm_rl.packing import Item, Pack
from vlm_rl.parts import freeze_others, part_of
from vlm_rl.policy import Policy
from vlm_rl.published import PUBLISHED
from vlm_rl.visual_tokens import Look

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# What the hub shows for the safetensors files of each repository.
SHOWN = {
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
}


class Case:
    """A small model of a family with a row of `prompts` groups, `completions` in all of `length` tokens."""

    def __init__(self, family: str, dtype: str, mode: Form = "shared_prefix", checkpointing: bool = False, **deeper: int):
        """`deeper`: layers and vision_layers, 2 of each unless given."""
        sizes = ScratchConfig(family=family, hidden_size=64, heads=4, vision_hidden_size=32, **{"layers": 2, "vision_layers": 2} | deeper)
        self.chat = models_small.make_chat(family)
        self.model = small.make_model(sizes, self.chat.tokenizer, seed=1).to(DTYPES[dtype])
        self.policy = Policy(self.model, self.chat.visual_ids, mode, checkpointing)
        self.arch, self.b = of_config(self.model.config, "a test"), BYTES[dtype]

    def row(self, prompts: int = 2, count: int = 4, length: int = 24) -> tuple[Pack, Row]:
        length += 24 * bool(self.arch.text.states)  # more than one chunk
        read = [self.chat.prompt(sample("abcd"[i], 1, size=(112, 84))) for i in range(prompts)]
        each = count // prompts
        items = [Item(p, completions(self.chat, [length] * each), tuple(range(i * each, (i + 1) * each))) for i, p in enumerate(read)]
        if self.policy.mode == "plain":  # one is shorter, or there is nothing to mask
            items[0] = replace(items[0], completions=(items[0].completions[0][:-1], *items[0].completions[1:]))
        pack = self.policy.pack(items)
        form: Form = "plain" if self.policy.mode == "plain" else "shared_prefix"
        tile, times = self.arch.tower.tile, each if form == "plain" else 1
        patches = tile * len(pack.vision["pixel_values"]) if tile else int(pack.vision["image_grid_thw"].prod(1).sum())
        return pack, Row(prompts * times, len(read[0].expanded_ids), count, length, patches * times, form)


def saved(case: Case, pack: Pack) -> int:
    """Bytes that autograd keeps of a forward, weights and the pictures left out, each storage once."""
    own = {t.untyped_storage().data_ptr() for t in (*case.model.parameters(), *case.policy.buffers(), *pack.vision.values())}
    seen: dict[int, int] = {}
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)  # so that no address is used twice
        return tensor

    def inner(put: Callable[[torch.Tensor], Any], give: Callable[[Any], torch.Tensor]) -> saved_tensors_hooks:
        """Attention has hooks of its own, behind which those outside see nothing."""

        def put_and_kept(tensor: torch.Tensor) -> Any:
            found = put(tensor)
            keep(found if isinstance(found, torch.Tensor) else found[0])
            return found

        return saved_tensors_hooks(put_and_kept, give)

    with patch.object(attention, "saved_tensors_hooks", inner), saved_tensors_hooks(keep, lambda tensor: tensor):
        case.policy(pack, 1.0)
    return sum(seen.values())


def peak(run: Callable[[], object]) -> int:
    """The most bytes that the CPU's allocator had out at once, beyond those before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    found: list[Any] = profiled.profiler.kineto_results.events()
    events = [(e.start_ns(), e.nbytes()) for e in found if e.name() == "[memory]"]
    now = most = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        now += size
        most = max(most, now)
    return most


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_model(family):
    """By part, and those of adapters by part."""
    case = Case(family, "float32", layers=3)
    parts = [part_of(family, name) for name, _ in case.model.named_parameters()]
    sizes = [p.numel() for p in case.model.parameters()]
    assert {part: sum(n for n, own in zip(sizes, parts, strict=True) if own == part) for part in PARTS} == case.arch.parameters
    wanted: tuple[Part, ...] = tuple(part for part in PARTS if case.arch.linears[part])
    assert wanted == (PARTS[:2] if family == "gemma3" else PARTS)  # whose projector is one matrix and no layer
    lora.attach(case.model, LoraConfig(parts=wanted, rank=4), "a test", seed=0)
    found = sum(p.numel() for p in case.model.parameters() if p.requires_grad)
    assert found == sum(Trained(wanted, rank=4).weights(case.arch, part) for part in PARTS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_published_models(name):
    assert published(name).total == SHOWN[name]


@pytest.mark.parametrize("name", ["LlavaOnevision", "InternVL", "Gemma3", "Qwen3_5"])
def test_large_models_are_described(name):
    """Those that transformers makes of no sizes at all, of billions of parameters: counted without a weight made."""
    config = getattr(transformers, f"{name}Config")()
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config)
    arch = of_config(config, "a test")
    assert arch.total == sum(p.numel() for p in model.parameters()) > 2_000_000_000
    assert kept.text_layer(arch, Row(1, 1000, 8, 500, arch.tower.tile or 1024), 2) > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["shared_prefix", "plain"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_autograd_saves(family, mode, dtype):
    """A layer of the text to the byte (one that carries a state to 1%), one of the tower but for norms' statistics in bfloat16, the whole
    to 2%."""
    if mode == "shared_prefix" and not FAMILIES[family].packs:
        pytest.skip("not packed")
    base, deeper = Case(family, dtype, mode), Case(family, dtype, mode, vision_layers=3)
    pack, row = base.row()
    arch, b, whole = base.arch, base.b, saved(base, pack)
    totals = [whole, *(_saved(Case(family, dtype, mode, layers=layers)) for layers in (3, 4))]
    odd, even = totals[1] - totals[0], totals[2] - totals[1]
    assert even == kept.text_layer(arch, row, b)
    assert odd == (pytest.approx(kept.state_layer(arch, row, b), rel=0.01) if arch.text.states else even)
    layer = kept.tower_layer(arch, row.patches, b)
    merger = kept.merger(deeper.arch, row.patches, b) - kept.merger(arch, row.patches, b)  # Qwen3-VL's have one for every layer
    assert _saved(deeper) - whole == pytest.approx(layer + merger, rel=0.015)
    # The processor's own pictures are not autograd's, but where the prompts' are put together again in the model's own numbers.
    given = 0 if mode == "plain" and b == 4 and not arch.tower.copied else 4 * row.patches * arch.tower.numbers
    parts = kept.merger(arch, row.patches, b) + kept.shared(arch, row, b) + kept.pixels(arch, row.patches, b) - given
    assert odd + even + 2 * layer + parts == pytest.approx(whole, rel=0.02)


def _saved(case: Case) -> int:
    return saved(case, case.row()[0])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "internvl", "qwen3_5"])
def test_the_peak_of_a_backward_is_bounded(family, dtype, checkpointing):
    """Never above the prediction, and that no more than a quarter above it."""
    case = Case(family, dtype, "shared_prefix" if FAMILIES[family].packs else "plain", checkpointing, layers=3)
    pack, row = case.row(count=8, length=64)

    def backward() -> None:
        case.policy(pack, 1.0).logprob_T.mean().backward()

    backward()
    case.policy.zero_grad(set_to_none=True)
    trained = Trained(checkpointing=checkpointing)
    predicted = max(moment.total for moment in footprint.backward(case.arch, row, case.b, trained).values())
    assert 0.8 * predicted <= peak(backward) <= predicted


@pytest.mark.parametrize("dtype", DTYPES)
def test_states_are_those_of_the_optimiser(dtype):
    case = Case("qwen2_5_vl", dtype)
    optimiser = Optimiser(case.policy, OptimConfig(), steps=2)
    case.policy(case.row()[0], 1.0).logprob_T.mean().backward()
    gradients = sum(p.grad.nbytes for p in optimiser.weights if p.grad is not None)
    optimiser.gather()
    masters = [m for w, m in zip(optimiser.weights, optimiser.masters, strict=True) if m is not w]
    found = footprint.states(case.arch, case.b, Trained())
    assert sum(m.grad.nbytes for m in masters if m.grad is not None) == found.gathered
    optimiser.step(0, str)
    moments = [t for state in optimiser.adam.state.values() for name, t in state.items() if name != "step"]
    assert sum(p.nbytes for p in case.model.parameters()) == found.weights
    assert (sum(m.nbytes for m in masters), sum(t.nbytes for t in moments)) == (found.masters, found.moments)
    assert gradients == case.b * case.arch.total == footprint.backward(case.arch, case.row()[1], case.b, Trained())["end"].gradients


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "gemma3", "idefics3"])
def test_what_autograd_saves_with_adapters(family, dtype):
    """A layer of the text to 1%; adapters and their optimiser to the byte."""
    cases = [Case(family, dtype, layers=layers) for layers in (2, 3)]
    for case in cases:
        lora.attach(case.model, LoraConfig(parts=("text",), rank=8), "a test", seed=0)
    trained = Trained(("text",), rank=8)
    pack, row = cases[0].row()
    [(_, layer), _] = kept.layers(cases[0].arch, row, cases[0].b, trained)
    assert saved(cases[1], cases[1].row()[0]) - saved(cases[0], pack) == pytest.approx(layer, rel=0.01)
    optimiser = Optimiser(cases[0].policy, OptimConfig(), steps=2)
    assert sum(w.numel() for w in optimiser.weights) == trained.weights(cases[0].arch, "text")
    assert sum(p.nbytes for p in cases[0].model.parameters()) == footprint.states(cases[0].arch, cases[0].b, trained).weights


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
def test_what_autograd_saves_where_the_text_is_frozen(family, dtype):
    cases = [Case(family, dtype, layers=layers) for layers in (2, 3)]
    for case in cases:
        freeze_others(case.model, ("projector",))
    pack, row = cases[0].row()
    [(_, layer), _] = kept.layers(cases[0].arch, row, cases[0].b, Trained(("projector",)))
    assert saved(cases[1], cases[1].row()[0]) - saved(cases[0], pack) == pytest.approx(layer, rel=0.01)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_what_autograd_saves_with_adapters_on_the_tower(family, dtype):
    cases = [Case(family, dtype, vision_layers=layers) for layers in (2, 3)]
    for case in cases:
        lora.attach(case.model, LoraConfig(parts=("tower",), rank=8), "a test", seed=0)
    trained, (pack, row) = Trained(("tower",), rank=8), cases[0].row()
    layer = kept.adapted_tower_layer(cases[0].arch, row.patches, cases[0].b, trained)
    found = saved(cases[1], cases[1].row()[0]) - saved(cases[0], pack)
    assert 0.9 * layer <= found <= 1.001 * layer


def test_by_hand():
    arch = published("Qwen/Qwen2.5-VL-7B-Instruct")
    assert footprint.cache(arch, 1, 1, 2) == 2 * 2 * 28 * 4 * 128 == 57_344
    row = Row(prompts=1, prompt=1000, completions=8, completion=500, patches=2800)
    assert (row.tokens, row.written, row.keys) == (5000, 4000, 12_000)
    assert footprint.vocabulary(arch, row, 2) == (4 + 4 + 2) * (1 << 26) and projection.TILE["cuda"] == footprint.TILE
    assert footprint.vocabulary(arch, Row(1, 1000, 1, 20, 2800), 4) == (4 + 4) * 20 * 152_064
    sources = 2 * 2 * 5000 * 512
    read, written, mask = 1000 * (2 * 2 * (3584 + 512) + 4 * 28), 4000 * (2 * 2 * 3584 + 4 * 28), 2 * 12_000 * 500
    assert kept.attention_layer(arch, row, 2) == sources + read + written + mask
    adapters = Trained(("text",), rank=16).weights(arch, "text")
    assert adapters == 28 * 16 * ((3584 + 3584) * 2 + (3584 + 512) * 2 + (3584 + 18944) * 3) == 40_370_176
    assert footprint.states(arch, 2, Trained(("text",), rank=16)) == footprint.States(
        2 * arch.total + 4 * adapters, 0, 8 * adapters, 0, 8 * adapters
    )


@pytest.mark.parametrize("size", [(64, 64), (480, 640), (1200, 1900), (28, 2000), (3000, 4000), (40, 41)])
@pytest.mark.parametrize(("least", "most"), [(3136, 12_845_056), (200_704, 1_003_520)])
def test_visual_tokens_are_the_processors(size, least, most):
    processor = transformers.Qwen2VLImageProcessor(patch_size=14, merge_size=2)
    patches = processor.get_number_of_image_patches(size[0], size[1], {"min_pixels": least, "max_pixels": most})
    assert Look(28, least, most).picture(*size) == patches // 4


@pytest.mark.parametrize(
    ("sharing", "expected"),
    [
        (Sharing(8, 0), (2 * 8.0, 4 * 8.0, 8 * 8.0, 4 * 8.0)),
        (Sharing(8, 1), (2 * 8.0, 4.0, 8.0, 4 * 8.0)),
        (Sharing(8, 2), (2 * 8.0, 4.0, 8.0, 4.0)),
        (Sharing(8, 3), (2.0 + 2 * 8 * 1e9 / 8_292_166_656, 4.0, 8.0, 4.0)),
        (Sharing(8, 2, "optimizer"), (2 * 8.0, 0.0, 0.0, 0.0)),
        (Sharing(8, 3, "all"), (2 * 8 * 1e9 / 8_292_166_656, 0.0, 0.0, 0.0)),
    ],
)
def test_what_devices_share(sharing, expected):
    """In bytes for each eighth of the model's numbers: weights, masters, moments, gradients."""
    arch = published("Qwen/Qwen2.5-VL-7B-Instruct")
    found = footprint.shared_states(arch, 2, Trained(), sharing)
    sizes = (found.weights, found.masters, found.moments, found.gathered)
    assert [size / (arch.total / 8) for size in sizes] == pytest.approx(expected)
    made = 2 * arch.total
    assert footprint.reduced(made, 2, Sharing()) == made
    assert footprint.reduced(made, 2, Sharing(8, 2)) == (2 + 4) * 500_000_000
    assert footprint.reduced(made, 2, Sharing(8, 1)) == made + 4 * 500_000_000
