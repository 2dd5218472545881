"""KL estimators against published numbers, an exact KL, and their gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlm_rl.algo.kl import GRADIENTS, KL, adapted, k2, k3


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


@pytest.mark.parametrize(
    ("name", "gradient", "expected"),
    [("k3", "own", 0.2), ("k3", "ratio", 0.2231), ("k1", "ratio", 1.2231), ("k3", "straight", 0.2231), ("k1", "straight", 0.2231)],
)
def test_gradient_forms_on_policy(name: str, gradient: str, expected: float) -> None:
    """p = .5, reference .4: the value is the estimator's in every form."""
    logp_T, ref_T = torch.tensor([math.log(0.5)], requires_grad=True), torch.tensor([math.log(0.4)])
    kl_T = KL[name](logp_T, ref_T)
    formed_T = GRADIENTS[gradient](kl_T, logp_T, ref_T, torch.exp(logp_T - logp_T.detach()))
    formed_T.sum().backward()
    assert formed_T.item() == pytest.approx(kl_T.item(), abs=1e-6)
    assert logp_T.grad is not None and logp_T.grad.item() == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("gradient", "name"), [("ratio", "k1"), ("ratio", "k3"), ("straight", "k1"), ("straight", "k3"), ("own", "k2")])
def test_unbiased_forms_have_the_gradient_of_the_exact_kl(gradient: str, name: str) -> None:
    """In the mean over a small vocabulary, on-policy, with respect to the logits."""
    reference = torch.tensor([0.4, 0.1, 0.2, 0.3], dtype=torch.float64).log()
    logits = torch.tensor([0.3, -0.2, 0.9, 0.0], dtype=torch.float64, requires_grad=True)
    logp = logits.log_softmax(0)
    [wanted] = torch.autograd.grad((logp.exp() * (logp - reference)).sum(), logits, retain_graph=True)
    formed = GRADIENTS[gradient](KL[name](logp, reference), logp, reference, torch.exp(logp - logp.detach()))
    [found] = torch.autograd.grad((logp.exp().detach() * formed).sum(), logits)
    assert torch.allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("rollouts", [50, 5000])
def test_the_weight_is_adapted_to_the_target(rollouts: int) -> None:
    share = min(rollouts / 1000, 1.0)
    assert adapted(0.1, 0.02, 0.01, 1000, rollouts) == pytest.approx(0.1 * (1 + 0.2 * share))
    assert adapted(0.1, 0.0, 0.01, 1000, rollouts) == pytest.approx(0.1 * (1 - 0.2 * share))
    assert adapted(0.1, 0.011, 0.01, 1000, rollouts) == pytest.approx(0.1 * (1 + 0.1 * share))
