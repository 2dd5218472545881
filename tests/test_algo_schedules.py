"""Reward factors and learning rates at the steps that matter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_rl.algo.schedules import FACTORS, factor, learning_rate
from vlm_rl.errors import UserError


@pytest.mark.parametrize(
    ("kind", "step", "anneal_steps", "final", "expected"),
    [
        ("constant", 900, 10, 0.0, 1.0),
        ("linear", 0, 10, 0.2, 1.0),
        ("linear", 5, 10, 0.2, 0.6),
        ("linear", 10, 10, 0.2, 0.2),
        ("linear", 99, 10, 0.2, 0.2),
        ("cosine", 0, 10, 0.2, 1.0),
        ("cosine", 5, 10, 0.2, 0.6),
        ("cosine", 10, 10, 0.2, 0.2),
        ("cosine", 99, 10, 0.2, 0.2),
        ("linear", 5, 10, 3.0, 2.0),
        ("exponential", 0, 1500, 0.0, 1.0),
        ("exponential", 1, 1500, 0.0, 0.999334),
        ("exponential", 300, 1500, 0.0, 0.818731),
        ("exponential", 750, 1500, 0.0, 0.606531),
        ("exponential", 1500, 1500, 0.0, 0.367879),
        ("exponential", 3000, 1500, 0.0, 0.135335),
    ],
)
def test_factor(kind: str, step: int, anneal_steps: int, final: float, expected: float) -> None:
    assert factor(kind, step, anneal_steps, final) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("anneal_steps", "expected"), [(1500, 0.110364), (12000, 0.264749), (800, 0.046006), (500, 0.014936)])
def test_an_annealed_weight_at_step_1500(anneal_steps: int, expected: float) -> None:
    assert 0.3 * factor("exponential", 1500, anneal_steps, 0.0) == pytest.approx(expected, abs=1e-6)


@given(st.sampled_from(sorted(FACTORS)), st.integers(0, 5000), st.integers(1, 3000), st.floats(0, 1))
def test_a_factor_falls_from_one_and_stays_in_range(kind: str, step: int, anneal_steps: int, final: float) -> None:
    assert factor(kind, 0, anneal_steps, final) == pytest.approx(1.0)
    assert 0.0 <= factor(kind, step + 1, anneal_steps, final) <= factor(kind, step, anneal_steps, final) + 1e-12 <= 1.0 + 1e-9


@pytest.mark.parametrize(
    ("kind", "warmup", "expected"),
    [
        ("constant", 0, [1.0, 1.0, 1.0, 1.0]),
        ("constant", 2, [0.5, 1.0, 1.0, 1.0]),
        ("linear", 0, [1.0, 0.75, 0.5, 0.25]),
        ("linear", 2, [0.5, 1.0, 1.0, 0.5]),
        ("cosine", 0, [1.0, 0.853553, 0.5, 0.146447]),
        ("cosine", 4, [0.25, 0.5, 0.75, 1.0]),
        ("cosine", 8, [0.125, 0.25, 0.375, 0.5]),
    ],
)
def test_learning_rate(kind: str, warmup: int, expected: list[float]) -> None:
    assert [learning_rate(2.0, kind, step, 4, warmup) / 2.0 for step in range(4)] == pytest.approx(expected, abs=1e-6)


@given(st.sampled_from(["constant", "linear", "cosine"]), st.integers(1, 500), st.integers(0, 600), st.data())
def test_every_update_has_a_positive_rate(kind: str, steps: int, warmup: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps - 1))
    assert 0.0 < learning_rate(1e-3, kind, step, steps, warmup) <= 1e-3


def test_unknown_kinds_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        factor("cosin", 1, 10, 0.0)
    with pytest.raises(UserError, match="linear"):
        learning_rate(1e-3, "exponential", 0, 10, 0)
