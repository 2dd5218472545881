"""Which words of a trace contradict the answer that was given, or the truth: spans to be marked where the trace is shown.

The truth about generated scenes is exact, claim by claim; of other questions only what the last sentence concludes is held against the gold
answer. What no rule can read is not marked. Text is the model's own: everything here is linear in its length or bounded.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from data.scene_traces import verify_trace
from data.scenes import by_id, scene_of
from rewards import grading
from rewards.conclusion import agrees, conclusion
from vlm_rl.errors import UserError
from vlm_rl.types import LETTERS, Record, Sample

Mark = Literal["given", "answer", "truth"]
LEGEND: dict[Mark, str] = {"given": "put there by the test", "answer": "contradicts the answer given", "truth": "contradicts the truth"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_MOST = 8_000


@dataclass(frozen=True)
class Piece:
    """A stretch of text and what is said about all of it: Piece("The answer is teal.", ("answer",))"""

    text: str
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Span:
    start: int
    end: int
    mark: Mark


def marked(trace: str, record: Record) -> list[Piece]:
    """The trace of a record, cut into pieces that together are the trace. What the test itself concludes is not held against the model."""
    late = max(0, len(trace) - _MOST)
    given = _given(trace, record)
    own = [span for span in _conclusions(trace[late:], record, late) if span.start >= given]
    spans = [Span(0, given, "given"), *_false_claims(trace[:_MOST], record), *own]
    cuts = sorted({0, len(trace), *(cut for span in spans for cut in (span.start, span.end))})
    pieces = []
    for start, end in pairwise(cuts):
        held = {span.mark for span in spans if span.start <= start and end <= span.end}
        pieces.append(Piece(trace[start:end], tuple(mark for mark in LEGEND if mark in held)))
    return pieces


def added(text: str, before: str) -> list[Piece]:
    """`text`, with what it has between the beginning and the end it shares with `before` as given by the test."""
    head = _shared(text, before)
    most = min(len(text), len(before)) - head
    tail = min(_shared(text[::-1], before[::-1]), most)
    pieces = (Piece(text[:head]), Piece(text[head : len(text) - tail], ("given",)), Piece(text[len(text) - tail :]))
    return [piece for piece in pieces if piece.text]


def _shared(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _given(trace: str, record: Record) -> int:
    """How much of the trace the turn was begun with."""
    begun = record.prefill.rpartition("<think>")[2].partition("</think>")[0].strip()
    return len(begun) if trace.startswith(begun) else 0


def _false_claims(trace: str, record: Record) -> Iterator[Span]:
    """Claims that the scene refutes, and boxes that do not hold what they are said to hold."""
    row = by_id(record.sample_id)
    if row is None:
        return
    start = 0
    for claim in verify_trace(trace, scene_of(row)).claims:
        words = r"\s+".join(re.escape(word) for word in claim.text.split())
        found = re.compile(words, re.IGNORECASE).search(trace, start) or re.compile(words, re.IGNORECASE).search(trace)
        if found is not None:
            start = found.end()
            if claim.true is False or claim.box_holds is False:
                yield Span(*found.span(), "truth")


def _conclusions(trace: str, record: Record, offset: int) -> Iterator[Span]:
    """What the last sentence concludes, where that is not the answer given or not the right one."""
    sample = Sample(record.sample_id, record.question, record.gold, record.kind, record.options)
    try:
        stated = conclusion(trace, sample)
        if stated is None:
            return
        against_answer = record.answer is not None and not agrees(trace, record.answer, sample)
        against_truth = bool(record.gold) and not grading.is_correct(sample, stated)
    except (UserError, ValueError):  # a gold answer that no rule can read
        return
    spans = [(offset + start, offset + end) for start, end in _stated(trace, stated, record.options)]
    yield from (Span(start, end, "answer") for start, end in spans if against_answer)
    yield from (Span(start, end, "truth") for start, end in spans if against_truth)


def _stated(trace: str, stated: str, options: Sequence[str]) -> list[tuple[int, int]]:
    """Where the last sentence says it: the words or the letter of the option, else all of the sentence."""
    body = trace.rstrip()
    start = max((match.end() for match in _SENTENCE_END.finditer(body)), default=0)
    sentence = body[start:]
    letters = [letter for letter in stated.split(",") if letter in LETTERS[: len(options)]] if options else []
    words = [words for letter in letters for words in (options[LETTERS.index(letter)].strip(), letter) if words]
    for said in words:
        flags = re.IGNORECASE if len(said) > 1 else 0
        if found := list(re.finditer(rf"(?<!\w){re.escape(said)}(?!\w)", sentence, flags)):
            return [(start + m.start(), start + m.end()) for m in found]
    return [(start, len(body))] if sentence else []
