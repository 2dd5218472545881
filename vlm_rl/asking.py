"""The one place where questions meet engines: one batched call per target and round, a judge's outage handled here and nowhere else."""

from collections.abc import Iterator, Mapping, Sequence

from vlm_rl.chat import Chat
from vlm_rl.engine.base import Engine, GenerateRequest, Progress, ScoreRequest
from vlm_rl.errors import RowError, unknown
from vlm_rl.types import Generate, Prompt, Query, Reply, Score

PIXEL_BYTES = 1 << 30  # a large evaluation is asked in several calls rather than holding all its pixels at once


class Asker:
    """Callable: queries in, replies out, in order. `calls` counts engine calls by target.

    A question that cannot be rendered (an unreadable medium, a prompt too long) is answered by a Reply whose `error` says why.
    """

    def __init__(self, engines: Mapping[str, Engine], chat: Chat, progress: Progress | None = None):
        self.engines, self.chat, self.progress = engines, chat, progress
        self.calls: dict[str, int] = dict.fromkeys(engines, 0)

    def __call__(self, queries: Sequence[Query]) -> list[Reply]:
        replies: dict[int, Reply] = {}
        for target in dict.fromkeys(query.target for query in queries):
            if target not in self.engines:
                raise unknown("target of a question", target, self.engines)
            for kind, answers in ((Generate, self._generate), (Score, self._score)):
                asked = [i for i, query in enumerate(queries) if query.target == target and isinstance(query, kind)]
                for some in self._rendered(asked, queries):
                    replies |= {i: prompt for i, prompt in some.items() if isinstance(prompt, Reply)}
                    ready = {i: prompt for i, prompt in some.items() if isinstance(prompt, Prompt)}
                    if ready:
                        self.calls[target] += 1
                        replies |= zip(ready, answers(target, [queries[i] for i in ready], [*ready.values()]), strict=True)
        return [replies[i] for i in range(len(queries))]

    def _rendered(self, asked: Sequence[int], queries: Sequence[Query]) -> Iterator[dict[int, Prompt | Reply]]:
        """Prompts by query index, one object for queries about one sample object, in portions of bounded pixels."""
        some: dict[int, Prompt | Reply] = {}
        known: dict[tuple[int, str], Prompt | Reply] = {}
        held = 0
        for i in asked:
            key = (id(queries[i].sample), queries[i].prefill)
            if key not in known:
                if held > PIXEL_BYTES:
                    yield some
                    some, known, held = {}, {}, 0
                known[key] = self._prompt(queries[i])
                held += sum(vision.bytes for vision in getattr(known[key], "vision", ()))
            some[i] = known[key]
        if some:
            yield some

    def _prompt(self, query: Query) -> Prompt | Reply:
        try:
            return self.chat.prompt(query.sample, query.prefill)
        except RowError as error:
            return Reply(error=error.reason)

    def _generate(self, target: str, queries: Sequence[Generate], prompts: Sequence[Prompt]) -> list[Reply]:
        """Neighbours that differ only in their seed are one request."""
        requests: list[GenerateRequest] = []
        for query, prompt in zip(queries, prompts, strict=True):
            last = requests[-1] if requests else None
            if last is not None and last.prompt is prompt and last.sampling == query.sampling:
                requests[-1] = GenerateRequest(prompt, query.sampling, (*last.seeds, query.seed))
            else:
                requests.append(GenerateRequest(prompt, query.sampling, (query.seed,)))
        written = self.engines[target].generate(requests, self.progress)
        return [Reply(c.text, c.logprobs, c.finish) for completions in written for c in completions]

    def _score(self, target: str, queries: Sequence[Score], prompts: Sequence[Prompt]) -> list[Reply]:
        requests = [ScoreRequest(prompt, self.chat.ids_of(query.continuation)) for query, prompt in zip(queries, prompts, strict=True)]
        return [Reply(q.continuation, logprobs) for q, logprobs in zip(queries, self.engines[target].score(requests), strict=True)]
