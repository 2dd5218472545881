"""Signs that a policy's traces collapse: they shorten, repeat themselves, or become one template. Numbers only; `vlm_rl.alarms` compares.

The list follows the training-dynamics study of arXiv 2602.12506, whose faithfulness reward drove traces to short templates. A token here is
a word, a mark, or a character of a script without spaces, so that the numbers of different models compare. What a prompt began of a turn
is not counted.
"""

import re
import zlib
from collections import Counter
from collections.abc import Hashable, Sequence
from statistics import fmean, median

from rewards.response import parse
from vlm_rl.types import Group, ScoredGroup

SHORT, PREFIX, GRAM = 20, 15, 4
_TOKEN = re.compile(r"[぀-ヿ㐀-鿿가-힣]|[^\W぀-ヿ㐀-鿿가-힣]+|[^\w\s]")

Tokens = tuple[Hashable, ...]


def monitors(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """Under monitor/, over all traces of the step: `trace_tokens` (median), `short_traces` (share under SHORT tokens), `distinct_4grams`
    (different ones of all), `common_prefix` (share of traces that begin with the most frequent PREFIX tokens), `compression` (deflated
    bytes of all), `duplicate_traces` (share equal to another of the same group). Nothing for a step without traces to write.
    """
    by_group = [_traces(scored_group.group) for scored_group in scored]
    traces = [trace for group in by_group for trace in group]
    if not traces:
        return {}
    tokens = [tuple(_TOKEN.findall(trace)) for trace in traces]
    return {
        "monitor/trace_tokens": float(median(map(len, tokens))),
        "monitor/short_traces": fmean(len(t) < SHORT for t in tokens),
        "monitor/distinct_4grams": distinct_grams(tokens),
        "monitor/common_prefix": max(Counter(t[:PREFIX] for t in tokens).values()) / len(tokens),
        "monitor/compression": compression(traces),
        "monitor/duplicate_traces": fmean(group.count(trace) > 1 for group in by_group for trace in group),
    }


def distinct_grams(traces: Sequence[Tokens], size: int = GRAM) -> float:
    """distinct_grams([("a", "b", "a", "b", "a", "b")], 2) -> 2 / 5; 1.0 where no trace is that long."""
    grams = [tokens[i : i + size] for tokens in traces for i in range(len(tokens) - size + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def compression(traces: Sequence[str]) -> float:
    """Deflated size over size of all traces together, near 0 when they repeat each other; 1.0 for no text."""
    text = "\n".join(traces).encode("utf-8", "replace")
    return min(1.0, len(zlib.compress(text)) / len(text)) if text.strip() else 1.0


def _traces(group: Group) -> list[str]:
    """What the model wrote of each trace, "" where it wrote none; nothing where the prompt had closed it."""
    closed = "</think>" in group.prompt.prefill
    return [] if closed else [parse(rollout.text).trace or "" for rollout in group.rollouts]
