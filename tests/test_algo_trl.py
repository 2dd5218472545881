"""Losses, gradients and advantages equal those of the installed TRL on random inputs with masks; skipped where there is none."""

import warnings
from collections import defaultdict, deque
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from vlm_rl.algo.advantages import ADVANTAGES, gdpo, over_reward_std, whiten
from vlm_rl.algo.kl import GRADIENTS, KL
from vlm_rl.algo.losses import AGGREGATIONS, LOSSES, Tokens, aggregate
from vlm_rl.algo.mismatch import CORRECTIONS, drifted
from vlm_rl.algo.ratios import LEVELS

B, T, LONGEST = 6, 9, 16
# TRL's loss_type -> our loss, aggregation and bounds for its epsilon_low, epsilon_high
KINDS = {
    "grpo": ("grpo", "sequence_mean", 0.2, 0.28),
    "bnpo": ("grpo", "token_mean", 0.2, 0.28),
    "dapo": ("grpo", "token_mean", 0.2, 0.28),
    "dr_grpo": ("grpo", "token_sum_norm", 0.2, 0.28),
    "luspo": ("grpo", "token_sum", 0.002, 0.0025),
    "cispo": ("cispo", "token_mean", 1.0, 4.0),
    "sapo": ("sapo", "sequence_mean", 0.2, 0.2),
    "vespo": ("vespo", "token_mean", 0.2, 0.2),
}


@pytest.fixture(scope="module")
def trl():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pytest.importorskip("trl")
        assert found.GRPOTrainer and found.RLOOTrainer  # loaded when first looked at
        return found


class Case:
    """Random log-probs of B rollouts, their lengths (one empty), and a mask with holes where another's tokens were inserted."""

    def __init__(self, seed: int):
        generator = torch.Generator().manual_seed(seed)

        def normal(scale: float) -> Tensor:
            return scale * torch.randn(B, T, generator=generator, dtype=torch.float64)

        lengths = torch.tensor([9, 4, 0, 6, 1, 7])
        inside = torch.arange(T) < lengths[:, None]
        self.mask = (inside & (torch.rand(B, T, generator=generator) > 0.2) | (inside & (torch.arange(T) == 0))).long()
        self.logp = -torch.rand(B, T, generator=generator, dtype=torch.float64)
        self.old, self.engine = self.logp + normal(0.5), self.logp + normal(0.5)
        self.reference = self.logp + normal(0.5)
        self.entropy = torch.rand(B, T, generator=generator, dtype=torch.float64)
        self.advantages = torch.tensor([1.5, -0.5, 1.0, -1.0, 0.7, -1.2], dtype=torch.float64)

    def ours(self, level: str, weight: Tensor | None = None) -> tuple[Tensor, Tokens]:
        """The trained tokens alone, as the update hands them over; the first is the leaf of shape (B, T)."""
        leaf, flat = self.logp.clone().requires_grad_(), self.mask.bool()
        of_T = torch.arange(B)[:, None].expand(B, T)[flat]
        return leaf, Tokens(leaf[flat], self.old[flat], self.advantages[of_T], of_T, LEVELS[level], weight)

    def weights(self, aggregation: str) -> Tensor:
        return AGGREGATIONS[aggregation](self.mask.sum(1), LONGEST).double()


def trainer(case: Case, leaf: Tensor, **changes: Any) -> SimpleNamespace:
    accelerator = SimpleNamespace(
        num_processes=1,
        device="cpu",
        process_index=0,
        sync_gradients=True,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction: x,
        pad_across_processes=lambda x, dim, pad_index: x,
    )
    args = SimpleNamespace(
        delta=None,
        steps_per_generation=1,
        use_bias_correction_kl=False,
        sapo_temperature_pos=1.0,
        sapo_temperature_neg=1.05,
        vespo_k_pos=2.0,
        vespo_lambda_pos=3.0,
        vespo_k_neg=3.0,
        vespo_lambda_neg=2.0,
    )
    made = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (leaf, case.entropy, None),
        accelerator=accelerator,
        args=args,
        model=SimpleNamespace(training=True),
        _metrics={"train": defaultdict(list)},
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=0.0,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        current_gradient_accumulation_steps=1,
        max_completion_length=LONGEST,
        _entropy_bonus_enabled=False,
        use_adaptive_entropy=False,
        entropy_coef=0.0,
    )
    for name, value in changes.items():
        setattr(args if name in vars(args) else made, name, value)
    return made


def theirs(cls: Any, case: Case, **changes: Any) -> tuple[float, Tensor, SimpleNamespace]:
    leaf = case.logp.clone().requires_grad_()
    ids = torch.zeros(B, T, dtype=torch.int64)
    made = trainer(case, leaf, **changes)
    for name in ("get_off_policy_mask", "get_gamma_weights"):
        setattr(made, name, getattr(cls, name, None))
    if hasattr(cls, "get_high_entropy_mask"):
        made.get_high_entropy_mask = lambda *a: cls.get_high_entropy_mask(made, *a)
    inputs = {
        "prompt_ids": ids,
        "prompt_mask": ids,
        "completion_ids": ids,
        "completion_mask": case.mask,
        "advantages": case.advantages,
        "old_per_token_logps": case.old,
        "old_logps": (case.old * case.mask).sum(1),
        "sampling_per_token_logps": case.engine,
        "ref_per_token_logps": case.reference,
        "num_items_in_batch": case.mask.sum(),
        "importance_sampling_ratio": changes.get("ratio"),
    }
    loss = cls._compute_loss(made, None, {k: v for k, v in inputs.items() if v is not None})
    loss.backward()
    assert leaf.grad is not None
    return loss.item(), leaf.grad, made


def assert_same(leaf: Tensor, loss: Tensor, wanted: tuple[float, Tensor, Any]) -> None:
    loss.backward()
    assert leaf.grad is not None
    assert loss.item() == pytest.approx(wanted[0], rel=1e-6, abs=1e-7)
    assert torch.allclose(leaf.grad, wanted[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("level", "ours"), [("token", "token"), ("sequence", "sequence")])
@pytest.mark.parametrize("kind", KINDS)
def test_every_loss_type_at_both_levels(trl, kind: str, level: str, ours: str, seed: int) -> None:
    case = Case(seed)
    name, aggregation, low, high = KINDS[kind]
    their_high = 1 + high if kind == "cispo" else high  # an absolute cap there
    wanted = theirs(trl.GRPOTrainer, case, loss_type=kind, importance_sampling_level=level, epsilon_low=low, epsilon_high=their_high)
    leaf, tokens = case.ours(ours)
    out = LOSSES[name](tokens, low, high)
    assert_same(leaf, aggregate(out.loss_T, case.weights(aggregation), tokens.rollout_of_T), wanted)
    if kind in ("grpo", "dapo") and level == "token":
        for mark in ("low", "high"):
            share = out.marks[f"clip_{mark}"].sum().item() / int(case.mask.sum())
            assert share == pytest.approx(wanted[2]._metrics["train"][f"clip_ratio/{mark}_mean"][0])


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_delta_is_dual_clip(trl, level: str) -> None:
    case = Case(2)
    wanted = theirs(trl.GRPOTrainer, case, loss_type="grpo", importance_sampling_level=level, epsilon_low=0.2, epsilon_high=0.2, delta=1.5)
    leaf, tokens = case.ours(level)
    out = LOSSES["grpo"](tokens, 0.2, 0.2, dual_clip=1.5)
    assert_same(leaf, aggregate(out.loss_T, case.weights("sequence_mean"), tokens.rollout_of_T), wanted)


@pytest.mark.parametrize(("corrected", "gradient"), [(False, "own"), (True, "ratio")])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_kl_in_the_loss(trl, corrected: bool, gradient: str, level: str) -> None:
    case, bounds = Case(3), {"epsilon_low": 0.2, "epsilon_high": 0.2, "importance_sampling_level": level}
    wanted = theirs(trl.GRPOTrainer, case, loss_type="dapo", beta=0.1, use_bias_correction_kl=corrected, **bounds)
    leaf, tokens = case.ours(level)
    reference_T = case.reference[case.mask.bool()]
    kl_T = GRADIENTS[gradient](KL["k3"](tokens.logp_T, reference_T), tokens.logp_T, reference_T, tokens.ratio_T)
    loss_T = LOSSES["grpo"](tokens, 0.2, 0.2).loss_T + 0.1 * kl_T
    assert_same(leaf, aggregate(loss_T, case.weights("token_mean"), tokens.rollout_of_T), wanted)


@pytest.mark.parametrize("kind", ["grpo", "vespo"])
@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_weights_against_the_engine(trl, kind: str, mode: str) -> None:
    """The ratio is made by TRL's own lines in `scored`; here it is multiplied, or enters VESPO's w."""
    if kind == "vespo" and mode.startswith("sequence"):
        pytest.skip("TRL refuses sequence ratios with vespo")
    case, flat = Case(4), Case(4).mask.bool()
    of_T = torch.arange(B)[:, None].expand(B, T)[flat]
    weight_T = CORRECTIONS[mode]((case.old - case.engine)[flat], of_T, 0.5, 1.5)
    ratio = torch.ones(B, T, dtype=torch.float64)
    ratio[flat] = weight_T
    name, aggregation, low, high = KINDS[kind]
    changes = {"loss_type": kind, "epsilon_low": low, "epsilon_high": high, "use_vllm": True, "vllm_importance_sampling_correction": True}
    wanted = theirs(trl.GRPOTrainer, case, ratio=ratio, **changes)
    leaf, tokens = case.ours("token", weight_T)
    out = LOSSES[name](tokens, low, high)
    loss_T = out.loss_T if out.corrected else out.loss_T * weight_T
    assert_same(leaf, aggregate(loss_T, case.weights(aggregation), tokens.rollout_of_T), wanted)


def test_off_policy_mask_and_top_entropy(trl) -> None:
    case, bounds = Case(5), {"epsilon_low": 0.2, "epsilon_high": 0.2}
    wanted = theirs(trl.GRPOTrainer, case, loss_type="dapo", off_policy_mask_threshold=0.05, top_entropy_quantile=0.3, **bounds)
    leaf, tokens = case.ours("token")
    flat = case.mask.bool()
    away_T = drifted(case.engine[flat], tokens.logp_T, tokens.advantages_T, tokens.rollout_of_T, 0.05)
    chosen_T = case.entropy[flat] >= torch.quantile(case.entropy[flat].float(), 0.7)
    assert away_T.any() and not away_T.all()
    loss_T = LOSSES["grpo"](tokens, 0.2, 0.2).loss_T * chosen_T
    assert_same(leaf, aggregate(loss_T.masked_fill(away_T, 0.0), case.weights("token_mean"), tokens.rollout_of_T), wanted)


def test_rloo(trl) -> None:
    case = Case(6)
    wanted = theirs(trl.RLOOTrainer, case, epsilon_low=0.2, epsilon_high=0.2)
    leaf, tokens = case.ours("product")
    loss = aggregate(LOSSES["grpo"](tokens, 0.2, 0.2).loss_T, case.weights("sequence_mean"), tokens.rollout_of_T)
    # There a rollout without tokens has ratio 1 and adds -A / N, which has no gradient.
    assert_same(leaf, loss - case.advantages[2] / B, wanted)


def test_gmpo(trl) -> None:
    gmpo = pytest.importorskip("trl.experimental.gmpo")
    case = Case(7)
    wanted = theirs(gmpo.GMPOTrainer, case, epsilon_low=0.4, epsilon_high=0.4)
    leaf, tokens = case.ours("token")
    loss = aggregate(LOSSES["gmpo"](tokens, 0.4, 0.4).loss_T, case.weights("sequence_mean"), tokens.rollout_of_T)
    assert_same(leaf, loss - case.advantages[2] / B, wanted)


def scored(cls: Any, rewards: Tensor, weights: list[float], group: int, **changes: Any) -> dict[str, Tensor]:
    """TRL's own way from rewards (N, K) to advantages, with everything around it replaced."""
    count, names = len(rewards), [f"r{k}" for k in range(rewards.shape[1])]
    told = [[-0.5, -0.25] for _ in range(count)]
    generated = ([[1]] * count, [[1, 2]] * count, None, ["x"] * count, told, {}, None, None)
    old = torch.tensor([[-0.4, -0.5]] * count)
    made = trainer(
        Case(0),
        torch.zeros(B, T),
        environment_factories=None,
        environments=None,
        tools=[],
        _generate=lambda prompts: (generated[0], generated[1], generated[3]) if "RLOO" in cls.__name__ else generated,
        _get_per_token_logps_and_entropies=lambda *a, **k: (old, None, None),
        _calculate_rewards=lambda *a: rewards,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        pad_to_multiple_of=None,
        mask_truncated_completions=False,
        num_generations=group,
        reward_weights=torch.tensor(weights),
        reward_funcs=names,
        reward_func_names=names,
        scale_rewards="group",
        multi_objective_aggregation="sum_then_normalize",
        normalize_advantages=False,
        reward_clip_range=None,
        log_multimodal=False,
        _is_vlm=False,
        _pending_extra_logs={},
        _pending_metrics={},
        _logs={"prompt": deque(), "completion": deque(), "rewards": defaultdict(deque), "advantages": deque(), "extra": {}},
        vllm_importance_sampling_clip_min=None,
        vllm_importance_sampling_clip_max=None,
        num_iterations=1,
    )
    vars(made.args).update(per_device_train_batch_size=count, gradient_accumulation_steps=1, gradient_checkpointing_kwargs=None)
    made.args.gradient_checkpointing = False
    for name, value in changes.items():
        setattr(made, name, value)
    return cls._generate_and_score_completions(made, [{"prompt": "q"} for _ in range(count)])


@pytest.fixture
def no_gathering(monkeypatch: pytest.MonkeyPatch, trl) -> None:
    from contextlib import nullcontext

    from trl.trainer import grpo_trainer, rloo_trainer

    for module in (grpo_trainer, rloo_trainer):
        monkeypatch.setattr(module, "gather", lambda x: x, raising=False)
        monkeypatch.setattr(module, "gather_object", lambda x: x, raising=False)
        monkeypatch.setattr(module, "disable_gradient_checkpointing", lambda *a: nullcontext(), raising=False)


def random_rewards(seed: int, groups: int, group: int, kinds: int) -> Tensor:
    return torch.randint(-4, 5, (groups * group, kinds), generator=torch.Generator().manual_seed(seed)).float() / 4


@pytest.mark.parametrize("scaling", ["group", "batch", "none"])
@pytest.mark.parametrize("group", [2, 5])
def test_reward_scalings(trl, no_gathering, scaling: str, group: int) -> None:
    rewards, weights = random_rewards(8, 4, group, 2), [1.0, 0.3]
    wanted = scored(trl.GRPOTrainer, rewards, weights, group, scale_rewards=scaling)["advantages"]
    totals = (rewards * torch.tensor(weights)).sum(1)
    own = ADVANTAGES["group_std" if scaling == "group" else "group_mean"]
    found = torch.cat([own(t, 1e-4) for t in totals.split(group)])
    found = over_reward_std(found, totals, 1e-4) if scaling == "batch" else found
    assert torch.allclose(found, wanted, atol=1e-6)


def test_normalize_then_sum(trl, no_gathering) -> None:
    rewards, weights = random_rewards(9, 3, 4, 3), [1.0, 0.5, 2.0]
    wanted = scored(trl.GRPOTrainer, rewards, weights, 4, multi_objective_aggregation="normalize_then_sum")["advantages"]
    factors = torch.tensor(weights)[:, None].expand(3, 4)
    summed = torch.cat([gdpo(r.T, factors, ADVANTAGES["group_std"], 1e-4) for r in rewards.split(4)])
    assert torch.allclose(whiten(summed, 1e-4), wanted, atol=1e-6)


@pytest.mark.parametrize("normalised", [False, True])
def test_rloo_advantages(trl, no_gathering, normalised: bool) -> None:
    rewards = random_rewards(10, 3, 4, 1)
    wanted = scored(trl.RLOOTrainer, rewards, [1.0], 4, normalize_advantages=normalised)["advantages"]
    found = torch.cat([ADVANTAGES["leave_one_out"](t, 1e-4) for t in rewards[:, 0].split(4)])
    assert torch.allclose(whiten(found, 1e-4) if normalised else found, wanted, atol=1e-6)


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
@pytest.mark.parametrize(("low", "high"), [(None, 1.05), (0.8, 1.2), (0.9, None)])
def test_ratios_against_the_engine(trl, no_gathering, mode: str, low: float | None, high: float | None) -> None:
    changes = {"vllm_importance_sampling_mode": mode, "vllm_importance_sampling_clip_min": low, "vllm_importance_sampling_clip_max": high}
    out = scored(trl.GRPOTrainer, random_rewards(11, 1, 4, 1), [1.0], 4, use_vllm=True, vllm_importance_sampling_correction=True, **changes)
    gap_T = torch.tensor([-0.4 + 0.5, -0.5 + 0.25] * 4)
    found = CORRECTIONS[mode](gap_T, torch.arange(4).repeat_interleave(2), low, high)
    assert torch.allclose(found.view(4, 2), out["importance_sampling_ratio"].expand(4, 2), atol=1e-6)
