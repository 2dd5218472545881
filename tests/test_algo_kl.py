"""KL estimators against published numbers, an exact KL, and their gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlm_rl.algo.kl import KL, k2, k3


@pytest.mark.parametrize(("name", "expected"), [("k1", 0.2231), ("k2", 0.0249), ("k3", 0.0231)])
def test_published_numbers(name: str, expected: float) -> None:
    logp_T, ref_T = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.4)])
    assert KL[name](logp_T, ref_T).item() == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("reference_minus_policy", "expected"), [(0.0, 0.0), (0.1, 0.005171), (-0.1, 0.004837), (1.0, 0.718282)])
def test_k3_by_the_sign_of_the_difference(reference_minus_policy: float, expected: float) -> None:
    ref_T = torch.tensor([reference_minus_policy], dtype=torch.float64)
    assert k3(torch.zeros(1, dtype=torch.float64), ref_T).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "expected"), [("k1", 1.0), ("k2", 0.2231), ("k3", 0.2000)])
def test_gradients(name: str, expected: float) -> None:
    logp_T = torch.tensor([math.log(0.5)], requires_grad=True)
    KL[name](logp_T, torch.tensor([math.log(0.4)])).sum().backward()
    assert logp_T.grad is not None
    assert logp_T.grad.item() == pytest.approx(expected, abs=5e-5)


@given(st.floats(-15, 15), st.floats(-15, 15))
def test_k2_and_k3_are_never_negative(logp: float, ref: float) -> None:
    logp_T, ref_T = torch.tensor([logp], dtype=torch.float64), torch.tensor([ref], dtype=torch.float64)
    assert k2(logp_T, ref_T).item() >= 0
    assert k3(logp_T, ref_T).item() >= -1e-12


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_the_mean_under_the_policy_is_the_exact_kl(name: str) -> None:
    policy = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    reference = torch.tensor([0.4, 0.1, 0.2, 0.3], dtype=torch.float64)
    exact = (policy * (policy / reference).log()).sum().item()
    assert (policy * KL[name](policy.log(), reference.log())).sum().item() == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("name", KL)
@pytest.mark.parametrize("difference", [-1e4, -100.0, 100.0, 1e4])
def test_extreme_differences_stay_finite(name: str, difference: float) -> None:
    logp_T = torch.tensor([difference], requires_grad=True)
    value_T = KL[name](logp_T, torch.zeros(1))
    value_T.sum().backward()
    assert logp_T.grad is not None
    assert torch.isfinite(value_T).all()
    assert torch.isfinite(logp_T.grad).all()
