"""All rewards of a step together: one batched call of questions per round, then totals with every part kept (`combining`).

Where a reward left any rollout of a group unscored, it contributes nothing to that whole group unless its config says what stands in, so
that a judge's failure is neither a penalty nor a prize. Knows no engine and no single reward's formula.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from rewards import combining, crosschecks, make_rewards
from rewards.accuracy import Accuracy
from rewards.base import Reward, declared_range
from rewards.monitors import monitors
from rewards.response import parse
from rewards.reward_metrics import metrics
from rewards.rounds import Ask, Course, run_together
from vlm_rl.algo.schedules import factor
from vlm_rl.config import AlgoConfig, RewardConfig
from vlm_rl.config_judges import SCORERS
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Group, RewardResult, Rollout, ScoredGroup


@dataclass(eq=False)
class _Opinion:
    """What one reward says of one group."""

    label: str
    group: Group
    course: Course[Sequence[RewardResult]]

    @property
    def name(self) -> str:
        return self.course.name


def _named(label: str, reward: Reward, group: Group) -> _Opinion:
    return _Opinion(label, group, Course(f"reward '{label}', sample '{group.sample.id}'", reward.rounds(group)))


class Mixture:
    """The rewards of a config. Raises UserError for unknown names and arguments when made."""

    def __init__(self, configs: Mapping[str, RewardConfig], unscored_limit: float):
        self.configs = dict(configs)
        self.unscored_limit = unscored_limit
        combining.check(configs)
        self.rewards: dict[str, Reward] = make_rewards(configs)
        for label, reward in self.rewards.items():
            reward.check(label, self.rewards, configs)

    @property
    def targets(self) -> set[str]:
        """Whom the rewards declare that they ask."""
        return {target for reward in self.rewards.values() for target in reward.targets}

    def check_targets(self, known: Mapping[str, str]) -> None:
        """`known` is the kind of each judge or model by its name. Raises UserError when a reward declares that it asks somebody who is not
        there, or of another kind."""
        for label, reward in self.rewards.items():
            for target in reward.targets:
                if target not in known:
                    raise unknown("judge or model to ask", target, known, f"rewards.{label}")
                wanted, kind = reward.kinds.get(target), known[target]
                if wanted != (kind if wanted or kind in SCORERS else None):
                    asks = f"as a judge of kind {wanted}" if wanted else "with a prompt"
                    raise UserError(f"rewards.{label} asks '{target}' {asks}, but judges.{target}.kind is {kind}")

    def score(self, groups: Sequence[Group], step: int, ask: Ask) -> list[ScoredGroup]:
        """Score every rollout of every group; `ask` is called once per round with all questions of that round, and not without any.

        Raises UserError, naming label and sample, for results that are not finite RewardResults, one per rollout, within a declared range;
        naming label and share, when more than `unscored_limit` of a label's results are None or tell of an error.
        """
        opinions = [_named(label, reward, group) for group in groups for label, reward in self.rewards.items()]
        run_together([opinion.course for opinion in opinions], ask)
        checked = [_checked(opinion, declared_range(self.rewards[opinion.label])) for opinion in opinions]
        self._hold_limit(opinions, checked)
        weights = {label: self.weight(label, step) for label in self.rewards}
        of_group = iter(checked)
        return [combining.combine(group, {label: next(of_group) for label in self.rewards}, self.configs, weights) for group in groups]

    def weight(self, label: str, step: int) -> float:
        """weight x schedule(step)."""
        config = self.configs[label]
        return config.weight * factor(config.schedule.kind, step, config.schedule.anneal_steps, config.schedule.final)

    def _hold_limit(self, opinions: Sequence[_Opinion], checked: Sequence[Sequence[RewardResult]]) -> None:
        for label in self.rewards:
            said = [r for opinion, rs in zip(opinions, checked, strict=True) if opinion.label == label for r in rs]
            results = [r for r in said if r.value is not None or "skipped" not in r.detail]
            failed = [r for r in results if r.value is None or r.detail.get("error")]
            if failed and len(failed) > self.unscored_limit * len(results):
                reason = next((str(r.detail["error"]) for r in failed if r.detail.get("error")), "no reason given")
                raise UserError(
                    f"reward '{label}' left {len(failed)} of {len(results)} rollouts unscored ({len(failed) / len(results):.0%}, "
                    f"limit {self.unscored_limit:.0%}); first error: {reason}. Mend its cause, or raise guards.unscored_limit"
                )

    @staticmethod
    def describe(rollout: Rollout, prefill: str = "") -> dict[str, Any]:
        """The parsed response for a log: trace, answer, wellformed. `prefill` is what the prompt already wrote of the turn."""
        response = parse(prefill + rollout.text)
        return {"trace": response.trace, "answer": response.answer, "wellformed": response.wellformed}

    def metrics(self, scored: Sequence[ScoredGroup]) -> dict[str, float]:
        """See `reward_metrics.metrics` and `monitors.monitors`."""
        outcome = next((label for label, reward in self.rewards.items() if isinstance(reward, Accuracy)), None)
        return metrics(scored, {label for label, config in self.configs.items() if config.gate}, outcome) | monitors(scored)

    def warnings(self, algo: AlgoConfig, group_size: int) -> list[str]:
        """What is odd about these rewards together under that algorithm, in sentences: see `crosschecks`."""
        setting = crosschecks.Setting(self.configs, self.rewards, algo, group_size)
        ordering = crosschecks.ordering_warning(setting)
        return crosschecks.without_effect(setting) + ([ordering] if ordering else [])

    def ordering_warning(self) -> str | None:
        """`crosschecks.ordering_warning` where rewards are summed as they are."""
        return crosschecks.ordering_warning(crosschecks.Setting(self.configs, self.rewards, AlgoConfig(), 2))


def _checked(opinion: _Opinion, bounds: tuple[float, float] | None) -> list[RewardResult]:
    """The results with plain float values, or UserError."""
    results, wanted = opinion.course.result, len(opinion.group.rollouts)
    if not isinstance(results, Sequence) or len(results) != wanted:
        given = f"{len(results)} results" if isinstance(results, Sequence) else type(results).__name__
        raise UserError(f"{opinion.name}: score() must return one RewardResult per rollout, a list of {wanted}; it returned {given}")
    return [_checked_result(opinion, result, bounds) for result in results]


def _checked_result(opinion: _Opinion, result: object, bounds: tuple[float, float] | None) -> RewardResult:
    if not isinstance(result, RewardResult):
        raise UserError(f"{opinion.name}: score() returned {type(result).__name__} {result!r:.80}; write RewardResult(value)")
    value: object = result.value
    if value is None:
        return result
    if not isinstance(value, Real):
        raise UserError(f"{opinion.name}: a value is a number or None, not {type(value).__name__}; write RewardResult(float(value))")
    number = float(value)
    if not math.isfinite(number):
        raise UserError(f"{opinion.name}: the value is {number}; return None for a rollout that cannot be scored")
    if bounds and not bounds[0] - 1e-6 <= number <= bounds[1] + 1e-6:
        raise UserError(f"{opinion.name}: the value {number:g} lies outside the range {bounds} that the reward declares")
    return RewardResult(number, result.detail)
