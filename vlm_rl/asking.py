"""The one place where questions meet engines: one batched call per target and round, a judge's outage handled here and nowhere else."""

import logging
from collections.abc import Iterator, Mapping, Sequence
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
        replies: list[Reply] = [Reply()] * len(queries)
        for kind in (Generate, Score):
            chosen = [i for i, query in enumerate(queries) if isinstance(query, kind)]
            for target in dict.fromkeys(queries[i].target for i in chosen):
                if target not in self.engines:
                    raise unknown("target of a question", target, self.engines)
                index = [i for i in chosen if queries[i].target == target]
                answers = self._generate if kind is Generate else self._score
                for i, reply in zip(index, answers(target, [queries[i] for i in index]), strict=True):
                    replies[i] = reply
        return replies

    def _generate(self, target: str, queries: list[Generate]) -> Iterator[Reply]:
        """Queries about one sample object share its prompt; neighbours that differ only in their seed share one request."""
        shared = [(key, list(same)) for key, same in groupby(queries, key=lambda q: (id(q.sample), q.prefill, q.sampling))]
        asked = {(id(q.sample), q.prefill): q for q in queries}
        rendered = {key: self.chat.prompt(q.sample, q.prefill) for key, q in asked.items()}
        requests = [
            GenerateRequest(rendered[sample, prefill], sampling, tuple(q.seed for q in same)) for (sample, prefill, sampling), same in shared
        ]
        self.calls[target] += 1
        for completions in self.engines[target].generate(requests, self.progress):
            for completion in completions:
                yield Reply(completion.text, completion.logprobs, completion.finish)

    def _score(self, target: str, queries: list[Score]) -> Iterator[Reply]:
        requests = [ScoreRequest(self.chat.prompt(q.sample, q.prefill), self.chat.ids_of(q.continuation)) for q in queries]
        self.calls[target] += 1
        for query, logprobs in zip(queries, self.engines[target].score(requests), strict=True):
            yield Reply(query.continuation, logprobs)
