"""Statements turned into their contradictions by rules, so that mistakes can be written into a trace without another model.

A rule knows no meaning: it changes one telling word (an option named, a direction, a comparison, a number, a colour), and where it finds
none it says that the statement does not hold. Published mistakes are written by strong models; these are plainer, and every run can make
them again: the same word becomes the same other word throughout a trace. Nothing inside square brackets (boxes) is touched.
"""

import re
from collections.abc import Iterator, Sequence

from rewards.grading import lettered_options
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Sample

# Of each set every word contradicts every other; sets are tried in this order.
_SETS: tuple[tuple[str, ...], ...] = (
    ("yes", "no"),
    ("true", "false"),
    ("left", "right"),
    ("above", "below"),
    ("up", "down"),
    ("top", "bottom"),
    ("before", "after"),
    ("larger", "smaller"),
    ("bigger", "tinier"),
    ("higher", "lower"),
    ("taller", "shorter"),
    ("longer", "briefer"),
    ("more", "fewer"),
    ("greater", "less"),
    ("most", "least"),
    ("highest", "lowest"),
    ("leftmost", "rightmost"),
    ("first", "last"),
    ("inside", "outside"),
    ("open", "closed"),
    ("increases", "decreases"),
    ("parallel", "perpendicular"),
    ("#",),
    ("small", "large"),
    ("big", "little"),
    ("red", "green", "blue", "yellow", "purple", "gray", "black", "white", "brown", "orange", "teal", "pink"),
    ("circle", "square", "triangle", "cross", "rectangle"),
    ("man", "woman"),
    ("dog", "cat", "horse", "cow"),
)
_NUMBER = re.compile(r"(?<![\w.\[])\d{1,9}(?![\w\]]|\.\d)")
_BRACKETED = re.compile(r"\[[^\[\]]*\]")
_LONGEST = 4000


def contradicted(statement: str, row: Sample, seed: int) -> str:
    """The statement with one telling word changed. With the options (red, teal): "It is teal." -> "It is red." """
    text = statement[:_LONGEST]
    shielded = _BRACKETED.sub(lambda match: "\0" * len(match[0]), text)
    for start, end, word in _changes(shielded, row, seed):
        return text[:start] + word + text[end:] + statement[_LONGEST:]
    return f"It is not so that {statement[:1].lower()}{statement[1:]}"


def mistaken(pieces: Sequence[str], row: Sample, seed: int) -> list[str]:
    """Every piece contradicted, the conclusion too."""
    return [contradicted(piece, row, seed) for piece in pieces]


def _changes(text: str, row: Sample, seed: int) -> Iterator[tuple[int, int, str]]:
    """(start, end, what stands there instead), the likeliest to matter first."""
    options = lettered_options(row)
    for option in sorted(options, key=len, reverse=True):
        others = [other for other in options if other.strip().casefold() != option.strip().casefold()]
        if others and option.strip() and (place := _last(text, option.strip())):
            yield *place, _chosen(others, seed, option)
    for words in _SETS:
        if words == ("#",):
            if numbers := list(_NUMBER.finditer(text)):
                yield numbers[-1].start(), numbers[-1].end(), str(int(numbers[-1][0]) + 1 + stable_hash(seed, numbers[-1][0]) % 2)
            continue
        for word in words:
            if place := _last(text, word):
                yield *place, _cased(_chosen([w for w in words if w != word], seed, word), text[place[0]])


def _last(text: str, words: str) -> tuple[int, int] | None:
    found = list(re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE))
    return found[-1].span() if found else None


def _chosen(words: Sequence[str], seed: int, key: str) -> str:
    return words[stable_hash(seed, "contradict", key.casefold()) % len(words)]


def _cased(word: str, like: str) -> str:
    return word.capitalize() if like.isupper() else word
