"""The optimiser: float32 masters for bfloat16 weights, exact resume, refusal of non-finite gradients."""

import pytest
import torch
from torch import nn

from vlm_rl.config import OptimConfig
from vlm_rl.errors import UserError
from vlm_rl.optim import Optimiser


def module(dtype):
    torch.manual_seed(0)
    return nn.Linear(64, 64).to(dtype)


def train(net, optimiser, steps, start=0):
    for step in range(start, start + steps):
        for _ in range(3):
            (net.weight.float().sum() + net.bias.float().sum()).backward()
            optimiser.gather()
        optimiser.step(step, lambda: "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_steps_add_up_in_any_precision(dtype):
    net = module(dtype)
    before = net.weight.detach().float().clone()
    train(net, Optimiser(net, OptimConfig(learning_rate=1e-5), 200), 200)
    moved = (before - net.weight.detach().float()).mean()
    assert moved == pytest.approx(200 * 1e-5, rel=0.1)


def test_gradients_of_packs_are_summed_in_float32():
    net = module(torch.bfloat16)
    optimiser = Optimiser(net, OptimConfig(), 1)
    for scale in (256.0, 1.0, 1.0, 1.0):
        (net.bias.float().sum() * scale).backward()
        optimiser.gather()
    assert optimiser.masters[1].grad.unique().tolist() == [259.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resume_is_exact(dtype):
    whole, broken = module(dtype), module(dtype)
    config = OptimConfig(learning_rate=1e-3, schedule="cosine", weight_decay=0.1)
    train(whole, Optimiser(whole, config, 10), 10)
    first = Optimiser(broken, config, 10)
    train(broken, first, 4)
    second = Optimiser(broken, config, 10)
    second.load_state_dict(first.state_dict())
    train(broken, second, 6, start=4)
    assert torch.equal(whole.weight, broken.weight) and torch.equal(whole.bias, broken.bias)


def test_a_gradient_that_is_not_finite_stops():
    net = module(torch.float32)
    optimiser = Optimiser(net, OptimConfig(), 1)
    (net.weight.sum() * float("inf")).backward()
    with pytest.raises(UserError, match="step 7: the gradient is not finite; samples in this step: r1"):
        optimiser.step(7, lambda: "r1")
