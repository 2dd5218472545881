"""The one place where questions meet engines: one batched call per target and round, a judge's outage handled here and nowhere else."""

from collections.abc import Iterator, Mapping, Sequence

from vlm_rl.chat import Chat
from vlm_rl.engine.base import Engine, GenerateRequest, Judge, Progress, ScoreRequest
from vlm_rl.errors import RowError, UserError, unknown
from vlm_rl.types import Generate, Prompt, Query, Reply, Score

PIXEL_BYTES = 1 << 30  # a large evaluation is asked in several calls rather than holding all its pixels at once


class Asker:
    """Callable: queries in, replies out, in order. `calls` counts calls of engines and judges by target.

    A question that cannot be rendered (an unreadable medium, a prompt too long) is answered by a Reply whose `error` says why. What a
    judge is asked goes to it as it is, past `chat`; a policy behind an endpoint stands among the judges, and `chat` is None.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        chat: Chat | None,
        progress: Progress | None = None,
        judges: Mapping[str, Judge] | None = None,
    ):
        self.engines, self.judges, self._chat, self.progress = engines, judges or {}, chat, progress
        self.calls: dict[str, int] = dict.fromkeys((*engines, *self.judges), 0)

    @property
    def chat(self) -> Chat:
        assert self._chat is not None, "engines here need a chat"
        return self._chat

    def __call__(self, queries: Sequence[Query]) -> list[Reply]:
        replies: dict[int, Reply] = {}
        for target in dict.fromkeys(query.target for query in queries):
            if target not in self.calls:
                raise unknown("target of a question", target, self.calls)
            if target in self.judges:
                replies |= self._judge(target, {i: q for i, q in enumerate(queries) if q.target == target})
                continue
            replies |= self._generate(target, {i: q for i, q in enumerate(queries) if q.target == target and isinstance(q, Generate)})
            replies |= self._score(target, {i: q for i, q in enumerate(queries) if q.target == target and isinstance(q, Score)})
        return [replies[i] for i in range(len(queries))]

    def _judge(self, target: str, queries: Mapping[int, Query]) -> dict[int, Reply]:
        begins = target == "policy"  # behind an endpoint: whether that can begin a turn was tried before anything was asked
        asked = {i: q for i, q in queries.items() if isinstance(q, Generate) and (begins or not (q.prefill or q.sample.prefill))}
        if len(asked) < len(queries):
            raise UserError(f"'{target}' is a judge, which answers whole prompts; ask it with Generate and without a prefill")
        self.calls[target] += 1
        return dict(zip(asked, self.judges[target].answer(list(asked.values()), self.progress), strict=True))

    def _generate(self, target: str, queries: Mapping[int, Generate]) -> dict[int, Reply]:
        """Neighbours that differ only in their seed are one request."""
        replies: dict[int, Reply] = {}
        for ready, failed in self._rendered(queries):
            replies |= failed
            requests: list[GenerateRequest] = []
            for i, prompt in ready.items():
                same = requests and requests[-1].prompt is prompt and requests[-1].sampling == queries[i].sampling
                seeds = requests.pop().seeds if same else ()
                requests.append(GenerateRequest(prompt, queries[i].sampling, (*seeds, queries[i].seed)))
            if requests:
                self.calls[target] += 1
                written = self.engines[target].generate(requests, self.progress)
                said = [Reply(c.text, c.logprobs, c.finish, alternatives=c.alternatives) for completions in written for c in completions]
                replies |= zip(ready, said, strict=True)
        return replies

    def _score(self, target: str, queries: Mapping[int, Score]) -> dict[int, Reply]:
        replies: dict[int, Reply] = {}
        for ready, failed in self._rendered(queries):
            replies |= failed
            requests = [ScoreRequest(p, self.chat.ids_of(queries[i].lead + queries[i].continuation)) for i, p in ready.items()]
            if requests:
                self.calls[target] += 1
                scores = self.engines[target].score(requests)
                for i, request, logprobs in zip(ready, requests, scores, strict=True):
                    untold = _shared(self.chat.ids_of(queries[i].lead), request.continuation_ids)
                    replies[i] = Reply(queries[i].continuation, logprobs[untold:])
        return replies

    def _rendered(self, queries: Mapping[int, Query]) -> Iterator[tuple[dict[int, Prompt], dict[int, Reply]]]:
        """(prompts, replies of what cannot be rendered) by query index, in portions of bounded pixels.

        Queries about one sample object share one prompt object.
        """
        ready: dict[int, Prompt] = {}
        failed: dict[int, Reply] = {}
        known: dict[tuple[int, str], Prompt] = {}
        for i, query in queries.items():
            key = (id(query.sample), query.prefill)
            if key not in known and sum(vision.bytes for prompt in known.values() for vision in prompt.vision) > PIXEL_BYTES:
                yield ready, failed
                ready, failed, known = {}, {}, {}
            try:
                ready[i] = known[key] = known.get(key) or self.chat.prompt(query.sample, query.prefill)
            except RowError as error:
                failed[i] = Reply(error=error.reason)
        yield ready, failed


def _shared(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
