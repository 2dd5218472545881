"""Groups built from plain texts, for the tests of rewards."""

from collections.abc import Sequence
from typing import Any

from vlm_rl.config import RewardConfig
from vlm_rl.types import Completion, Group, Prompt, Query, Reply, Rollout, Sample, Segment

CHOICE = Sample(id="7", question="What colour?", answer="B", kind="choice", options=("red", "teal", "blue", "grey"))


def make_group(texts: Sequence[str], sample: Sample = CHOICE, prefill: str = "", tokens: Sequence[int] | None = None) -> Group:
    """One rollout per text; `tokens` are the numbers of generated tokens."""
    prompt = Prompt(sample=sample, text="", ids=(), expanded_ids=(), token_types=(), prefill=prefill)
    lengths = tokens or [len(text.split()) for text in texts]
    segments = [(Segment((9, 9)), Segment(tuple(range(n)), (0.0,) * n)) for n in lengths]
    rollouts = [Rollout(i, i, Completion(text, s)) for i, (text, s) in enumerate(zip(texts, segments, strict=True))]
    return Group(prompt, tuple(rollouts), seed=0)


def configs(**entries: dict[str, Any]) -> dict[str, RewardConfig]:
    return {label: RewardConfig(**entry) for label, entry in entries.items()}


class Asked:
    """Replies to every query with its prefill, and remembers each call."""

    def __init__(self) -> None:
        self.calls: list[list[Query]] = []

    def __call__(self, queries: Sequence[Query]) -> list[Reply]:
        self.calls.append(list(queries))
        return [Reply(text=query.prefill) for query in queries]


def never(queries: Sequence[Query]) -> list[Reply]:
    raise AssertionError(f"asked {len(queries)} questions without need")
