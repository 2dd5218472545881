"""The update on a small model: equal to a slow loop, however it is split; forwards nothing that is not needed; state that resumes."""

import dataclasses
from functools import cache

import pytest
import torch
from models_small import make, sample
from torch import Tensor

from vlm_rl.algo.kl import adapted
from vlm_rl.config import AlgoConfig, OptimConfig
from vlm_rl.engine.base import GenerateRequest
from vlm_rl.engine.hf import HFEngine
from vlm_rl.errors import UserError
from vlm_rl.optim import Optimiser
from vlm_rl.packing import Item
from vlm_rl.policy import Policy
from vlm_rl.replay import Replay
from vlm_rl.step_batch import Limits, StepBatch, advantages
from vlm_rl.types import Completion, Group, Part, Rollout, Sampling, ScoredGroup, Segment
from vlm_rl.update import Updater, check_names

G = 4
TOTALS = ((1.0, 0.0, 0.5, 0.0), (0.25, 1.0, 1.0, 0.0), (0.5, 0.5, 0.5, 0.5))


@cache
def scored_groups() -> tuple[ScoredGroup, ...]:
    """Three groups written by the model itself; the last without spread."""
    policy, chat = make()
    engine = HFEngine(policy, chat)
    groups = []
    for k, totals in enumerate(TOTALS):
        prompt = chat.prompt(sample(f"s{k}", 1 if k else 0))
        seeds = tuple(range(100 * k, 100 * k + G))
        [completions] = engine.generate([GenerateRequest(prompt, Sampling(5), seeds)])
        rollouts = tuple(Rollout(i, s, c) for i, (s, c) in enumerate(zip(seeds, completions, strict=True)))
        parts = {"r": tuple(Part(t, 1.0, t, {}, t) for t in totals)}
        groups.append(ScoredGroup(Group(prompt, rollouts, k), totals, parts))
    return tuple(groups)


class Counted(Policy):
    calls = 0

    def forward(self, *args, **kwargs):
        self.calls += 1
        return super().forward(*args, **kwargs)


def counted(mode: str = "shared_prefix") -> Counted:
    policy, chat = make(mode=mode)
    return Counted(policy.model, chat.visual_ids, mode)


def plain_descent(policy: Policy, steps: int) -> Optimiser:
    """Adam makes a whole step of rounding residue; plain descent keeps what is equal equal."""
    optimiser = Optimiser(policy, OptimConfig(learning_rate=0.1, grad_clip=100.0), steps)
    optimiser.adam = torch.optim.SGD(optimiser.masters, lr=0.1)
    return optimiser


def updated(algo: AlgoConfig, budget: int = 10_000, updates: int = 1, minis: int = 1, steps: int = 1, scored=None, moved: float = 0.0):
    """(metrics of each step, policy, updater); `moved` shifts the reference."""
    policy = counted()
    reference = counted() if algo.kl_weight else None
    if reference is not None:
        reference.requires_grad_(False)
        for weight in list(reference.parameters())[::3]:
            weight.mul_(1 + moved)
    limits = Limits(1.0, budget, 5, updates, minis)
    replay = Replay(algo.replay, len(TOTALS)) if algo.replay else None
    updater = Updater(policy, plain_descent(policy, steps * limits.steps), algo, limits, reference, replay)
    return [updater(scored or scored_groups(), step) for step in range(steps)], policy, updater


def weights(policy: Policy) -> Tensor:
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


CASES = {
    "grpo": ({}, 1, 1),
    "dapo, two passes": ({"aggregation": "token_mean", "clip_high": 0.28}, 2, 1),
    "gspo in mini-batches": ({"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}, 1, 2),
    "dr. grpo with a constant": ({"advantage": "group_mean", "aggregation": "token_sum_norm", "norm_length": 3}, 1, 1),
    "kl in the loss": ({"kl_weight": 0.1, "kl_gradient": "ratio"}, 2, 1),
    "kl in the reward": ({"kl_weight": 0.1, "kl_in": "reward", "advantage": "leave_one_out", "ratio": "product"}, 1, 1),
    "reinforce++": ({"kl_weight": 0.1, "kl_in": "reward", "advantage": "raw", "batch": "whiten_tokens", "credit": "to_go"}, 1, 1),
    "entropy": ({"top_entropy": 0.4, "entropy_bonus": 0.01}, 2, 1),
    "corrections": ({"correction": [{"use": "token_truncate", "high": 2.0}, {"use": "geometric_mask", "low": 0.5}]}, 1, 2),
    "engine's log-probs": ({"old_logprobs": "engine", "off_policy_mask": 0.5}, 2, 2),
}


@pytest.mark.parametrize("case", CASES)
def test_how_a_step_is_split_into_packs_changes_nothing(case: str) -> None:
    settings, updates, minis = CASES[case]
    algo = AlgoConfig.model_validate(settings)
    whole, split = (updated(algo, budget, updates, minis, moved=0.1) for budget in (10_000, 45))
    assert split[1].calls > whole[1].calls
    assert torch.allclose(weights(whole[1]), weights(split[1]), atol=2e-5)
    names = [name for name in whole[0][0] if not name.startswith("guard/")]
    assert [split[0][0][n] for n in names] == pytest.approx([whole[0][0][n] for n in names], rel=2e-3, abs=2e-5)
    assert not torch.equal(weights(whole[1]), weights(counted()))


def slow_step(policy: Policy, groups: list[int], old: dict[tuple[int, int], Tensor], clip: float) -> Tensor:
    """-(1/N) sum_i (1/T_i) sum_t min(r A, clip(r) A), rollout by rollout, each forwarded alone."""
    total = torch.zeros(())
    for g in groups:
        totals = torch.tensor(TOTALS[g])
        for i, rollout in enumerate(scored_groups()[g].group.rollouts):
            A = float((totals[i] - totals.mean()) / (totals.std() + 1e-4)) if totals.std() > 0 else 0.0
            logp_T = policy(policy.pack([Item(scored_groups()[g].group.prompt, (rollout.completion.token_ids,), (0,))])).logprob_T
            for t, x in enumerate(logp_T):
                r = torch.exp(x - old[g, i][t])
                total = total - torch.minimum(r * A, r.clamp(1 - clip, 1 + clip) * A) / len(logp_T) / (G * len(groups))
    return total


def test_two_passes_in_two_mini_batches_equal_a_slow_loop() -> None:
    algo = AlgoConfig(clip_low=0.01, clip_high=0.01)
    [metrics], fast, _ = updated(algo, updates=2, minis=2)
    slow = counted("plain")
    optimiser = plain_descent(slow, 4)
    with torch.no_grad():
        old = {
            (g, i): slow(slow.pack([Item(s.group.prompt, (r.completion.token_ids,), (0,))])).logprob_T
            for g, s in enumerate(scored_groups())
            for i, r in enumerate(s.group.rollouts)
        }
    last = 0.0
    for turn in range(2):
        last = 0.0
        for k, groups in enumerate(([0], [1, 2])):
            loss = slow_step(slow, groups, old, 0.01)
            loss.backward()
            optimiser.gather()
            optimiser.step(2 * turn + k, str)
            last += float(loss.detach()) / 2
    assert metrics["loss/total"] == pytest.approx(last, abs=1e-5)
    assert metrics["loss/clip_high"] + metrics["loss/clip_low"] > 0
    assert torch.allclose(weights(fast), weights(slow), atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "updates", "minis", "forwards", "asked"),
    [
        ({}, 1, 1, 1, 0),
        ({}, 3, 1, 3, 0),
        ({}, 1, 3, 2 + 1, 0),  # the last group has no spread; the second is looked at before the first changes the policy
        ({"old_logprobs": "engine"}, 1, 3, 2, 0),
        ({"top_entropy": 0.5}, 1, 1, 1, 0),
        ({"kl_weight": 0.1}, 2, 1, 2, 1),  # the reference is asked once
        ({"kl_weight": 0.1, "kl_in": "reward"}, 2, 1, 2, 1),
        ({"entropy_bonus": 0.1}, 1, 3, 3 + 2, 0),
    ],
)
def test_nothing_is_forwarded_that_is_not_needed(settings: dict, updates: int, minis: int, forwards: int, asked: int) -> None:
    _, policy, updater = updated(AlgoConfig.model_validate(settings), updates=updates, minis=minis)
    assert policy.calls == forwards
    assert (updater.reference.calls if updater.reference else 0) == asked


def cut_off(groups: tuple[ScoredGroup, ...], group: int, rollout: int) -> list[ScoredGroup]:
    chosen = groups[group].group
    completion = dataclasses.replace(chosen.rollouts[rollout].completion, finish="length")
    changed = tuple(dataclasses.replace(r, completion=completion) if i == rollout else r for i, r in enumerate(chosen.rollouts))
    new = dataclasses.replace(groups[group], group=dataclasses.replace(chosen, rollouts=changed))
    return [new if g == group else s for g, s in enumerate(groups)]


def finished() -> list[ScoredGroup]:
    found = list(scored_groups())
    for g, s in enumerate(found):
        rollouts = tuple(dataclasses.replace(r, completion=dataclasses.replace(r.completion, finish="stop")) for r in s.group.rollouts)
        found[g] = dataclasses.replace(s, group=dataclasses.replace(s.group, rollouts=rollouts))
    return found


def test_a_truncated_rollout_keeps_its_place_but_is_not_trained_on() -> None:
    algo = AlgoConfig(mask_truncated=True)
    batch, whole = (StepBatch(g, algo, Limits(1.0, 10_000, 5)) for g in (cut_off(tuple(finished()), 0, 1), finished()))
    for made in (batch, whole):
        made.settle({})
    assert batch.lengths_N[1] == 0 and whole.lengths_N[1] > 0
    assert [i for items in batch.packs([0]) for item in items for i in item.rollouts] == [0, 2, 3]
    assert all(torch.equal(a, b) for a, b in zip(batch.advantages, whole.advantages, strict=True))
    weights_N = [made.mini_batches(made.is_flat)[0].weights_N for made in (batch, whole)]
    assert torch.equal(weights_N[0][2:], weights_N[1][2:])


def test_tokens_that_others_inserted_are_no_part_of_a_sequence_ratio() -> None:
    groups = list(scored_groups())
    first = groups[0].group
    completion = first.rollouts[0].completion
    ids, told = completion.token_ids, completion.logprobs
    mixed = Completion(completion.text, (Segment(ids, told), Segment((7, 8, 9))), completion.finish)
    rollouts = (dataclasses.replace(first.rollouts[0], completion=mixed), *first.rollouts[1:])
    groups[0] = dataclasses.replace(groups[0], group=dataclasses.replace(first, rollouts=rollouts))
    algo = AlgoConfig(ratio="sequence", aggregation="token_mean")
    [plain], policy, _ = updated(algo, updates=2)
    [with_others], other, _ = updated(algo, updates=2, scored=groups)
    assert with_others["loss/total"] == pytest.approx(plain["loss/total"], abs=1e-6)
    assert torch.allclose(weights(policy), weights(other), atol=1e-5)


def late_half(rollout: Rollout, advantage: float, penalties_T: Tensor) -> Tensor:
    """A stranger's credit: only the second half of a rollout."""
    return torch.where(torch.arange(len(penalties_T)) >= len(penalties_T) // 2, advantage, 0.0)


def test_credit_of_ones_own() -> None:
    batch = StepBatch(scored_groups(), AlgoConfig(credit="test_algo_update:late_half"), Limits(1.0, 10_000, 5))
    batch.settle({})
    whole = StepBatch(scored_groups(), AlgoConfig(), Limits(1.0, 10_000, 5))
    whole.settle({})
    for mine, theirs in zip(batch.advantages, whole.advantages, strict=True):
        half = len(mine) // 2
        assert not mine[:half].any() and torch.equal(mine[half:], theirs[half:])


def test_kl_in_the_reward_and_returns_to_go() -> None:
    """By hand: the KL sum is taken off the totals, or off what follows each token."""
    groups = scored_groups()
    penalties = {
        i: 0.1 * torch.arange(1.0, 1 + len(r.completion.token_ids)) for i, r in enumerate(r for s in groups for r in s.group.rollouts)
    }
    for credit in ("uniform", "to_go"):
        batch = StepBatch(groups, AlgoConfig(advantage="raw", credit=credit), Limits(1.0, 10_000, 5))
        batch.settle(penalties)
        for i, found in enumerate(batch.advantages):
            total = TOTALS[i // G][i % G]
            taken = (
                [float(penalties[i].sum())] * len(found)
                if credit == "uniform"
                else [float(penalties[i][t:].sum()) for t in range(len(found))]
            )
            assert found.tolist() == pytest.approx([total - x for x in taken], abs=1e-6)


def two_rewards(values: dict[str, list[list[float]]], left_out: tuple[str, int] | None = None) -> list[ScoredGroup]:
    groups = []
    for g, s in enumerate(scored_groups()[: len(next(iter(values.values())))]):
        parts = {}
        for label, said in values.items():
            dropped = left_out == (label, g)
            parts[label] = tuple(Part(v, 0.5, None if dropped else 0.5 * v, {}, v) for v in said[g])
        totals = tuple(sum(p[i].contribution or 0.0 for p in parts.values()) for i in range(G))
        groups.append(dataclasses.replace(s, totals=totals, parts=parts))
    return groups


def test_each_reward_whitened_over_the_batch() -> None:
    values = {"a": [[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]], "b": [[10.0, 20.0, 30.0, 40.0], [50.0, 60.0, 70.0, 80.0]]}
    algo = AlgoConfig(rewards="whiten_then_sum", advantage="group_mean", advantage_eps=0.0)
    found = advantages(two_rewards(values), algo)
    white = {}
    for label, said in values.items():
        flat = torch.tensor(said).flatten()
        white[label] = ((flat - flat.mean()) / flat.std()).view(2, G)
    for g in range(2):
        total = 0.5 * white["a"][g] + 0.5 * white["b"][g]
        assert torch.allclose(found[g], total - total.mean(), atol=1e-6)
    only = advantages(two_rewards(values, ("b", 1)), algo)
    assert only[1].tolist() == [0.0] * G  # b was left out there, and a says the same of all


@pytest.mark.parametrize("rule", [None, "none"])
def test_gdpo_whitens_unless_told_otherwise(rule: str | None) -> None:
    values = {"a": [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]], "b": [[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]}
    found = advantages(two_rewards(values), AlgoConfig(rewards="normalize_then_sum", batch=rule))
    spread = torch.cat(found).std()
    assert found[1].tolist() == [0.0] * G
    assert (abs(spread - 1) < 1e-3) == (rule is None)


@pytest.mark.parametrize("advantage", ["group_std", "group_mean", "leave_one_out"])
@pytest.mark.parametrize("rule", ["none", "reward_std", "whiten", "whiten_tokens"])
@pytest.mark.parametrize("rewards", ["sum_then_normalize", "normalize_then_sum", "whiten_then_sum"])
def test_constant_groups_have_exactly_no_advantage(advantage: str, rule: str, rewards: str) -> None:
    values = {"a": [[0.7] * G, [1.0, 0.3, 0.1, 0.0]], "b": [[0.1] * G, [0.2, 0.1, 0.9, 0.4]]}
    batch = StepBatch(two_rewards(values), AlgoConfig(advantage=advantage, batch=rule, rewards=rewards), Limits(1.0, 10_000, 5))
    batch.settle({})
    assert batch.is_flat(0) and not batch.is_flat(1)


def test_a_reference_that_follows_and_an_adapted_weight_resume() -> None:
    settings = {"kl_weight": 0.1, "kl_target": 0.01, "kl_horizon": 100, "reference": {"kind": "ema", "mix": 0.25, "every": 2}}
    algo = AlgoConfig.model_validate(settings)
    metrics, policy, updater = updated(algo, steps=2, moved=0.2)
    start = counted()
    for weight in list(start.parameters())[::3]:
        with torch.no_grad():
            weight.mul_(1.2)
    assert updater.reference is not None
    assert torch.allclose(weights(updater.reference), 0.75 * weights(start) + 0.25 * weights(policy), atol=1e-6)
    wanted = 0.1
    for m in metrics:
        assert m["algo/kl_weight"] == wanted
        wanted = adapted(wanted, m["loss/kl"], 0.01, 100, 3 * G)
    assert updater.kl_weight == wanted
    _, _, other = updated(algo, steps=1)
    other.load_state_dict(updater.state_dict())
    assert other.reference is not None and torch.equal(weights(other.reference), weights(updater.reference))
    assert other.kl_weight == updater.kl_weight


def test_a_small_share_is_not_rounded_away_in_bfloat16() -> None:
    from vlm_rl.config_algo import ReferenceConfig
    from vlm_rl.reference import Follower

    net, target = (torch.nn.Linear(8, 8).to(torch.bfloat16) for _ in range(2))
    for module, value in ((net, 1.0), (target, 2.0)):
        torch.nn.init.constant_(module.weight, value)
        torch.nn.init.constant_(module.bias, value)
    follower = Follower(net.requires_grad_(False), ReferenceConfig(kind="ema", mix=0.001, every=1))
    for step in range(100):
        follower.follow(target.parameters(), step + 1)
    assert net.weight.float().mean() == pytest.approx(2 - 0.999**100, abs=0.01)


def test_metrics_tell_of_the_gap_before_clipping() -> None:
    groups = list(scored_groups())
    shifted = []
    for s in groups:
        rollouts = tuple(
            dataclasses.replace(
                r,
                completion=dataclasses.replace(
                    r.completion, segments=(Segment(r.completion.token_ids, tuple(p - 0.1 for p in r.completion.logprobs)),)
                ),
            )
            for r in s.group.rollouts
        )
        shifted.append(dataclasses.replace(s, group=dataclasses.replace(s.group, rollouts=rollouts)))
    algo = AlgoConfig.model_validate({"correction": [{"use": "token_mask", "high": 1.05}]})
    [metrics], policy, _ = updated(algo, scored=shifted)
    assert metrics["guard/logprob_diff"] == pytest.approx(0.1, abs=1e-4)
    assert metrics["mismatch/ratio_p50"] == pytest.approx(1.10517, abs=1e-4)
    assert metrics["mismatch/rejected"] == 1.0 and metrics["loss/grad_norm"] == 0.0
    assert torch.equal(weights(policy), weights(counted()))


def test_a_step_without_groups_changes_nothing() -> None:
    policy = counted()
    updater = Updater(policy, Optimiser(policy, OptimConfig(), 1), AlgoConfig(), Limits(1.0, 100, 5, 1, 2))
    metrics = updater([], 0)
    assert policy.calls == 0 and metrics["loss/total"] == 0.0 and metrics["guard/logprob_diff"] == 0.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss_settings": {"dual": 3.0}}, "did you mean 'dual_clip'"),
        ({"loss": "sapo", "loss_settings": {"tau_pos": "warm"}}, "is no number"),
        ({"loss_settings": {"dual_clip": 1.1}}, "below 1"),
        ({"kl_target": 0.1}, "kl_weight"),
        ({"reference": {"kind": "ema"}}, "kl_weight"),
        ({"kl_weight": 0.1, "kl": "k1"}, "no gradient on average"),
        ({"kl_weight": 0.1, "kl_in": "reward", "rewards": "normalize_then_sum"}, "kl_in=loss"),
        ({"old_logprobs": "engine", "correction": [{"use": "token_mask", "high": 2.0}]}, "correct twice"),
        ({"loss": "gmpo", "top_entropy": 0.5}, "one weight per rollout"),
        ({"rewards": "normalize_then_sum", "batch": "reward_std"}, "summed rewards"),
        ({"rewards": "normalize_then_sum", "advantage": "raw"}, "whiten_then_sum"),
    ],
)
def test_settings_that_are_wrong_are_named(settings: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        check_names(AlgoConfig.model_validate(settings))
    assert said in str(error.value)
