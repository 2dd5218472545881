"""Whether an answer equals the gold one, by kind of question: the one ruler of training rewards and evaluation.

It gets the answer already parsed out of the response (`response`); how a kind is read lies in `choices`, `numerals`, `mathcheck`, `rouge`,
and what some benchmarks prescribe instead in `rules`.
"""

import re
from collections.abc import Callable

from rewards import mathcheck
from rewards.choices import choice_letters, gold_letters
from rewards.numerals import parse_number, same_number
from rewards.rouge import rouge_mean
from rewards.rules import RULES, number_list, same_text
from rewards.wording import collapsed, normal, unwrapped, without_lead_in
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import LETTERS, Sample

__all__ = ["choice_letters", "gold_problem", "grade", "is_correct", "lettered_options", "readable"]

_TOLERANCE = 1e-4
_YES_NO = {"yes": True, "true": True, "no": False, "false": False}
_FIRST_WORDS = 6
_MATHEMATICAL = re.compile(r"[\d\\=^]")


def grade(sample: Sample, answer: str | None) -> float:
    """How right `answer` is, in [0, 1]: 0 or 1 for choice, yesno, number and math, the ROUGE mean for text. No answer is wrong.

    `sample.meta["tolerance"]` is the relative tolerance of a number (1e-4 otherwise). `sample.meta["grading"]` names a rule of
    `rules.RULES`, or "expression", that takes the place of the kind's own. Raises RowError for an unknown kind or rule or a bad tolerance.
    """
    if sample.kind not in _GRADERS:
        raise RowError(sample.id, f"unknown kind of answer '{sample.kind}'; known: {', '.join(_GRADERS)}")
    grader = _ruled if sample.meta.get("grading") is not None else _GRADERS[sample.kind]
    return 0.0 if answer is None or not answer.strip() else float(grader(sample, answer))


def is_correct(sample: Sample, answer: str | None) -> bool:
    """grade >= 0.5."""
    return grade(sample, answer) >= 0.5


def readable(sample: Sample, answer: str | None) -> bool:
    """Whether `answer` can be read as one of the sample's kind, right or wrong: an option, yes or no, one number, some text."""
    if answer is None or not answer.strip():
        return False
    if sample.kind == "choice":
        return choice_letters(answer, lettered_options(sample)) is not None
    if sample.kind == "yesno":
        return yes_or_no(answer) is not None
    if sample.meta.get("grading") in ("list", "iou"):
        return number_list(answer) is not None
    return sample.kind != "number" or parse_number(answer) is not None


def lettered_options(sample: Sample) -> tuple[str, ...]:
    """The options an answer is read against: the sample's, or those its picture or question shows already (`meta["options_shown"]`)."""
    return sample.options or tuple(str(option) for option in sample.meta.get("options_shown") or ())


def _ruled(sample: Sample, answer: str) -> float:
    rule = str(sample.meta["grading"])
    if rule == "expression":
        return _expression(sample, answer)
    if rule not in RULES:
        raise RowError(sample.id, f"unknown meta.grading '{rule[:40]}'; known: expression, {', '.join(RULES)}")
    try:
        return RULES[rule](sample.answer, answer, sample.meta)
    except (KeyError, TypeError, ValueError) as error:
        raise RowError(sample.id, f"meta.grading '{rule}' lacks a usable setting: {error}") from None


def _choice(sample: Sample, answer: str) -> bool:
    options = lettered_options(sample)
    gold = gold_letters(sample.answer, options)
    return gold is not None and choice_letters(answer, options) == gold


def _yesno(sample: Sample, answer: str) -> bool:
    gold = yes_or_no(sample.answer)
    return gold is not None and yes_or_no(answer) == gold


def yes_or_no(text: str) -> bool | None:
    """By the first word; None for anything else, and for both at once ("yes or no")."""
    words = re.findall(r"\w+", without_lead_in(unwrapped(text[:200])).casefold())[:_FIRST_WORDS]
    rest = [word for word in words[1:] if word not in ("and", "or", "maybe")]
    if not words or words[0] not in _YES_NO:
        return None
    first = _YES_NO[words[0]]
    return None if rest and _YES_NO.get(rest[0], first) != first else first


def _number(sample: Sample, answer: str) -> bool:
    gold, number = parse_number(sample.answer), parse_number(answer)
    return gold is not None and number is not None and same_number(gold, number, _tolerance(sample))


def _tolerance(sample: Sample) -> float:
    value = sample.meta.get("tolerance", _TOLERANCE)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise RowError(sample.id, f"meta.tolerance is a relative tolerance, a number from 0 to below 1, not {value!r}")
    return value


def _math(sample: Sample, answer: str) -> bool:
    gold, given = unwrapped(sample.answer), unwrapped(answer)
    return collapsed(gold) == collapsed(given) or _checked(gold, given).equal


def _expression(sample: Sample, answer: str) -> bool:
    """Open answers of mathematics benchmarks: equal as a text, as a number, or, where the gold one is mathematics, to math-verify."""
    gold, number = parse_number(sample.answer), parse_number(answer)
    if same_text(sample.answer, answer) or (gold and number and same_number(gold, number, _TOLERANCE)):
        return True
    return _MATHEMATICAL.search(sample.answer) is not None and _math(sample, answer)


def _checked(gold: str, answer: str) -> mathcheck.Verdict:
    try:
        return mathcheck.check(gold, answer)
    except mathcheck.MathCheckError as error:
        raise UserError(f"{error}; install the package math-verify, or give such rows kind: text") from None


def _readable(gold: str) -> bool:
    verdict = _checked(gold, gold)
    return verdict.equal and verdict.readable


def _text(sample: Sample, answer: str) -> float:
    same = normal(answer) == normal(sample.answer) != "" or collapsed(answer).casefold() == collapsed(sample.answer).casefold()
    return 1.0 if same else rouge_mean(sample.answer, answer)


_GRADERS: dict[str, Callable[[Sample, str], float]] = {
    "choice": _choice,
    "yesno": _yesno,
    "number": _number,
    "math": _math,
    "text": _text,
}


def gold_problem(sample: Sample) -> str | None:
    """Why no answer to this sample could be graded rightly, or None: its gold answer must score 1 by its own verifier, if a rule is one."""
    if not sample.answer.strip():
        return "the answer is empty"
    if sample.meta.get("grading") == "judge":
        return None
    if sample.kind == "choice" and (problem := _choice_problem(sample)):
        return problem
    if sample.kind == "math" and "grading" not in sample.meta and not _readable(unwrapped(sample.answer)):
        return f"math-verify cannot read the answer '{sample.answer[:80]}'; write it as a LaTeX expression, or give the row kind: text"
    try:
        value = grade(sample, sample.answer)
    except RowError as error:
        return error.reason
    return None if value == 1.0 else f"the answer '{sample.answer[:80]}' is not accepted by the verifier of kind '{sample.kind}'"


def _choice_problem(sample: Sample) -> str | None:
    options = lettered_options(sample)
    count = len(options)
    if count == 0:
        return "a choice without options"
    if count > len(LETTERS):
        return f"{count} options, and only {len(LETTERS)} letters"
    if gold_letters(sample.answer, options) is None:
        last = LETTERS[count - 1]
        return f"the answer '{sample.answer[:80]}' is not the letter of an option (A to {last}, several as 'A,{last}')"
    return None
