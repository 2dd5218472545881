"""`vlm-rl doctor`: what a check finds, how checks are run one after another and shown, and those that need no model.

A check measures, compares with a tolerance, and says pass, fail or not applicable, with cause and fix. The checks of a model are in
`doctor_model`; what they are handed is put together by `cli_doctor`. Nothing here mends anything.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from vlm_rl.errors import RowError, UserError

log = logging.getLogger(__name__)
Status = Literal["pass", "fail", "not applicable"]
STYLES: Mapping[Status, str] = {"pass": "green", "fail": "bold red", "not applicable": "dim"}
ACCEPTED = 0.5  # a judge's score from here on pays
GB = 1e9


@dataclass(frozen=True)
class Finding:
    """What a check found. `numbers` are what it measured, by name; `cause` and `fix` are sentences for whoever has to mend it."""

    status: Status
    measured: str
    cause: str = ""
    fix: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


def passed(measured: str, **numbers: float) -> Finding:
    return Finding("pass", measured, numbers=numbers)


def failed(measured: str, cause: str, fix: str, **numbers: float) -> Finding:
    return Finding("fail", measured, cause, fix, numbers)


def spared(reason: str) -> Finding:
    """The check does not apply, or could not be tried."""
    return Finding("not applicable", reason)


@dataclass(frozen=True)
class Check:
    """`run` measures. A check is not tried where one of those it `needs` failed or was not tried."""

    name: str
    run: Callable[[], Finding]
    needs: tuple[str, ...] = ()


def examine(checks: Sequence[Check], begun: Callable[[str], None], told: Callable[[str, Finding], None]) -> dict[str, Finding]:
    """Run the checks in order; one that raises has failed, and the others go on. Each finding is told when it is there."""
    findings: dict[str, Finding] = {}
    tried: set[str] = set()
    for check in checks:
        begun(check.name)
        start = time.perf_counter()
        missing = [name for name in check.needs if name not in tried or findings[name].status == "fail"]
        if missing:
            finding = spared(f"not tried: it needs '{missing[0]}'")
        else:
            finding = _tried(check)
            tried.add(check.name)
        seconds = {"seconds": round(time.perf_counter() - start, 3)}
        findings[check.name] = Finding(finding.status, finding.measured, finding.cause, finding.fix, {**finding.numbers, **seconds})
        told(check.name, findings[check.name])
    return findings


def _tried(check: Check) -> Finding:
    try:
        return check.run()
    except (UserError, RowError) as error:
        return failed("it could not be measured", str(error), "as the cause says")
    except Exception as error:  # a check that breaks must not hide what the others find
        log.debug("the check '%s' broke:", check.name, exc_info=True)
        return failed(
            "it broke", f"{type(error).__name__}: {error}", "run the same command with the training's own packages, or report this"
        )


def sick(findings: Mapping[str, Finding]) -> bool:
    return any(finding.status == "fail" for finding in findings.values())


def table(findings: Mapping[str, Finding]) -> Table:
    """For a terminal; texts are shown as they are, whatever they contain."""
    shown = Table("check", "status", "what was measured, cause and fix", show_lines=True)
    for name, finding in findings.items():
        seconds = finding.numbers.get("seconds", 0.0)
        said = Text(f"{finding.measured} ({seconds:.1f} s)")
        for title, text in (("cause", finding.cause), ("fix", finding.fix)):
            said.append(f"\n{title}: " if text else "", style="bold").append(text)
        shown.add_row(name, Text(finding.status, STYLES[finding.status]), said)
    return shown


def tree(findings: Mapping[str, Finding]) -> dict[str, Any]:
    """The same as JSON: {"healthy": ..., "checks": {name: {status, measured, cause, fix, numbers}}}"""
    return {"healthy": not sick(findings), "checks": {name: asdict(finding) for name, finding in findings.items()}}


@dataclass(frozen=True)
class Machine:
    """Where a training is to run. Sizes in bytes; needs are 0 where the model's size is not known before it is loaded.

    `outdated` lists packages that are missing or older than this project asks for ("transformers 5.1, but >=5.16 is needed").
    """

    versions: Mapping[str, str]
    outdated: Sequence[str]
    device: str
    dtype: str
    dtype_runs: bool
    memory_free: int
    memory_needed: int
    disk_free: int
    disk_needed: int


def environment(machine: Machine) -> Finding:
    """Versions, device, number format, and room for weights, gradients, optimiser and checkpoints."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    sizes = {
        "memory_free_gb": machine.memory_free / GB,
        "memory_needed_gb": machine.memory_needed / GB,
        "disk_free_gb": machine.disk_free / GB,
        "disk_needed_gb": machine.disk_needed / GB,
    }
    measured = (
        f"{versions}; {machine.device}, {machine.dtype}; memory {sizes['memory_free_gb']:.1f} GB free, at least "
        f"{sizes['memory_needed_gb']:.2f} needed; disk {sizes['disk_free_gb']:.1f} GB free, {sizes['disk_needed_gb']:.2f} needed"
    )
    if machine.outdated:
        return failed(measured, "; ".join(machine.outdated), "pip install -U with the versions named", **sizes)
    if not machine.dtype_runs:
        return failed(
            measured,
            f"{machine.device} does not compute in {machine.dtype}",
            "write model.dtype=float32, or a device that the installed torch has",
            **sizes,
        )
    if machine.memory_needed > machine.memory_free:
        cause = "weights, gradients and optimiser state alone take more memory than is free"
        return failed(measured, cause, "take a smaller model, more memory, or model.dtype=bfloat16", **sizes)
    if machine.disk_needed > machine.disk_free:
        cause = "checkpoint.keep checkpoints and the one being written do not fit on the disk of run_dir"
        return failed(measured, cause, "free some space, lower checkpoint.keep, or write run_dir on another disk", **sizes)
    return passed(measured, **sizes)


def gold_answers(tried: int, bad: Sequence[RowError]) -> Finding:
    """Rows tried as they would be trained on: media decode, the gold answer earns full marks from its own verifier, the prompt fits."""
    numbers = {"rows": float(tried), "bad": float(len(bad))}
    if not bad:
        return passed(f"{tried} rows: all decode, and every gold answer is accepted by its own verifier", **numbers)
    fix = "mend the rows or their kind (vlm-rl data check CONFIG lists all), or write data.on_bad_row=skip"
    return failed(f"{len(bad)} of {tried} rows are bad", "; ".join(str(error) for error in bad[:3]), fix, **numbers)


def box_convention(named: Mapping[str, str], overlap: Mapping[str, float], where: str, problem: Callable[[str], str | None]) -> Finding:
    """`named` is the convention by the reward that reads boxes; `overlap` the mean overlap with the true boxes by convention, measured
    on `where`; `problem` says why a convention must not be used."""
    if not named:
        return spared("no reward reads boxes")
    shown = ", ".join(f"{name} {value:.2f}" for name, value in overlap.items())
    for label, convention in named.items():
        if cause := problem(convention):
            fix = f"write rewards.{label}.convention as the cause says, or teach the policy to write boxes before it is paid for them"
            return failed(f"overlap with the true boxes of {where}: {shown}", f"rewards.{label}: {cause}", fix, **overlap)
    return passed(f"{', '.join(set(named.values()))} fits; overlap with the true boxes of {where}: {shown}", **overlap)


@dataclass(frozen=True)
class JudgeTrial:
    """How one judge is tried. `probe` raises UserError unless it can be asked; `scores` asks it to grade texts as reasoning: a score in
    [0, 1], or why there is none."""

    name: str
    probe: Callable[[], None]
    scores: Callable[[Sequence[str]], Sequence[float | str]]


def judge(trial: JudgeTrial, reasoning: str, keys: Sequence[str]) -> Finding:
    """Reachable, answers in the form asked for, and does not pay `keys`: texts without content that judges were found to accept."""
    trial.probe()
    said = trial.scores([reasoning, *keys])
    unread = [score for score in said if isinstance(score, str)]
    scores = [score for score in said if not isinstance(score, str)]
    accepted = [key for key, score in zip(keys, said[1:], strict=True) if not isinstance(score, str) and score >= ACCEPTED]
    numbers = {"asked": float(len(said)), "unread": float(len(unread)), "keys_accepted": float(len(accepted))}
    own = f"{said[0]:.2f}" if not isinstance(said[0], str) else "none"
    measured = f"{len(said)} questions, {len(unread)} without a score; a reasoning gets {own}; accepts {len(accepted)} of {len(keys)} keys"
    if len(unread) * 10 > len(said) or not scores:
        fix = f"look at what it writes (vlm-rl judge eval), raise max_new_tokens, or take another prompt or model for judges.{trial.name}"
        return failed(measured, unread[0], fix, **numbers)
    if len(accepted) * 2 >= len(keys):
        cause = "it accepts answers without content, such as " + ", ".join(repr(key) for key in accepted[:3])
        return failed(measured, cause, f"take another model or prompt for judges.{trial.name}; vlm-rl judge stress tells more", **numbers)
    return passed(measured, **numbers)
