"""An engine that writes what a function says: for unit tests and demonstrations. No model is behind it and its log-probs mean nothing."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vlm_rl.chat import Chat
from vlm_rl.engine.base import GenerateRequest, Progress, ScoreRequest
from vlm_rl.types import Completion, Prompt, Segment


class ScriptedEngine:
    """`write(prompt, seed)` gives each completion's text; every token gets log-prob -1.0. `calls` counts calls of generate and score."""

    def __init__(self, chat: Chat, write: Callable[[Prompt, int], str]):
        self.chat, self.write, self.calls = chat, write, 0

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress | None = None) -> list[tuple[Completion, ...]]:
        self.calls += 1
        return [tuple(self._completion(request, seed) for seed in request.seeds) for request in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        self.calls += 1
        return [(-1.0,) * len(request.continuation_ids) for request in requests]

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Nothing to replace."""

    def _completion(self, request: GenerateRequest, seed: int) -> Completion:
        written = self.chat.ids_of(self.write(request.prompt, seed))
        ids = written[: request.sampling.max_new_tokens]
        return Completion(self.chat.text_of(ids), (Segment(ids, (-1.0,) * len(ids)),), "stop" if ids == written else "length")
