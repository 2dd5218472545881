"""From results to totals: transform, stand-ins for unscored values, gates, weights; every part is kept beside the total.

total_i = sum over labels of weight x schedule(step) x gate_i x transformed_i. Asks nothing and knows no single reward's formula.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from rewards.gates import GATES, Look
from rewards.transforms import NOBODY, TRANSFORMS, settings_of
from vlm_rl.config import RewardConfig, TransformConfig
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Group, Part, RewardResult, ScoredGroup

Values = Sequence[float | None]


def check(configs: Mapping[str, RewardConfig]) -> None:
    """Raises UserError for an unknown transform, setting or gate, and for a gate on a reward that is not there."""
    for label, config in configs.items():
        if config.transform is not None:
            _check_transform(config.transform, f"rewards.{label}.transform")
        others = [other for other in configs if other != label]
        for gate in config.gate:
            if gate.use not in GATES:
                raise unknown("gate", gate.use, GATES, f"rewards.{label}.gate")
            if gate.on not in others:
                raise unknown("another reward", gate.on, others, f"rewards.{label}.gate.on")
        if config.unscored == "impute_side_mean" and not config.gate:
            raise UserError(
                f"rewards.{label}.unscored=impute_side_mean needs a gate, whose `on` and `threshold` say which side a rollout is on"
            )


def _check_transform(transform: TransformConfig, where: str) -> None:
    if transform.use not in TRANSFORMS:
        raise unknown("transform", transform.use, TRANSFORMS, where)
    known = settings_of(TRANSFORMS[transform.use])
    for key in transform.arguments:
        if key not in known:
            raise unknown("setting", key, known, where)
    try:
        TRANSFORMS[transform.use]([], NOBODY, **transform.arguments)
    except (UserError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from None


def combine(
    group: Group, results: Mapping[str, Sequence[RewardResult]], configs: Mapping[str, RewardConfig], weights: Mapping[str, float]
) -> ScoredGroup:
    """The group with its totals and parts. `weights` are weight x schedule(step) by label."""
    raws = {label: [r.value for r in row] for label, row in results.items()}
    parts: dict[str, tuple[Part, ...]] = {}
    for label, config in configs.items():
        values = _stand_ins(_transformed(raws[label], group, config), raws, config)
        factors = _factors(group, values, raws, config)
        dropped, weight = any(value is None for value in values), weights[label]
        parts[label] = tuple(
            Part(result.value, weight, None if dropped or value is None else weight * factor * value, dict(result.detail), value, factor)
            for result, value, factor in zip(results[label], values, factors, strict=True)
        )
    totals = tuple(sum(row[i].contribution or 0.0 for row in parts.values()) for i in range(len(group.rollouts)))
    return ScoredGroup(group, totals, parts)


def _transformed(values: Values, group: Group, config: RewardConfig) -> list[float | None]:
    if config.transform is None:
        return list(values)
    return TRANSFORMS[config.transform.use](values, group, **config.transform.arguments)


def _factors(group: Group, values: Values, raws: Mapping[str, Values], config: RewardConfig) -> list[float]:
    """The product of all gates, one factor per rollout."""
    factors = [1.0] * len(values)
    for gate in config.gate:
        opened = GATES[gate.use](Look(group, values, raws[gate.on], gate.threshold))
        factors = [a * b for a, b in zip(factors, opened, strict=True)]
    return factors


def _stand_ins(values: Values, raws: Mapping[str, Values], config: RewardConfig) -> list[float | None]:
    """What takes the place of unscored values, by `unscored`: nothing (drop_term), or a mean of those scored."""
    missing = [i for i, value in enumerate(values) if value is None]
    if not missing or len(missing) == len(values) or config.unscored == "drop_term":
        return list(values)
    sides = [0] * len(values)
    if config.unscored == "impute_side_mean":
        gate = config.gate[0]
        sides = [int(outcome is not None and outcome >= gate.threshold) for outcome in raws[gate.on]]
    means: dict[int, float] = {}
    for side in set(sides):
        scored = [value for value, s in zip(values, sides, strict=True) if s == side and value is not None]
        if not scored:  # nothing to stand in for a whole side: the term is dropped
            return list(values)
        means[side] = fmean(scored)
    return [means[side] if value is None else value for value, side in zip(values, sides, strict=True)]
