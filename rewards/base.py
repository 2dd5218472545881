"""What a reward is: it asks questions and scores rollouts. It does no input or output, knows no step and holds no engine."""

from collections.abc import Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from vlm_rl.config import RewardConfig
from vlm_rl.types import Group, Query, Reply, RewardResult, Rollout

Rounds = Generator[Sequence[Query], Sequence[Reply], Sequence[RewardResult]]


class Reward:
    """Base class. A reward needs only `score`; one that asks adds `ask`; one that needs several rounds writes `rounds` instead.

    `range` declares the least and the greatest value; a declared range is held to at run time. `targets` says whom its questions go to,
    where that is known when it is made, so that one that is not there is named before anything loads. `edge` is the most by which it can
    lift a wrong answer above a right one, where that is less than the width of its range. `kinds` says which kind of judge
    (`judges.NAME.kind`) a target must be, where it is no chat model.
    """

    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    targets: Sequence[str] = ()
    edge: float | None = None
    kinds: Mapping[str, str] = MappingProxyType({})

    def check(self, label: str, rewards: Mapping[str, "Reward"], configs: Mapping[str, RewardConfig]) -> None:
        """Raises UserError when this reward, called `label`, does not go together with the others of the config."""

    def ask(self, group: Group) -> Sequence[Query]:
        """What must be known before scoring; the replies come in the same order."""
        return ()

    def score(self, group: Group, replies: Sequence[Reply]) -> Sequence[RewardResult]:
        """One result per rollout, in order."""
        raise NotImplementedError(f"{type(self).__name__} has no score(group, replies)")

    def rounds(self, group: Group) -> Rounds:
        """The general form: `replies = yield queries` any number of times, then `return results`."""
        replies = yield self.ask(group)
        return self.score(group, replies)


class Adapted(Reward):
    """A reward made from any object with `score(group, replies)`; `ask`, `rounds`, `range` and `targets` where it has them."""

    def __init__(self, inner: Any):
        self.inner = inner
        self.targets = inner.targets if hasattr(inner, "targets") else ()

    def ask(self, group: Group) -> Sequence[Query]:
        return self.inner.ask(group) if hasattr(self.inner, "ask") else ()

    def score(self, group: Group, replies: Sequence[Reply]) -> Sequence[RewardResult]:
        return self.inner.score(group, replies)

    def rounds(self, group: Group) -> Rounds:
        if hasattr(self.inner, "rounds"):
            return (yield from self.inner.rounds(group))
        return (yield from super().rounds(group))


def declared_range(reward: Reward) -> tuple[float, float] | None:
    """The range the reward's own class (or a parent other than `Reward`) declares, or None."""
    kind = type(reward.inner) if isinstance(reward, Adapted) else type(reward)
    found = next((vars(c)["range"] for c in kind.__mro__ if c is not Reward and "range" in vars(c)), None)
    return None if found is None else (float(found[0]), float(found[1]))


def whole_text(group: Group, rollout: Rollout) -> str:
    """The assistant's turn from its start: what the prompt already wrote of it, then the completion."""
    return group.prompt.prefill + rollout.text
