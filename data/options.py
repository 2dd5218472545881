"""Lettered options: drawn in a seeded order, or reordered with everything that follows them. It neither reads nor grades answers."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

from vlm_rl.errors import RowError
from vlm_rl.types import LETTERS, Media, Sample

MARK = re.compile(r"<(?:image|video)>")
ORDER, PUSHED = "option_order", "pushed_answer"
CANNOT_TELL = "I'm not sure"

_ABOVE = re.compile(
    r"\b(?:all|none|both|any|either|neither|each|one|some|two|three|more than one) of (?:the )?(?:options |answers |choices )?above\b"
    r"|\b(?:all|none) the above\b|以上",
    re.IGNORECASE,
)
_LETTER = r"\(?([A-Z])\)?"
_LETTERS_ONLY = re.compile(
    rf"(?:(?i:both|either|neither|only) )?{_LETTER}(?:(?:, ?and |, ?or |, ?| and | & | or | nor ){_LETTER})*(?: only)?\.?"
)
_OPTION_NAMED = re.compile(rf"\b(?i:options?|choices?|answers?|both) {_LETTER}(?![\w'])")
_LONGEST = 200


def letter_options(correct: str, others: Sequence[str], count: int, seed: int) -> tuple[tuple[str, ...], str]:
    """`count` options, `correct` and a draw of `others`, in an order drawn by `seed`, and the letter of `correct`.

    letter_options("teal", ["red", "blue"], 2, seed=1) -> (("red", "teal"), "B"). Raises ValueError when `others` has fewer than count - 1
    entries, holds `correct`, or count exceeds the alphabet.
    """
    if not 1 <= count <= len(LETTERS) or correct in others:
        raise ValueError(f"cannot make {count} options of {correct!r} and {list(others)}")
    draw = random.Random(seed)
    options = [correct, *draw.sample(list(others), count - 1)]
    draw.shuffle(options)
    return tuple(options), LETTERS[options.index(correct)]


def pinned(options: Sequence[str]) -> tuple[int, ...]:
    """The options that speak of those above them ("all of the above"): they keep their place, and what is above them stays above.

    Raises ValueError naming an option that is or names a letter ("both A and C"): no order but this one means the same.
    """
    for letter, option in zip(LETTERS, options, strict=False):
        text = " ".join(option[:_LONGEST].split())
        found = _LETTERS_ONLY.fullmatch(text) or _OPTION_NAMED.search(text)
        if found and any(name in LETTERS[: len(options)] for name in found.groups() if name):
            raise ValueError(f"option {letter} ('{text[:60]}') names options by their letters")
    return tuple(i for i, option in enumerate(options) if _ABOVE.search(option[:_LONGEST]))


def draw_order(options: Sequence[str], rng: random.Random, allow_same: bool = False) -> tuple[int, ...]:
    """A permutation for `permute`: uniform among those that leave pinned options, and the sets above them, where they are.

    Unless `allow_same`, an order that shows the same texts in the same places is drawn again. Raises ValueError as `pinned` does, and when
    no two different options can change places.
    """
    pins = pinned(options)
    runs = [list(range(start + 1, end)) for start, end in pairwise((-1, *pins, len(options)))]
    if all(len({options[i] for i in run}) < 2 for run in runs):
        raise ValueError("it has no two options that can change places")
    while True:
        order = list(range(len(options)))
        for run in runs:
            for place, old in zip(run, rng.sample(run, len(run)), strict=True):
                order[place] = old
        if allow_same or any(options[i] != option for i, option in zip(order, options, strict=True)):
            return tuple(order)


def permute(sample: Sample, order: Sequence[int]) -> Sample:
    """The same question with its options reordered: new option i is old option order[i]; the gold letters follow by position.

    Several gold letters stay several, in alphabetical order. Pictures marked inside options move with them. A demonstration names letters
    of the old order, so it is dropped. `meta["option_order"]` then holds, for each option, its index in the row as it was read (see
    `option_order`). Raises ValueError when `order` is not a permutation of the options, RowError when the answer is not letters of them.
    """
    if sorted(order) != list(range(len(sample.options))):
        raise ValueError(f"row {sample.id}: {list(order)} does not permute {len(sample.options)} options")
    before = option_order(sample)
    meta: dict[str, Any] = {**sample.meta, ORDER: tuple(before[old] for old in order)}
    if meta[ORDER] == tuple(range(len(order))):
        del meta[ORDER]
    if PUSHED in meta:
        meta[PUSHED] = _moved(sample, meta[PUSHED], order)
    options, media = tuple(sample.options[old] for old in order), _moved_media(sample, order)
    return replace(sample, options=options, answer=_moved(sample, sample.answer, order), media=media, response=None, meta=meta)


def option_order(sample: Sample) -> tuple[int, ...]:
    """For each option its index in the row as it was read: (0, 1, 2) unless it was permuted. All comparisons across orders are by these."""
    known, same = sample.meta.get(ORDER), tuple(range(len(sample.options)))
    return known if isinstance(known, tuple) and tuple(sorted(known)) == same else same


def gold_indices(sample: Sample) -> tuple[int, ...]:
    """Positions of the right options. Raises RowError when the answer is anything but letters of the options."""
    return _indices(sample, sample.answer)


def _indices(sample: Sample, letters: str) -> tuple[int, ...]:
    named = [part.strip() for part in letters.split(",")]
    if not all(len(part) == 1 and part in LETTERS[: len(sample.options)] for part in named):
        raise RowError(sample.id, f"its answer '{letters[:60]}' is not the letter of one of its {len(sample.options)} options")
    return tuple(sorted({LETTERS.index(part) for part in named}))


def _moved(sample: Sample, letters: str, order: Sequence[int]) -> str:
    chosen = _indices(sample, letters)
    return ",".join(LETTERS[new] for new, old in enumerate(order) if old in chosen)


def _moved_media(sample: Sample, order: Sequence[int]) -> tuple[Media, ...]:
    counts = [len(MARK.findall(option)) for option in sample.options]
    if not any(counts):
        return sample.media
    ends = list(accumulate(counts, initial=len(MARK.findall(sample.question))))
    if ends[-1] != len(sample.media):
        raise RowError(sample.id, f"its question and options hold {ends[-1]} media marks for {len(sample.media)} media")
    return sample.media[: ends[0]] + tuple(medium for old in order for medium in sample.media[ends[old] : ends[old + 1]])
