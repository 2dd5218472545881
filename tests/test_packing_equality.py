"""The shared-prefix forward equals the plain repeated forward, values and every gradient, on each family it is allowed for."""

import pytest
import torch
from models_small import completions, make, picture, sample, video

from vlm_rl.families import FAMILIES
from vlm_rl.packing import Item, split
from vlm_rl.types import Sample

PACKED = [name for name, family in FAMILIES.items() if family.packs]


def items(chat, case: str) -> list[Item]:
    one = Item(chat.prompt(sample("one", 1)), completions(chat, [5, 1, 9], 1), (0, 1, 2))
    several = Item(chat.prompt(sample("several", 3, size=(90, 50))), completions(chat, [3, 7], 2), (3, 4))
    text = Item(chat.prompt(sample("text", 0, question="how many?")), completions(chat, [4, 4, 2, 6], 3), (5, 6, 7, 8))
    if case in ("one image", "several images", "no image", "mixed"):
        return {"one image": [one], "several images": [several], "no image": [text], "mixed": [one, text, several]}[case]
    clip = Sample(id="clip", question="what happens?", answer="A", media=(video(1),))
    both = Sample(id="both", question="first <video> then <image> and <video>?", answer="A", media=(video(2, 6), picture(3), video(4, 9)))
    moving = Item(chat.prompt(clip), completions(chat, [5, 2], 4), (9, 10))
    mixed = Item(chat.prompt(both), completions(chat, [3, 6, 1], 5), (11, 12, 13))
    return {"video": [moving], "video and image": [mixed], "videos among images": [one, moving, text, mixed]}[case]


def run(policy, batches, temperature=1.0):
    policy.zero_grad()
    logprobs, entropies = [], []
    for batch in batches:
        row = policy.pack(batch)
        stats = policy(row, temperature)
        (stats.logprob_T * torch.linspace(0.5, 1.5, 50)[row.rollout_T]).sum().backward()
        logprobs.append(stats.logprob_T.detach())
        entropies.append(stats.entropy_T)
    gradients = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    return torch.cat(logprobs), torch.cat(entropies), gradients


def assert_equal(got, want):
    for a, b in zip(got[:2], want[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert got[2].keys() == want[2].keys()
    largest = max(float(gradient.abs().max()) for gradient in want[2].values())
    for name, gradient in want[2].items():  # the bias of keys has a gradient of rounding only, as softmax does not see it
        scale = gradient.abs().max()
        assert (got[2][name] - gradient).abs().max() <= 1e-5 * scale + 1e-7 * max(1.0, largest), name


CASES = ["one image", "several images", "no image", "mixed", "video", "video and image", "videos among images"]


@pytest.mark.parametrize("family, case", [(f, c) for f in PACKED for c in CASES if "video" not in c or "video" in FAMILIES[f].marks])
def test_shared_prefix_and_dense_oracle_equal_the_plain_forward(family, case):
    plain, chat = make(family, "plain")
    batch = items(chat, case)
    want = run(plain, [batch], 0.7)
    assert want[2] and want[0].std() > 0.1
    for mode in ("dense", "shared_prefix"):
        assert_equal(run(make(family, mode)[0], [batch], 0.7), want)


@pytest.mark.parametrize("family", PACKED)
def test_gradient_checkpointing_changes_nothing(family):
    policy, chat = make(family)
    batch = items(chat, "mixed")
    assert_equal(run(make(family, gradient_checkpointing=True)[0], [batch]), run(policy, [batch]))


@pytest.mark.parametrize("budget", [1, 40, 60, 100, 10_000])
def test_any_token_budget_gives_the_same_sums(budget):
    policy, chat = make()
    batch = items(chat, "mixed")
    batches = split(batch, budget)
    assert [r for b in batches for i in b for r in i.rollouts] == [r for i in batch for r in i.rollouts]
    assert all(sum(i.tokens for i in b) <= budget or len(b[0].completions) == len(b) == 1 for b in batches)
    assert_equal(run(policy, batches), run(policy, [batch]))


def test_vision_tokens_are_outside_the_support():
    policy, chat = make()
    prompt = chat.prompt(sample("one", 0))
    row = policy.pack([Item(prompt, tuple((i,) for i in range(len(chat.tokenizer))), tuple(range(len(chat.tokenizer))))])
    with torch.no_grad():
        logprob = policy(row).logprob_T
    assert (logprob[list(chat.visual_ids)] == float("-inf")).all()
    assert logprob.exp().sum() == pytest.approx(1, abs=1e-4)


def test_one_long_prompt_does_not_make_many_short_ones_pay():
    _, chat = make()
    long = Item(chat.prompt(sample("long", 0, question="how " * 200)), completions(chat, [5, 5], 1), (0, 1))
    short = [Item(chat.prompt(sample(f"s{i}", 0)), completions(chat, [5, 5], i), (2 + 2 * i, 3 + 2 * i)) for i in range(20)]
    batches = split([*short[:10], long, *short[10:]], 100_000)
    assert sum(map(len, batches)) == 21 and all(len(b) <= 2 for b in batches if long in b)
    assert len(split(short, 100_000)) == 1
