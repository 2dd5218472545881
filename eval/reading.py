"""What answers say, as contents that can be compared, and turns begun again from a trace. It asks nobody and measures nothing.

A content is what an answer stands for whatever its letter or wording: the indices of options in the row as it was read, a number, yes or
no, a text. A missing answer equals nothing, not even another missing one.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rewards import grading, option_shuffle, response
from rewards.choices import choice_letters
from rewards.numerals import parse_number
from rewards.wording import collapsed, normal, unwrapped, without_article
from vlm_rl.types import LETTERS, Record, Sample, Sampling

Content = frozenset[int] | float | bool | str
CLOSING = option_shuffle.CLOSING
_TOLERANCE = 1e-4
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def content(answer: str | None, row: Sample, shown: Sequence[str] = (), order: Sequence[int] = ()) -> Content | None:
    """What an answer to `row` says, None where it cannot be read. `shown` are the options in the order in which they were shown, `order`
    their indices in the row: content("B", row, shown=("dog", "cat"), order=(1, 0)) -> {0}"""
    if answer is None or not answer.strip():
        return None
    options = tuple(shown) or grading.lettered_options(row)
    if row.kind == "choice" and options:
        letters = choice_letters(answer, options)
        places = order or range(len(options))
        return frozenset(places[LETTERS.index(letter)] for letter in letters) if letters else None
    if row.kind == "yesno":
        return grading.yes_or_no(answer)
    if row.kind == "number":
        number = parse_number(answer)
        return None if number is None else number.value
    return (collapsed(unwrapped(answer)) if row.kind == "math" else without_article(normal(answer))) or None


def answered(record: Record, row: Sample) -> Content | None:
    """The content of a record's answer; detail["order"] holds the options' indices in the row where they were shown in another order."""
    return content(record.answer, row, record.options, record.detail.get("order") or ())


def same(one: Content | None, other: Content | None, row: Sample) -> bool:
    """Whether two contents are the same answer. None is the same as nothing."""
    if one is None or other is None or one == other:
        return one is not None and one == other
    if row.kind == "number" and isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_TOLERANCE)
    return row.kind == "math" and grading.is_correct(replace(row, answer=str(other), meta={}), str(one))


def voted(contents: Sequence[Content | None], row: Sample) -> Content | None:
    """The most frequent content, of equally frequent ones the one seen first; None where none can be read. (3, 4, 4, 3, 5) -> 3"""
    kinds: list[tuple[Content, int]] = []
    for one in contents:
        place = next((i for i, (kind, _) in enumerate(kinds) if same(kind, one, row)), None)
        if place is not None:
            kinds[place] = (kinds[place][0], kinds[place][1] + 1)
        elif one is not None:
            kinds.append((one, 1))
    return max(kinds, key=lambda kind: kind[1])[0] if kinds else None


@dataclass(frozen=True)
class Turn:
    """The assistant's turn of a record, to be begun again. `opened`: the chat template itself opens the think block."""

    text: str

    @classmethod
    def of(cls, record: Record) -> "Turn":
        return cls(record.prefill + record.completion)

    @property
    def opened(self) -> bool:
        end = self.text.rfind("</think>")
        return end >= 0 and "<think>" not in self.text[:end]

    @property
    def trace(self) -> str | None:
        """The reasoning, word for word; None without a closed think block."""
        return option_shuffle.reasoning(self.text, self.opened)

    def told(self, row: Sample, trace: str) -> Sample:
        """The row with `trace` as its whole reasoning, its turn begun up to the answer: only the answer is missing."""
        return replace(row, prefill=option_shuffle.refed(trace, self.text, self.opened), response=None)

    def thinking(self, row: Sample, trace: str) -> Sample:
        """The row with its turn begun inside the reasoning, which goes on after `trace`."""
        return replace(row, prefill=f"{'' if self.opened else '<think>'}{trace}", response=None)


def answer_limits(greedy: Sampling, most: int = 64) -> Sampling:
    """Limits of a turn in which only the answer is missing."""
    return Sampling(min(most, greedy.max_new_tokens), 0.0, (CLOSING,))


def steps(trace: str) -> tuple[list[str], str]:
    """A trace in pieces and what joins them: its lines that are not empty, or its sentences where it is one line."""
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    if len(lines) > 1:
        return lines, "\n"
    return [part for part in _SENTENCE_END.split(trace.strip()) if part], " "


def visible(record: Record) -> str:
    """What stands outside the reasoning: what the model shows of its turn."""
    return (record.prefill + record.completion).rpartition("</think>")[2].strip()


def trace_text(record: Record) -> str:
    """The reasoning without tags, "" where there is none; of a turn that was begun, what was given of it too."""
    return response.parse(record.prefill + record.completion).trace or ""
