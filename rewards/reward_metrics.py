"""What a step's rewards look like: means over rollouts under each reward's label. Numbers only."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from statistics import StatisticsError, correlation, fmean, pstdev

from rewards.base import whole_text
from rewards.response import parse
from vlm_rl.types import Part, ScoredGroup


def metrics(scored: Sequence[ScoredGroup], gated: Collection[str] = (), outcome: str | None = None) -> dict[str, float]:
    """Means over all rollouts of the step.

    Under reward/LABEL/: `raw` and `std` (population) leave unscored rollouts out and are absent when none is left, `value` is what the
    transform made of it, `weight` its factor and `gate`, of the `gated` labels, the one that was applied; `contribution` counts a dropped
    term as 0, so that contributions add up to `reward/total`; `unscored` and `skipped` are counts; `flat` is the share of groups whose
    rollouts all contribute the same; `with_length` is the correlation of raw values with tokens written, `with_accuracy` that with the raw
    values of the label `outcome`. Numbers in the results' details are means too, absent for unscored rollouts. `rollout/wellformed` is the
    share of responses in the strict grammar.
    """
    numbers: dict[str, float] = {}
    labels = list(scored[0].parts) if scored else []
    lengths = [float(sum(r.completion.loss_mask)) for g in scored for r in g.group.rollouts]
    for label in labels:
        parts = [part for group in scored for part in group.parts[label]]
        right = [part.raw for group in scored for part in group.parts[outcome]] if outcome and outcome != label else []
        flat = [len({part.contribution for part in group.parts[label]}) == 1 for group in scored]
        named = (
            _of_one(parts, lengths)
            | _correlation("with_accuracy", parts, right)
            | {"flat": fmean(flat)}
            | (_gate(parts) if label in gated else {})
        )
        numbers |= {f"reward/{label}/{name}": value for name, value in named.items()}
    if totals := [total for group in scored for total in group.totals]:
        numbers["reward/total"] = fmean(totals)
    if said := [parse(whole_text(g.group, rollout)) for g in scored for rollout in g.group.rollouts]:
        numbers["rollout/wellformed"] = fmean(response.wellformed for response in said)
    numbers["algo/unscored"] = sum(numbers[f"reward/{label}/unscored"] for label in labels)
    return numbers


def _of_one(parts: Sequence[Part], lengths: Sequence[float]) -> dict[str, float]:
    raws = [part.raw for part in parts if part.raw is not None]
    skipped = sum(part.raw is None and "skipped" in part.detail for part in parts)
    found = {
        "weight": fmean(part.weight for part in parts),
        "contribution": fmean(part.contribution or 0.0 for part in parts),
        "unscored": float(len(parts) - len(raws) - skipped + sum(p.raw is not None and bool(p.detail.get("error")) for p in parts)),
        "skipped": float(skipped),
    }
    if raws:
        found |= {"raw": fmean(raws), "std": pstdev(raws), **_correlation("with_length", parts, lengths)}
    if values := [part.value for part in parts if part.value is not None]:
        found["value"] = fmean(values)
    return found | _details(parts)


def _correlation(name: str, parts: Sequence[Part], others: Sequence[float | None]) -> dict[str, float]:
    pairs = [(part.raw, other) for part, other in zip(parts, others, strict=False) if part.raw is not None and other is not None]
    with suppress(StatisticsError):  # one of the two does not vary
        return {name: correlation(*zip(*pairs, strict=True))} if pairs else {}
    return {}


def _gate(parts: Sequence[Part]) -> dict[str, float]:
    """Of a term that was left out no gate was applied."""
    applied = [part.gate for part in parts if part.contribution is not None]
    return {"gate": fmean(applied)} if applied else {}


def _details(parts: Sequence[Part]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name, value in part.detail.items() if isinstance(value, (int, float)))
    return {name: fmean(float(part.detail[name]) for part in parts if isinstance(part.detail.get(name), (int, float))) for name in names}
