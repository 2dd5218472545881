"""What to turn in a config whose plan does not fit, and what the plan says after it. Knobs that cost nothing but time come first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlm_rl import plan
from vlm_rl.config import DistributedConfig, LoraConfig, TrainConfig
from vlm_rl.plan import Setting

Knob = Callable[[Setting], tuple[str, TrainConfig] | None]
MOST_TURNS = 24


@dataclass(frozen=True)
class Turn:
    """An override of the config, and the bytes of each phase with it and with those before it."""

    override: str
    totals: Mapping[str, float]
    fits: bool


def turns(setting: Setting) -> tuple[Turn, ...]:
    """Overrides that bring the plan nearer to the device, each laid over those before, until it fits or none helps. What turned out to be
    needless is left out."""
    chosen, now = [], setting
    while not plan.fits(now) and len(chosen) < MOST_TURNS:
        knob = next((knob for knob in KNOBS if _helps(now, knob)), None)
        if knob is None:
            break
        chosen.append(knob)
        now = _turned(now, knob)
    for knob in dict.fromkeys(chosen) if plan.fits(now) else ():
        rest = [other for other in chosen if other is not knob]
        chosen = rest if plan.fits(_all_turned(setting, rest)) else chosen
    return tuple(_told(setting, chosen))


def _told(setting: Setting, chosen: Sequence[Knob]) -> list[Turn]:
    """A key that is turned again has its last value only."""
    made: list[Turn] = []
    for knob in chosen:
        found = knob(setting)
        if found is None:
            continue
        setting = replace(setting, config=found[1])
        totals = {phase.name: phase.total for phase in plan.phases(setting)}
        others = [turn for turn in made if turn.override.partition("=")[0] != found[0].partition("=")[0]]
        made = [*others, Turn(found[0], totals, plan.fits(setting))]
    return made


def _helps(setting: Setting, knob: Knob) -> bool:
    return _excess(_turned(setting, knob)) < 0.995 * _excess(setting)


def _turned(setting: Setting, knob: Knob) -> Setting:
    found = knob(setting)
    return setting if found is None else replace(setting, config=found[1])


def _all_turned(setting: Setting, knobs: Sequence[Knob]) -> Setting:
    for knob in knobs:
        setting = _turned(setting, knob)
    return setting


def _excess(setting: Setting) -> float:
    """Bytes too many, of all phases, and of what vLLM lacks to hold one completion."""
    over = sum(max(0.0, phase.total - setting.machine.usable) for phase in plan.phases(setting))
    return over + (setting.machine.memory if plan.problem(setting) else 0.0)


def _set(config: TrainConfig, section: str, **values: Any) -> TrainConfig:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


def _dtype(setting: Setting) -> tuple[str, TrainConfig] | None:
    if setting.config.model.dtype == "bfloat16":
        return None
    return "model.dtype=bfloat16", _set(setting.config, "model", dtype="bfloat16")


def _checkpointing(setting: Setting) -> tuple[str, TrainConfig] | None:
    if setting.config.model.gradient_checkpointing:
        return None
    return "model.gradient_checkpointing=true", _set(setting.config, "model", gradient_checkpointing=True)


def _budget(setting: Setting) -> tuple[str, TrainConfig] | None:
    least = setting.seen.tokens + setting.config.rollout.max_new_tokens  # such a completion is forwarded whatever the budget
    budget = max(setting.config.train.token_budget // 2, least)
    if budget >= setting.config.train.token_budget:
        return None
    return f"train.token_budget={budget}", _set(setting.config, "train", token_budget=budget)


def _batch(setting: Setting) -> tuple[str, TrainConfig] | None:
    rollout = setting.config.rollout
    if rollout.engine != "hf" or rollout.batch_size == 1:
        return None
    rows = min(rollout.batch_size, rollout.group_size * setting.prompts) // 2
    return f"rollout.batch_size={max(1, rows)}", _set(setting.config, "rollout", batch_size=max(1, rows))


def _share(setting: Setting) -> tuple[str, TrainConfig] | None:
    """The largest share of vLLM that leaves room for what is there in every phase, in steps of 0.05."""
    rollout, machine = setting.config.rollout, setting.machine
    if rollout.engine != "vllm":
        return None
    free = machine.usable - sum(share.bytes for share in plan.resident(setting))
    share = int(20 * free / machine.memory) / 20
    if share <= 0 or share == rollout.vllm.gpu_memory_utilization:
        return None
    vllm = rollout.vllm.model_copy(update={"gpu_memory_utilization": share})
    return f"rollout.vllm.gpu_memory_utilization={share:g}", _set(setting.config, "rollout", vllm=vllm)


def _zero(setting: Setting) -> tuple[str, TrainConfig] | None:
    stage = setting.config.distributed.zero
    if setting.machine.count == 1 or stage == 3 or setting.config.model.lora is not None:
        return None
    return f"distributed.zero={max(2, stage + 1)}", _set(setting.config, "distributed", zero=max(2, stage + 1))


def _offload(setting: Setting) -> tuple[str, TrainConfig] | None:
    """It needs no second device, but ZeRO."""
    distributed = setting.config.distributed
    if distributed.offload != "none" or setting.config.model.lora is not None:
        return None
    turned = {"zero": max(2, distributed.zero), "offload": "optimizer"}
    return f"distributed={{zero: {turned['zero']}, offload: optimizer}}", _set(setting.config, "distributed", **turned)


def _adapters(setting: Setting) -> tuple[str, TrainConfig] | None:
    """Another training than that of all weights, so it comes last."""
    model = setting.config.model
    if model.lora is not None or setting.config.algo.reference.kind != "fixed":
        return None
    turned = {"model": model.model_copy(update={"lora": LoraConfig(), "train": ()}), "distributed": DistributedConfig()}
    return "model.lora={parts: [text]}", setting.config.model_copy(update=turned)


KNOBS: tuple[Knob, ...] = (_checkpointing, _budget, _batch, _share, _dtype, _zero, _offload, _adapters)
