"""Replay of groups: which are kept and given out, equal to a slow loop with the log-probs of then, and through a kill and a resume."""

import dataclasses
import json

import pytest
import torch
from runs_small import train_config
from safetensors.torch import load_file
from test_algo_runs import Killed, without_clock
from test_algo_update import TOTALS, G, counted, plain_descent, scored_groups, slow_step, updated, weights
from torch import Tensor

from vlm_rl import cli_train, replay_file
from vlm_rl.config import AlgoConfig
from vlm_rl.config_algo import ReplayConfig
from vlm_rl.errors import UserError
from vlm_rl.packing import Item
from vlm_rl.policy import Policy
from vlm_rl.replay import VALUES, Replay, Stored
from vlm_rl.types import Completion, ScoredGroup, Segment
from vlm_rl.update import check_names


@pytest.mark.parametrize(
    ("totals", "spread", "rare"),
    [
        ([1.0, 0.0, 0.0, 1.0], 0.5774, 0.8660),
        ([1.0, 0.0, 0.0, 0.0], 0.5, 1.5),
        ([0.0, 1.0, 1.0, 1.0], 0.5, 0.5),
        ([0.7] * 8, 0.0, 0.0),
    ],
)
def test_values(totals: list[float], spread: float, rare: float) -> None:
    assert VALUES["spread"](torch.tensor(totals)) == pytest.approx(spread, abs=1e-4)
    assert VALUES["rare_success"](torch.tensor(totals)) == pytest.approx(rare, abs=1e-4)


def group(*totals: float) -> ScoredGroup:
    return dataclasses.replace(scored_groups()[0], totals=totals)


def given(replay: Replay, step: int) -> list[tuple[int, float]]:
    return [(s.step, max(s.scored.totals)) for s in replay.take(step)]


def test_the_store_is_bounded_by_value_and_age_and_gives_each_group_once() -> None:
    replay = Replay(ReplayConfig(share=0.5, groups=3, max_age=2), 4)
    for step, best in ((1, 0.4), (1, 0.2), (1, 0.0), (2, 0.4), (2, 0.8)):
        replay.add(step, group(best, 0.0, 0.0, 0.0), [None] * G)
    assert [(s.step, max(s.scored.totals)) for s in replay.kept] == [(2, 0.8), (2, 0.4), (1, 0.4)]  # 0.2 had to go, 0.0 was worth nothing
    assert given(replay, 3) == [(2, 0.8), (2, 0.4)]
    replay.add(3, group(0.1, 0.0, 0.0, 0.0), [None] * G)
    assert given(replay, 4) == [(3, 0.1)]  # the group of step 1 is too old
    assert given(replay, 4) == [] and replay.kept == []
    assert Replay(ReplayConfig(share=0.25), 16).most == 4


@pytest.mark.parametrize("settings", [{}, {"kl_weight": 0.1}, {"top_entropy": 0.5, "ratio": "sequence"}])
def test_a_share_of_nothing_is_no_replay(settings: dict) -> None:
    without, with_none = (
        updated(AlgoConfig.model_validate(settings | more), 45, updates=2, minis=2, steps=2) for more in ({}, {"replay": {"share": 0.0}})
    )
    kept = [{k: v for k, v in line.items() if not k.startswith("replay/")} for line in with_none[0]]
    assert kept == without[0] and torch.equal(weights(with_none[1]), weights(without[1]))
    assert all(line["replay/groups"] == line["replay/kept"] == 0.0 for line in with_none[0])


def known(policy: Policy) -> dict[tuple[int, int], Tensor]:
    with torch.no_grad():
        return {
            (g, i): policy(policy.pack([Item(s.group.prompt, (r.completion.token_ids,), (0,))])).logprob_T
            for g, s in enumerate(scored_groups())
            for i, r in enumerate(s.group.rollouts)
        }


@pytest.mark.parametrize("budget", [10_000, 45])
def test_two_steps_with_a_replayed_group_equal_a_slow_loop(budget: int) -> None:
    """Group 1 has the largest spread; in step 2 it is there twice, as written by now (its text is the same) and as stored in step 1."""
    algo = AlgoConfig(clip_low=0.01, clip_high=0.01, replay=ReplayConfig(share=1 / 3))
    metrics, fast, updater = updated(algo, budget, steps=2)
    slow = counted("plain")
    optimiser = plain_descent(slow, 2)
    before = known(slow)
    for step in range(2):
        now, size = known(slow), len(TOTALS)
        loss = slow_step(slow, [0, 1, 2], now, 0.01)
        if step:
            loss = loss * size / (size + 1) + slow_step(slow, [1], before, 0.01) / (size + 1)
        loss.backward()
        optimiser.gather()
        optimiser.step(step, str)
        assert metrics[step]["loss/total"] == pytest.approx(float(loss.detach()), abs=1e-5)
    assert torch.allclose(weights(fast), weights(slow), atol=2e-5)
    assert metrics[1]["replay/groups"] == 1.0 and metrics[1]["replay/age"] == 1.0 and metrics[1]["replay/kept"] == 3.0
    assert metrics[1]["replay/kl"] > 1e-6 and metrics[1]["replay/ess"] < 1.0
    assert metrics[1]["loss/clip_low"] + metrics[1]["loss/clip_high"] > 0 and "drift/kl" not in metrics[1]
    assert metrics[1]["guard/logprob_diff"] == pytest.approx(
        sum(float((now[g, i] - torch.tensor(logprobs(g, i))).abs().sum()) for g, i in now if g < 2)
        / sum(len(now[g, i]) for g, i in now if g < 2),
        abs=1e-5,
    )
    assert updater.replay is not None and [s.step for s in updater.replay.kept] == [2, 2, 1]


def logprobs(g: int, i: int) -> tuple[float, ...]:
    return scored_groups()[g].group.rollouts[i].completion.logprobs


@pytest.mark.parametrize("loss", ["grpo", "cispo", "sapo", "gmpo", "vespo"])
def test_ratios_are_to_the_policy_that_wrote(loss: str) -> None:
    """In mini-batches, where the step's own groups are looked at first; stored log-probs stand through it, and correct the engine's."""
    correction = [{"use": "token_truncate", "high": 2.0}]
    algo = AlgoConfig.model_validate({"loss": loss, "replay": {"share": 1.0, "max_age": 1}, "correction": correction})
    metrics, _, updater = updated(algo, 45, minis=2, steps=2)
    assert metrics[1]["replay/groups"] == 2.0 and metrics[1]["replay/kl"] > 0
    assert updater.replay is not None and [s.step for s in updater.replay.kept] == [2, 2]
    stored = {s.scored.group.seed: s for s in updater.replay.kept}
    for s in stored.values():
        assert all(
            p is not None and len(p) == len(r.completion.token_ids) for p, r in zip(s.logprobs, s.scored.group.rollouts, strict=True)
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"kl_weight": 0.1, "kl_gradient": "ratio", "entropy_bonus": 0.01, "top_entropy": 0.5},
        {"kl_weight": 0.1, "kl_in": "reward", "advantage": "raw", "batch": "whiten_tokens", "credit": "to_go"},
        {"ratio": "sequence", "old_logprobs": "engine", "off_policy_mask": 0.01, "aggregation": "token_mean"},
    ],
)
def test_with_replay_too_the_split_into_packs_changes_nothing(settings: dict) -> None:
    algo = AlgoConfig.model_validate(settings | {"replay": {"share": 0.7, "value": "rare_success"}})
    whole, split = (updated(algo, budget, updates=2, minis=2, steps=2, moved=0.1) for budget in (10_000, 45))
    assert split[1].calls > whole[1].calls and whole[0][1]["replay/groups"] == 2.0
    # AdamW divides by the gradient's own size: where that is rounding, one weight may go another way, and all together may not.
    gap = weights(whole[1]) - weights(split[1])
    assert float(gap.abs().max()) < 2e-4 and float(gap.norm() / weights(whole[1]).norm()) < 1e-5
    for name, value in whole[0][1].items():
        assert name.startswith("guard/") or split[0][1][name] == pytest.approx(value, rel=5e-3, abs=5e-5), name


REPLAYED = (
    "algo.replay={share: 0.5, groups: 5, max_age: 3}",
    "algo.dynamic_sampling={reward: brief, tries: 2}",
    "train.updates_per_rollout=2",
    "train.steps=5",
    "augment={image_blank: 0.3, image_swapped: 0.3}",
    "checkpoint.every=2",
)


def test_a_killed_run_replays_the_same(tmp_path, monkeypatch) -> None:
    """Killed at step 4, before its checkpoint: steps 3 to 5 come out bit for bit, with the groups that the checkpoint of step 2 kept."""
    whole = cli_train.train(train_config(tmp_path, f"run_dir={tmp_path}/whole", *REPLAYED))
    config = train_config(tmp_path, f"run_dir={tmp_path}/broken", *REPLAYED)
    save = cli_train.TrainRun.save

    def dying(self, step):
        if step == 4:
            raise Killed
        save(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(cli_train.TrainRun, "save", dying)
        with pytest.raises(Killed):
            cli_train.train(config)
    kept = tmp_path / "broken" / "checkpoints" / "step_2" / "replay"
    assert sorted(p.name for p in kept.iterdir()) == ["groups.json", "tokens.safetensors"]
    assert len(json.loads((kept / "groups.json").read_text())) > 1
    broken = cli_train.train(config)
    lines = without_clock(broken)
    assert lines == without_clock(whole) and sum(line["replay/groups"] for line in lines[2:]) > 2
    ends = [load_file(run / "checkpoints" / "step_5" / "model.safetensors") for run in (whole, broken)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def stored() -> list[Stored]:
    """One group whose first rollout has a stretch that another wrote, and whose second was not forwarded."""
    scored = scored_groups()[0]
    first = scored.group.rollouts[0].completion
    mixed = Completion(first.text, (*first.segments, Segment((7, 8))), "length")
    rollouts = (dataclasses.replace(scored.group.rollouts[0], completion=mixed), *scored.group.rollouts[1:])
    scored = dataclasses.replace(scored, group=dataclasses.replace(scored.group, rollouts=rollouts))
    numbers = tuple(None if i == 1 else torch.randn(len(r.completion.token_ids)) for i, r in enumerate(rollouts))
    return [Stored(3, 0.5, scored, numbers)]


def test_what_is_written_is_read_back(tmp_path) -> None:
    [before] = stored()
    replay_file.save(tmp_path, [before])
    group = before.scored.group
    [after] = replay_file.load(tmp_path, lambda step, seeds: {group.seed: group.prompt} if (step, seeds) == (3, {group.seed}) else {})
    assert after.scored.group.rollouts == group.rollouts and after.scored.group.seed == group.seed
    assert (after.step, after.value, after.scored.totals, after.scored.parts) == (3, 0.5, before.scored.totals, dict(before.scored.parts))
    for mine, theirs in zip(before.logprobs, after.logprobs, strict=True):
        assert mine is theirs is None or (mine is not None and theirs is not None and torch.equal(mine, theirs))


def test_an_empty_store_is_read_back(tmp_path) -> None:
    replay_file.save(tmp_path, [])
    assert replay_file.load(tmp_path, lambda step, seeds: {}) == []


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("groups.json", "[{]", "cannot be read"),
        ("groups.json", '[{"step": 3}]', "seed"),
        ("tokens.safetensors", "nothing", "cannot be read"),
        (None, "", "is another one now"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, file: str | None, text: str, said: str) -> None:
    replay_file.save(tmp_path, stored())
    if file:
        (tmp_path / "replay" / file).write_text(text)
    with pytest.raises(UserError, match=r"algo\.replay") as error:
        replay_file.load(tmp_path, lambda step, seeds: {})
    assert said in str(error.value)


def test_an_unknown_value_is_named() -> None:
    with pytest.raises(UserError, match=r"algo\.replay\.value 'spreads'; did you mean 'spread'"):
        check_names(AlgoConfig(replay=ReplayConfig(value="spreads")))
