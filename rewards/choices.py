"""Which options an answer to a multiple-choice question names. It reads what is written and guesses nothing: doubt gives None."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from rewards.wording import collapsed, normal, unwrapped, without_article, without_lead_in
from vlm_rl.types import LETTERS

_LONGEST = 2000
_LETTER = re.compile(r"[(\[]?\s?([A-Za-z])\s?[)\]]?[.:]?")
_LABEL = re.compile(r"([(\[]?)\s?([A-Za-z])(\s?[)\].:,]+|\s[-–—=](?=\s))?(\s?)(.*)")
_SEPARATOR = re.compile(r"[,;&]|\band\b")
_NAMED = re.compile(r"(?<![\w'])([A-Z])(?![\w'])(?!\s[a-z])")
_CUE = re.compile(r"\banswer\s?(?:is\s?:?|:)\s?", re.IGNORECASE)


def gold_letters(answer: str, options: Sequence[str]) -> frozenset[str] | None:
    """The letters of a gold answer, "B" or "A, C"; None when it is anything else or names an option that is not there."""
    letters = [part.strip().upper() for part in answer.split(",")]
    return frozenset(letters) if all(len(x) == 1 and x in LETTERS[: len(options)] for x in letters) else None


def choice_letters(text: str, options: Sequence[str]) -> frozenset[str] | None:
    """The letters of the options that `text` names, or None when it names none, one that is not there, or contradicts itself.

    Read are: a letter ("B", "(b)", "B."), an option's own words ("teal", "a teal"), a letter with words ("B. teal"), several of these
    ("A, C", "A and C", "AC"), each with or without words that lead in ("the answer is"). A letter beside another option's words is a
    contradiction; the article in "a cat" is no letter. Example: choice_letters("(B) teal", ("red", "teal")) -> frozenset({"B"}).
    """
    options = options[: len(LETTERS)]
    if len(text) > _LONGEST + sum(map(len, options)):
        return None
    for variant in dict.fromkeys((text, unicodedata.normalize("NFKC", text))):
        if found := _single(unwrapped(collapsed(variant)), options) or _by_content(variant, options):
            return found
        for candidate in _candidates(variant):
            if found := _read(candidate, options):
                return found
    return None


def _candidates(text: str) -> Iterator[str]:
    """The text itself (lines joined as sentences), without what leads in, and what follows the last "answer is"."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    whole = unwrapped(collapsed(" ".join([line if line[-1] in ".,:;" else line + "." for line in lines[:-1]] + lines[-1:])))
    yield whole
    bare = unwrapped(without_lead_in(whole))
    yield bare
    if cues := list(_CUE.finditer(bare)):
        yield unwrapped(without_lead_in(bare[cues[-1].end() :]))


def _read(text: str, options: Sequence[str]) -> frozenset[str] | None:
    return _single(text, options) or _by_content(text, options) or _several(text, options) or _labelled(text, options)


def _known(letter: str, options: Sequence[str]) -> bool:
    return letter.upper() in LETTERS[: len(options)]


def _single(text: str, options: Sequence[str]) -> frozenset[str] | None:
    match = _LETTER.fullmatch(text)
    return frozenset(match.group(1).upper()) if match and _known(match.group(1), options) else None


def _by_content(text: str, options: Sequence[str]) -> frozenset[str] | None:
    """By an option's words, compared ever more loosely; two options that read the same decide nothing."""
    for form in (collapsed, normal, _bare):
        found = [letter for letter, option in zip(LETTERS, options, strict=False) if text and form(option) == form(text)]
        if found:
            return frozenset(found) if len(found) == 1 else None
    return None


def _bare(text: str) -> str:
    return without_article(normal(text))


def _several(text: str, options: Sequence[str]) -> frozenset[str] | None:
    words = text.split()
    letters = words[0] if len(words) == 1 else "".join(words) if all(len(word) == 1 for word in words) else ""
    if len(letters) > 1 and letters.isupper() and len(set(letters)) == len(letters) and all(_known(x, options) for x in letters):
        return frozenset(letters)
    items = [item.strip() for item in _SEPARATOR.split(text) if item.strip()]
    if len(items) > len(options):
        return None
    found = [_single(item, options) or _by_content(item, options) or _exact_label(item, options) for item in items]
    return frozenset().union(*(f for f in found if f)) if found and all(found) else None


def _exact_label(text: str, options: Sequence[str]) -> frozenset[str] | None:
    """A letter followed by that option's own words and nothing else, whatever stands between: "b) teal", "B teal"."""
    match = _LABEL.fullmatch(text)
    if match is None or not _known(match.group(2), options) or not (match.group(3) or match.group(4)):
        return None
    letter = match.group(2).upper()
    return frozenset(letter) if _by_content(match.group(5), options) == frozenset(letter) else None


def _labelled(text: str, options: Sequence[str]) -> frozenset[str] | None:
    """A letter set off from further words ("B. because it is teal") unless these name another option."""
    if exact := _exact_label(text, options):
        return exact
    match = _LABEL.fullmatch(text)
    if match is None or not match.group(3) or not _known(match.group(2), options):
        return None
    letter, rest = match.group(2).upper(), match.group(5)
    if match.group(2).islower() and not match.group(1):
        return None
    own = collapsed(options[LETTERS.index(letter)])
    if rest.casefold().startswith(own.casefold()):
        rest = rest[len(own) :]
    others = {x for x in _NAMED.findall(rest) if x != letter and _known(x, options)}
    return None if others or _by_content(rest, options) else frozenset(letter)
