"""Rows of the picture benchmarks in their published schemas, each turned into a Sample by one function (row, place) -> Sample.

Several subjects, charts, fine detail, hallucination and spatial relations; mathematics and videos have files of their own.
"""

import random
from pathlib import PurePath
from typing import Any

from data.benchmark_fields import (
    Place,
    Row,
    file,
    image,
    key_text,
    letter_gold,
    lettered,
    maybe,
    need,
    option_columns,
    options_of,
    place_images,
    required_image,
    text,
    text_gold,
    texts,
)
from data.benchmarks_math import IN_THE_PICTURE
from vlm_rl.seeds import stable_hash
from vlm_rl.types import LETTERS, Media, Sample

OPEN = {"grading": "open", "answer_form": "a number, a word or a short phrase only"}
_MOST_IMAGES = 7
_DISCIPLINES = {
    "Art & Design": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Health & Medicine": "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy Public_Health",
    "Humanities & Social Science": "History Literature Sociology Psychology",
    "Tech & Engineering": (
        "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power Materials Mechanical_Engineering"
    ),
}
DISCIPLINE = {subject: name for name, subjects in _DISCIPLINES.items() for subject in subjects.split()}


def subject_of(sample_id: str) -> dict[str, str]:
    """ "validation_Art_Theory_12" -> {"subject": "Art_Theory", "discipline": "Art & Design"}"""
    subject = "_".join(sample_id.split("_")[1:-1])
    return {"subject": subject, "discipline": DISCIPLINE.get(subject, "")}


def mmmu(row: Row, place: Place) -> Sample:
    """MMMU (arXiv 2311.16502): options as a string that holds a list, "<image n>" marks, open questions with one or several keys."""
    sample_id = text(row, "id")
    meta: dict[str, Any] = {"question_type": text(row, "question_type"), **subject_of(sample_id)}
    open_ended = meta["question_type"] == "open"
    if not open_ended and meta["question_type"] != "multiple-choice":
        raise ValueError(f'the field "question_type" is multiple-choice or open, not {meta["question_type"][:40]!r}')
    options = () if open_ended else options_of(need(row, "options"))
    pictures = _pictures(row, place)
    question, options, media = place_images(text(row, "question"), options, pictures)
    if open_ended:
        keys = _keys(row)
        answer = keys[0] if keys else ""
        meta |= {**OPEN, "alternatives": keys[1:]}
        return Sample(sample_id, question, answer, "text", (), media, meta=meta)
    return Sample(sample_id, question, letter_gold(key_text(row, "answer"), len(options)), "choice", options, media, meta=meta)


def _keys(row: Row) -> tuple[str, ...]:
    """One gold answer, or several as a list or as a string that holds one."""
    value = need(row, "answer")
    if isinstance(value, str) and not value.strip().startswith("["):
        key = key_text(row, "answer")
        return (key,) if key else ()
    try:
        return texts(value, "answer") if isinstance(value, (str, list, tuple)) else (key_text(row, "answer"),)
    except ValueError:
        return (key_text(row, "answer"),)  # an interval such as "[0, 1)" begins like a list and is none


def _pictures(row: Row, place: Place) -> dict[int, Media]:
    found = {n: image(row, place, f"image_{n}") for n in range(1, _MOST_IMAGES + 1)}
    return {n: media[0] for n, media in found.items() if media}


def mmmu_pro(row: Row, place: Place) -> Sample:
    """MMMU/MMMU_Pro (arXiv 2409.02813): the standard configurations as MMMU, and "vision", where the picture holds question and options.

    Options that the picture shows are read when an answer names them, but not written into the question.
    """
    sample_id, options = text(row, "id"), options_of(need(row, "options"))
    subject = maybe(row, "subject")
    meta: dict[str, Any] = {"subject": subject, "discipline": DISCIPLINE.get(subject, "")}
    gold = letter_gold(key_text(row, "answer"), len(options))
    if "question" in row:
        meta["setting"] = place.config or f"standard ({len(options)} options)"
        question, options, media = place_images(text(row, "question"), options, _pictures(row, place))
        return Sample(f"{meta['setting']}/{sample_id}", question, gold, "choice", options, media, meta=meta)
    meta |= {"setting": place.config or "vision", "options_shown": options}
    media = required_image(row, place, "image")
    return Sample(f"{meta['setting']}/{sample_id}", IN_THE_PICTURE, gold, "choice", (), media, meta=meta)


def chartqa(row: Row, place: Place) -> Sample:
    """ChartQA (arXiv 2203.10244): a word or a number. `type` is human_test for questions by people, anything else for generated ones."""
    key = need(row, "answer", "label")
    key = key[0] if isinstance(key, (list, tuple)) and len(key) == 1 else key
    kind = "human" if maybe(row, "type", "human_or_machine").startswith("human") else "augmented"
    answer, question = key_text({"answer": key}, "answer"), text(row, "question", "query")
    media = required_image(row, place, "image")
    return Sample(
        maybe(row, "id") or str(place.number), question, answer, "text", (), media, meta={**OPEN, "grading": "relaxed", "type": kind}
    )


def vstar(row: Row, place: Place) -> Sample:
    """V*Bench (arXiv 2312.14135): question and "(A) .." options in one text."""
    key = key_text(row, "label")
    choice = lettered(text(row, "text"), key, fewest=4)
    meta = {"category": text(row, "category"), **choice.meta}
    sample_id = "/".join(part for part in (meta["category"], maybe(row, "question_id") or str(place.number)))
    media = required_image(row, place, "image")
    return Sample(sample_id, choice.question, letter_gold(key, choice.count, "label"), "choice", choice.options, media, meta=meta)


def hrbench(row: Row, place: Place) -> Sample:
    """DreamMr/HR-Bench (arXiv 2408.15556): each question once per rotation of its options (`cycle_category`); base64 pictures."""
    options = option_columns(row, LETTERS[:4])
    meta = {"category": text(row, "category"), "cycle": text(row, "cycle_category"), "split": place.split}
    gold = letter_gold(key_text(row, "answer"), len(options))
    sample_id = "/".join(part for part in (place.split, text(row, "index")) if part)
    return Sample(sample_id, text(row, "question"), gold, "choice", options, required_image(row, place, "image"), meta=meta)


def pope(row: Row, place: Place) -> Sample:
    """POPE (arXiv 2305.10355): yes or no. Question ids repeat over the three categories, so a sample's id holds its category."""
    category = maybe(row, "category") or place.split.strip()
    answer = key_text(row, "answer").casefold()
    if answer not in ("yes", "no", ""):
        raise ValueError(f'the field "answer" is yes or no, not {answer[:40]!r}')
    sample_id = "/".join(part for part in (category, maybe(row, "question_id") or str(place.number)) if part)
    media = required_image(row, place, "image")
    return Sample(sample_id, text(row, "question"), answer, "yesno", (), media, meta={"category": category})


def spatial_choice(row: Row, place: Place) -> Sample:
    """Multiple choice about where things are, as WhatsUp (arXiv 2310.19785) and Spatial-MM (arXiv 2411.06048) ask it.

    Fields: `question`, `options` (or columns A, B, ..), `answer` as a letter, a 0-based number or an option's text, and one of `image`,
    `image_path`, `image_name`. WhatsUp's own files hold `caption_options`, the first of which is right: these are put into an order
    drawn by the row, or "A" would always be right.
    """
    media = image(row, place, "image") or (file(place, "image", text(row, "image_path", "image_name", "image")),)
    meta = {"category": maybe(row, "category", "relation", "task")}
    sample_id = maybe(row, "id", "index", "question_id") or str(place.number)
    if "caption_options" in row:
        captions = options_of(row["caption_options"], "caption_options")
        meta["category"] = meta["category"] or _relation(captions)
        order = list(range(len(captions)))
        random.Random(stable_hash("whatsup", place.number, *captions)).shuffle(order)
        options = tuple(captions[i] for i in order)
        return Sample(sample_id, "Which caption fits the picture?", LETTERS[order.index(0)], "choice", options, media, meta=meta)
    options = options_of(row["options"]) if row.get("options") else option_columns(row)
    if not options:
        raise ValueError('the field "options" is missing, and so are columns A, B, ..')
    return Sample(sample_id, text(row, "question"), _any_gold(need(row, "answer"), options), "choice", options, media, meta=meta)


def _relation(captions: tuple[str, ...]) -> str:
    """The words in which the captions differ from each other name the relation: "left of" in "A mug to the left of a plate"."""
    words = [caption.split() for caption in captions]
    common = set.intersection(*map(set, words)) if words else set()
    return " ".join(word for word in words[0] if word not in common) if words else ""


def _any_gold(value: Any, options: tuple[str, ...]) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < len(options):
            raise ValueError(f'the field "answer" is {value}, and there are {len(options)} options, counted from 0')
        return LETTERS[value]
    key = key_text({"answer": value}, "answer")
    try:
        return text_gold(key, options)
    except ValueError:
        return letter_gold(key, len(options))


def folder_of(path: str) -> str:
    """The folder's name in a path, as some benchmarks keep the subject there: "videos/Chemistry/9.mp4" -> "Chemistry"."""
    parts = PurePath(path).parts
    return parts[-2] if len(parts) > 1 else ""
