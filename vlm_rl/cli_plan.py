"""`vlm-rl plan`: sizes of the model, of prompts and of what rewards ask, put together for `plan` and shown. Composition only.

Nothing is loaded but a local config.json, and of local data a few rows and the sizes of their media. Nothing is downloaded.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from rewards.mixture import Mixture
from vlm_rl import architecture, footprint, plan, plan_knobs, plan_tokens, rundir
from vlm_rl.cli_plan_prompts import prompts_of
from vlm_rl.cli_trial import questions
from vlm_rl.config import TrainConfig
from vlm_rl.plan import GIB, Setting

UNTRIED = "Measured peaks on a GPU: not run. The formulas are held against tensors counted on a CPU (docs/recipes.md)."


def planned(config: TrainConfig, gpu: str, count: int, show: Callable[[Any], None], json_file: Path | None = None) -> int:
    """Shows the plan, and writes it to `json_file`. Returns the exit status: 1 where it does not fit."""
    mixture = Mixture(config.rewards, 1.0)
    arch = architecture.find(config.model)
    asked = frozenset(mixture.targets & {"policy", "start"})
    setting = Setting(config, arch, prompts_of(config, arch), plan.machine(gpu, count), asked)
    turns = plan_knobs.turns(setting)
    counted = plan_tokens.counts(config, setting.seen, questions(mixture, config), setting.form)
    if json_file is not None:
        rundir.write_json(json_file, tree(setting, turns, counted))
    for part in (_memory(setting, turns), _tokens(counted), *sentences(setting, turns)):
        show(part)
    return int(not plan.fits(setting))


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}" if size >= GIB / 10 else f"{size / GIB:.4f}"


def _memory(setting: Setting, turns: tuple[plan_knobs.Turn, ...]) -> Table:
    machine = setting.machine
    shown = Table("phase", "what is held", "GiB", title=f"{setting.config.model.path} on {machine.count} x {machine.name}, each device")
    for phase in plan.phases(setting):
        for share in phase.shares:
            shown.add_row(phase.name, Text(share.what), _gib(share.bytes))
        fits = phase.total <= machine.usable
        verdict = Text(f"{phase.name}: {'fits' if fits else 'does not fit'}, of {_gib(machine.usable)}", "green" if fits else "bold red")
        shown.add_row("", verdict, Text(_gib(phase.total), "bold"), end_section=True)
    for turn in turns:
        most = max(turn.totals.values())
        shown.add_row("turn", Text(turn.override), f"{_gib(most)} {'fits' if turn.fits else ''}".strip())
    return shown


def _tokens(counts: tuple[plan_tokens.Count, ...]) -> Table:
    shown = Table("phase", "tokens read", "tokens written", "of what", title="a step at most, all devices")
    for count in counts:
        shown.add_row(count.phase, f"{count.read:,.0f}", f"{count.written:,.0f}", Text(count.note))
    return shown


def sentences(setting: Setting, turns: tuple[plan_knobs.Turn, ...]) -> list[str]:
    """The verdict, where the numbers come from, and what the plan cannot know."""
    arch, seen, config = setting.arch, setting.seen, setting.config
    said = [f"fits on {setting.machine.name}" if plan.fits(setting) else f"does not fit on {setting.machine.name}"]
    if problem := plan.problem(setting):
        said.append(problem)
    if turns and turns[-1].fits:
        said[0] += "; it does with " + " ".join(turn.override for turn in turns)
    elif not plan.fits(setting):
        said[0] += "; no override tried here makes it fit: take more devices, a smaller model, or smaller pictures (model.image_max_pixels)"
    parts = ", ".join(f"{part} {count:,}" for part, count in arch.parameters.items())
    training = sum(setting.trained.weights(arch, part) for part in architecture.PARTS)
    said += [
        f"model: {arch.total:,} parameters ({parts}), {training:,} train; sizes from {arch.source}",
        f"prompts: {seen.tokens:,} tokens at most, {seen.mean:,.0f} on average; from {seen.source}",
        f"kept free of {_gib(setting.machine.memory)} GiB: {plan.FRAGMENTED:.0%} for fragmentation and {_gib(plan.CONTEXT)} GiB (ours)",
    ]
    local = [f"{name} ({judge.path})" for name, judge in config.judges.items() if judge.kind != "openai"]
    if local:
        said.append(f"not counted: the judges loaded beside the policy, {', '.join(local)}")
    return [*said, UNTRIED]


def tree(setting: Setting, turns: tuple[plan_knobs.Turn, ...], counts: tuple[plan_tokens.Count, ...]) -> dict[str, Any]:
    """The plan as JSON, sizes in bytes."""
    row = max(
        plan.largest_rows(setting),
        key=lambda r: max(m.total for m in footprint.backward(setting.arch, r, setting.b, setting.trained).values()),
    )
    return {
        "fits": plan.fits(setting),
        "usable": setting.machine.usable,
        "parameters": dict(setting.arch.parameters),
        "phases": {phase.name: _phase(phase) for phase in plan.phases(setting)},
        "largest_pack": asdict(row),
        "turns": [asdict(turn) for turn in turns],
        "tokens": [asdict(count) for count in counts],
        "prompts": asdict(setting.seen),
        "said": sentences(setting, turns),
    }


def _phase(phase: plan.Phase) -> Mapping[str, float]:
    return {"total": phase.total, **{share.what: share.bytes for share in phase.shares}}
