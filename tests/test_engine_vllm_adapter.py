"""vLLM that is given adapters as adapters (its CPU build) against the transformers engine with the same ones."""

from pathlib import Path

import pytest
import torch
from models_small import make, sample
from test_engine_vllm import asked, close, rows

pytest.importorskip("vllm")

from vlm_rl import lora, models
from vlm_rl.config import LoraConfig, TrainConfig, VLLMConfig
from vlm_rl.doctor_model import TOLERANCES, Asked, caches_dropped, measure_sync, weights_arrive
from vlm_rl.engine.base import ScoreRequest
from vlm_rl.engine.hf import HFEngine
from vlm_rl.engine.vllm_adapter import VLLMAdapterEngine
from vlm_rl.errors import UserError
from vlm_rl.loading import load
from vlm_rl.lora import AdaptersOffEngine
from vlm_rl.types import Sampling

ROOT = Path(__file__).parent.parent
FAST = VLLMConfig(max_num_seqs=16, enforce_eager=True)
LONG = "what color is it? " * 60  # vLLM keeps prompts by blocks, on a CPU of 128 tokens


def engines(directory: Path, config: LoraConfig) -> tuple[VLLMAdapterEngine, HFEngine]:
    """vLLM and transformers with the same new adapters."""
    policy, chat = make("qwen2_5_vl")
    models.save_model(directory, policy.model, chat)
    lora.attach(policy.model, config, str(directory), seed=0)
    hf = HFEngine(policy, chat)
    return VLLMAdapterEngine(str(directory), chat, FAST, hf, 2048, config), hf


def moved(hf: HFEngine, seed: int) -> None:
    """Adapters that are far from any before."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in hf.policy.model.parameters():
            if weight.requires_grad:
                weight.copy_(0.15 * torch.randn_like(weight))


def sync(vllm: VLLMAdapterEngine, hf: HFEngine, seed: int) -> None:
    moved(hf, seed)
    vllm.load_weights(lora.named(hf.policy.model))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    vllm, hf = engines(tmp_path_factory.mktemp("model"), LoraConfig(parts=("text", "tower", "projector"), rank=4))
    vllm.load_weights(lora.named(hf.policy.model))
    return vllm, hf


def same(vllm, hf, requests) -> bool:
    return all(close(a, b) for (a,), (b,) in zip(vllm.generate(requests), hf.generate(requests), strict=True))


def test_after_every_sync_it_answers_with_the_new_adapters_and_without_them_as_the_start(both):
    vllm, hf = both
    *requests, mixed = rows(hf.chat)
    bare, start = vllm.without_adapter(), AdaptersOffEngine(hf, hf.policy)
    told = [vllm.generate(requests)]
    first = bare.generate(requests)
    assert told[0] == first, "new adapters change nothing"
    for seed in (1, 2):
        old = vllm.scratch.name
        sync(vllm, hf, seed)
        assert same(vllm, hf, requests)
        assert bare.generate(requests) == first and all(close(a, b) for (a,), (b,) in zip(first, start.generate(requests), strict=True))
        asks = ScoreRequest(requests[0].prompt, hf.chat.ids_of("teal"))
        assert AdaptersOffEngine(bare, hf.policy).score([asks]) == start.score([asks]) != vllm.score([asks])
        told.append(vllm.generate(requests))
        assert not Path(old).exists() and len(vllm.llm.llm_engine.list_loras()) == 1, "those before are gone"
    assert all(a != b for i in (0, 1) for a, b in zip(told[i], told[i + 1], strict=True)), "every row sees every sync"
    with pytest.raises(UserError, match=r"row w: rollout.vllm.adapters=adapter .* is not for pictures and videos in one prompt"):
        vllm.generate([mixed])


@pytest.mark.parametrize("kind", ["prompt", "picture"])
def test_a_name_that_comes_again_is_answered_from_stale_caches_but_for_the_reset(both, monkeypatch, kind):
    """vLLM keys prompts and pictures by an adapter's name and directory. Ours never come again; were it so, the reset would still do."""
    vllm, hf = both
    from vllm.lora.request import LoRARequest

    requests = [asked(hf.chat, sample("seen", 1) if kind == "picture" else sample("none", 0, question=LONG), limit=6)]
    path = Path(vllm.scratch.name).parent / "vlm-rl-adapter-again"

    def again(number, directory):
        path.unlink(missing_ok=True)
        path.symlink_to(directory)
        return LoRARequest("again", number, str(path))

    monkeypatch.setattr(vllm, "_named", again)
    try:
        sync(vllm, hf, 3)
        assert same(vllm, hf, requests)
        with monkeypatch.context() as without:
            without.setattr(vllm, "forget", lambda: None)
            sync(vllm, hf, 4)
            assert not same(vllm, hf, requests), "what the reset is for"
        sync(vllm, hf, 5)
        assert same(vllm, hf, requests)
    finally:
        path.unlink(missing_ok=True)


def test_an_adapter_that_vllm_would_take_in_part_is_refused(both):
    vllm, hf = both
    weights = {name.replace(".layers.1.", ".layers.7."): tensor for name, tensor in lora.named(hf.policy.model)}
    with pytest.raises(UserError, match=r"vLLM has no adapters on \d+ layers that have one, such as language_model.*layers\.7\.mlp"):
        vllm.load_weights(weights.items())


def test_a_rank_that_vllm_does_not_take_is_refused_before_anything_is_loaded():
    with pytest.raises(UserError, match=r"adapters up to rank 512, not model.lora.rank=600; write rollout.vllm.adapters=merged"):
        VLLMAdapterEngine("nowhere", None, FAST, None, 512, LoraConfig(rank=600))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["rollout.engine=hf"], "is about the adapters of model.lora and rollout.engine=vllm"),
        (["model.lora.dora=true"], "vLLM knows no adapters of model.lora.dora=true; write rollout.vllm.adapters=merged"),
        (["rollout.vllm.sleep_level=2"], "vLLM throws its weights away"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_when_the_config_is_read(more, told):
    base = [f"extends={ROOT / 'configs/fragments/lora.yaml'}", "rollout.engine=vllm", "rollout.vllm.adapters=adapter"]
    with pytest.raises(UserError, match=told):
        load(TrainConfig, str(ROOT / "configs/quickstart.yaml"), [*base, *more])


@pytest.mark.slow
def test_adapters_on_the_text_alone_by_rank_stabilised_scale(tmp_path):
    vllm, hf = engines(tmp_path, LoraConfig(rank=4, rslora=True))
    for seed in (1, 2):
        sync(vllm, hf, seed)
        assert same(vllm, hf, rows(hf.chat)), "pictures and videos in one prompt too"
    seen, fresh = ([hf.chat.prompt(sample(f"{kind}{i}", question=LONG)) for i in range(3)] for kind in ("seen", "fresh"))
    found = measure_sync(hf.policy, vllm, Asked(seen, fresh, Sampling(16, 1.0), 8192))
    for finding in (weights_arrive(found, TOLERANCES["float32"]), caches_dropped(found, TOLERANCES["float32"])):
        assert finding.status == "pass", finding
