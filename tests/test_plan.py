"""`vlm-rl plan`: phases, verdict, knobs, tokens and questions of a config; the command."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from runs_small import train_config

from rewards.mixture import Mixture
from vlm_rl import architecture, cli_plan, footprint, plan, plan_knobs, plan_tokens
from vlm_rl.cli_trial import questions
from vlm_rl.config import TrainConfig
from vlm_rl.errors import UserError
from vlm_rl.loading import load
from vlm_rl.plan import GIB, Seen, Setting

BASE = """
run_dir: runs/x
model: {path: Qwen/Qwen2.5-VL-3B-Instruct, dtype: bfloat16, image_max_pixels: 602112}
data: {name: hub, path: hiyouga/geometry3k, mapping: geometry3k, template: think}
rollout: {prompts_per_step: 16, group_size: 8, max_new_tokens: 1024, batch_size: 128}
rewards: {accuracy: {weight: 1.0}}
train: {steps: 10, token_budget: 16384}
"""


def setting(tmp_path: Path, *overrides: str, gpu: str = "h100-80gb", count: int = 1, asked: frozenset[str] = frozenset()) -> Setting:
    (tmp_path / "c.yaml").write_text(BASE)
    config = load(TrainConfig, tmp_path / "c.yaml", overrides)
    arch = architecture.find(config.model)
    return Setting(config, arch, cli_plan.prompts_of(config, arch), plan.machine(gpu, count), asked)


def total(made: Setting, name: str) -> float:
    return next(phase.total for phase in plan.phases(made) if phase.name == name)


def test_what_stays_is_in_every_phase(tmp_path):
    made = setting(tmp_path)
    count = made.arch.total
    assert sum(share.bytes for share in plan.resident(made)) == (2 + 4 + 8) * count
    assert made.seen == Seen(768 + 300, 768 * 4, 1068.0, made.seen.source)
    assert all(phase.total >= 14 * count for phase in plan.phases(made))
    copied = setting(tmp_path, "algo.kl_weight=0.01")
    follows = setting(tmp_path, "algo.kl_weight=0.01", "algo.reference.kind=ema", asked=frozenset({"start"}))
    own, fixed, ema = (sum(share.bytes for share in plan.resident(x)) for x in (made, copied, follows))
    assert (fixed - own, ema - own) == (2 * count, (2 + 2 + 4) * count)


def test_the_cache_of_rollouts(tmp_path):
    """At most rollout.batch_size completions, and those of as many prompts as are read at once."""
    made = setting(tmp_path)
    [cache] = [share for share in plan.rollout(made).shares if "cache" in share.what]
    assert cache.bytes == footprint.cache(made.arch, 15 * 8, 1068 + 1024, 2) and "120 completions" in cache.what
    assert total(setting(tmp_path, "rollout.batch_size=32"), "rollout") < total(made, "rollout")


def test_vllm_takes_its_share_and_must_hold_a_completion(tmp_path):
    made = setting(tmp_path, "rollout.engine=vllm", "rollout.vllm.gpu_memory_utilization=0.3")
    share = plan.rollout(made).shares[-1]
    assert share.bytes == pytest.approx(0.3 * 79.1 * GIB) and plan.problem(made) is None
    room = 0.3 * 79.1 * GIB - 2 * made.arch.total - plan.VLLM_WORK
    assert plan.vllm_rows(made) == pytest.approx(room / (36_864 * (1068 + 1024)))
    assert "gpu_memory_utilization" in str(
        plan.problem(setting(tmp_path, "rollout.engine=vllm", "rollout.vllm.gpu_memory_utilization=0.1"))
    )


def test_the_worst_pack_need_not_be_of_the_longest_completions(tmp_path):
    rows = plan.largest_rows(setting(tmp_path, "train.token_budget=16384"))
    assert rows[0].completions == 8 and rows[0].tokens <= 16384
    assert max(rows, key=lambda row: row.keys) is not rows[0]
    alone = plan.largest_rows(setting(tmp_path, "train.token_budget=1000"))[0]
    assert (alone.prompts, alone.completions) == (1, 1)  # never less than a completion behind its prompt


def test_knobs_are_turned_until_it_fits(tmp_path):
    made = setting(tmp_path, gpu="h200-141gb")
    assert not plan.fits(made)
    turns = plan_knobs.turns(made)
    assert turns[0].override == "model.gradient_checkpointing=true" and turns[-1].fits
    after = setting(tmp_path, *(turn.override for turn in turns), gpu="h200-141gb")
    assert plan.fits(after) and {phase.name: phase.total for phase in plan.phases(after)} == turns[-1].totals
    assert plan_knobs.turns(after) == ()
    none = plan_knobs.turns(setting(tmp_path, gpu="8"))
    assert none and not none[-1].fits


def test_zero_is_a_knob_where_there_are_several_devices(tmp_path):
    large = ("model.path=Qwen/Qwen2.5-VL-7B-Instruct", "model.gradient_checkpointing=true", "train.token_budget=4096")
    turns = plan_knobs.turns(setting(tmp_path, *large, count=8))
    assert [turn.override for turn in turns] == ["distributed.zero=2"] and turns[-1].fits
    resident = plan.resident(setting(tmp_path, *large, "distributed.zero=3", count=8))
    count = architecture.published("Qwen/Qwen2.5-VL-7B-Instruct").total
    assert sum(share.bytes for share in resident) == pytest.approx((2 + 12) * count / 8 + 2e9 + 2 * count)  # whole for answers by hf
    alone = plan_knobs.turns(setting(tmp_path, *large, "rollout.batch_size=16"))
    assert "offload: optimizer" in alone[-1].override and alone[-1].fits


@pytest.mark.parametrize(
    ("override", "passes", "said"),
    [
        ("seed=1", 1.0, "1 with gradients"),
        ("train.updates_per_rollout=2", 2.0, "2 with gradients"),
        ("train.mini_batches=4", 1.75, "0.75 ahead"),
        ("algo.kl_weight=0.1", 2.0, "1 by the reference"),
    ],
)
def test_tokens_of_a_step(tmp_path, override, passes, said):
    config = setting(tmp_path, override).config
    rollout, update = plan_tokens.counts(config, Seen(400, 0, 300.0, ""), [])
    assert (rollout.read, rollout.written) == (16 * 300, 128 * 1024)
    assert update.read == passes * (16 * 300 + 128 * 1024) and said in update.note
    assert f"{128 * (300 + 1024) / (16 * 300 + 128 * 1024):.1f} times fewer" in update.note


def test_questions_are_those_that_rewards_ask(tmp_path):
    rewards = ["rewards.acre.use=acre", "rewards.acre.shuffles=2", "rewards.sccm.use=sccm", "rewards.sccm.convention=rel_1000"]
    config = setting(tmp_path, *rewards).config
    asked = {q.target: q for q in questions(Mixture(config.rewards, 0.1), config)}
    assert (asked["policy"].asked, asked["policy"].written) == (2.0, 16.0)
    assert asked["policy"].read == pytest.approx(2 * 1024, rel=0.05)  # the reasoning, re-fed with each order
    assert asked["start"].asked == 1 / 8  # equal crops are asked about once per group


@pytest.mark.parametrize(
    ("override", "said"),
    [("model.path=Qwen/Qwen2.5-VL-9B", "Qwen/Qwen2.5-VL-7B-Instruct"), ("model={scratch: {}}", "needs no plan")],
)
def test_a_model_without_sizes(tmp_path, override, said):
    with pytest.raises(UserError, match=said):
        setting(tmp_path, override)
    with pytest.raises(UserError, match="a100-80gb"):
        plan.machine("a100-80g", 1)


def test_the_command_reads_local_files(tmp_path):
    config, shown = train_config(tmp_path), []
    assert cli_plan.planned(config, "24", 1, shown.append, tmp_path / "plan.json") == 0
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["fits"] and found["tokens"][0]["read"] > 0 and "24 rows of the data" in found["prompts"]["source"]
    assert sum(found["phases"]["update"].values()) == pytest.approx(2 * found["phases"]["update"]["total"])
    assert any("not run" in str(line) for line in shown)
    wide = replace(setting(tmp_path), machine=plan.machine("8", 1))
    assert "does not fit" in cli_plan.sentences(wide, ())[0]
