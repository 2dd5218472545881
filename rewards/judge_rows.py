"""Rows of a question, a response and a score as a judge's lessons: the prompt it will be asked with, and the score in the form asked for.

After SophiaVL-R1's thinking reward model (arXiv 2505.17018), which is fine-tuned to write one number and balanced over tenths of the scale.
Deviation: like the rewards, and unlike that model, it is shown neither the answer nor any template text.
"""

import logging
from collections import Counter

import numpy as np

from data.rows import LazyRows, Rows, Subset, seeded_order
from data.select import field_of
from rewards.judge_call import bare_trace, question_of
from rewards.judging import render
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Sample

logger = logging.getLogger(__name__)
TENTHS = 10
EMPTY = "."  # stands for no reasoning at all where a reward model must be given a response


class Lessons(LazyRows):
    """The rows as lessons, made when they are asked for; without a prompt those of a reward model."""

    def __init__(self, rows: Rows, prompt: str | None, score: str):
        self.rows, self.prompt, self.score = rows, prompt, score

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Sample:
        return lesson(self.rows[index], self.prompt, self.score)


def lesson(sample: Sample, prompt: str | None, score: str) -> Sample:
    """What the judge reads as the question, what it should write as the response, the score itself in meta["score"]. Raises RowError.

    A reward model writes nothing: its question is the row's, its response the reasoning that it scores.
    """
    value = score_of(sample, score)
    if prompt is None:
        meta = {"score": value}
        return Sample(sample.id, question_of(sample), f"{value}", "number", (), sample.media, reasoning(sample) or EMPTY, meta)
    text = render(prompt, question=question_of(sample), trace=reasoning(sample))
    written = f"{bucket(value) / TENTHS:.1f}"
    return Sample(sample.id, text, written, "number", (), sample.media, f"<score>{written}</score>", {"score": value})


def reasoning(sample: Sample) -> str:
    """The response's reasoning; a response without a think block is reasoning as a whole."""
    response = sample.response or ""
    return bare_trace(response) if "</think>" in response or "<think>" in response else response.strip()


def score_of(sample: Sample, field: str) -> float:
    """Raises RowError for a row without a score from 0 to 1 under that name, and for one without a response."""
    value = field_of(sample, field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RowError(sample.id, f'"{field}" is the response\'s score, a number from 0 to 1, not {str(value)[:60]!r}')
    if not sample.response:
        raise RowError(sample.id, "it has no response to grade")
    return float(value)


def bucket(score: float) -> int:
    """The tenth of the scale: 0.44 -> 4."""
    return round(score * TENTHS)


def balanced(rows: Rows, score: str, most: int, seed: int) -> Rows:
    """At most `most` rows of each tenth, drawn by `seed`, in their order. Unreadable rows are kept, for the row checks to name."""
    tenths = np.array([_tenth(rows, i, score) for i in range(len(rows))])
    order, kept, counts = seeded_order(len(rows), seed), [], Counter()
    for i in order.tolist():
        counts[int(tenths[i])] += 1
        if tenths[i] < 0 or counts[int(tenths[i])] <= most:
            kept.append(i)
    shown = ", ".join(f"{tenth / TENTHS:.1f}: {min(n, most)} of {n}" for tenth, n in sorted(counts.items()) if tenth >= 0)
    if not shown:
        raise UserError(f'no row has a response and, under "{score}", a score from 0 to 1; name the field as judge.score')
    logger.info("rows by score: %s", shown)
    return Subset(rows, np.sort(np.array(kept)))


def _tenth(rows: Rows, index: int, score: str) -> int:
    try:
        return bucket(score_of(rows[index], score))
    except RowError:
        return -1
