"""How near a transcript comes to the text that was to be read: exp(-WER), SophiaVL-R1's outcome for OCR (arXiv 2505.17018).

Deviations: words stand between spaces and keep their case; where the reference has no space and is not Latin, characters count instead; an
answer of more than 4 times the reference's words (and 16) scores 0, which is less than exp(-3); and one without content
(`judging.content_free`) scores 0, where exp(-1) would be paid for a full stop, unless the reference has none either.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from rewards.judging import content_free

_MOST_RATIO, _MOST_MORE = 4, 16


def wer_score(gold: str, answer: str, meta: Mapping[str, Any]) -> float:
    """exp(-WER), in [0, 1]. wer_score("hello world", "hello", {}) -> exp(-0.5) = 0.606531"""
    by_character = len(gold.split()) == 1 and 2 * sum(c.isascii() for c in gold) < len(gold)
    reference, said = (list("".join(text.split())) if by_character else text.split() for text in (gold, answer))
    if not reference or not said or len(said) > _MOST_RATIO * len(reference) + _MOST_MORE:
        return 0.0
    if content_free(answer) and not content_free(gold):
        return 0.0
    return math.exp(-edit_distance(reference, said) / len(reference))


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Levenshtein's, one column of the table as the bits of two integers (Myers, 1999; Hyyro, 2003). edit_distance("abc", "ac") -> 1"""
    if not a:
        return len(b)
    places: dict[Hashable, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << i
    full, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    rises, falls, distance = full, 0, len(a)  # where the column goes up, and down, by one
    for token in b:
        equal = places.get(token, 0)
        across = (((equal & rises) + rises) ^ rises) | equal
        up, down = falls | (full & ~(across | rises)), rises & across
        distance += bool(up & last) - bool(down & last)
        up, down = (up << 1 | 1) & full, down << 1 & full
        straight = equal | falls
        rises, falls = down | (full & ~(straight | up)), up & straight
    return distance
