"""Every loss and aggregation against published numbers, the formula written out rollout by rollout, and the laws they keep."""

import dataclasses
import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vlm_rl.algo.losses import (
    AGGREGATIONS,
    LOSSES,
    LossOut,
    Tokens,
    aggregate,
    entropy_threshold,
    sequence_mean,
    settings_of,
    token_mean,
    token_sum_norm,
)
from vlm_rl.algo.ratios import LEVELS

BOUNDS = {"grpo": (0.2, 0.28), "cispo": (1.0, 4.0), "sapo": (0.2, 0.2), "gmpo": (0.4, 0.4), "vespo": (0.2, 0.2)}


def of(logs: list[float], advantage: float, level: str = "token", dtype: torch.dtype = torch.float64) -> Tokens:
    """One rollout with these log-ratios, its old log-probs 0."""
    logp_T = torch.tensor(logs, dtype=dtype, requires_grad=True)
    rollouts_T = torch.zeros(len(logs), dtype=torch.int64)
    return Tokens(logp_T, torch.zeros_like(logp_T), torch.full_like(logp_T, advantage).detach(), rollouts_T, LEVELS[level])


def slow_ratios(level: str, logs: list[Tensor]) -> list[Tensor]:
    mean = sum(logs[1:], logs[0]) / len(logs)
    if level == "token":
        return [x.exp() for x in logs]
    if level == "sequence":
        return [mean.exp() for _ in logs]
    if level == "product":
        return [(mean * len(logs)).exp() for _ in logs]
    return [mean.exp().detach() * (x - x.detach()).exp() for x in logs]


def slow_loss(name: str, level: str, logp: list[Tensor], old: list[float], A: float, low: float, high: float) -> list[Tensor]:
    """One rollout, each formula of docs/algorithms.md as it stands, scalar by scalar."""
    logs = [x - y for x, y in zip(logp, old, strict=True)]
    ratios = slow_ratios(level, logs)
    if name == "grpo":
        bounded = [torch.clamp(r, 1 - low, 1 + high) for r in ratios]
        return [-torch.minimum(r * A, b * A) for r, b in zip(ratios, bounded, strict=True)]
    if name == "cispo":
        return [-min(max(float(r.detach()), 1 - low), 1 + high) * A * x for r, x in zip(ratios, logp, strict=True)]
    if name == "sapo":
        tau = 1.0 if A > 0 else 1.05
        return [-(4 / tau) / (1 + torch.exp(-tau * (r - 1))) * A for r in ratios]
    if name == "gmpo":
        clipped = [torch.clamp(x, max=high) if A > 0 else torch.clamp(x, min=-low) for x in logs]
        whole = torch.exp(sum(clipped[1:], clipped[0]) / len(clipped))
        return [-A * whole for _ in logs]
    k, lam = (2.0, 3.0) if A >= 0 else (3.0, 2.0)
    w = math.exp(sum(float(x.detach()) for x in logs))
    phi = math.exp(lam) * w**k * math.exp(-lam * w)
    return [-phi * A * x for x in logp]


def slow_weights(name: str, lengths: list[int], max_length: int) -> list[float]:
    if name == "sequence_mean":
        return [1 / (len(lengths) * length) if length else 0.0 for length in lengths]
    if name == "token_mean":
        return [1 / max(sum(lengths), 1)] * len(lengths)
    return [1 / (len(lengths) * (max_length if name == "token_sum_norm" else 1))] * len(lengths)


Step = list[tuple[list[tuple[float, float]], float, int]]
STEPS = st.lists(
    st.tuples(st.lists(st.tuples(st.floats(-3, 0), st.floats(-1, 1)), max_size=5), st.floats(-2, 2), st.integers(0, 2)),
    min_size=1,
    max_size=6,
)  # per rollout: (log-prob, log-ratio) of each token, advantage, micro-batch


def slow_step(step: Step, name: str, level: str, aggregation: str) -> tuple[float, list[float]]:
    """Value and gradient of the whole step."""
    leaves = [[torch.tensor(p, dtype=torch.float64, requires_grad=True) for p, _ in rollout] for rollout, _, _ in step]
    weights = slow_weights(aggregation, [len(rollout) for rollout, _, _ in step], 6)
    total = torch.zeros((), dtype=torch.float64)
    for logp, (rollout, advantage, _), weight in zip(leaves, step, weights, strict=True):
        old = [p - x for p, x in rollout]
        for loss in slow_loss(name, level, logp, old, advantage, *BOUNDS[name]) if logp else []:
            total = total + weight * loss
    if total.requires_grad:
        total.backward()
    return float(total.detach()), [float(x.grad) if x.grad is not None else 0.0 for logp in leaves for x in logp]


def fast_step(step: Step, name: str, level: str, aggregation: str, parts: int = 1) -> tuple[float, list[float], dict[str, int]]:
    """The same by the tables, in `parts` micro-batches."""
    flat = [pair for rollout, _, _ in step for pair in rollout]
    logp_T = torch.tensor([p for p, _ in flat], dtype=torch.float64, requires_grad=True)
    old_T = torch.tensor([p - x for p, x in flat], dtype=torch.float64)
    lengths_N = torch.tensor([len(rollout) for rollout, _, _ in step])
    of_T = torch.repeat_interleave(torch.arange(len(step)), lengths_N)
    advantages_T = torch.tensor([a for _, a, _ in step], dtype=torch.float64)[of_T]
    micro_T = torch.tensor([m for _, _, m in step])[of_T] % parts
    weights_N = AGGREGATIONS[aggregation](lengths_N, 6).double()
    total, counts = 0.0, defaultdict(int)
    for part in range(parts):
        here = micro_T == part
        tokens = Tokens(logp_T[here], old_T[here], advantages_T[here], of_T[here], LEVELS[level])
        out = LOSSES[name](tokens, *BOUNDS[name])
        share = aggregate(out.loss_T, weights_N, of_T[here])
        share.backward()
        total += share.item()
        for mark, marked_T in out.marks.items():
            counts[mark] += int(marked_T.sum())
    assert logp_T.grad is not None
    return total, logp_T.grad.tolist(), dict(counts)


@settings(max_examples=120, deadline=None)
@given(STEPS, st.sampled_from(sorted(LOSSES)), st.sampled_from(sorted(LEVELS)), st.sampled_from(sorted(AGGREGATIONS)))
def test_value_and_gradient_equal_the_formula_however_the_step_is_split(step: Step, name: str, level: str, aggregation: str) -> None:
    wanted = slow_step(step, name, level, aggregation)
    whole, split = fast_step(step, name, level, aggregation), fast_step(step, name, level, aggregation, parts=3)
    assert whole[0] == pytest.approx(wanted[0], rel=1e-6, abs=1e-6)
    assert whole[1] == pytest.approx(wanted[1], rel=1e-6, abs=1e-6)
    assert split[0] == pytest.approx(whole[0], rel=1e-12, abs=1e-12)
    assert split[1] == pytest.approx(whole[1], rel=1e-12, abs=1e-12)
    assert split[2] == whole[2]


@settings(max_examples=40, deadline=None)
@given(STEPS, st.sampled_from(sorted(LOSSES)), st.sampled_from(sorted(LEVELS)), st.sampled_from(sorted(AGGREGATIONS)), st.randoms())
def test_the_order_of_rollouts_changes_nothing(step: Step, name: str, level: str, aggregation: str, random) -> None:
    order = list(range(len(step)))
    random.shuffle(order)
    assert fast_step([step[i] for i in order], name, level, aggregation)[0] == pytest.approx(fast_step(step, name, level, aggregation)[0])


@settings(max_examples=40, deadline=None)
@given(STEPS, st.sampled_from(sorted(LOSSES)), st.sampled_from(sorted(LEVELS)), st.floats(0.1, 5))
def test_a_loss_is_proportional_to_its_advantages(step: Step, name: str, level: str, scale: float) -> None:
    scaled = [(rollout, a * scale, micro) for rollout, a, micro in step]
    once, often = fast_step(step, name, level, "token_mean"), fast_step(scaled, name, level, "token_mean")
    assert often[0] == pytest.approx(scale * once[0], rel=1e-9, abs=1e-12)
    assert often[1] == pytest.approx([scale * g for g in once[1]], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("advantage", [-1.0, 0.5])
def test_on_policy_every_gradient_is_the_policy_gradient(name: str, level: str, advantage: float) -> None:
    tokens = of([0.0, 0.0, 0.0], advantage, level)
    LOSSES[name](tokens, *BOUNDS[name]).loss_T.sum().backward()
    assert tokens.logp_T.grad is not None
    scale = 3.0 if level == "product" and name in ("grpo", "sapo") else 1.0  # three tokens, each holding the whole rollout's ratio
    assert tokens.logp_T.grad.tolist() == pytest.approx([-advantage * scale] * 3)


def test_gspo_token_equals_gspo() -> None:
    for advantage in (1.0, -1.0):
        both = []
        for level in ("sequence", "sequence_token"):
            tokens = of([0.2, -0.1, 0.5], advantage, level)
            loss = LOSSES["grpo"](tokens, 0.3, 0.3).loss_T.mean()
            loss.backward()
            both.append((loss.item(), tokens.logp_T.grad))
        assert both[0][0] == pytest.approx(both[1][0]) and torch.allclose(both[0][1], both[1][1])


@pytest.mark.parametrize(
    ("ratio", "advantage", "high", "dual", "expected"),
    [
        (1.5, 1, 0.2, None, -1.2),
        (1.5, 1, 0.28, None, -1.28),
        (1.25, 1, 0.2, None, -1.2),
        (1.25, 1, 0.28, None, -1.25),
        (0.7, -1, 0.2, None, 0.8),
        (4, -1, 0.2, None, 4),
        (4, -1, 0.2, 3.0, 3),
        (4, 1, 0.2, 3.0, -1.2),
    ],
)
def test_clipped_surrogate(ratio: float, advantage: float, high: float, dual: float | None, expected: float) -> None:
    out = LOSSES["grpo"](of([math.log(ratio)], advantage), 0.2, high, dual_clip=dual)
    assert out.loss_T.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("logs", "advantage", "expected"),
    [([3e-4, 6e-4, 9e-4], 1.0, -1.0004), ([3e-4, 6e-4, 9e-4], -1.0, 1.00060018), ([0.2, -0.1, 0.5], 1.0, -1.0004)],
)
def test_gspo_numbers(logs: list[float], advantage: float, expected: float) -> None:
    out = LOSSES["grpo"](of(logs, advantage, "sequence"), 3e-4, 4e-4)
    assert out.loss_T.tolist() == pytest.approx([expected] * 3, abs=1e-6)


def test_sequence_ratio_number() -> None:
    assert of([0.2, -0.1, 0.5], 1.0, "sequence").ratio_T.tolist() == pytest.approx([1.2214] * 3, abs=5e-5)


@pytest.mark.parametrize(("ratio", "expected"), [(7.0, 2.5), (0.3, 0.15)])
def test_cispo_numbers(ratio: float, expected: float) -> None:
    tokens = Tokens(torch.tensor([-0.5]), torch.tensor([-0.5 - math.log(ratio)]), torch.ones(1), torch.zeros(1, dtype=torch.int64))
    assert LOSSES["cispo"](tokens, 1.0, 4.0).loss_T.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("ratio", "advantage", "gate"), [(1.0, 1, 2.0), (1.5, 1, 2.4898), (1.5, -1, 2.3936), (0.5, -1, 1.4159)])
def test_sapo_numbers(ratio: float, advantage: float, gate: float) -> None:
    assert LOSSES["sapo"](of([math.log(ratio)], advantage), 0.2, 0.2).loss_T.item() == pytest.approx(-gate * advantage, abs=5e-5)


@pytest.mark.parametrize(("logs", "advantage", "ratio"), [([0.5, -0.2, 0.1], 1.0, 1.1052), ([0.5, -0.6, 0.1], -1.0, 1.0689)])
def test_gmpo_numbers(logs: list[float], advantage: float, ratio: float) -> None:
    assert LOSSES["gmpo"](of(logs, advantage), 0.4, 0.4).loss_T.tolist() == pytest.approx([-advantage * ratio] * 3, abs=5e-5)


@pytest.mark.parametrize(("w", "positive", "negative"), [(1.0, 1.0, 1.0), (0.5, 1.1204, 0.3398), (2.0, 0.1991, 1.0827)])
def test_vespo_numbers(w: float, positive: float, negative: float) -> None:
    for advantage, phi in ((1.0, positive), (-1.0, negative)):
        logp_T = torch.full((2,), -0.5)
        tokens = Tokens(logp_T, logp_T - math.log(w) / 2, torch.full((2,), advantage), torch.zeros(2, dtype=torch.int64))
        out = LOSSES["vespo"](tokens, 0.2, 0.2)
        assert out.loss_T.tolist() == pytest.approx([phi * advantage * 0.5] * 2, abs=5e-5) and out.corrected


def test_marks_are_the_tokens_without_gradient() -> None:
    logp_T = torch.tensor([1.5, 1.5, 0.7, 0.7, 1.0, 1.25, 4.0]).log().requires_grad_()
    advantages_T = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0])
    out = LOSSES["grpo"](Tokens(logp_T, torch.zeros(7), advantages_T, torch.arange(7)), 0.2, 0.28, dual_clip=3.0)
    out.loss_T.sum().backward()
    assert {name: mark.nonzero().flatten().tolist() for name, mark in out.marks.items()} == {
        "clip_high": [0],
        "clip_low": [3],
        "clip_dual": [6],
    }
    assert logp_T.grad is not None and (logp_T.grad == 0).nonzero().flatten().tolist() == [0, 3, 6]


@pytest.mark.parametrize("log_ratio", [-1e4, -200.0, 200.0, 1e4])
@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("name", LOSSES)
def test_extreme_ratios_stay_finite(name: str, log_ratio: float, advantage: float) -> None:
    for level in LEVELS:
        tokens = of([log_ratio, 0.0], advantage, level, torch.float32)
        out: LossOut = LOSSES[name](tokens, *BOUNDS[name])
        out.loss_T.sum().backward()
        assert torch.isfinite(out.loss_T).all()
        assert tokens.logp_T.grad is not None and torch.isfinite(tokens.logp_T.grad).all()


def test_weights_against_the_engine_are_in_the_loss_of_vespo_alone() -> None:
    tokens = of([0.1, -0.2], 1.0)
    weighted = dataclasses.replace(tokens, weight_T=torch.tensor([1.5, 0.5], dtype=torch.float64))
    for name, loss in LOSSES.items():
        with_weights, without = loss(weighted, *BOUNDS[name]), loss(tokens, *BOUNDS[name])
        assert with_weights.corrected == (name == "vespo")
        assert torch.equal(with_weights.loss_T, without.loss_T) == (name != "vespo")


def test_settings_are_told_from_the_function() -> None:
    assert settings_of(LOSSES["sapo"]) == {"tau_pos": 1.0, "tau_neg": 1.05}
    assert settings_of(LOSSES["cispo"]) == {}


@pytest.mark.parametrize(
    ("name", "max_length", "expected"),
    [
        ("sequence_mean", 16, 1.5),
        ("token_mean", 16, 1.2),
        ("token_sum", 9, 6.0),
        ("token_sum_norm", 1, 6.0),
        ("token_sum_norm", 16, 0.375),
    ],
)
def test_aggregation_numbers_whole_and_one_rollout_at_a_time(name: str, max_length: int, expected: float) -> None:
    lengths_N = torch.tensor([2, 8])
    loss_T = torch.tensor([2.0] * 2 + [1.0] * 8)
    rollout_of_T = torch.repeat_interleave(torch.arange(2), lengths_N)
    weights_N = AGGREGATIONS[name](lengths_N, max_length)
    assert weights_N.shape == (2,)
    assert aggregate(loss_T, weights_N, rollout_of_T).item() == pytest.approx(expected)
    parts = [aggregate(loss_T[rollout_of_T == i], weights_N, rollout_of_T[rollout_of_T == i]) for i in range(2)]
    assert sum(part.item() for part in parts) == pytest.approx(expected)


def test_an_empty_rollout_counts_in_the_number_of_rollouts() -> None:
    loss_T, rollout_of_T = torch.ones(4), torch.zeros(4, dtype=torch.int64)
    lengths_N = torch.tensor([4, 0])
    assert aggregate(loss_T, sequence_mean(lengths_N, 8), rollout_of_T).item() == pytest.approx(0.5)
    assert aggregate(loss_T, token_mean(lengths_N, 8), rollout_of_T).item() == pytest.approx(1.0)
    assert aggregate(loss_T, token_sum_norm(lengths_N, 8), rollout_of_T).item() == pytest.approx(0.25)


@pytest.mark.parametrize("name", AGGREGATIONS)
@pytest.mark.parametrize("lengths", [[0, 0], []])
def test_a_step_without_tokens_has_loss_zero(name: str, lengths: list[int]) -> None:
    weights_N = AGGREGATIONS[name](torch.tensor(lengths, dtype=torch.int64), 8)
    assert torch.isfinite(weights_N).all()
    assert aggregate(torch.zeros(0), weights_N, torch.zeros(0, dtype=torch.int64)).item() == 0.0


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.97])
def test_tokens_of_the_highest_entropy_are_numpys_quantile_and_ties_go_together(share: float) -> None:
    entropy_T = torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 4
    expected = torch.from_numpy(entropy_T.numpy() >= np.quantile(entropy_T.numpy(), 1 - share))
    assert torch.equal(entropy_T >= entropy_threshold(entropy_T, share), expected)
    tied_T = torch.cat([torch.full((50,), 2.0), torch.tensor([1.0, 3.0])])
    for turn in range(20):  # equal but for rounding: all or none
        noise_T = 2e-6 * torch.randn(52, generator=torch.Generator().manual_seed(turn))
        chosen_T = tied_T + noise_T >= entropy_threshold(tied_T + noise_T, share)
        assert chosen_T[:51].tolist() == [True] * 50 + [False] or share > 0.96
        assert len(set(chosen_T[:50].tolist())) == 1
