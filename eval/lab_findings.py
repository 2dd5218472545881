"""From the results of an experiment's trainings to its verdict: each registered test, the primary one by group of questions, and all else
that was measured, which decides nothing. Asks no model, writes no file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from eval.evaluator import Figure, Table, Unit
from eval.lab_analysis import Effect, Items, Verdict, adjusted, contrast, contrast_of_values, decide
from eval.lab_results import SeedResult
from eval.wording import named
from vlm_rl.config_claim import ClaimConfig, TestConfig
from vlm_rl.errors import unknown

Results = Mapping[tuple[str, int], SeedResult]
DRAWS, ROUGH_DRAWS = 4_000, 1_000
_WHOLE = "all held-out questions"


@dataclass(frozen=True)
class Tested:
    """One registered comparison. `p_holm` is of the secondary ones, over all of them."""

    test: TestConfig
    effect: Effect | None
    verdict: Verdict
    unit: Unit
    words: str
    p_holm: float | None = None

    @property
    def figure(self) -> Figure:
        return as_figure(self.words, self.effect, self.unit)


@dataclass(frozen=True)
class Findings:
    """`groups` are the primary test by group of questions, `tables` every metric by arm."""

    primary: Tested
    secondary: tuple[Tested, ...]
    groups: tuple[Tested, ...]
    tables: tuple[Table, ...]


def findings(claim: ClaimConfig, results: Results) -> Findings:
    """What the results that are there tell; arms and seeds that are missing make no number."""
    primary = _tested(claim, claim.primary, results)
    others = [_tested(claim, test, results) for test in claim.secondary]
    ps = adjusted([other.effect for other in others])
    secondary = tuple(Tested(t.test, t.effect, t.verdict, t.unit, t.words, p) for t, p in zip(others, ps, strict=True))
    return Findings(primary, secondary, _by_group(claim, results), tuple(_tables(claim, results)))


def check_metrics(claim: ClaimConfig, result: SeedResult) -> None:
    """Raises UserError for a registered metric of the result's arm that its evaluation does not have, with the nearest name."""
    for test in claim.tests:
        other = (test.against_arm or claim.baseline, test.against_metric or test.metric)
        for arm, metric in ((test.arm, test.metric), other):
            if arm == result.arm and metric not in result.figures:
                raise unknown("metric", metric, result.figures, f"the evaluation of {arm}")


def in_words(claim: ClaimConfig, test: TestConfig) -> str:
    """ "consistency · exact of grpo, less that of start" """
    arm, metric = test.against_arm or claim.baseline, test.against_metric or test.metric
    other = f"that of {arm}" if metric == test.metric else named(metric) if arm == test.arm else f"{named(metric)} of {arm}"
    return f"{named(test.metric)} of {test.arm}, less {other}"


def as_figure(name: str, effect: Effect | None, unit: Unit) -> Figure:
    if effect is None:
        return Figure(name, None, 0, unit=unit)
    return Figure(name, effect.value, effect.questions or effect.seeds, effect.low, effect.high, unit)


def _tested(claim: ClaimConfig, test: TestConfig, results: Results, group: str | None = None) -> Tested:
    one = _side(results, test.arm, test.metric, group)
    other = _side(results, test.against_arm or claim.baseline, test.against_metric or test.metric, group)
    effect = _effect(one, other, claim.level, _clusters(results), DRAWS)
    words = in_words(claim, test) if group is None else group
    return Tested(test, effect, decide(effect, test.direction, test.margin), _unit(results, test.metric), words)


@dataclass(frozen=True)
class _Side:
    """A metric of an arm by seed: by question where it has such parts in every seed, else its value."""

    items: Mapping[int, Items]
    values: Mapping[int, float]


def _side(results: Results, arm: str, metric: str, group: str | None = None) -> _Side:
    held = {seed: result for (name, seed), result in results.items() if name == arm}
    items = {seed: found for seed, result in held.items() if (found := result.items(metric)) is not None}
    if group is not None:
        items = {seed: {i: pair for i, pair in found.items() if group_of(i) == group} for seed, found in items.items()}
    values = {seed: value for seed, result in held.items() if (value := result.value(metric)) is not None}
    return _Side(items if len(items) == len(held) else {}, values)


def _effect(one: _Side, other: _Side, level: float, clusters: Mapping[str, str], draws: int) -> Effect | None:
    if one.items and other.items:
        return contrast(one.items, other.items, clusters, level, draws)
    return contrast_of_values(one.values, other.values, level)


def _clusters(results: Results) -> dict[str, str]:
    return {i: name for result in results.values() for i, name in result.clusters.items()}


def _unit(results: Results, metric: str) -> Unit:
    """Of a difference of two values of the metric."""
    units: list[Any] = [result.figures[metric].get("unit") for result in results.values() if metric in result.figures]
    return "difference" if units and units[0] in ("share", "difference") else "number"


def group_of(question: str) -> str:
    """What stands before the row's own id, the label of its part of a mixture: group_of("pairs/pictures-v1-test_pairs-0-3") -> "pairs" """
    return question.rpartition("/")[0] or _WHOLE


def _by_group(claim: ClaimConfig, results: Results) -> tuple[Tested, ...]:
    items = _side(results, claim.primary.arm, claim.primary.metric).items
    groups = sorted({group_of(i) for found in items.values() for i in found})
    return tuple(_tested(claim, claim.primary, results, group) for group in groups) if len(groups) > 1 else ()


def _tables(claim: ClaimConfig, results: Results) -> list[Table]:
    """Every metric of every arm: the mean over seeds, and the difference to the baseline with its interval."""
    metrics = list(dict.fromkeys(metric for result in results.values() for metric in result.figures))
    clusters, found = _clusters(results), []
    for label in dict.fromkeys(metric.partition("/")[0] for metric in metrics):
        others = [arm for arm in claim.arms if arm != claim.baseline]
        rows = [
            row
            for metric in metrics
            if metric.partition("/")[0] == label and (row := _row(claim, results, metric, others, clusters)) is not None
        ]
        if rows:
            columns = ("metric", claim.baseline, *(column for arm in others for column in (arm, f"{arm} - {claim.baseline}")))
            found.append(Table(named(label), columns, tuple(rows)))
    return found


def _row(
    claim: ClaimConfig, results: Results, metric: str, others: Sequence[str], clusters: Mapping[str, str]
) -> tuple[str | float | Figure | None, ...] | None:
    base = _side(results, claim.baseline, metric)
    cells: list[str | float | Figure | None] = [named(metric), _mean(results, claim.baseline, metric)]
    for arm in others:
        side = _side(results, arm, metric)
        effect = _effect(side, base, claim.level, clusters, ROUGH_DRAWS) if side.values and base.values else None
        cells += [_mean(results, arm, metric), None if effect is None else as_figure(metric, effect, _unit(results, metric))]
    return tuple(cells) if any(cell is not None for cell in cells[1:]) else None


def _mean(results: Results, arm: str, metric: str) -> Figure | None:
    """The mean over seeds, with the lowest and highest; n counts questions."""
    held = [result.figures[metric] for (name, _), result in results.items() if name == arm and metric in result.figures]
    known = [figure for figure in held if figure.get("value") is not None]
    if not known:
        return None
    values = [float(figure["value"]) for figure in known]
    return Figure(metric, fmean(values), int(known[0]["n"]), min(values), max(values), known[0]["unit"])
