"""Weights against the gap between engine and trainer, and what is told about it, against published numbers and slow formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlm_rl.algo.mismatch import CORRECTIONS, drifted, ratio_metrics

ONE = torch.zeros(3, dtype=torch.int64)
GAP = torch.tensor([0.5, 0.3, -0.1], dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "low", "high", "expected"),
    [
        ("token_truncate", None, 1.5, [1.5, 1.3499, 0.9048]),
        ("token_truncate", 1.0, 1.5, [1.5, 1.3499, 1.0]),
        ("token_truncate", None, None, [1.6487, 1.3499, 0.9048]),
        ("token_mask", 0.95, 1.5, [0.0, 1.3499, 0.0]),
        ("sequence_truncate", None, 2.0, [2.0] * 3),
        ("sequence_mask", None, 3.0, [2.0138] * 3),
        ("sequence_mask", 0.5, 2.0, [0.0] * 3),
        ("geometric_mask", None, 1.3, [1.0] * 3),
        ("geometric_mask", 0.999, 1.001, [0.0] * 3),
    ],
)
def test_published_numbers(name: str, low: float | None, high: float | None, expected: list[float]) -> None:
    assert CORRECTIONS[name](GAP, ONE, low, high).tolist() == pytest.approx(expected, abs=5e-5)


def test_rollouts_are_weighed_apart() -> None:
    of_T = torch.tensor([0, 0, 2, 2])
    gap_T = torch.tensor([0.5, 0.5, -0.2, 0.1])
    assert CORRECTIONS["sequence_mask"](gap_T, of_T, None, 2.0).tolist() == pytest.approx([0, 0, math.exp(-0.1), math.exp(-0.1)], abs=1e-6)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_without_a_gap_nothing_is_changed(name: str) -> None:
    assert CORRECTIONS[name](torch.zeros(3), ONE, 0.9, 1.1).tolist() == [1.0] * 3


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_hopeless_gap_stays_finite(name: str) -> None:
    assert torch.isfinite(CORRECTIONS[name](torch.tensor([1e4, -1e4, 90.0]), ONE, None, 2.0)).all()


@pytest.mark.parametrize(("advantage", "left_out"), [(-1.0, True), (1.0, False)])
def test_drifted_negatives_are_left_out(advantage: float, left_out: bool) -> None:
    behaviour_T, logp_T = torch.tensor([-0.5, -0.7]), torch.tensor([-1.0, -1.5])
    out = drifted(behaviour_T, logp_T, torch.full((2,), advantage), torch.zeros(2, dtype=torch.int64), 0.5)
    assert out.tolist() == [left_out] * 2


@given(st.lists(st.tuples(st.floats(-2, 2), st.integers(0, 3)), min_size=1, max_size=30))
def test_metrics_equal_the_formulas(tokens: list[tuple[float, int]]) -> None:
    ratios = [math.exp(d) for d, _ in tokens]
    sums = {i: math.exp(sum(d for d, j in tokens if i == j)) for i in {i for _, i in tokens}}
    found = ratio_metrics(torch.tensor([d for d, _ in tokens], dtype=torch.float64), torch.tensor([i for _, i in tokens]))
    slow = {
        "kl": sum(r - 1 - math.log(r) for r in ratios) / len(ratios),
        "kl_back": sum(r * math.log(r) - r + 1 for r in ratios) / len(ratios),
        "ess": sum(ratios) ** 2 / len(ratios) / sum(r * r for r in ratios),
        "ess_rollouts": sum(sums.values()) ** 2 / len(sums) / sum(r * r for r in sums.values()),
        "error": sum(math.exp(abs(d)) for d, _ in tokens) / len(tokens),
        "ratio_max": max(ratios),
    }
    assert {name: found[name] for name in slow} == pytest.approx(slow, rel=1e-9, abs=1e-9)
    assert found["ratio_p01"] <= found["ratio_p50"] <= found["ratio_p99"] <= found["ratio_max"]


def test_estimates_of_the_kl_are_exact_in_the_mean() -> None:
    """Every token of a vocabulary, drawn as often as q says."""
    counts, p = torch.tensor([5, 3, 2]), torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
    q = counts.double() / 10
    drawn = torch.repeat_interleave(torch.arange(3), counts)
    found = ratio_metrics((p / q).log()[drawn], torch.arange(10))
    assert found["kl"] == pytest.approx(float((q * (q / p).log()).sum()))
    assert found["kl_back"] == pytest.approx(float((p * (p / q).log()).sum()))


def test_nothing_is_told_of_no_tokens() -> None:
    assert ratio_metrics(torch.zeros(0), torch.zeros(0, dtype=torch.int64)) == {}
