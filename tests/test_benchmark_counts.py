"""What a step costs, in counts that are the same on every machine: tokens forwarded, decoded and processed, calls of engine and model.

Times are for `benchmarks/`; a change that makes one of these numbers grow makes training slower everywhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from models_small import completions, make, sample

from benchmarks.allocations import changes
from benchmarks.cases import ASKING, answered, asking
from rewards.mixture import Mixture
from vlm_rl import attention
from vlm_rl.asking import Asker
from vlm_rl.config import AlgoConfig, OptimConfig
from vlm_rl.engine.base import GenerateRequest
from vlm_rl.engine.hf import HFEngine
from vlm_rl.optim import Optimiser
from vlm_rl.packing import Item
from vlm_rl.policy import Policy
from vlm_rl.step_batch import Limits
from vlm_rl.types import Sampling
from vlm_rl.update import Updater

G = 8


class Counts:
    """`text` has the tokens that each call of the text model forwarded, padding included, `patches` those of each call of the tower."""

    def __init__(self) -> None:
        self.text: list[int] = []
        self.patches: list[int] = []


@contextmanager
def counted(policy: Policy) -> Iterator[Counts]:
    counts = Counts()
    parts = policy.model.model

    def text(module, args, kwargs):
        counts.text.append(kwargs["inputs_embeds"].shape[:2].numel())

    def tower(module, args, kwargs):
        counts.patches.append(len(args[0] if args else kwargs["hidden_states"]))

    hooks = [parts.language_model.register_forward_pre_hook(text, with_kwargs=True)]
    hooks.append(parts.visual.register_forward_pre_hook(tower, with_kwargs=True))
    yield counts
    for hook in hooks:
        hook.remove()


def backward(policy: Policy, items: list[Item]) -> Counts:
    with counted(policy) as counts:
        policy(policy.pack(items)).logprob_T.sum().backward()
    return counts


def test_a_packed_group_forwards_its_prompt_and_its_picture_once() -> None:
    policy, chat = make()
    prompt = chat.prompt(sample("a", 2))
    p, lengths = len(prompt.expanded_ids), [5, 3, 9, 1, 7, 7, 2, 4]
    patches = sum(len(vision.tensors["pixel_values"]) for vision in prompt.vision)
    item = Item(prompt, completions(chat, lengths), tuple(range(G)))
    packed, plain = backward(policy, [item]), backward(make(mode="plain")[0], [item])
    assert packed.text == [p + sum(lengths)] and packed.patches == [patches]
    assert plain.text == [G * (p + max(lengths))] and plain.patches == [G * patches]


def test_several_groups_are_one_row_without_padding() -> None:
    policy, chat = make()
    prompts = [chat.prompt(sample(name, n)) for name, n in (("a", 0), ("b", 1), ("c", 3))]
    items = [Item(prompt, completions(chat, [2, 6], seed=k), (2 * k, 2 * k + 1)) for k, prompt in enumerate(prompts)]
    counts = backward(policy, items)
    assert counts.text == [sum(item.tokens for item in items)] and len(counts.patches) == 1


@pytest.mark.parametrize(("settings", "updates", "forwards"), [({}, 1, 1), ({}, 3, 3), ({"aggregation": "token_mean"}, 1, 1)])
def test_an_update_forwards_each_token_once_per_pass(settings: dict, updates: int, forwards: int) -> None:
    policy, chat = make()
    groups = [answered(chat, chat.prompt(sample(name)), G, 10) for name in ("a", "b")]
    scored = Mixture(asking(0), 0.5).score(groups, 0, Asker({}, chat))
    tokens = sum(len(g.prompt.expanded_ids) + sum(len(r.completion.token_ids) for r in g.rollouts) for g in groups)
    limits = Limits(1.0, 10_000, 64, updates)
    with counted(policy) as counts:
        Updater(policy, Optimiser(policy, OptimConfig(), updates), AlgoConfig.model_validate(settings), limits)(scored, 0)
    assert counts.text == [tokens] * forwards


def test_a_group_is_decoded_from_one_prefill_and_finished_rows_leave() -> None:
    policy, chat = make()
    engine = HFEngine(policy, chat)
    engine.eos = set(range(0, 100, 3))  # so that rows end early and apart
    prompts = [chat.prompt(sample(name)) for name in ("a", "bb")]
    with counted(policy) as counts:
        written = engine.generate([GenerateRequest(p, Sampling(12), tuple(range(k, k + G))) for k, p in enumerate(prompts)])
    lengths = [len(c.token_ids) for group in written for c in group]
    longest = max(len(p.expanded_ids) for p in prompts)
    # The prefill gives the first token; each later one is a row of a forward.
    assert counts.text == [2 * longest, *(sum(n > i for n in lengths) for i in range(1, max(lengths)))]
    assert len(counts.patches) == 1 and len(set(lengths)) > 2


# Calls of the engine by the number of asking rewards: a round is one call for what is written and one for what is scored, however many ask.
CALLS = {0: 0, 1: 1, 2: 2, 3: 2, 4: 2, 5: 2}


@pytest.mark.parametrize("count", CALLS)
def test_further_asking_rewards_are_no_further_engine_calls(count: int) -> None:
    policy, chat = make()
    ask = Asker({"policy": HFEngine(policy, chat)}, chat)
    groups = [answered(chat, chat.prompt(sample(name)), 4, 10) for name in ("a", "b", "c")]
    mixture = Mixture(asking(count), 0.5)
    mixture.score(groups, 0, ask)
    assert len(mixture.rewards) == 1 + count and len(ASKING) == max(CALLS)
    assert ask.calls["policy"] == CALLS[count]


def test_a_picture_is_processed_once_however_often_it_is_met() -> None:
    policy, chat = make()
    ask = Asker({"policy": HFEngine(policy, chat)}, chat)
    rows = [sample("a"), sample("b"), sample("a"), sample("two", 2)]
    for _ in range(2):
        groups = [answered(chat, chat.prompt(row), 4, k) for k, row in enumerate(rows)]
        Mixture(asking(3), 0.5).score(groups, 0, ask)
    assert chat.look.calls == len({media.id for row in rows for media in row.media}) == 4


def test_nothing_is_kept_that_is_as_large_as_tokens_times_vocabulary() -> None:
    policy, chat = make()
    prompt = chat.prompt(sample("a"))
    ids = completions(chat, [40] * G)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        row = policy.pack([Item(prompt, ids, tuple(range(G)))])
        policy(row).logprob_T.sum().backward()
    assert max(kept) < len(row.target_T) * len(policy.banned_V)


def test_backward_keeps_no_copies_of_the_prompt_for_each_completion() -> None:
    """What attention leaves allocated while its result lives, with and without checkpointing, where layers are made again anyhow."""
    p, r, size = 400, 2, 16
    where = attention.layout([(p, [r] * G)])
    left = {}
    for training in (False, True):
        q, k, v = (torch.randn(1, heads, p + G * r, size, requires_grad=True) for heads in (2, 1, 1))
        results: list = []

        def work(q=q, k=k, v=v, results=results, training=training) -> None:
            module = torch.nn.Identity().train(training)
            results.append(attention.shared_prefix_attention(module, q, k, v, None, shared_prefix=where)[0])

        left[training] = sum(changes(work))
        results[0].sum().backward()
        assert q.grad is not None and k.grad is not None and v.grad is not None
    copies = 2 * 4 * G * 2 * (p + r) * size  # of keys and values, for the two heads
    assert left[True] - left[False] == copies
