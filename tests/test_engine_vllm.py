"""vLLM itself (its CPU build) against the transformers engine: the same tokens for the same weights, prompts, pictures and frames."""

import pytest
import torch
from models_small import make, picture, sample, video

pytest.importorskip("vllm")

from vlm_rl import lora, models
from vlm_rl.config import LoraConfig, OptimConfig, VLLMConfig
from vlm_rl.engine.base import GenerateRequest, ScoreRequest
from vlm_rl.engine.hf import HFEngine
from vlm_rl.engine.vllm import VLLMEngine
from vlm_rl.errors import UserError
from vlm_rl.optim import Optimiser
from vlm_rl.packing import Item
from vlm_rl.policy import Policy
from vlm_rl.types import Sample, Sampling
from vlm_rl.weights import named_weights

CLOSE = 2e-3  # nats: vLLM's float32 kernels on a CPU


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(vLLM engine, transformers engine) on the same weights."""
    policy, chat = make("qwen2_5_vl")
    directory = tmp_path_factory.mktemp("model")
    models.save_model(directory, policy.model, chat)
    hf = HFEngine(policy, chat)
    return VLLMEngine(str(directory), chat, VLLMConfig(max_num_seqs=16, enforce_eager=True), hf, 2048), hf


def asked(chat, row: Sample, seeds=(0,), limit=10, temperature=0.0, prefill="", stop=()) -> GenerateRequest:
    return GenerateRequest(chat.prompt(row, prefill), Sampling(limit, temperature, stop), tuple(seeds))


def rows(chat) -> list[GenerateRequest]:
    clip = Sample(id="v", question="what?", answer="A", media=(video(1),))
    mixed = Sample(id="w", question="<image> and <video> or <image>?", answer="A", media=(picture(1), video(2, 7), picture(3, (90, 50))))
    return [
        asked(chat, sample("a")),
        asked(chat, sample("two", 2, size=(100, 60))),
        asked(chat, sample("none", 0)),
        asked(chat, sample("begun"), prefill="<think>I see"),
        asked(chat, clip),
        asked(chat, mixed),
    ]


def close(one, other) -> bool:
    """The same ids until a near tie, and log-probs close up to there."""
    for (a, p), (b, q) in zip(
        zip(one.token_ids, one.logprobs, strict=True), zip(other.token_ids, other.logprobs, strict=True), strict=False
    ):
        if a != b:
            return abs(p - q) < CLOSE
        if abs(p - q) > CLOSE:
            return False
    return True


def test_greedy_answers_and_log_probs_are_those_of_the_transformers_engine(both):
    vllm, hf = both
    requests = rows(hf.chat)
    for request, (ours,), (theirs,) in zip(requests, vllm.generate(requests), hf.generate(requests), strict=True):
        assert close(ours, theirs), request.prompt.sample.id
        assert ours.finish == theirs.finish


def test_a_group_is_one_request_and_its_log_probs_are_at_the_sampling_temperature(both):
    vllm, hf = both
    request = asked(hf.chat, sample("a"), seeds=range(8), limit=12, temperature=0.7)
    (group,) = vllm.generate([request])
    assert len(group) == 8 and len({c.token_ids for c in group}) > 4
    assert vllm.generate([request]) == [group], "equal requests are answered equally"
    visual = set(hf.chat.visual_ids)
    with torch.no_grad():
        row = hf.policy.pack([Item(request.prompt, tuple(c.token_ids for c in group), tuple(range(8)))])
        trainer = hf.policy(row, 0.7).logprob_T
    for i, completion in enumerate(group):
        assert not visual & set(completion.token_ids)
        assert torch.allclose(torch.tensor(completion.logprobs), trainer[row.rollout_T == i], atol=CLOSE)


def test_more_prompts_than_vllm_takes_at_once_are_answered(both):
    """8,192 tokens are read at once; a seeded prompt that is cut there cannot be answered on a CPU."""
    engine, hf = both
    long = [Sample(id=str(i), question=f"{i} " + "what? " * 250, answer="A") for i in range(16)]
    requests = [asked(hf.chat, row, (i,), 2, 1.0) for i, row in enumerate(long)]
    lengths = [len(request.prompt.expanded_ids) for request in requests]
    assert sum(lengths) > 8192 and 8192 % lengths[0] and max(lengths) < 2048
    assert [len(group) for group in engine.generate(requests)] == [1] * 16


def test_stop_strings_end_a_completion_and_stay_in_it(both):
    vllm, hf = both
    (free,) = vllm.generate([asked(hf.chat, sample("a"), limit=20)])[0]
    word = free.text[3:5]
    request = asked(hf.chat, sample("a"), limit=20, stop=(word,))
    (ours,), (theirs,) = vllm.generate([request])[0], hf.generate([request])[0]
    assert ours.finish == theirs.finish == "stop" and word in ours.text and ours.text == theirs.text


def test_continuations_are_scored_by_the_trainers_forward(both):
    vllm, hf = both
    prompt = hf.chat.prompt(sample("a"))
    request = ScoreRequest(prompt, hf.chat.ids_of("teal"))
    assert vllm.score([request]) == hf.score([request])


def changed(policy: Policy, seed: int) -> dict[str, torch.Tensor]:
    """Weights with other values, and those they had."""
    generator = torch.Generator().manual_seed(seed)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    with torch.no_grad():
        for p in policy.model.parameters():
            p.add_(0.3 * p.std().nan_to_num(0.1) * torch.randn(p.shape, generator=generator))
    return before


def test_new_weights_answer_at_once_also_about_pictures_seen_before(both):
    vllm, hf = both
    requests = rows(hf.chat)
    old = vllm.generate(requests)
    before = changed(hf.policy, 1)
    try:
        vllm.load_weights((name, p.detach()) for name, p in hf.policy.model.named_parameters())
        new, want = vllm.generate(requests), hf.generate(requests)
        assert all(close(a, b) for (a,), (b,) in zip(new, want, strict=True))
        assert sum(a != b for a, b in zip(old, new, strict=True)) >= 4
    finally:
        with torch.no_grad():
            for name, p in hf.policy.model.named_parameters():
                p.copy_(before[name])
        vllm.load_weights(before.items())


def test_without_the_prefix_caches_reset_old_keys_and_values_answer(both, monkeypatch):
    vllm, hf = both
    requests = [asked(hf.chat, sample("none", 0, question="what color is it? " * 60), limit=6)]
    vllm.generate(requests)
    before = changed(hf.policy, 2)
    try:
        monkeypatch.setattr(vllm, "forget", vllm.llm.llm_engine.reset_encoder_cache)
        vllm.load_weights((name, p.detach()) for name, p in hf.policy.model.named_parameters())
        (stale,), (want,) = vllm.generate(requests)[0], hf.generate(requests)[0]
        assert not close(stale, want)
        monkeypatch.undo()
        vllm.forget()
        assert close(vllm.generate(requests)[0][0], want)
    finally:
        with torch.no_grad():
            for name, p in hf.policy.model.named_parameters():
                p.copy_(before[name])
        vllm.load_weights(before.items())


@pytest.mark.parametrize("kind", [{}, {"dora": True}], ids=str)
def test_adapters_are_in_the_weights_that_are_streamed(both, kind):
    vllm, hf = both
    requests = rows(hf.chat)
    old = vllm.generate(requests)
    adapted, chat = make("qwen2_5_vl")
    lora.attach(adapted.model, LoraConfig(parts=("text", "tower", "projector"), rank=4, **kind), "base", 0)
    optimiser = Optimiser(adapted, OptimConfig(learning_rate=0.03), 3)
    for step in range(3):
        adapted(adapted.pack([Item(requests[0].prompt, ((5, 6, 7, 8),), (0,))])).logprob_T.sum().backward()
        optimiser.step(step, str)
    before = [p.detach().clone() for p in adapted.parameters()]
    try:
        vllm.load_weights(named_weights(adapted))
        new, want = vllm.generate(requests), HFEngine(adapted, chat).generate(requests)
        assert all(close(a, b) for (a,), (b,) in zip(new, want, strict=True))
        assert sum(a != b for a, b in zip(old, new, strict=True)) >= 4, "the update is seen"
        assert all(torch.equal(a, b) for a, b in zip(before, adapted.parameters(), strict=True)), "what trains is not touched"
    finally:
        vllm.load_weights(named_weights(hf.policy))
    assert vllm.generate(requests) == old


def test_another_prompt_than_the_trainers_is_refused(both):
    vllm, hf = both
    request = asked(hf.chat, sample("a"))
    with pytest.raises(UserError, match=r"row a: vLLM read \d+ prompt tokens"):
        vllm._same_prompt(request.prompt, request.prompt.expanded_ids[:-1])


def test_a_model_that_vllm_cannot_load_is_named(tmp_path):
    policy, chat = make("qwen2_5_vl")
    with pytest.raises(UserError, match=r"rollout.engine=vllm: vLLM cannot load"):
        VLLMEngine(str(tmp_path), chat, VLLMConfig(), HFEngine(policy, chat), 512)


def test_without_the_encoder_caches_reset_the_next_known_picture_crashes(both, monkeypatch):
    """Stands last: vLLM is of no use afterwards."""
    vllm, hf = both
    requests = [asked(hf.chat, sample("seen"))]
    vllm.generate(requests)
    monkeypatch.setattr(vllm, "forget", vllm.llm.reset_prefix_cache)
    vllm.load_weights((name, p.detach()) for name, p in hf.policy.model.named_parameters())
    with pytest.raises(Exception, match="Encoder cache miss"):
        vllm.generate(requests)
