"""What a caption, hint or trace says and which answer it pushes: the row's own text where it carries one, else a frame's sentence.

Rows carry `meta["caption"]`, `["wrong_caption"]`, `["trace"]`, `["wrong_trace"]` (no tags) and, where these push one wrong answer in
particular, `["wrong_answer"]` (a letter or text). A frame names contents, never letters: else copying a letter would be measured.
Of a calculation a caption tells a reading (a length, an angle), right or wrong, and never the result: that would be answer leakage.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from data.answers import gold_letters
from data.options import CANNOT_TELL, MARK, gold_indices, option_order
from data.views import Draw, NotApplicable
from vlm_rl.types import LETTERS, Sample

QUESTION = "own_question"
_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_FLIPPED = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,12})?")
_QUANTITY = re.compile(
    r"(?<![\w\\])((?:(?:m ?)?(?:∠ ?|\\angle ))?[A-Za-z]{1,3}) ?= ?(\d{1,6}(?:\.\d{1,6})?)(?![\w.]*[\w^*/(\\-])(?! ?[-+*/^])"
)
_RECKONED = re.compile(r"(?:(?<=[.!?])|^)\s{0,9}-?\d{1,6} [-+] \d{1,6} = -?\d{1,6}\.(?=\s|$)")
_LONGEST_QUESTION = 4000


@dataclass(frozen=True)
class Claim:
    """`pushes` has the form of `Sample.answer` (letters of the row's options, or a text); None where the row says none."""

    text: str
    pushes: str | None
    source: Literal["row", "frame"]


def claim(sample: Sample, draw: Draw, key: Literal["caption", "trace"], right: bool) -> Claim:
    """What the row says under `key` (or "wrong_" + key), or the frame about the right or a wrong answer. Raises NotApplicable."""
    own = sample.meta.get(key if right else f"wrong_{key}")
    if isinstance(own, str) and own.strip():
        pushes = sample.answer if right else pushed(sample, draw, right) if sample.meta.get("wrong_answer") is not None else None
        text = own.strip() if key == "trace" else _RECKONED.sub("", own).strip() or own.strip()
        return Claim(safe(sample, text), pushes, "row")
    question = " ".join(MARK.sub("", sample.meta.get(QUESTION, sample.question)).split())
    if key == "caption" and _calculated(sample, question):
        return Claim(safe(sample, _reading(sample, question, draw, right)), None, "frame")
    answer = pushed(sample, draw, right)
    text = f"The answer to '{question}' is {wording(sample, answer).rstrip('.')}."
    return Claim(safe(sample, text if key == "caption" else f"{text} So the answer should be {wording(sample, answer)}"), answer, "frame")


def _calculated(sample: Sample, question: str) -> bool:
    """Whether the answer is the result of a calculation, which no picture shows: a caption may tell what is read off, not that."""
    numbers = sample.kind == "number" or (bool(sample.options) and all(any(c.isdigit() for c in option) for option in sample.options))
    return sample.kind == "math" or (numbers and _QUANTITY.search(question[:_LONGEST_QUESTION]) is not None)


def _reading(sample: Sample, question: str, draw: Draw, right: bool) -> str:
    """One of the lengths or angles that the question states ("AB = 5"), as it is or misread. Raises NotApplicable where it states none."""
    stated = _QUANTITY.findall(question[:_LONGEST_QUESTION])
    if not stated:
        key = "caption" if right else "wrong_caption"
        raise NotApplicable(sample.id, f"it carries no meta.{key}, and its question states no length or angle that could be misread")
    name, number = draw.rng("reading", sample.id).choice(stated)
    said = number if right else _near(number, draw.rng("misread", sample.id).choice((1, 2)), 1)
    return f"In the figure, {name} = {said}."


def pushed(sample: Sample, draw: Draw, right: bool) -> str:
    """The answer to push, in the form of `Sample.answer`: the gold one, or a wrong one.

    The wrong one is the row's `meta["wrong_answer"]`, else drawn: for one seed the same content in every view and order of options. Raises
    NotApplicable where a wrong answer cannot be known.
    """
    if sample.kind == "choice" and sample.options:
        return ",".join(LETTERS[i] for i in gold_indices(sample)) if right else LETTERS[_wrong_option(sample, draw)]
    if not sample.answer.strip():
        raise NotApplicable(sample.id, "it has no answer")
    return sample.answer if right else _wrong_text(sample, draw)


def wording(sample: Sample, answer: str) -> str:
    """The texts of the options that `answer` names, or the answer itself."""
    if sample.kind != "choice" or not sample.options:
        return answer
    return " and ".join(sample.options[LETTERS.index(letter)] for letter in answer.split(","))


def safe(sample: Sample, text: str) -> str:
    """The text as it is. Raises NotApplicable for one that would change what stands around it."""
    for found in (MARK.search(text), _TAG.search(text)):
        if found:
            raise NotApplicable(sample.id, f"the text to insert holds {found.group()}")
    return text


def _wrong_option(sample: Sample, draw: Draw) -> int:
    order = option_order(sample)
    right = {_plain(sample.options[i]) for i in gold_indices(sample)}
    named = sample.meta.get("wrong_answer")
    if named is None:
        wrong = sorted(order[i] for i, option in enumerate(sample.options) if _plain(option) not in right and option != CANNOT_TELL)
    else:
        wrong = _named_options(sample, named, order)
    if not wrong:
        raise NotApplicable(sample.id, "all its options are right")
    place = order.index(draw.rng("wrong answer", sample.id).choice(wrong))
    if _plain(sample.options[place]) in right:
        raise NotApplicable(sample.id, f"its meta.wrong_answer '{str(named)[:60]}' is the right one")
    return place


def _named_options(sample: Sample, named: object, order: Sequence[int]) -> list[int]:
    """Places in the row as it was read: that is what its letters name."""
    read = [sample.options[order.index(i)] for i in range(len(order))]
    try:
        return [LETTERS.index(letter) for letter in gold_letters(named, read).split(",")]
    except ValueError as error:
        raise NotApplicable(sample.id, f"its meta.wrong_answer: {error}") from None


def _wrong_text(sample: Sample, draw: Draw) -> str:
    named = sample.meta.get("wrong_answer")
    if named is not None and str(named).strip():
        if _plain(str(named)) == _plain(sample.answer):
            raise NotApplicable(sample.id, f"its meta.wrong_answer '{str(named)[:60]}' is the right one")
        return str(named).strip()
    if sample.kind == "yesno" and (flipped := _FLIPPED.get(_plain(sample.answer))):
        return flipped
    if sample.kind in ("number", "math") and _PLAIN_NUMBER.fullmatch(sample.answer.strip()):
        return _near(sample.answer.strip(), draw.rng("wrong answer", sample.id).choice((1, 2)), draw.rng("sign", sample.id).choice((-1, 1)))
    raise NotApplicable(sample.id, "no wrong answer is known; it carries no meta.wrong_answer")


def _near(number: str, steps: int, sign: int) -> str:
    """A number of as many decimals, a fifth or two fifths away and at least one or two of its last digit; not negative unless it was."""
    value = Decimal(number)
    unit = Decimal(1).scaleb(int(value.as_tuple().exponent))
    step = max(unit, (abs(value) / 5).quantize(unit))
    other = value + sign * steps * step
    return f"{other if value < 0 or other >= 0 else value + steps * step:f}"


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(".")
