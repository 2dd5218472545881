"""Gold answers of a user's rows brought into one form: letters for options, and the kind of answer where it is not said.

It reads what a person wrote into a data file; reading what a model wrote is another package's work.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from vlm_rl.types import LETTERS, AnswerKind

_PREFIX = re.compile(r"\s*(?:\(([A-Za-z])\)|([A-Za-z])\s?[.):])\s*")
_LETTER = re.compile(r"\s*\(?([A-Za-z])[).:]{0,2}\s*")
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")


def strip_letters(options: Sequence[str]) -> tuple[str, ...]:
    """("A. cat", "(B) dog") -> ("cat", "dog"), only when every option carries its own letter and some text; otherwise unchanged."""
    matches = [_PREFIX.match(option) for option in options]
    letters = [(m[1] or m[2]).upper() if m else None for m in matches]
    rests = tuple(option[m.end() :].strip() for option, m in zip(options, matches, strict=True) if m)
    return rests if letters == list(LETTERS[: len(options)]) and all(rests) else tuple(option.strip() for option in options)


def gold_letters(answer: Any, options: Sequence[str]) -> str:
    """The letter or letters ("B", "A,C") that `answer` means: a letter, an option's text, a 0-based index, or a list of these.

    Raises ValueError, with the nearest option where there is one, when it means none of them or two different ones.
    """
    if isinstance(answer, (list, tuple)):
        if not answer:
            raise ValueError("answer is an empty list")
        return _joined([_one_gold(part, options) for part in answer])
    if isinstance(answer, str) and not _by_text(answer, options):
        parts = re.split(r"[,;]", answer.strip()[:200])
        if len(parts) > 1 and all(_LETTER.fullmatch(part) for part in parts):
            return _joined([_one_gold(part, options) for part in parts])
    return _one_gold(answer, options)


def infer_kind(answer: str) -> AnswerKind:
    """The kind of an answer without options: "yes" -> yesno, "-1,234.5" -> number, anything else text."""
    text = answer.strip()
    if text.casefold() in ("yes", "no"):
        return "yesno"
    return "number" if _NUMBER.fullmatch(text) else "text"


def letters_only(answer: str) -> str | None:
    """ "(a), C" -> "A,C"; None when the text is more than letters."""
    found = [_LETTER.fullmatch(part) for part in re.split(r"[,;]", answer[:200])]
    return _joined([m[1].upper() for m in found if m]) if all(found) else None


def _joined(letters: Sequence[str]) -> str:
    return ",".join(sorted(set(letters)))


def _one_gold(answer: Any, options: Sequence[str]) -> str:
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        raise ValueError(f"answer {answer!r} is neither a letter, an option's text nor an index")
    text = str(answer).strip()
    meant = set(_by_text(text, options))
    letter = _LETTER.fullmatch(text)
    if isinstance(answer, int) and 0 <= answer < len(options):
        meant.add(answer)
    elif letter and LETTERS.index(letter[1].upper()) < len(options):
        meant.add(LETTERS.index(letter[1].upper()))
    if len(meant) == 1:
        return LETTERS[meant.pop()]
    if meant:
        which = ", ".join(f"{LETTERS[i]} ({options[i]})" for i in sorted(meant))
        raise ValueError(f"answer {answer!r} can mean {which}; {_unambiguous(answer)}")
    near = difflib.get_close_matches(text[:200], [option[:200] for option in options], n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"answer {text[:200]!r} is not among the {len(options)} options{hint}")


def _unambiguous(answer: Any) -> str:
    return "write a letter instead" if isinstance(answer, int) else "write the 0-based index instead"


def _by_text(text: str, options: Sequence[str]) -> list[int]:
    """Indices of the options with this text: exactly, else ignoring case and spacing; "B. dog" counts when option B is "dog"."""
    text = text.strip()
    exact = [i for i, option in enumerate(options) if option.strip() == text]
    if exact:
        return exact
    plain = _plain(text)
    if loose := [i for i, option in enumerate(options) if _plain(option) == plain]:
        return loose
    prefix = _PREFIX.match(text)
    index = LETTERS.index((prefix[1] or prefix[2]).upper()) if prefix else len(options)
    rest = _plain(text[prefix.end() :]) if prefix else ""
    return [index] if index < len(options) and _plain(options[index]) == rest else []


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
