"""What can be told of a mixture before anything runs: whether a wrong answer can outrank a right one, and what changes nothing at all.

Both depend on how advantages are made of rewards. With G rollouts a group, values divided by their own spread (group_std, ddof 1) differ by
at most sqrt(2 (G - 1)), and right and wrong ones of a 0/1 reward by at least 2 sqrt((G - 1) / G): so does each reward under
`normalize_then_sum`, whatever its range.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rewards.accuracy import Accuracy
from rewards.base import Reward, declared_range
from rewards.format import Format
from rewards.transforms import NOBODY, POINTWISE, TRANSFORMS, settings_of
from vlm_rl.config import AlgoConfig, RewardConfig, TransformConfig


@dataclass(frozen=True)
class Setting:
    """A config's rewards, and what becomes of them: Setting(configs, rewards, AlgoConfig(), group_size=8)"""

    configs: Mapping[str, RewardConfig]
    rewards: Mapping[str, Reward]
    algo: AlgoConfig
    group_size: int

    @property
    def normalised(self) -> bool:
        """Whether every reward is divided by its own spread."""
        return self.algo.rewards == "normalize_then_sum" and self.algo.advantage == "group_std"

    @property
    def alone(self) -> str | None:
        """The label of the only reward that is paid."""
        paid = [label for label, config in self.configs.items() if config.weight]
        return paid[0] if len(paid) == 1 else None


def ordering_warning(setting: Setting) -> str | None:
    """A text when the other rewards together can lift a wrong answer to a right one's total, None when they cannot or none is `accuracy`.

    By declared edges or ranges ((0, 1) otherwise) after transforms and gates, and the least favourable weights over the schedules.
    """
    own = [label for label, reward in setting.rewards.items() if isinstance(reward, Accuracy)]
    others = {label: _lift(setting, label, own) for label in setting.configs if label not in own}
    right = sum(extremes(setting.configs[label])[0] * _gap(setting, label) for label in own)
    if not own or sum(others.values()) < right or not any(others.values()):
        return None
    listed = ", ".join(f"{label} {lift:g}" for label, lift in others.items() if lift)
    each = ", each divided by its own spread," if setting.normalised else ""
    return (
        f"a wrong answer can earn as much as a right one: the other rewards{each} span {sum(others.values()):g} in all ({listed}), "
        f"accuracy only {right:g}; lower their weights or raise accuracy's"
    )


def extremes(config: RewardConfig) -> tuple[float, float]:
    """The least and the greatest weight over a whole training."""
    ends = {"constant": (1.0,), "exponential": (0.0, 1.0)}.get(config.schedule.kind, (1.0, config.schedule.final))
    return min(config.weight * end for end in ends), max(config.weight * end for end in ends)


def _gap(setting: Setting, label: str) -> float:
    """The least by which `accuracy` lifts a right answer over a wrong one, 1 over 0, at weight 1."""
    transform = setting.configs[label].transform
    low, high = _image(setting.configs[label], *(declared_range(setting.rewards[label]) or Reward.range))
    share = _kept_share(transform) if transform else 1.0
    if not setting.normalised:
        return (high - low) * share
    floor = (high - low) / setting.algo.least_std if setting.algo.least_std else math.inf
    return min(2 * math.sqrt((setting.group_size - 1) / setting.group_size), floor) * share


def _kept_share(transform: TransformConfig) -> float:
    settings = settings_of(TRANSFORMS[transform.use]) | transform.arguments
    return {"rank": 0.5, "unlikeliness": 1 - settings.get("beta", 0.0), "patterns": 1 - settings.get("alpha", 0.0)}.get(transform.use, 1.0)


def _lift(setting: Setting, label: str, own: list[str]) -> float:
    """The most by which a reward lifts a wrong answer over a right one; below 0 where it always lifts right ones."""
    config, reward = setting.configs[label], setting.rewards[label]
    least, most = extremes(config)
    low, high = _image(config, *(declared_range(reward) or Reward.range))
    uses = {gate.use for gate in config.gate}
    if "requires_format" in uses and not setting.normalised:
        low, high = min(low, 0.0), max(high, 0.0)
    width = _width(setting, low, high)
    if reward.edge is not None and config.transform is None and not uses and least >= 0 and not (setting.normalised and reward.edge > 0):
        kept = 2 * math.sqrt((setting.group_size - 1) / setting.group_size) / (high - low) if setting.normalised else 1.0
        return reward.edge * (most if reward.edge > 0 else least * kept)
    if any(gate.use == "requires_correct" and gate.on in own and gate.threshold > 0 for gate in config.gate) and least >= 0:
        return most * (width if setting.normalised else max(0.0, -low))
    return max(abs(least), abs(most)) * width


def _width(setting: Setting, low: float, high: float) -> float:
    if not setting.normalised:
        return high - low
    floor = (high - low) / setting.algo.least_std if setting.algo.least_std else math.inf
    return min(math.sqrt(2 * (setting.group_size - 1)), floor)


def _image(config: RewardConfig, low: float, high: float) -> tuple[float, float]:
    """The range after the transform."""
    if config.transform is None:
        return low, high
    if config.transform.use == "rank":
        return 0.0, 1.0
    if config.transform.use not in POINTWISE:
        return min(low, 0.0), max(high, 0.0)
    ends = [x for x in TRANSFORMS[config.transform.use]([low, high], NOBODY, **config.transform.arguments) if x is not None]
    return min(ends), max(ends)


def without_effect(setting: Setting) -> list[str]:
    """What the config asks for that changes no advantage, one sentence each.

    A group-relative advantage takes off the group's mean, and where it divides by the group's spread also what multiplies the whole group.
    """
    found = []
    for label, config in setting.configs.items():
        free = setting.algo.advantage == "group_std" and (setting.alone == label or setting.normalised)
        if config.weight and config.transform is not None and (why := _idle(setting.rewards[label], config.transform, free)):
            found.append(f"rewards.{label}.transform={config.transform.use} changes nothing: {why}")
        if setting.alone == label and free:
            found += [f"rewards.{label}.{what}" for what in _idle_factors(config, setting.algo)]
    return found


def _idle(reward: Reward, transform: TransformConfig, free: bool) -> str | None:
    """Why a transform does nothing. `free`: what multiplies the reward's values in a whole group cancels."""
    settings = settings_of(TRANSFORMS[transform.use]) | transform.arguments
    low, high = declared_range(reward) or (-math.inf, math.inf)
    if transform.use == "clip" and settings["low"] <= low and settings["high"] >= high:
        return f"the reward lies in [{low:g}, {high:g}] as it is"
    if transform.use == "scale" and (settings["by"] == 1 or (free and settings["by"] > 0)):
        return "the advantage divides by the group's spread; use weight to set rewards against each other" if free else "it multiplies by 1"
    if free and isinstance(reward, Format) and transform.use in ("log_sigmoid", "par", "rank", "sigmoid"):
        return "of a reward that is 0 or 1 it makes two other numbers, and the advantage takes off the mean and divides by the spread"
    return None


def _idle_factors(config: RewardConfig, algo: AlgoConfig) -> list[str]:
    why = "changes nothing: no other reward is paid, and the advantage divides by the group's spread"
    found = [f"weight={config.weight:g} {why}"] if config.weight not in (0, 1) else []
    found += [f"schedule={config.schedule.kind} {why}"] if config.schedule.kind != "constant" else []
    common = any(gate.use == "trust" for gate in config.gate) and algo.rewards == "sum_then_normalize"
    return found + ([f"gate=trust {why}, which this gate multiplies for all alike"] if common else [])
