"""How one training's work is shared out: whole groups, and whole samples' questions, to a process each; what it made is told to all.

What an update needs to know of the other processes is put together here too (`Shared`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from vlm_rl.engine.base import Engine, GenerateRequest, Progress, ScoreRequest
from vlm_rl.packing import Item
from vlm_rl.policy import Policy
from vlm_rl.ranks import ALONE, Ranks
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Completion, Group, Query, Reply, Score, ScoredGroup

Ask = Callable[[Sequence[Query]], Sequence[Reply]]
Lent = Callable[[], AbstractContextManager[None]]


def gathered(own: Mapping[int, Group], ranks: Ranks) -> list[Group]:
    """The groups of all processes by their places in the step, this one's own with their pixels."""
    if ranks.world == 1:
        return list(own.values())
    told = ranks.merge("rollouts", {place: _told(group) for place, group in own.items()})
    return [own.get(place, group) for place, group in told.items()]


def _told(group: Group) -> Group:
    prompt = replace(group.prompt, vision=tuple(vision.without_tensors() for vision in group.prompt.vision))
    return replace(group, prompt=prompt)


def agreed(scored: Sequence[ScoredGroup], ranks: Ranks) -> list[ScoredGroup]:
    """The first process's opinions of the groups, in case a reward is not the same function everywhere (a time limit, a draw)."""
    if ranks.world == 1:
        return list(scored)
    said = ranks.first_says("opinions", lambda: [(s.totals, s.parts) for s in scored])
    return [ScoredGroup(s.group, totals, parts) for s, (totals, parts) in zip(scored, said, strict=True)]


@dataclass(frozen=True)
class SharedAsk:
    """Callable as `ask` is, by all processes with the same queries: each answers those about its own share of the samples."""

    ask: Ask
    ranks: Ranks
    lent: Lent = nullcontext  # where the policy's weights lie in parts, around questions that it answers itself
    writes: bool = True  # whether the policy itself writes answers; it always scores

    def __call__(self, queries: Sequence[Query]) -> Sequence[Reply]:
        """Raises UserError where the processes do not ask the same."""
        sample_ids = list(dict.fromkeys(query.sample.id for query in queries))
        mine = {sample_id for _, sample_id in self.ranks.share(sample_ids)}
        own = {i: query for i, query in enumerate(queries) if query.sample.id in mine}
        named = stable_hash(*(part for q in queries for part in (q.target, q.sample.id, q.sample.question, q.prefill)))
        borrows = any(query.target == "policy" and (self.writes or isinstance(query, Score)) for query in queries)
        with self.lent() if borrows else nullcontext():
            replies = self.ask(list(own.values())) if own else []
            told = self.ranks.merge(f"answers to {len(queries)} questions {named:x}", dict(zip(own, replies, strict=True)))
        return [told[i] for i in range(len(queries))]


@dataclass(frozen=True)
class LentEngine:
    """An engine on weights that are there only while they are lent. All processes call it together."""

    engine: Engine
    lent: Lent

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress | None = None) -> list[tuple[Completion, ...]]:
        with self.lent():
            return self.engine.generate(requests, progress)

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        with self.lent():
            return self.engine.score(requests)

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> None:
        self.engine.load_weights(weights)


def _own_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    return ((name, weight.detach()) for name, weight in policy.named_parameters())


def _no_padding(kind: str) -> Item:
    raise AssertionError(f"one process pads nothing, yet {kind} was asked for")


@dataclass(frozen=True)
class Shared:
    """What an update needs to know of the other processes. `padding(kind)` is something of that kind (text, image, video) to forward where
    others have it and this one has not; `weights` gives the policy's weights in full, in order."""

    ranks: Ranks = ALONE
    padding: Callable[[str], Item] = _no_padding
    weights: Callable[[Policy], Iterator[tuple[str, Tensor]]] = _own_weights


NOBODY = Shared()
