"""The one place where questions meet engines: one batched call per target and round, a judge's outage handled here and nowhere else."""

import logging
from collections.abc import Mapping, Sequence
from itertools import groupby

from vlm_rl.chat import Chat
from vlm_rl.engine.base import Engine, GenerateRequest, Progress, ScoreRequest
from vlm_rl.errors import unknown
from vlm_rl.types import Generate, Query, Reply, Score

log = logging.getLogger(__name__)


class Asker:
    """Callable: queries in, replies out, in order. `calls` counts engine calls by target."""

    def __init__(self, engines: Mapping[str, Engine], chat: Chat, progress: Progress | None = None):
        self.engines, self.chat, self.progress = engines, chat, progress
        self.calls: dict[str, int] = dict.fromkeys(engines, 0)

    def __call__(self, queries: Sequence[Query]) -> list[Reply]:
        replies: dict[int, Reply] = {}
        for target in dict.fromkeys(query.target for query in queries):
            if target not in self.engines:
                raise unknown("target of a question", target, self.engines)
            generate = {i: q for i, q in enumerate(queries) if q.target == target and isinstance(q, Generate)}
            score = {i: q for i, q in enumerate(queries) if q.target == target and isinstance(q, Score)}
            for asked, answers in (
                (generate, self._generate(target, [*generate.values()])),
                (score, self._score(target, [*score.values()])),
            ):
                replies |= dict(zip(asked, answers, strict=True))
        return [replies[i] for i in range(len(queries))]

    def _generate(self, target: str, queries: list[Generate]) -> list[Reply]:
        """Queries about one sample object share its prompt; neighbours that differ only in their seed share one request."""
        asked = {(id(q.sample), q.prefill): q for q in queries}
        rendered = {key: self.chat.prompt(q.sample, q.prefill) for key, q in asked.items()}
        requests = [
            GenerateRequest(rendered[sample, prefill], sampling, tuple(q.seed for q in same))
            for (sample, prefill, sampling), same in groupby(queries, key=lambda q: (id(q.sample), q.prefill, q.sampling))
        ]
        if not requests:
            return []
        self.calls[target] += 1
        written = self.engines[target].generate(requests, self.progress)
        return [Reply(c.text, c.logprobs, c.finish) for completions in written for c in completions]

    def _score(self, target: str, queries: list[Score]) -> list[Reply]:
        requests = [ScoreRequest(self.chat.prompt(q.sample, q.prefill), self.chat.ids_of(q.continuation)) for q in queries]
        if not requests:
            return []
        self.calls[target] += 1
        return [Reply(q.continuation, logprobs) for q, logprobs in zip(queries, self.engines[target].score(requests), strict=True)]
