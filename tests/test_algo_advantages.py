"""Group-relative advantages against published numbers, and the laws they keep."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlm_rl.algo.advantages import (
    ADVANTAGES,
    gdpo,
    group_mean,
    group_std,
    has_spread,
    leave_one_out,
    over_reward_std,
    raw,
    whiten,
    whiten_tokens,
)
from vlm_rl.errors import UserError

RELATIVE = [name for name in ADVANTAGES if name != "raw"]
GROUPS = st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=2, max_size=16)


@pytest.mark.parametrize(
    ("name", "totals", "eps", "expected"),
    [
        ("group_std", [1, 0, 0, 1], 1e-4, [0.8659, -0.8659, -0.8659, 0.8659]),
        ("group_std", [1, 0, 0, 0], 1e-4, [1.4997, -0.4999, -0.4999, -0.4999]),
        ("group_std", [1.27, 1.21, 0.12, 0.06], 1e-6, [0.909970, 0.819725, -0.819725, -0.909970]),
        ("group_std", [1.27, 1.27, 1.27, 1.09], 1e-6, [0.499994, 0.499994, 0.499994, -1.499983]),
        ("group_std", [1, 0], 0.0, [0.7071, -0.7071]),
        ("group_mean", [1, 0, 0, 0], 1e-4, [0.75, -0.25, -0.25, -0.25]),
        ("group_mean", [2, 2, 0.75, -0.375], 1e-4, [0.90625, 0.90625, -0.34375, -1.46875]),
        ("leave_one_out", [1, 0, 0, 0], 1e-4, [1.0, -0.3333, -0.3333, -0.3333]),
    ],
)
def test_published_numbers(name: str, totals: list[float], eps: float, expected: list[float]) -> None:
    found = ADVANTAGES[name](torch.tensor(totals, dtype=torch.float64), eps)
    assert found.tolist() == pytest.approx(expected, abs=5.1e-5 if eps != 1e-6 else 1e-6)


@pytest.mark.parametrize("name", RELATIVE)
@pytest.mark.parametrize("eps", [1e-4, 0.0])
@pytest.mark.parametrize("value", [0.7, 0.0, -3.3, 1e6])
def test_a_constant_group_is_exactly_zero(name: str, eps: float, value: float) -> None:
    assert ADVANTAGES[name](torch.tensor([value] * 8), eps).tolist() == [0.0] * 8


def test_sums_that_differ_by_rounding_only_are_constant() -> None:
    totals_G = torch.tensor([0.1 + 0.2, 0.3], dtype=torch.float64)
    assert totals_G[0] != totals_G[1]
    assert not has_spread(totals_G)
    assert group_std(totals_G, 0.0).tolist() == [0.0, 0.0]


def test_a_nan_total_does_not_vanish() -> None:
    assert group_std(torch.tensor([1.0, float("nan"), 0.0]), 1e-4).isnan().all()


@pytest.mark.parametrize("name", RELATIVE)
def test_a_group_of_one_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="group_size"):
        ADVANTAGES[name](torch.tensor([1.0]), 1e-4)


@given(GROUPS, st.integers(0, 99))
def test_they_sum_to_zero_and_follow_a_permutation(totals: list[float], seed: int) -> None:
    order = torch.randperm(len(totals), generator=torch.Generator().manual_seed(seed))
    totals_G = torch.tensor(totals, dtype=torch.float64)
    for function in (ADVANTAGES[name] for name in RELATIVE):
        advantages_G = function(totals_G, 1e-4)
        assert float(advantages_G.sum()) == pytest.approx(0.0, abs=1e-9)
        assert function(totals_G[order], 1e-4).tolist() == pytest.approx(advantages_G[order].tolist(), abs=1e-9)


@given(GROUPS, st.floats(-5, 5), st.floats(0.1, 5))
def test_group_std_ignores_shift_and_scale(totals: list[float], shift: float, scale: float) -> None:
    totals_G = torch.tensor(totals, dtype=torch.float64)
    assert group_std(totals_G * scale + shift, 0.0).tolist() == pytest.approx(group_std(totals_G, 0.0).tolist(), abs=1e-9)


@given(GROUPS)
def test_leave_one_out_is_the_mean_of_the_others_subtracted(totals: list[float]) -> None:
    slow = [r - sum(totals[:i] + totals[i + 1 :]) / (len(totals) - 1) for i, r in enumerate(totals)]
    assert leave_one_out(torch.tensor(totals, dtype=torch.float64), 1.0).tolist() == pytest.approx(slow, abs=1e-9)


@given(GROUPS)
def test_group_mean_does_not_depend_on_eps(totals: list[float]) -> None:
    totals_G = torch.tensor(totals)
    assert group_mean(totals_G, 0.0).equal(group_mean(totals_G, 9.0))


def test_gdpo_normalises_each_reward_before_summing() -> None:
    """Group 1: r1 = [1, 0], r2 = [0, 0]; group 2: r1 = r2 = [1, 0]."""
    first, second = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    ones = torch.ones(2, 2)
    summed = [gdpo(parts, ones, group_std, 0.0) for parts in (first, second)]
    assert torch.allclose(torch.cat(summed), torch.tensor([0.7071, -0.7071, 1.4142, -1.4142]), atol=1e-4)
    assert torch.allclose(whiten(torch.cat(summed), 0.0), torch.tensor([0.5477, -0.5477, 1.0954, -1.0954]), atol=1e-4)
    assert torch.allclose(group_std(first.sum(0), 0.0), group_std(second.sum(0), 0.0))


def test_gdpo_gates_after_normalising_and_leaves_small_spreads_small() -> None:
    values = torch.tensor([[1.0, 0.0]])
    halved = gdpo(values, torch.full((1, 2), 0.5), group_std, 0.0)
    assert torch.allclose(halved, 0.5 * gdpo(values, torch.ones(1, 2), group_std, 0.0))
    noise = torch.tensor([[0.501, 0.5]])
    assert (
        gdpo(noise, torch.ones(1, 2), group_std, 0.0, least_std=0.05).abs().max()
        < 0.02
        < gdpo(noise, torch.ones(1, 2), group_std, 0.0).abs().max()
    )


def test_whitening_a_batch_without_spread_gives_zeros() -> None:
    assert not whiten(torch.full((4,), 0.3), 1e-4).any()
    assert not whiten(torch.tensor([0.3]), 1e-4).any()


def test_batch_std_numbers() -> None:
    """Groups [1, 0] and [1, 1]: the raw spread of the batch is 0.5."""
    totals = [torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])]
    centred_N = torch.cat([group_mean(t, 0.0) for t in totals])
    assert over_reward_std(centred_N, torch.cat(totals), 1e-4).tolist() == pytest.approx([0.9998, -0.9998, 0, 0], abs=5e-5)


@pytest.mark.parametrize(("own", "expected"), [(raw, [0.5, -1.5, 0.5, 0.5]), (group_mean, [1.2247, -1.2247, 0, 0])])
def test_reinforce_pp_numbers(own, expected: list[float]) -> None:
    """Prompts [1, 0] and [1, 1], one token each: the plain form and the one with a baseline."""
    given = [a[None] for totals in ([1.0, 0.0], [1.0, 1.0]) for a in own(torch.tensor(totals), 0.0)]
    white = whiten_tokens(given, [torch.ones(1)] * 4, 1e-4)
    assert torch.cat(white).tolist() == pytest.approx(expected, abs=5e-5)


@given(st.lists(st.lists(st.tuples(st.floats(-2, 2), st.booleans()), min_size=1, max_size=6), min_size=1, max_size=5))
def test_tokens_are_whitened_over_those_trained(rollouts: list[list[tuple[float, bool]]]) -> None:
    trained = [a for rollout in rollouts for a, m in rollout if m]
    given = [torch.tensor([a for a, _ in rollout], dtype=torch.float64) for rollout in rollouts]
    white = whiten_tokens(given, [torch.tensor([m for _, m in rollout]) for rollout in rollouts], 1e-4)
    if len(trained) < 2 or max(trained) - min(trained) < 1e-9:
        assert not trained or not torch.cat(white).any() or max(trained) > min(trained)
        return
    mean = sum(trained) / len(trained)
    scale = (sum((a - mean) ** 2 for a in trained) / (len(trained) - 1) + 1e-8) ** 0.5
    assert torch.cat(white).tolist() == pytest.approx([(a - mean) / scale for r in rollouts for a, _ in r], abs=1e-6, rel=1e-6)


@given(GROUPS, st.floats(-5, 5), st.floats(0.1, 5))
def test_shift_and_scale_laws(totals: list[float], shift: float, scale: float) -> None:
    totals_G = torch.tensor(totals, dtype=torch.float64)
    for function in (group_mean, leave_one_out):
        moved = function(totals_G * scale + shift, 0.0)
        assert moved.tolist() == pytest.approx((scale * function(totals_G, 0.0)).tolist(), abs=1e-9)
    assert raw(totals_G, 0.0).equal(totals_G)
