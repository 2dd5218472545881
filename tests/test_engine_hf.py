"""The transformers engine against a slow loop without cache, batch or padding, and its own laws."""

import hashlib
import math

import pytest
import torch
from models_small import make, picture, sample, video

from vlm_rl.engine.base import GenerateRequest, ScoreRequest
from vlm_rl.engine.hf import HFEngine
from vlm_rl.families import FAMILIES
from vlm_rl.packing import Item
from vlm_rl.types import Sample, Sampling

WITH_VIDEO = [name for name, family in FAMILIES.items() if "video" in family.marks]


def request(chat, name, seeds, pictures=1, limit=12, temperature=1.0, **kwargs):
    prompt = chat.prompt(sample(name, pictures, size=(64 + 20 * pictures, 64)), prefill=kwargs.pop("prefill", ""))
    return GenerateRequest(prompt, Sampling(limit, temperature, **kwargs), tuple(seeds))


def slow_greedy(policy, prompt, steps):
    """Plain forward of the whole text for every token."""
    written = []
    for _ in range(steps):
        ids = (~policy.banned_V).nonzero()[:, 0].tolist()
        row = policy.pack([Item(prompt, tuple((*written, i) for i in ids), tuple(range(len(ids))))])
        last = torch.arange(len(written), len(row.target_T), len(written) + 1)
        written.append(ids[int(policy(row).logprob_T[last].argmax())])
    return tuple(written)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_the_loop_without_cache(family):
    policy, chat = make(family)
    engine = HFEngine(policy, chat)
    requests = [request(chat, "a", [0], 1, 5, 0), request(chat, "bb", [0], 2, 5, 0), request(chat, "c", [0], 0, 5, 0)]
    with torch.no_grad():
        for asked, (completion,) in zip(requests, engine.generate(requests), strict=True):
            want = slow_greedy(policy, asked.prompt, len(completion.token_ids))
            assert completion.token_ids == want


@pytest.mark.parametrize("family", WITH_VIDEO)
def test_videos_are_answered_as_the_trainer_sees_them(family):
    """Greedy equals the loop without cache, and both are handed the very same pixels."""
    policy, chat = make(family)
    clip = Sample(id="v", question="what?", answer="A", media=(video(1),))
    both = Sample(id="w", question="<image> and <video> or <video>?", answer="A", media=(picture(1), video(2, 7), video(1)))
    requests = [GenerateRequest(chat.prompt(row), Sampling(5, 0), (0,)) for row in (both, clip)]
    seen: list[list[str]] = [[]]

    def look(module, inputs, named):
        pixels = inputs[0] if inputs else named["pixel_values" if "pixel_values" in named else "hidden_states"]
        seen[-1].append(hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest())

    tower = policy.family.parts["tower"][0].removesuffix(".")
    policy.model.get_submodule(tower).register_forward_pre_hook(look, with_kwargs=True)
    with torch.no_grad():
        written = HFEngine(policy, chat).generate(requests)
        seen.append([])
        policy(policy.pack([Item(r.prompt, (c.token_ids,), (i,)) for i, (r, (c,)) in enumerate(zip(requests, written, strict=True))]))
        assert seen[0] and seen[0] == seen[1]
        for asked, (completion,) in zip(requests, written, strict=True):
            assert completion.token_ids == slow_greedy(policy, asked.prompt, len(completion.token_ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_are_the_trainers_at_the_sampling_temperature(family):
    policy, chat = make(family)
    asked = [request(chat, "a", range(4), 1, temperature=0.6), request(chat, "c", range(4), 3, temperature=0.6)]
    groups = HFEngine(policy, chat).generate(asked)
    items = [
        Item(a.prompt, tuple(c.token_ids for c in group), tuple(range(i * 4, i * 4 + 4)))
        for i, (a, group) in enumerate(zip(asked, groups, strict=True))
    ]
    with torch.no_grad():
        trainer = policy(policy.pack(items), 0.6).logprob_T
    engine = torch.tensor([p for group in groups for c in group for p in c.logprobs])
    torch.testing.assert_close(engine, trainer, rtol=1e-4, atol=1e-4)
    assert len({c.token_ids for group in groups for c in group}) > 4


def test_equal_seeds_give_equal_completions_whatever_else_is_in_the_batch():
    policy, chat = make()
    engine = HFEngine(policy, chat)
    alone = engine.generate([request(chat, "a", [7])])[0][0]
    crowd = engine.generate([request(chat, "bbbb", [1, 7], 2), request(chat, "a", [3, 7, 9], limit=12), request(chat, "d", [7], 0, 30)])
    assert crowd[1][1].token_ids == alone.token_ids
    assert crowd[1][0].token_ids != alone.token_ids
    small = HFEngine(policy, chat, batch_size=2).generate([request(chat, "a", [3, 7, 9])])
    assert [c.token_ids for c in small[0]] == [c.token_ids for c in crowd[1]]


def test_sampling_follows_the_distribution_and_never_draws_visual_tokens():
    policy, chat = make()
    asked = request(chat, "a", range(4000), pictures=0, limit=1)
    drawn = torch.tensor([c.token_ids[0] for c in HFEngine(policy, chat).generate([asked])[0]])
    count = torch.bincount(drawn, minlength=policy.banned_V.numel()) / 4000
    with torch.no_grad():
        row = policy.pack([Item(asked.prompt, tuple((i,) for i in range(len(count))), tuple(range(len(count))))])
        p = policy(row).logprob_T.exp()
    assert (count - p).abs().max() < 5 * math.sqrt(0.25 / 4000)
    assert count[list(chat.visual_ids)].sum() == 0


def test_ends_at_end_of_turn_at_the_limit_and_at_stop_strings():
    policy, chat = make()
    engine = HFEngine(policy, chat)
    free = engine.generate([request(chat, "a", range(40), limit=40)])[0]
    assert {c.finish for c in free} == {"stop", "length"}
    for c in free:
        assert (c.token_ids[-1] in engine.eos) == (c.finish == "stop")
        assert not set(c.token_ids[:-1]) & engine.eos
        assert len(c.token_ids) == 40 if c.finish == "length" else len(c.token_ids) <= 40
    long = max(free, key=lambda c: len(c.text))
    stop = long.text[3:5]
    index = next(i for i, c in enumerate(free) if c is long)
    cut = engine.generate([request(chat, "a", range(40), limit=40, stop=(stop,))])[0][index]
    assert cut.finish == "stop" and stop in cut.text and long.token_ids[: len(cut.token_ids)] == cut.token_ids
    assert stop not in chat.text_of(cut.token_ids[:-1])


def test_prefill_is_continued_and_not_repeated():
    policy, chat = make()
    asked = request(chat, "a", [0], prefill="<think>I see")
    assert asked.prompt.text.endswith("assistant\n<think>I see")
    assert chat.text_of(asked.prompt.expanded_ids).endswith("<think>I see")
    text = HFEngine(policy, chat).generate([asked])[0][0].text
    assert "I see" not in text[:8]


def test_scores_equal_the_generated_log_probs():
    policy, chat = make()
    engine = HFEngine(policy, chat, token_budget=100)
    asked = request(chat, "a", range(3))
    completions = engine.generate([asked])[0]
    scores = engine.score([ScoreRequest(asked.prompt, c.token_ids) for c in completions])
    for completion, score in zip(completions, scores, strict=True):
        torch.testing.assert_close(torch.tensor(score), torch.tensor(completion.logprobs), rtol=1e-4, atol=1e-4)


def test_generation_with_gradient_checkpointing_on_keeps_its_context():
    policy, chat = make(gradient_checkpointing=True)
    plain, _ = make()
    asked = request(chat, "a", range(3))
    (checkpointed,) = HFEngine(policy, chat).generate([asked])
    row = policy.pack([Item(asked.prompt, tuple(c.token_ids for c in checkpointed), (0, 1, 2))])
    policy(row).logprob_T.sum().backward()
    (again,) = HFEngine(policy, chat).generate([asked])
    (want,) = HFEngine(plain, chat).generate([asked])
    assert [c.token_ids for c in checkpointed] == [c.token_ids for c in again] == [c.token_ids for c in want]


def test_a_prefill_holds_no_more_prompts_than_its_token_budget():
    policy, chat = make()
    asked = [request(chat, name, range(3), limit=3) for name in ("a", "bb", "c", "dd")]
    engine = HFEngine(policy, chat, token_budget=2 * max(len(a.prompt.expanded_ids) for a in asked))
    sizes = []
    prefill = engine._prefill
    engine._prefill = lambda prompts: (sizes.append(len(prompts)), prefill(prompts))[1]
    tight = engine.generate(asked)
    assert sizes == [2, 2]
    assert [c.token_ids for g in tight for c in g] == [c.token_ids for g in HFEngine(policy, chat).generate(asked) for c in g]
