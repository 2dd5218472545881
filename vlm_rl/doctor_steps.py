"""The doctor's checks of optimiser steps: what is trained moves, what is frozen does not, a resumed run goes on as if never stopped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm_rl.doctor import Finding, failed, passed
from vlm_rl.doctor_model import sampled
from vlm_rl.optim import Optimiser
from vlm_rl.policy import Policy
from vlm_rl.types import ScoredGroup

APART = {"float32": 1e-3, "bfloat16": 0.05}  # of two same steps, relative to the step; devices sum in any order
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Patient:
    """A policy that can be trained: `update` makes the optimiser steps of a training step (from 0)."""

    policy: Policy
    optimiser: Optimiser
    update: Callable[[Sequence[ScoredGroup], int], Mapping[str, float]]


def weights_move(patient: Patient, scored: Sequence[ScoredGroup]) -> Finding:
    """One step: every trained part of the model moves, and no frozen tensor does."""
    named = dict(patient.policy.model.named_parameters())
    frozen = {name: p for name, p in named.items() if not p.requires_grad}
    names = {id(p): name for name, p in named.items()}
    trained = {names[id(p)]: master for p, master in zip(patient.optimiser.weights, patient.optimiser.masters, strict=True)}
    before, still = _checksums(trained), _checksums(frozen)
    metrics = patient.update(scored, 0)
    moved = {name for name, mark in _checksums(trained).items() if mark != before[name]}
    loose = [name for name, mark in _checksums(frozen).items() if mark != still[name]]
    measured = f"one step moved {len(moved)} of {len(trained)} trained tensors and {len(loose)} of {len(frozen)} frozen ones"
    norm = float(metrics.get("loss/grad_norm", float("nan")))
    numbers = {"trained": len(trained), "moved": len(moved), "frozen": len(frozen), "frozen_moved": len(loose), "grad_norm": norm}
    if loose:
        cause = f"frozen tensors moved, such as {loose[0]}"
        return failed(measured, cause, "nothing but the optimiser may write weights; report this with the config", **numbers)
    if not moved:
        cause = f"nothing that is trained moved (gradient norm {norm:.2g})"
        return failed(measured, cause, "raise optim.learning_rate; look whether completions are empty", **numbers)
    pictures = any(group.group.sample.media for group in scored)
    if still_parts := [part for part, its in _parts(trained).items() if not its & moved and (pictures or "visual" not in part)]:
        cause = f"no tensor of {still_parts[0]} moved although it is trained: no gradient reaches it"
        return failed(measured, cause, "report this with the model's family and versions, or train other parts", **numbers)
    return passed(measured, **numbers)


def _parts(names: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """Tensors by the part of the model that they belong to: model.visual, model.language_model, lm_head."""
    parts: dict[str, set[str]] = {}
    for name in names:
        pieces = name.split(".")
        parts.setdefault(".".join(pieces[:2]) if pieces[0] == "model" else pieces[0], set()).add(name)
    return parts


def _checksums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """One number each that every change of a bit changes, but for rare coincidences."""
    return {name: int(t.detach().contiguous().view(INTEGERS[t.element_size()]).sum(dtype=torch.int64)) for name, t in tensors.items()}


@dataclass(frozen=True)
class Went:
    """Where a step led: some values of every trained tensor, before and after."""

    before: list[Tensor]
    after: list[Tensor]


def step(patient: Patient, scored: Sequence[ScoredGroup]) -> Went:
    """The second step of a run (number 1)."""
    before = [sampled(master) for master in patient.optimiser.masters]
    patient.update(scored, 1)
    return Went(before, [sampled(master) for master in patient.optimiser.masters])


def same_step(want: Went, got: Went, dtype: str) -> Finding:
    """`want` went on without a stop, `got` from a checkpoint. Differences are relative to the mean size of the step's changes."""
    size = _mean(want.before, want.after)
    start, end = (_mean(a, b) / max(size, 1e-30) for a, b in ((want.before, got.before), (want.after, got.after)))
    numbers = {"step": size, "start": start, "end": end}
    measured = f"a step changes weights by {size:.1e}; the same step of a resumed run ends {end:.1e} of that apart (limit {APART[dtype]:g})"
    if start > APART[dtype]:
        cause = f"the checkpoint's weights are not those that were saved ({start:.1e} of a step apart)"
        return failed(measured, cause, "look whether model.dtype or the files of the checkpoint were changed; report this", **numbers)
    if end > APART[dtype]:
        cause = "weights are the same, the next step is not: the checkpoint lacks state of the optimiser or the algorithm"
        return failed(measured, cause, "do not resume with these versions; report this with the config", **numbers)
    return passed(measured, **numbers)


def _mean(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    total = sum(float((a - b).abs().sum()) for a, b in zip(left, right, strict=True))
    return total / max(sum(len(a) for a in left), 1)
