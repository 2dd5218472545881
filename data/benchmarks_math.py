"""Rows of the mathematics benchmarks in their published schemas, each turned into a Sample by one function (row, place) -> Sample.

What the schema says decides how a row is graded, never the look of its key alone. Metrics are not computed here.
"""

import re
from typing import Any

from data.benchmark_fields import (
    Choice,
    Place,
    Row,
    image,
    inline_options,
    key_text,
    letter_gold,
    lettered,
    mapping,
    mark_once,
    maybe,
    need,
    option_columns,
    options_of,
    required_image,
    text,
    text_gold,
    texts,
)
from vlm_rl.types import LETTERS, AnswerKind, Media, Sample

IN_THE_PICTURE = "Answer the question in the picture."
_TAG = re.compile(r"\s*<answer>(.*)</answer>\s*\Z", re.DOTALL)
_MOST_DIGITS = 15
_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?")


def mathvista(row: Row, place: Place) -> Sample:
    """AI4Math/MathVista (arXiv 2310.02255): multi_choice keys are the text of a choice; free_form by answer_type.

    Deviations: an integer must be equal (the published code cuts 7.9 to 7), and an answer is never the choice nearest in spelling. The
    question says how many digits are wanted, because the key is rounded to them.
    """
    question, key = text(row, "question"), key_text(row, "answer")
    about = mapping(row, "metadata")
    meta = {name: about[name] for name in ("task", "context", "category", "grade", "language", "source", "skills") if name in about}
    answer_type, question_type = maybe(row, "answer_type"), text(row, "question_type")
    meta |= {"question_type": question_type, "answer_type": answer_type}
    if unit := maybe(row, "unit"):
        question = f"{question} (Unit: {unit})"
    sample_id, media = text(row, "pid"), required_image(row, place, "decoded_image", "image")
    if question_type == "multi_choice":
        options = options_of(need(row, "choices"), "choices")
        if not options:
            raise ValueError('the question is "multi_choice" but the field "choices" is empty')
        return Sample(sample_id, question, text_gold(key, options), "choice", options, media, meta=meta)
    if question_type != "free_form":
        raise ValueError(f'the field "question_type" is multi_choice or free_form, not {question_type[:40]!r}')
    kind, hint, rule = _mathvista_open(answer_type, maybe(row, "precision"), key)
    return Sample(sample_id, question + hint, key, kind, (), media, meta=meta | rule)


def _mathvista_open(answer_type: str, precision: str, key: str) -> tuple[AnswerKind, str, dict[str, Any]]:
    """Kind, what the question must say about the form of the answer, and the grading rule."""
    if answer_type == "integer":
        return "number", " (Answer with an integer.)", {"tolerance": 0.0}
    if answer_type == "float":
        digits = int(precision.partition(".")[0] or "0") if precision else len(key.partition(".")[2])
        if digits > _MOST_DIGITS:
            raise ValueError(f'the field "precision" is a number of digits up to {_MOST_DIGITS}, not {precision[:40]!r}')
        return "number", f" (Answer with {digits} digit{'s' * (digits != 1)} after the point.)", {"grading": "decimals", "decimals": digits}
    if answer_type == "list":
        return "text", " (Answer with a list of numbers, such as [1, 2].)", {"grading": "list", "answer_form": "the list only"}
    if answer_type == "text":
        return "text", "", {"grading": "exact"}
    raise ValueError(f'the field "answer_type" is integer, float, list or text, not {answer_type[:40]!r}')


def mathverse(row: Row, place: Place) -> Sample:
    """CaraJ/MathVerse-lmmseval (arXiv 2403.14624). Where the picture alone holds the question, its text and options are not given."""
    version, key = text(row, "problem_version"), key_text(row, "answer")
    for field in ("question", "image"):
        need(row, field)
    about = mapping(row, "metadata")
    meta: dict[str, Any] = {"version": version, "problem": maybe(row, "problem_index"), "question_type": text(row, "question_type")}
    meta |= {name: about[name] for name in ("subject", "subfield") if name in about}
    media, source = image(row, place, "image"), maybe(row, "question")
    if not media and version.casefold() != "text only":
        raise ValueError('the field "image" holds no picture')
    sample_id = text(row, "sample_index")
    if meta["question_type"] == "free-form":
        return Sample(sample_id, source or IN_THE_PICTURE, key, "math", (), media, meta=meta | {"grading": "expression"})
    if meta["question_type"] != "multi-choice":
        raise ValueError(f'the field "question_type" is multi-choice or free-form, not {meta["question_type"][:40]!r}')
    choice = lettered(source, key, fewest=4)
    if not choice.options:
        hidden = inline_options(maybe(row, "question_for_eval"))[1]
        choice = Choice(source or IN_THE_PICTURE, (), hidden or choice.shown)
    gold = letter_gold(key, choice.count)
    return Sample(sample_id, choice.question, gold, "choice", choice.options, media, meta=meta | choice.meta)


def mathvision(row: Row, place: Place) -> Sample:
    """MathLLMs/MathVision (arXiv 2402.14804): a letter where there are options, else a number or an expression."""
    meta: dict[str, Any] = {"subject": text(row, "subject"), "level": maybe(row, "level")}
    question = mark_once(text(row, "question"))
    sample_id, media = maybe(row, "id") or str(place.number), required_image(row, place, "decoded_image", "image")
    options, key = options_of(need(row, "options")), key_text(row, "answer")
    if not options:
        return Sample(sample_id, question, key, "math", (), media, meta=meta | {"grading": "expression"})
    gold = letter_gold(key, len(options))
    if options == tuple(LETTERS[: len(options)]):  # the picture shows the options, so their letters must stay where they are
        return Sample(sample_id, question, gold, "choice", (), media, meta=meta | {"options_shown": options})
    return Sample(sample_id, question, gold, "choice", options, media, meta=meta)


def logicvista(row: Row, place: Place) -> Sample:
    """lscpku/LogicVista (arXiv 2407.04973): options inside the question or in the picture; one letter or several, all must match.

    Every question says that several may be right: said only where it is so, it would be half the answer.
    """
    key = key_text(row, "answer")
    choice = lettered(text(row, "question"), key)
    skill = need(row, "skill") if "skill" in row else ""
    meta = {"skill": list(texts(skill, "skill")) if isinstance(skill, (list, tuple)) else str(skill or "")}
    meta["answer_form"] = "the letter of the right option, or the letters of all that are right, separated by commas"
    media, sample_id = required_image(row, place, "image"), maybe(row, "index", "id") or str(place.number)
    gold = letter_gold(key, choice.count)
    return Sample(sample_id, choice.question, gold, "choice", choice.options, media, meta=meta | choice.meta)


def wemath(row: Row, place: Place) -> Sample:
    """We-Math/We-Math (arXiv 2407.01284): step questions and the composite one share an ID; `key` says which is which."""
    problem, step = text(row, "ID"), text(row, "key")
    steps, _, part = step.partition("_")
    if steps not in ("2steps", "3steps") or part not in ("multi", *"123"[: int(steps[0])]):
        raise ValueError(f'the field "key" is such as 2steps_1 or 3steps_multi, not {step[:40]!r}')
    question = text(row, "question")
    key = key_text(row, "answer")
    choice = _wemath_options(question, maybe(row, "option"), key) or Choice(question, option_columns(row))
    gold = letter_gold(key, choice.count)
    meta = {"problem": problem, "steps": steps, "step": part, "concept": maybe(row, "knowledge concept")}
    media = required_image(row, place, "image_path", "image")
    return Sample(f"{problem}/{step}", choice.question, gold, "choice", choice.options, media, meta=meta | choice.meta)


def _wemath_options(question: str, source: str, key: str) -> Choice | None:
    """All options in one text, "A. 9; B. 12; C. 16"; where they cannot be told apart they are shown as they are."""
    if not source:
        return None
    stem, options = inline_options(source)
    return Choice(question, options) if options and not stem else lettered(f"{question}\n{source}", key)


def dynamath(row: Row, place: Place) -> Sample:
    """kcz358/DynaMath (arXiv 2411.00836), and the columns qid, varid, answer, answer_type where there are any.

    `meta["seeds"]` holds what may name the seed question, best first; the metric takes the one that groups.
    """
    key, question = key_text(row, "ground_truth", "answer"), text(row, "question")
    media = required_image(row, place, "decoded_image", "image")
    own, variant = maybe(row, "id", "index"), maybe(row, "question_id", "varid")
    sample_id = "/".join(part for part in (place.config, place.split, maybe(row, "qid"), own, variant) if part) or str(place.number)
    seeds = [maybe(row, "qid")] if maybe(row, "qid") else [own, variant.rpartition("_")[0] or variant]
    meta: dict[str, Any] = {"seeds": seeds, "subject": maybe(row, "subject"), "level": maybe(row, "knowledge_level")}
    kind = maybe(row, "answer_type") or _dynamath_kind(key)
    if kind == "multiple choice":
        choice = lettered(question, key)
        gold = letter_gold(key, choice.count)
        return Sample(sample_id, choice.question, gold, "choice", choice.options, media, meta=meta | choice.meta)
    rule = {"grading": "absolute", "absolute": 0.001} if kind == "float" and _NUMBER.fullmatch(key) else {"grading": "expression"}
    return Sample(sample_id, question, key, "number" if "absolute" in rule else "math", (), media, meta=meta | rule)


def _dynamath_kind(key: str) -> str:
    """For rows that do not say: a lone capital is an option's letter, a plain number a number."""
    if len(key) == 1 and key in LETTERS[:8]:
        return "multiple choice"
    return "float" if _NUMBER.fullmatch(key) else "other"


def geometry3k(row: Row, place: Place) -> Sample:
    """Yang130/geometry3k_4choices_mixed (arXiv 2105.04165): four choices and the letter of the right one."""
    pictures = need(row, "images")
    first = pictures[0] if isinstance(pictures, (list, tuple)) and pictures else pictures
    media = required_image({"images": first}, place, "images")
    options = options_of(need(row, "choices"), "choices")
    gold = letter_gold(key_text(row, "ground_truth"), len(options), "ground_truth")
    question = mark_once(text(row, "problem"))
    return Sample(maybe(row, "id") or str(place.number), question, gold, "choice", options, media)


def geoqa(row: Row, place: Place) -> Sample:
    """GeoQA in R1-V's two forms: image, problem, solution (training), and image_path, question, ground_truth (its test set)."""
    media: tuple[Media, ...] = required_image(row, place, "image", "image_path")
    question = mark_once(text(row, "problem", "question"))
    key = key_text(row, "solution", "ground_truth", "answer")
    tagged = _TAG.fullmatch(key)
    key = tagged[1].strip() if tagged else key
    return Sample(maybe(row, "id") or str(place.number), question, key, "math", (), media, meta={"grading": "expression"})
