"""Lettered options: drawn in a seeded order, or reordered with the right answer following. It neither reads nor grades answers."""

import random
from collections.abc import Sequence
from dataclasses import replace

from vlm_rl.types import LETTERS, Sample


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


def permute(sample: Sample, order: Sequence[int]) -> Sample:
    """The same question with its options reordered: new option i is old option order[i]; the gold letters follow by position.

    Several gold letters stay several, in alphabetical order. A demonstration names letters of the old order, so it is dropped.
    Raises ValueError when `order` is not a permutation of the options.
    """
    if sorted(order) != list(range(len(sample.options))):
        raise ValueError(f"row {sample.id}: {list(order)} does not permute {len(sample.options)} options")
    gold = {LETTERS.index(letter) for letter in sample.answer.split(",") if letter}
    answer = ",".join(LETTERS[new] for new, old in enumerate(order) if old in gold)
    return replace(sample, options=tuple(sample.options[old] for old in order), answer=answer, response=None)
