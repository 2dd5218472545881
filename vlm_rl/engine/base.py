"""What every engine does. Engines know prompts and tokens; they know no rewards, steps or configs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vlm_rl.types import Completion, Generate, Prompt, Reply, Sampling

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class GenerateRequest:
    """`seeds` has one entry per wanted completion; equal seeds give equal completions whatever else is in the batch."""

    prompt: Prompt
    sampling: Sampling
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class ScoreRequest:
    """Log-probs of `continuation_ids` after `prompt` are wanted."""

    prompt: Prompt
    continuation_ids: tuple[int, ...]


class Engine(Protocol):
    """Generates and scores under some weights."""

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress | None = None) -> list[tuple[Completion, ...]]:
        """One tuple of completions per request, in order; log-probs are those of the sampling distribution (temperature applied,
        vision tokens excluded; at temperature 0 those of temperature 1)."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        """Per-token natural log-probs of each continuation at temperature 1, vision tokens excluded from the support."""
        ...

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Replace weights by name and forget every cached state that depends on them."""
        ...


class Judge(Protocol):
    """Answers prompts that are whole texts, without the policy's chat template."""

    def probe(self) -> None:
        """Raises UserError, naming the judge and what to mend, unless it can be asked."""
        ...

    def answer(self, queries: Sequence[Generate], progress: Progress | None = None) -> list[Reply]:
        """One reply per query, in order. A judge that fails says so in `Reply.error` and raises nothing."""
        ...
