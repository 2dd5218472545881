"""Ways to compare an answer that some benchmarks prescribe, chosen by a sample's `meta["grading"]` over the one of its kind.

Pure functions of (gold, answer, meta) that return a grade in [0, 1]. Nothing is extracted from a response here (`response`), and nothing is
guessed: a nearest option or a contained text is not an equal one.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from rewards.numerals import Number, parse_number, same_number
from rewards.transcripts import wer_score
from rewards.wording import normal, unwrapped, without_article, without_lead_in
from vlm_rl.errors import UserError

Rule = Callable[[str, str, Mapping[str, Any]], float]

MRA_THRESHOLDS = tuple(0.5 + 0.05 * i for i in range(10))
_MRA_SLACK = 1e-9
_LONGEST_LIST = 2000
_RELAXED = 0.05
_ITEM = re.compile(r"[,;]")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}


def same_text(gold: str, answer: str) -> bool:
    """Equal but for case, spacing, wrappers, a final full stop, an article and words that lead in. "The  Cat." equals "a cat"."""
    golds = {_plain(gold), normal(gold)} - {""}
    return bool(golds & {_plain(answer), normal(answer)})


def _plain(text: str) -> str:
    return without_article(normal(without_lead_in(unwrapped(text))))


def exact(gold: str, answer: str, meta: Mapping[str, Any]) -> float:
    """1 when the answer is the gold text or one of `meta["alternatives"]`, by `same_text`."""
    return float(any(same_text(text, answer) for text in (gold, *_alternatives(meta))))


def open_answer(gold: str, answer: str, meta: Mapping[str, Any]) -> float:
    """MMMU's open questions (arXiv 2311.16502): any of the gold answers, numbers equal after rounding both to 2 decimals.

    Deviation: the published rule also accepts a gold text that occurs anywhere in the response.
    """
    return float(any(same_text(text, answer) or _rounded_equal(text, answer, 2) for text in (gold, *_alternatives(meta))))


def _alternatives(meta: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(text) for text in meta.get("alternatives", ()))


def decimals(gold: str, answer: str, meta: Mapping[str, Any]) -> float:
    """Numbers equal after rounding both to `meta["decimals"]` digits after the point (MathVista's floats, arXiv 2310.02255)."""
    return float(_rounded_equal(gold, answer, int(meta["decimals"])))


def _rounded_equal(gold: str, answer: str, digits: int) -> bool:
    one, other = parse_number(gold), parse_number(answer)
    return one is not None and other is not None and same_number(_rounded(one, digits), _rounded(other, digits), 1e-9)


def _rounded(number: Number, digits: int) -> Number:
    return Number(round(number.value, digits), number.percent)


def absolute(gold: str, answer: str, meta: Mapping[str, Any]) -> float:
    """Numbers that differ by at most `meta["absolute"]` (DynaMath's 0.001)."""
    one, other = parse_number(gold), parse_number(answer)
    return float(one is not None and other is not None and abs(one.value - other.value) <= float(meta["absolute"]) + 1e-12)


def number_list(text: str) -> tuple[float, ...] | None:
    """ "[1, 2.5]" or "(1, 2.5)" or "1, 2.5" -> (1.0, 2.5); None when any entry is not one number."""
    text = without_lead_in(unwrapped(text.strip()[:_LONGEST_LIST])).strip().rstrip(".")
    if text[:1] in _BRACKETS and text.endswith(_BRACKETS[text[0]]):
        text = text[1:-1]
    numbers = [parse_number(part) for part in _ITEM.split(text)]
    values = tuple(number.value for number in numbers if number is not None)
    return values if len(values) == len(numbers) else None


def listed(gold: str, answer: str, meta: Mapping[str, Any]) -> float:
    """Lists of numbers of equal length, equal place by place."""
    one, other = number_list(gold), number_list(answer)
    same = one is not None and other is not None and len(one) == len(other)
    return float(same and all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-9) for a, b in zip(one or (), other or (), strict=False)))


def relaxed(gold: str, answer: str, meta: Mapping[str, Any]) -> float:
    """ChartQA (arXiv 2203.10244): a number within 5% of the gold one, bounds included; any other gold answer, and 0, by `same_text`.

    As published, "5%" is 0.05. Deviation: an answer's thousands separators, currency and unit are read past.
    """
    key = _plain_float(gold)
    if not key:
        return float(same_text(gold, answer))
    given = _plain_float(answer)
    if given is None and (number := parse_number(answer)) is not None:
        given = number.value / 100 if number.percent else number.value
    return float(given is not None and abs(given - key) / abs(key) <= _RELAXED + 1e-12)


def _plain_float(text: str) -> float | None:
    text = text.strip()
    number, percent = (text[:-1], True) if text.endswith("%") else (text, False)
    try:
        value = float(number) if len(number) <= 40 else math.nan
    except ValueError:
        return None
    return None if not math.isfinite(value) else value / 100 if percent else value


def mean_relative_accuracy(gold: float, answer: float, public: bool = False) -> float:
    """MRA of VSI-Bench (arXiv 2412.14171): mean over theta = 0.50, 0.55, .., 0.95 of [|answer - gold| / |gold| <= 1 - theta].

    Deviation: 1e-9 is added to the right side, so that an error exactly on a threshold counts for every gold value; `public` leaves it
    out, as the published code does. A gold value of 0 gives 1 for the answer 0 and else 0.
    Example: gold 100, answer 120 -> 0.7 (0.6 with `public`).
    """
    if not gold or not math.isfinite(answer):
        return float(answer == gold)
    error = abs(answer - gold) / abs(gold)
    # The published thresholds come from numpy's linspace; its rounding decides which errors lie on a threshold.
    limits = [1 - _linspaced(i) for i in range(len(MRA_THRESHOLDS))] if public else [1 - t + _MRA_SLACK for t in MRA_THRESHOLDS]
    return sum(error <= limit for limit in limits) / len(limits)


def _linspaced(index: int) -> float:
    return 0.95 if index == 9 else 0.5 + index * ((0.95 - 0.5) / 9)


def mra(gold: str, answer: str, meta: Mapping[str, Any]) -> float:
    """`mean_relative_accuracy` of the two numbers; 0 when the answer holds none."""
    one, other = parse_number(gold), parse_number(answer)
    return 0.0 if one is None or other is None else mean_relative_accuracy(one.value, other.value, bool(meta.get("mra_public")))


def overlap(gold: str, answer: str, meta: Mapping[str, Any]) -> float:
    """IoU of two boxes [left, top, right, bottom] in the row's own units; an answer that is no box scores 0."""
    from data.boxes import iou  # needs numpy, and only rows with boxes need this

    one, other = (number_list(text) for text in (gold, answer))
    boxes = [box for box in (one, other) if box is not None and len(box) == 4 and box[0] < box[2] and box[1] < box[3]]
    return iou(boxes[0], boxes[1]) if len(boxes) == 2 else 0.0  # type: ignore[arg-type]


def judged(gold: str, answer: str, meta: Mapping[str, Any]) -> float:
    """What no rule can tell. Raises UserError."""
    raise UserError('meta.grading is "judge": such an answer, a caption for instance, is graded by a judge and by no rule')


RULES: dict[str, Rule] = {
    "exact": exact,
    "judge": judged,
    "open": open_answer,
    "decimals": decimals,
    "absolute": absolute,
    "list": listed,
    "relaxed": relaxed,
    "mra": mra,
    "wer": wer_score,
    "iou": overlap,
}
