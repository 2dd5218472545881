"""Adapters on a small model of each family: the forward of packed groups, the model without them, weights with them, PEFT's own files."""

import copy
from functools import cache
from typing import Literal

import pytest
import torch
from models_small import completions, make, sample
from torch import nn

from vlm_rl import lora, parts
from vlm_rl.config import OptimConfig
from vlm_rl.config_finetune import LoraConfig
from vlm_rl.errors import UserError
from vlm_rl.families import FAMILIES
from vlm_rl.optim import Optimiser
from vlm_rl.packing import Item
from vlm_rl.policy import Policy
from vlm_rl.weights import named_weights

NAMES = tuple(FAMILIES)
KINDS = ({}, {"dora": True}, {"rslora": True})
EVERYWHERE = ("text", "tower", "projector")


def disturb(model: nn.Module, size: float = 0.05) -> None:
    """Adapters that were trained, in place of those that change nothing yet."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * size)


def linear_parts(family: str) -> tuple[str, ...]:
    """Gemma 3 projects by a matrix that is no layer."""
    return EVERYWHERE[:2] if family == "gemma3" else EVERYWHERE


def adapted(family: str = "qwen2_5_vl", **settings):
    policy, chat = make(family)
    lora.attach(policy.model, LoraConfig(**{"parts": linear_parts(family), "rank": 4} | settings), "base", seed=0)
    disturb(policy.model)
    return policy, chat


@cache
def asked(family: str) -> tuple[Item, ...]:
    _, chat = make(family)
    two = [chat.prompt(sample("a")), chat.prompt(sample("bb", 2))]
    return tuple(Item(p, completions(chat, [5, 9, 3], i), (3 * i, 3 * i + 1, 3 * i + 2)) for i, p in enumerate(two))


def logprobs(policy: Policy, family: str) -> torch.Tensor:
    return policy(policy.pack(asked(family))).logprob_T


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_weights_with_the_adapters_in_them_are_those_of_a_plain_model(family: str, kind: dict):
    policy, _ = adapted(family, **kind)
    plain, _ = make(family)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    weights = dict(named_weights(policy))
    assert weights.keys() == dict(plain.model.named_parameters()).keys()
    with torch.no_grad():
        want, start = logprobs(policy, family), logprobs(plain, family)
        for name, p in plain.model.named_parameters():
            p.copy_(weights[name])
        assert torch.allclose(logprobs(plain, family), want, atol=1e-5, rtol=1e-5)
        assert (want - start).abs().max() > 0.1, "the adapters do something"
    assert all(torch.equal(p, before[name]) for name, p in policy.model.named_parameters()), "the weights that train are not touched"


@pytest.mark.parametrize("family", NAMES)
def test_with_adapters_off_the_policy_is_the_model_it_was_to_the_bit(family: str):
    policy, _ = adapted(family)
    plain, _ = make(family)
    row = policy.pack(asked(family))
    with torch.no_grad():
        assert torch.equal(lora.AdaptersOff(policy)(row, 0.7).logprob_T, plain(row, 0.7).logprob_T)
        assert not torch.allclose(policy(row, 0.7).logprob_T, plain(row, 0.7).logprob_T, atol=0.1)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_asking_without_adapters_between_forward_and_backward_changes_no_gradient(checkpointing: bool):
    family = "qwen2_5_vl"
    policy, chat = adapted(family)
    policy = Policy(policy.model, chat.visual_ids, gradient_checkpointing=checkpointing)
    row, gradients = policy.pack(asked(family)), []
    for between in (False, True):
        loss = policy(row).logprob_T.mean()
        if between:
            with torch.no_grad():
                lora.AdaptersOff(policy)(row)
        loss.backward()
        gradients.append({name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None})
        policy.zero_grad(set_to_none=True)
    assert gradients[0].keys() == gradients[1].keys() and all("lora_" in name for name in gradients[0])
    assert len(gradients[0]) == sum(p.requires_grad for p in policy.parameters())
    assert all(torch.equal(g, gradients[1][name]) for name, g in gradients[0].items())


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("mode", ["shared_prefix", "dense"])
def test_shared_prompts_give_the_log_probs_and_gradients_of_the_plain_forward(family: str, mode: Literal["shared_prefix", "dense"]):
    policy, chat = adapted(family, dora=True)
    found = []
    for how in (mode, "plain"):
        one = Policy(policy.model, chat.visual_ids, how)
        logp_T = logprobs(one, family)
        (logp_T * torch.linspace(-1, 1, len(logp_T))).sum().backward()
        found.append((logp_T.detach(), {name: p.grad for name, p in one.model.named_parameters() if p.grad is not None}))
        one.zero_grad(set_to_none=True)
    (mine_T, mine), (plain_T, plain) = found
    assert torch.allclose(mine_T, plain_T, atol=1e-5)
    assert len(plain) == sum(p.requires_grad for p in policy.parameters()) and mine.keys() == plain.keys()
    for name, gradient in plain.items():
        assert (mine[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7, name


def test_adapters_are_float32_on_a_bfloat16_model_and_the_optimiser_holds_nothing_else():
    policy, chat = make()
    model = policy.model.to(torch.bfloat16)
    lora.attach(model, LoraConfig(parts=("text",), rank=4), "base", seed=0)
    policy = Policy(model, chat.visual_ids)
    trained = [p for p in policy.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32} and {p.dtype for p in policy.parameters()} == {torch.float32, torch.bfloat16}
    optimiser = Optimiser(policy, OptimConfig(learning_rate=1e-3), 1)
    assert all(master is weight for master, weight in zip(optimiser.masters, trained, strict=True))
    before = [p.detach().clone() for p in trained]
    logprobs(policy, "qwen2_5_vl").float().mean().backward()
    optimiser.gather()
    optimiser.step(0, lambda: "")
    held = [p for state in optimiser.adam.state.values() for p in state.values() if p.ndim]
    assert sum(p.numel() for p in held) == 2 * sum(p.numel() for p in trained)
    assert any(not torch.equal(a, b) for a, b in zip(before, trained, strict=True))


def test_its_files_are_pefts_own(tmp_path):
    import peft

    policy, _ = adapted(dora=True, parts=("text", "projector"))
    lora.save(tmp_path, policy.model)
    plain, chat = make()
    theirs = peft.PeftModel.from_pretrained(plain.model, str(tmp_path)).get_base_model()
    with torch.no_grad():
        assert torch.equal(logprobs(Policy(theirs, chat.visual_ids), "qwen2_5_vl"), logprobs(policy, "qwen2_5_vl"))
    fresh, _ = make()
    lora.attach(fresh.model, LoraConfig(parts=("text", "projector"), rank=4, dora=True), "base", seed=5)
    lora.load(tmp_path, fresh.model)
    assert all(torch.equal(a, b) for a, b in zip(fresh.model.parameters(), policy.model.parameters(), strict=True))
    assert [p.requires_grad for p in fresh.model.parameters()] == [p.requires_grad for p in policy.model.parameters()]
    other, _ = make()
    lora.attach(other.model, LoraConfig(parts=("text",), rank=4, dora=True), "base", seed=0)
    with pytest.raises(UserError, match=r"its adapters are not those of model\.lora: 6 tensors differ, such as .*merger"):
        lora.load(tmp_path, other.model)


def test_only_the_parts_named_have_adapters_and_seeds_make_them():
    models = []
    for seed in (0, 0, 1):
        policy, _ = make()
        lora.attach(policy.model, LoraConfig(parts=("tower",), rank=4), "base", seed)
        models.append(policy.model)
    names = [name for name, p in models[0].named_parameters() if p.requires_grad]
    assert names and {parts.part_of("qwen2_5_vl", name) for name in names} == {"tower"}
    states = [{name: p for name, p in model.named_parameters() if p.requires_grad} for model in models]
    assert all(torch.equal(states[0][name], states[1][name]) for name in names)
    assert not all(torch.equal(states[0][name], states[2][name]) for name in names)


@pytest.mark.parametrize("family", NAMES)
def test_every_weight_has_a_part_and_a_frozen_one_takes_no_gradient(family: str):
    policy, _ = make(family)
    of = {name: parts.part_of(family, name) for name, _ in policy.model.named_parameters()}
    assert set(of.values()) == set(EVERYWHERE)
    parts.freeze_others(policy.model, ("projector",))
    logprobs(policy, family).mean().backward()
    assert {of[name] for name, p in policy.model.named_parameters() if p.grad is not None} == {"projector"}


def test_what_has_no_such_part_is_named():
    policy, _ = make()
    model = copy.deepcopy(policy.model)
    with pytest.raises(UserError, match=r"the weight model\.audio\.x belongs to no part of a qwen2_5_vl"):
        parts.part_of("qwen2_5_vl", "model.audio.x")
    del model.model.visual
    with pytest.raises(UserError, match=r"a qwen2_5_vl has no weights in the part 'tower'; parts that have: text"):
        parts.freeze_others(model, ("tower",))
    with pytest.raises(UserError, match=r"has no linear layers in the part 'projector'"):
        parts.linear_layers(model, ("projector",))
    model.config.model_type = "other_vl"
    with pytest.raises(UserError, match=r"models of type other_vl are not supported; known: qwen2_vl"):
        parts.freeze_others(model, ("text",))


def test_a_part_can_have_a_rate_of_its_own():
    policy, _ = make()
    config = OptimConfig(learning_rate=1e-3, schedule="linear", warmup_steps=2, part_learning_rates={"tower": 1e-5, "projector": 1e-4})
    optimiser = Optimiser(policy, config, 10, parts.rates(policy.model, config))
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    logprobs(policy, "qwen2_5_vl").mean().backward()
    optimiser.step(0, lambda: "")
    # The first step of Adam is the rate itself wherever there is a gradient.
    steps = {name: float((p.detach() - before[name]).abs().max()) for name, p in policy.model.named_parameters()}
    for name, size in steps.items():
        rate = {"text": 1e-3, "tower": 1e-5, "projector": 1e-4}[parts.part_of("qwen2_5_vl", name)] / 2
        assert size == pytest.approx(rate, rel=0.05), name


def moving(*still: str) -> tuple[nn.Module, parts.Movement]:
    """A model of which everything trains, and its movement after a step that leaves parts still."""
    policy, _ = make()
    movement = parts.Movement(policy.model, Optimiser(policy, OptimConfig(), 1))
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            p.add_(0.0 if parts.part_of("qwen2_5_vl", name) in still else 1.0)
    return policy.model, movement


def test_a_part_must_move_once_it_had_something_to_see():
    _, movement = moving("tower", "projector")
    movement.after_step(1, updated=False, pictured=1.0)  # every group was flat
    movement.after_step(2, updated=True, pictured=0.0)
    movement.check(2, final=True)  # rows of text only
    movement.after_step(3, updated=True, pictured=0.5)  # those with pictures may have been flat
    movement.check(3, final=False)
    with pytest.raises(UserError, match="step 4: no weight of the projector moved although it trains"):
        movement.check(4, final=True)
    with pytest.raises(UserError, match="step 4: no weight of the projector moved although it trains"):
        movement.after_step(4, updated=True, pictured=1.0)
    _, movement = moving("text")
    with pytest.raises(UserError, match="step 1: no weight of the text moved although it trains"):
        movement.after_step(1, updated=True, pictured=0.0)
    _, movement = moving()
    movement.after_step(1, updated=True, pictured=1.0)
    movement.check(9, final=True)


def test_frozen_weights_are_held_to_the_bit_before_every_checkpoint():
    policy, _ = make()
    parts.freeze_others(policy.model, ("text",))
    movement = parts.Movement(policy.model, Optimiser(policy, OptimConfig(), 1))
    movement.check(1, final=False)
    weight = policy.model.model.visual.merger.mlp[2].bias
    with torch.no_grad():
        weight[3] = torch.nextafter(weight[3], torch.tensor(1.0))
    with pytest.raises(UserError, match=r"step 2: 1 of \d+ frozen tensors moved, such as model\.visual\.merger\.mlp\.2\.bias"):
        movement.check(2, final=False)
