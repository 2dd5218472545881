"""Reading one number out of an answer. No expressions are evaluated (`mathcheck` does that) and units are not converted but ignored."""

import math
import re
from dataclasses import dataclass

from rewards.wording import collapsed, unwrapped, without_lead_in

LONGEST = 512
_UNITS = "zero one two three four five six seven eight nine"
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORD_VALUES = {word: float(value) for value, word in enumerate(f"{_UNITS} {_TEENS}".split())} | {
    f"{ten}{joint}{unit}" if value else ten: float(10 * tens + value)
    for tens, ten in enumerate(_TENS.split(), start=2)
    for value, unit in enumerate(_UNITS.split())
    for joint in ("-", " ")
}
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>[-+]?\s?)(?:(?:(?P<whole>\d+)\s)?(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?!\d|[.,]\d)"
    r"|(?P<decimal>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?P<exponent>[eE][-+]?\d{1,4}(?!\w))?)"
)
_PERCENT = re.compile(r"\s?(?:%|per\s?cent\b)", re.IGNORECASE)
_OPERATOR_AFTER = re.compile(r"[\^(]|\s?[*/+√π×÷·]|\s?[xX]\s?\d|\.\d|,\d|:\d")
_NO_NUMBER = re.compile(r"[√π<>≤≥≠\\]|\b(?:sqrt|log|ln|sin|cos|tan|exp|pi|not)\b|n't\b", re.IGNORECASE)
_LIST = re.compile(r",\s|;|\b(?:and|or)\b")
_REWRITES = (
    (re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3})"), ""),
    (re.compile(r"\\[,;!: ]|\\(?:left|right|displaystyle)\b|[$€£¥]"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"[\u2212\u2010\u2011]"), "-"),
    (re.compile(r"\\[dt]?frac\s?\{\s?(\d+)\s?\}\s?\{\s?(\d+)\s?\}"), r" \1/\2"),
    (re.compile(r"\\[dt]?frac\s?(\d)\s?(\d)(?!\d)"), r" \1/\2"),
    (re.compile(r"\s?(?:\\times|\\cdot|[×x*·])\s?10\s?\^\s?\{?\s?([-+]?\d{1,4})\s?\}?"), r"e\1"),
    (re.compile(r"\\(?:text|textrm|mathrm|mbox)\s?\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\s?\^\s?\{?\s?\\circ\s?\}?|\\degree|°"), " degrees"),
    (re.compile(r"(?<=[A-Za-z])\s*\^\s?\{?\s?-?\d\s?\}?"), ""),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"-\s(?=\d+/)"), "-"),
)


@dataclass(frozen=True)
class Number:
    """A value as written: "50%" is Number(50.0, percent=True)."""

    value: float
    percent: bool = False


def parse_number(text: str) -> Number | None:
    """The one number in `text`, or None when there is none, more than one, an expression, or more than 512 characters.

    Read are signs, decimals, exponents (1.5e3, 1.5 \\times 10^3), thousands separators (1,234), fractions (3/4, \\frac{3}{4}, 1 1/2),
    percentages, number words below one hundred, with currency, a unit, words that lead in, or "x =" around them.
    """
    if len(text) > LONGEST:
        return None
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    left, _, right = text.rpartition("=")
    text = without_lead_in(unwrapped(collapsed(text if _LIST.search(left) else right))).rstrip(".")
    if text.casefold() in _WORD_VALUES:
        return Number(_WORD_VALUES[text.casefold()])
    matches = list(_NUMBER.finditer(text))
    if len(matches) != 1 or _NO_NUMBER.search(text):
        return None
    match = matches[0]
    before, after = text[: match.start()].rstrip(), text[match.end() :]
    if before.endswith(("/", "*", "^", "+", "×", "÷", "·")) or _OPERATOR_AFTER.match(after):
        return None
    value = _value(match)
    return None if value is None or not math.isfinite(value) else Number(value, _PERCENT.match(after) is not None)


def _value(match: re.Match[str]) -> float | None:
    sign = -1.0 if "-" in match["sign"] else 1.0
    if match["top"] is not None:
        bottom = float(match["bottom"])
        return sign * (float(match["whole"] or 0) + float(match["top"]) / bottom) if bottom else None
    return sign * float(match["decimal"].replace(",", "") + (match["exponent"] or ""))


def same_number(gold: Number, answer: Number, tolerance: float) -> bool:
    """|answer - gold| <= tolerance x |gold|. A percentage equals its value (50% = 0.5); the sign may be left out (50% = 50) above 1."""
    readings = {answer.value}
    if gold.percent and not answer.percent:
        readings.add(answer.value * 100)
    if answer.percent and not gold.percent:
        readings = {answer.value / 100} | ({answer.value} if abs(gold.value) > 1 else set())
    return any(abs(value - gold.value) <= tolerance * abs(gold.value) + 1e-12 for value in readings)
