"""The GRPO surrogate and the aggregations against published numbers, a slow reference in plain Python, and TRL's trainer."""

import math
import warnings
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vlm_rl.algo.losses import AGGREGATIONS, LOSSES, aggregate, grpo, sequence_mean, token_mean, token_sum_norm

NO_ROLLOUTS = torch.zeros(1, dtype=torch.int64)


def slow_loss(lengths: list[int], ratios: list[float], advantages: list[float], clip: tuple[float, float], weights: list[float]) -> float:
    """Token by token, from the formula; `ratios` is flat, `advantages` and `weights` are per rollout."""
    total, position = 0.0, 0
    for length, advantage, weight in zip(lengths, advantages, weights, strict=True):
        for ratio in ratios[position : position + length]:
            bounded = min(max(ratio, 1 - clip[0]), 1 + clip[1])
            total += weight * -min(ratio * advantage, bounded * advantage)
        position += length
    return total


def slow_weights(name: str, lengths: list[int], max_length: int) -> list[float]:
    if name == "sequence_mean":
        return [1 / (len(lengths) * length) if length else 0.0 for length in lengths]
    if name == "token_mean":
        return [1 / max(sum(lengths), 1)] * len(lengths)
    return [1 / (len(lengths) * max_length)] * len(lengths)


@pytest.mark.parametrize(
    ("ratio", "advantage", "clip_high", "expected"),
    [(1.5, 1, 0.2, -1.2), (1.5, 1, 0.28, -1.28), (1.25, 1, 0.2, -1.2), (1.25, 1, 0.28, -1.25), (0.7, -1, 0.2, 0.8), (4, -1, 0.2, 4)],
)
def test_clipped_surrogate(ratio: float, advantage: float, clip_high: float, expected: float) -> None:
    out = grpo(torch.tensor([math.log(ratio)]), torch.zeros(1), torch.tensor([float(advantage)]), 0.2, clip_high, NO_ROLLOUTS)
    assert out.loss_T.item() == pytest.approx(expected, rel=1e-6)


def test_marks_are_the_tokens_without_gradient() -> None:
    ratios = [1.5, 1.5, 0.7, 0.7, 1.0, 1.25]
    logp_T = torch.tensor(ratios).log().requires_grad_()
    advantages_T = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0])
    out = grpo(logp_T, torch.zeros(6), advantages_T, 0.2, 0.28, NO_ROLLOUTS.expand(6))
    out.loss_T.sum().backward()
    assert out.marks["clip_high"].tolist() == [True, False, False, False, False, False]
    assert out.marks["clip_low"].tolist() == [False, False, False, True, False, False]
    assert logp_T.grad is not None
    assert (logp_T.grad == 0).tolist() == (out.marks["clip_high"] | out.marks["clip_low"]).tolist()


def test_on_policy_gradient_is_the_policy_gradient() -> None:
    logp_T = torch.tensor([-0.5, -2.0, -3.0], requires_grad=True)
    advantages_T = torch.tensor([0.5, -1.0, 2.0])
    out = grpo(logp_T, logp_T.detach(), advantages_T, 0.2, 0.2, NO_ROLLOUTS.expand(3))
    out.loss_T.sum().backward()
    assert out.loss_T.tolist() == pytest.approx([-0.5, 1.0, -2.0])
    assert logp_T.grad is not None
    assert logp_T.grad.tolist() == pytest.approx([-0.5, 1.0, -2.0])


@pytest.mark.parametrize("log_ratio", [-1e4, -200.0, 200.0, 1e4])
@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
def test_extreme_ratios_stay_finite(log_ratio: float, advantage: float) -> None:
    logp_T = torch.tensor([log_ratio], requires_grad=True)
    grpo(logp_T, torch.zeros(1), torch.tensor([advantage]), 0.2, 0.2, NO_ROLLOUTS).loss_T.sum().backward()
    assert logp_T.grad is not None
    assert torch.isfinite(logp_T.grad).all()


@pytest.mark.parametrize(
    ("name", "max_length", "expected"),
    [("sequence_mean", 16, 1.5), ("token_mean", 16, 1.2), ("token_sum_norm", 1, 6.0), ("token_sum_norm", 16, 0.375)],
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


STEPS = st.lists(
    st.tuples(st.lists(st.floats(-1, 1), max_size=6), st.floats(-2, 2), st.integers(0, 2)), min_size=1, max_size=8
)  # per rollout: log-ratios, advantage, micro-batch


@settings(max_examples=60)
@given(STEPS, st.sampled_from(sorted(AGGREGATIONS)), st.sampled_from([(0.2, 0.2), (0.2, 0.28)]))
def test_any_split_into_micro_batches_equals_the_slow_reference(
    step: list[tuple[list[float], float, int]], name: str, clip: tuple[float, float]
) -> None:
    lengths = [len(ratios) for ratios, _, _ in step]
    logs = [x for ratios, _, _ in step for x in ratios]
    rollout_of_T = torch.repeat_interleave(torch.arange(len(step)), torch.tensor(lengths))
    advantages = [advantage for _, advantage, _ in step]
    weights_N = AGGREGATIONS[name](torch.tensor(lengths), 6)
    expected = slow_loss(lengths, [math.exp(x) for x in logs], advantages, clip, slow_weights(name, lengths, 6))

    def run(masks: list[Tensor]) -> tuple[float, list[float], dict[str, int]]:
        logp_T = torch.tensor(logs, dtype=torch.float64, requires_grad=True)
        total, counts = 0.0, defaultdict(int)
        for mask in masks:
            advantages_T = torch.tensor(advantages, dtype=torch.float64)[rollout_of_T[mask]]
            out = grpo(logp_T[mask], torch.zeros_like(logp_T[mask]), advantages_T, *clip, rollout_of_T[mask])
            share = aggregate(out.loss_T, weights_N.double(), rollout_of_T[mask])
            share.backward()
            total += share.item()
            for mark, tokens in out.marks.items():
                counts[mark] += int(tokens.sum())
        assert logp_T.grad is not None
        return total, logp_T.grad.tolist(), dict(counts)

    micro_of_T = torch.tensor([micro for _, _, micro in step])[rollout_of_T]
    whole = run([torch.ones(len(logs), dtype=torch.bool)])
    split = run([micro_of_T == i for i in range(3)])
    assert whole[0] == pytest.approx(expected, abs=1e-6)
    assert split[0] == pytest.approx(whole[0], abs=1e-12)
    assert split[1] == pytest.approx(whole[1], abs=1e-12)
    assert split[2] == whole[2]


@pytest.mark.slow
@pytest.mark.parametrize(("loss_type", "aggregation"), [("grpo", "sequence_mean"), ("dapo", "token_mean"), ("dr_grpo", "token_sum_norm")])
@pytest.mark.parametrize("clip_high", [0.2, 0.28])
def test_loss_and_gradient_equal_trl(loss_type: str, aggregation: str, clip_high: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trl = pytest.importorskip("trl")
        compute_loss = trl.GRPOTrainer._compute_loss
    generator = torch.Generator().manual_seed(0)
    lengths_N = torch.tensor([7, 3, 0, 5])
    mask = (torch.arange(7) < lengths_N[:, None]).long()
    logp = -torch.rand(4, 7, generator=generator)
    old = logp + 0.5 * torch.randn(4, 7, generator=generator)
    advantages_N = torch.tensor([1.5, -0.5, 1.0, -1.0])
    theirs = logp.clone().requires_grad_()
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (theirs, torch.zeros(4, 7), None),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x, sync_gradients=True),
        args=SimpleNamespace(delta=None, steps_per_generation=1, use_bias_correction_kl=False),
        model=SimpleNamespace(training=True),
        _metrics={"train": defaultdict(list)},
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=0.0,
        loss_type=loss_type,
        epsilon_low=0.2,
        epsilon_high=clip_high,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        max_completion_length=16,
        _entropy_bonus_enabled=False,
    )
    ids = torch.zeros(4, 7, dtype=torch.int64)
    inputs = {"prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": mask, "advantages": advantages_N}
    expected = compute_loss(trainer, None, inputs | {"old_per_token_logps": old, "num_items_in_batch": mask.sum()})
    expected.backward()

    ours, flat = logp.clone().requires_grad_(), mask.bool()
    rollout_of_T = torch.arange(4)[:, None].expand(4, 7)[flat]
    out = LOSSES["grpo"](ours[flat], old[flat], advantages_N[rollout_of_T], 0.2, clip_high, rollout_of_T)
    loss = aggregate(out.loss_T, AGGREGATIONS[aggregation](lengths_N, 16), rollout_of_T)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert ours.grad is not None and theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-7)
    share = trainer._metrics["train"]["clip_ratio/high_mean"][0]
    assert out.marks["clip_high"].sum().item() / int(lengths_N.sum()) == pytest.approx(share)
