"""A multiple-choice question asked again: its options in another order, the same reasoning already written, only the answer missing.

Shared by the reward that trains on such answers and by what measures them. Here lie the order, the text that is re-fed and the reading of
answers; it asks nobody and pays nothing. Answers are compared by option contents (indices in the row as it was read), never by letters.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data.answers import strip_letters
from data.options import draw_order, gold_indices, option_order, permute
from rewards.choices import choice_letters
from rewards.numerals import parse_number
from vlm_rl.errors import RowError
from vlm_rl.types import LETTERS, Prompt, Sample

CLOSING = "</answer>"
_OPEN, _CLOSE, _ANSWER, _BREAK = "<think>", "</think>", "<answer>", "\n"
_TRIES = 64  # each moves a movable key with a chance of at least 1/2
_CUE = r"\b(?i:options?|choices?|letters?|answers?)(?i:\s(?:is|was|are|would\sbe|must\sbe|should\sbe))?\s?:?\s?[(*]{0,3}"
_MENTION = re.compile(rf"({_CUE})([A-Z])(?!\w)|(\()([A-Za-z])(?=\))")
_BARE = re.compile(r"(?<![\w'’])(?:([B-HJ-Z])(?!\w)|([AI])(?=\s*(?:[.,;:)\]!?*\"]|$)|\s(?:is|or|and|because)\b))", re.MULTILINE)

Contents = frozenset[int]


@dataclass(frozen=True)
class Shuffle:
    """How orders are drawn: uniformly among those that mean the same and look different, the original too with `allow_identity`.

    Options that speak of those above them keep their place. `move_key` keeps only orders in which the letters of the right answer change.
    `skip_ordered_numbers` refuses three or more numbers that rise or fall: their meaning survives another order, their look does not.
    """

    allow_identity: bool = False
    move_key: bool = False
    skip_ordered_numbers: bool = False

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """The row in an order drawn by `seed`, without letters written before its options and without a prefill of its own.

        Raises ValueError with the reason why its options have no other order.
        """
        if sample.kind != "choice" or not sample.options:
            shown = sample.meta.get("options_shown")
            raise ValueError("its options stand in its picture or question" if shown else "it is not multiple choice")
        plain = replace(sample, options=strip_letters(sample.options), prefill="")
        if self.skip_ordered_numbers and _ordered_numbers(plain.options):
            raise ValueError("its options are numbers in order")
        rng = random.Random(seed)
        try:
            for _ in range(_TRIES):
                shuffled = permute(plain, draw_order(plain.options, rng, self.allow_identity))
                if not self.move_key or gold_indices(shuffled) != gold_indices(plain):
                    return shuffled
        except RowError as error:
            raise ValueError(error.reason) from None
        raise ValueError("its right option cannot move")

    def obstacle(self, sample: Sample) -> str | None:
        """Why the row cannot be asked again, None when it can."""
        try:
            self(sample, 0)
        except ValueError as error:
            return str(error)
        return None


def _ordered_numbers(options: Sequence[str]) -> bool:
    numbers = [number.value for number in map(parse_number, options) if number is not None]
    return len(options) > 2 and len(numbers) == len(options) and numbers in (sorted(numbers), sorted(numbers, reverse=True))


def opened(prompt: Prompt) -> bool:
    """Whether the chat template itself opens the think block."""
    return prompt.text.removesuffix(prompt.prefill).rstrip().endswith(_OPEN)


def reasoning(text: str, opened: bool = False) -> str | None:
    """What stands between the first `<think>` (the start, when the template `opened` it) and the last `</think>` of a turn, verbatim.

    None when one of the two is missing.
    """
    end = text.rfind(_CLOSE)
    start = 0 if opened else text.find(_OPEN, 0, max(end, 0))
    return text[start + (0 if opened else len(_OPEN)) : end] if end >= 0 and start >= 0 else None


def refed(trace: str, turn: str, opened: bool = False) -> str:
    """The assistant's turn up to its answer: "<think>{trace}</think>\\n<answer>".

    What stood between reasoning and answer in the first `turn` is left out, since it may state the answer. White space states nothing and
    stays as it was, without any too: a policy that never wrote a line break there may write no answer after one.
    """
    space, answered, _ = turn.rpartition(_CLOSE)[2].partition(_ANSWER)
    return f"{'' if opened else _OPEN}{trace}{_CLOSE}{space if answered and not space.strip() else _BREAK}{_ANSWER}"


def contents(answer: str | None, sample: Sample) -> Contents | None:
    """The options of `sample` that an answer names, by their indices in the row as it was read; None where `choice_letters` reads none.

    With the options (cow, cat, pig, dog), once (cat, dog, cow, pig): "D" -> {1}.
    """
    letters = choice_letters(answer, sample.options) if answer else None
    order = option_order(sample)
    return frozenset(order[LETTERS.index(letter)] for letter in letters) if letters else None


def gold_contents(sample: Sample) -> Contents:
    """The right options, likewise. Raises RowError when the answer is anything but letters."""
    order = option_order(sample)
    return frozenset(order[i] for i in gold_indices(sample))


def names_letter(trace: str, options: Sequence[str]) -> bool:
    """Whether a trace seems to name an option by its letter, which another order makes stale: "option B", "(B)", "so it is B".

    Judged by the text alone: a point B of a figure counts, the article in "A cat" does not.
    """
    letters = LETTERS[: len(options)]
    mentions = ((match[2] or match[4]).upper() for match in _MENTION.finditer(trace))
    return any(letter in letters for letter in mentions) or any((m[1] or m[2]) in letters for m in _BARE.finditer(trace))


def without_letters(trace: str, options: Sequence[str]) -> str:
    """The trace with explicit mentions ("option B", "(B)", "answer is B") replaced by what the option says: "option teal"."""

    def said(match: re.Match[str]) -> str:
        cue, letter = match[1] or match[3], (match[2] or match[4]).upper()
        return cue + options[LETTERS.index(letter)] if letter in LETTERS[: len(options)] else match[0]

    return _MENTION.sub(said, trace)
