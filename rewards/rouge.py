"""How much two texts share, as the mean of ROUGE-1, ROUGE-2 and ROUGE-L F-measures (Lin, 2004), in bounded time.

SophiaVL-R1 (arXiv 2505.17018) uses this mean as the outcome of free-form questions. Deviations: a gold text that is not mostly Latin
letters is compared by its own words (where it has spaces) or characters (where it has none), because the usual tokenizer sees nothing in
it; an answer that is longer than 4,000 characters and than four times the gold text scores 0.
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any

_LONGEST = 4000
_LONGEST_RATIO = 4
_LONG_WORD = re.compile(r"([A-Za-z0-9]{24})[A-Za-z0-9]+")
_WORD = re.compile(r"\w+")


def rouge_mean(gold: str, answer: str) -> float:
    """Mean of the three F-measures in [0, 1], with stemming, without any short-cut for equal texts (one equal word gives 2/3).

    Example: rouge_mean("the cat is on the mat", "the cat sat on the mat") -> 0.755556.
    """
    if len(answer) > max(_LONGEST, _LONGEST_RATIO * len(gold)):
        return 0.0
    tokens_gold, tokens_answer = _tokens(gold, gold), _tokens(answer, gold)
    shares = [_f_measure(*_shared_ngrams(tokens_gold, tokens_answer, n)) for n in (1, 2)]
    shares.append(_f_measure(longest_common(tokens_gold, tokens_answer), len(tokens_gold), len(tokens_answer)))
    return sum(shares) / len(shares)


def _tokens(text: str, gold: str) -> list[str]:
    """`gold` decides how both are cut."""
    latin = sum(character.isascii() and character.isalnum() for character in gold)
    if 2 * latin < sum(character.isalnum() for character in gold):
        words = _WORD.findall(text.casefold())
        return words if len(gold.split()) > 1 else [character for word in words for character in word]
    # The stemmer's work grows with the square of a word's length, and no real word is as long as this.
    return _tokenizer().tokenize(_LONG_WORD.sub(r"\1", text))


@cache
def _tokenizer() -> Any:
    # Takes a second to import, and only free text needs it.
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True)


def _shared_ngrams(a: Sequence[str], b: Sequence[str], n: int) -> tuple[int, int, int]:
    grams_a, grams_b = (Counter(zip(*(tokens[i:] for i in range(n)), strict=False)) for tokens in (a, b))
    return (grams_a & grams_b).total(), grams_a.total(), grams_b.total()


def longest_common(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, one column of the table as the bits of one integer (Hyyro, 2004)."""
    places: dict[Hashable, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << i
    full = (1 << len(a)) - 1
    unmatched = full
    for token in b:
        matched = unmatched & places.get(token, 0)
        unmatched = ((unmatched + matched) | (unmatched - matched)) & full
    return len(a) - unmatched.bit_count()


def _f_measure(shared: int, total_a: int, total_b: int) -> float:
    return 2 * shared / (total_a + total_b) if shared else 0.0
