"""The formulas of `vlm-rl plan` against parameters, tensors and peaks counted by torch itself, on small models on the CPU."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import models_small
import pytest
import torch
import transformers
from models_small import completions, sample
from torch.autograd.graph import saved_tensors_hooks

from vlm_rl import attention, footprint, lora, projection, small
from vlm_rl.architecture import FAMILIES, PUBLISHED, of_config
from vlm_rl.config import LoraConfig, OptimConfig, ScratchConfig
from vlm_rl.footprint import BYTES, Row, Sharing, Trained
from vlm_rl.optim import Optimiser
from vlm_rl.packing import Item, Pack
from vlm_rl.policy import Policy
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
    """A small model of a family with a packed row: `prompts` groups, `completions` in all of `length` tokens."""

    def __init__(self, family: str, dtype: str, hidden: int = 64, layers: int = 2, vision_layers: int = 2, checkpointing: bool = False):
        sizes = ScratchConfig(
            family=family,
            hidden_size=hidden,
            heads=4,
            layers=layers,
            vision_hidden_size=32,
            vision_layers=vision_layers,  # pyright: ignore[reportArgumentType]
        )
        self.chat = models_small.make_chat(family)
        self.model = small.make_model(sizes, self.chat.tokenizer, seed=1).to(DTYPES[dtype])
        self.policy = Policy(self.model, self.chat.visual_ids, "shared_prefix", checkpointing)
        self.arch, self.b = of_config(self.model.config, "a test"), BYTES[dtype]

    def row(self, prompts: int = 2, count: int = 4, length: int = 24) -> tuple[Pack, Row]:
        read = [self.chat.prompt(sample("abcd"[i], 1, size=(112, 84))) for i in range(prompts)]
        each = count // prompts
        items = [Item(p, completions(self.chat, [length] * each), tuple(range(i * each, (i + 1) * each))) for i, p in enumerate(read)]
        pack = self.policy.pack(items)
        patches = int(pack.vision["image_grid_thw"].prod(1).sum())
        return pack, Row(prompts, len(read[0].expanded_ids), count, length, patches)


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
    case = Case(family, "float32", layers=3)
    found = {"text": 0, "tower": 0, "projector": 0}
    for name, parameter in case.model.named_parameters():
        part = "projector" if "merger" in name else "tower" if "visual" in name else "text"
        found[part] += parameter.numel()
    assert found == case.arch.parameters


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_published_models(name):
    arch = PUBLISHED[name]
    text, tower = arch.text, arch.tower
    config = {
        "text_config": {
            "hidden_size": text.hidden,
            "intermediate_size": text.intermediate,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads,
            "head_dim": text.head,
            "vocab_size": text.vocabulary,
            "tie_word_embeddings": text.tied,
        },
        "vision_config": {
            "hidden_size": tower.hidden,
            "intermediate_size": tower.intermediate,
            "depth": tower.layers,
            "num_heads": tower.heads,
            "patch_size": tower.patch,
            "out_hidden_size": text.hidden,
            **({"deepstack_visual_indexes": [5, 11, 17], "num_position_embeddings": tower.positions} if tower.deepstack else {}),
        },
        "tie_word_embeddings": text.tied,
    }
    kind = transformers.Qwen3VLConfig if arch.family == "qwen3_vl" else transformers.Qwen2_5_VLConfig
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(kind(**config))
    assert sum(p.numel() for p in model.parameters()) == arch.total == SHOWN[name]
    assert of_config(model.config, arch.source) == arch


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_autograd_saves(family, dtype):
    """A layer of the text to the byte, one of the tower but for norms' statistics in bfloat16, the whole to 2%."""
    base, taller, deeper = Case(family, dtype), Case(family, dtype, layers=3), Case(family, dtype, vision_layers=3)
    pack, row = base.row()
    whole = saved(base, pack)
    arch, b = base.arch, base.b
    assert saved(taller, taller.row()[0]) - whole == footprint.text_layer(arch, row, b)
    layer = footprint.tower_layer(arch, row.patches, b)
    merger = footprint.merger(deeper.arch, row.patches, b) - footprint.merger(arch, row.patches, b)  # these have one for every layer
    assert saved(deeper, deeper.row()[0]) - whole == pytest.approx(layer + merger, rel=0.01)
    pictures = footprint.pixels(arch, row.patches, b) - 4 * row.patches * arch.tower.pixels  # the processor's own are not autograd's
    parts = footprint.merger(arch, row.patches, b) + footprint.shared(arch, row, b) + pictures
    assert 2 * footprint.text_layer(arch, row, b) + 2 * layer + parts == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_peak_of_a_backward_is_bounded(dtype, checkpointing):
    """Never above the prediction, and that no more than a quarter above it."""
    case = Case("qwen2_5_vl", dtype, layers=3, checkpointing=checkpointing)
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
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_what_autograd_saves_with_adapters(family, dtype):
    """A layer of the text to 1%; adapters and their optimiser to the byte."""
    cases = [Case(family, dtype, layers=layers) for layers in (2, 3)]
    for case in cases:
        lora.attach(case.model, LoraConfig(parts=("text",), rank=8), "a test", seed=0)
    pack, row = cases[0].row()
    assert saved(cases[1], cases[1].row()[0]) - saved(cases[0], pack) == pytest.approx(
        footprint.adapted_layer(cases[0].arch, row, cases[0].b, 8), rel=0.01
    )
    optimiser = Optimiser(cases[0].policy, OptimConfig(), steps=2)
    trained = Trained(("text",), rank=8)
    assert sum(w.numel() for w in optimiser.weights) == trained.weights(cases[0].arch, "text")
    assert sum(p.nbytes for p in cases[0].model.parameters()) == footprint.states(cases[0].arch, cases[0].b, trained).weights


def test_by_hand():
    arch = PUBLISHED["Qwen/Qwen2.5-VL-7B-Instruct"]
    assert footprint.cache(arch, 1, 2) == 2 * 2 * 28 * 4 * 128 == 57_344
    row = Row(prompts=1, prompt=1000, completions=8, completion=500, patches=2800)
    assert (row.tokens, row.written, row.keys) == (5000, 4000, 12_000)
    assert footprint.vocabulary(arch, row, 2) == (4 + 4 + 2) * (1 << 26) and projection.TILE["cuda"] == footprint.TILE
    assert footprint.vocabulary(arch, Row(1, 1000, 1, 20, 2800), 4) == (4 + 4) * 20 * 152_064
    sources = 2 * 2 * 5000 * 512
    read, written, mask = 1000 * (2 * 2 * (3584 + 512) + 4 * 28), 4000 * (2 * 2 * 3584 + 4 * 28), 2 * 12_000 * 500
    assert footprint.attention_layer(arch, row, 2) == sources + read + written + mask
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
    arch = PUBLISHED["Qwen/Qwen2.5-VL-7B-Instruct"]
    found = footprint.shared_states(arch, 2, Trained(), sharing)
    sizes = (found.weights, found.masters, found.moments, found.gathered)
    assert [size / (arch.total / 8) for size in sizes] == pytest.approx(expected)
    made = 2 * arch.total
    assert footprint.reduced(made, 2, Sharing()) == made
    assert footprint.reduced(made, 2, Sharing(8, 2)) == (2 + 4) * 500_000_000
    assert footprint.reduced(made, 2, Sharing(8, 1)) == made + 4 * 500_000_000
