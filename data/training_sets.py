"""Training sets people use, by the schema they are published in: one small function each, from a published row to the standard columns.

They name no hub id: where the rows lie is `data.path`'s business. Answers are brought into a form that a rule can grade where there is
one. No row of these sets is part of the tests: they are checked on files of the same shape that the tests write.
"""

import importlib
import json
import re
from collections.abc import Mapping
from typing import Any

from data.answers import infer_kind
from data.benchmark_fields import lettered
from data.mapping import Fields, Mapper, looked_up, unwrapped
from vlm_rl.errors import UserError, unknown

_LETTERS_ONLY = re.compile(r"\(?[A-J]\)?(?:\s*,\s*\(?[A-J]\)?)*\.?")
_FORMAL = re.compile(r"[0-9\\^_=+*/<>()]")
_VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
_BOXED = "\\boxed{"


def geometry3k(row: Fields) -> Fields:
    """Open geometry questions. hiyouga/geometry3k: images [image], problem, answer, choices, ground_truth (a letter), id.

    Graded by `answer` as mathematics; rows without it (a four-choice edition has none) are multiple choice. Schema as of its dataset card
    in 2026; checked only on files of this shape written by the tests.
    """
    if not _given(row, "answer"):
        return geometry3k_choice(row)
    return {
        "id": row.get("id"),
        "question": looked_up(row, "problem"),
        "images": looked_up(row, "images"),
        **_graded(looked_up(row, "answer")),
    }


def geometry3k_choice(row: Fields) -> Fields:
    """The same rows as multiple choice by `choices` and `ground_truth`. Schema as of `geometry3k`."""
    return {
        "id": row.get("id"),
        "question": looked_up(row, "problem"),
        "images": looked_up(row, "images"),
        "options": looked_up(row, "choices"),
        "answer": looked_up(row, "ground_truth"),
    }


def mm_eureka(row: Fields) -> Fields:
    """MM-Eureka's dataset.jsonl (arXiv 2503.07365): id, conversations [{role, content}], answer, image_urls [path].

    Schema as of loaders of it published in 2025; checked only on files of this shape written by the tests.
    """
    question = _said(row, ("user", "human"))
    return {"id": row.get("id"), "images": row.get("image_urls") or [], **_asked(question, looked_up(row, "answer"))}


def mmk12(row: Fields) -> Fields:
    """FanqingM/MMK12: id, question, answer, subject, image. Schema as of its dataset card; checked only on files of this shape."""
    images = [] if row.get("image") is None else row["image"]
    return {"id": row.get("id"), "images": images, "subject": row.get("subject"), **_asked(row["question"], looked_up(row, "answer"))}


def virl39k(row: Fields) -> Fields:
    """TIGER-Lab/ViRL39K (arXiv 2504.08837): question, answer in \\boxed{}, image [path], qid, category, source, PassRate_32BTrained,
    PassRate_7BBase (in [0, 1], -1 where not measured).

    meta.difficulty = 1 - PassRate_32BTrained where measured. Schema as of loaders published in 2026; checked only on files of this shape
    written by the tests.
    """
    rate = row.get("PassRate_32BTrained")
    difficulty = {"difficulty": 1 - rate} if isinstance(rate, int | float) and 0 <= rate <= 1 else {}
    meta = {name: row[name] for name in ("category", "source", "PassRate_32BTrained", "PassRate_7BBase") if name in row}
    return {
        "id": row.get("qid"),
        "images": row.get("image") or [],
        **meta,
        **difficulty,
        **_asked(looked_up(row, "question"), looked_up(row, "answer")),
    }


def video_r1(row: Fields) -> Fields:
    """Video-R1-260k.json and Video-R1-COT-165k.json (arXiv 2503.21776): problem_id, problem, data_type (image | video), problem_type
    (multiple choice | numerical | OCR | free-form | regression), options ["A. ..."], solution <answer>..</answer>, path, data_source.

    `process`, where there is one, and the solution become the demonstration. Schema as of its dataset card in 2026; checked only on files
    of this shape written by the tests.
    """
    path = row.get("path") if _given(row, "path") else row.get("images") or []
    paths = path if isinstance(path, list) else [path]
    videos = row.get("data_type") == "video" or (row.get("data_type") is None and all(_is_video(p) for p in paths) and bool(paths))
    solution, process = looked_up(row, "solution"), row.get("process")
    fields: dict[str, Any] = {
        "id": row.get("problem_id"),
        "question": looked_up(row, "problem"),
        "videos" if videos else "images": paths,
        "problem_type": row.get("problem_type"),
        "data_source": row.get("data_source"),
    }
    if process:
        fields["response"] = f"{process}{solution}"
    if row.get("problem_type") == "multiple choice" and row.get("options"):
        return {**fields, "options": row["options"], "answer": unwrapped(solution)}
    if row.get("problem_type") in ("OCR", "free-form"):
        rule = {"grading": "wer"} if row["problem_type"] == "OCR" else {}
        return {**fields, "answer": unwrapped(solution), "kind": "text", **rule}
    return {**fields, **_asked(fields["question"], solution)}


def sophiavl_r1(row: Fields) -> Fields:
    """SophiaVL-R1-130k (arXiv 2505.17018): the columns of Video-R1 without videos; some rows have no picture, problem_type may be "text".

    Schema as of the loader in its authors' code (2025); checked only on files of this shape written by the tests.
    """
    return video_r1({"data_type": "image", **row} if row.get("data_type") != "text" else {**row, "data_type": "image", "path": None})


def r1_onevision(row: Fields) -> Fields:
    """Fancy-MLLM/R1-Onevision (arXiv 2503.10615), demonstrations: id, image (base64 text, also as a data URL), conversations
    [{from, value}] of one question (from human, or user) and one response (from gpt, or assistant) with <think>..</think>. Not every
    question has a mark for its picture. The answer is the last \\boxed{} after the reasoning; without one a row can only be imitated.

    Schema as two public programs that convert the set read it; what the responses end with does not show there. Checked only on files of
    this shape written by the tests.
    """
    response = _said(row, ("assistant", "gpt"))
    boxed = _last_boxed(response.rpartition("</think>")[2])
    images = [_encoded(row["image"])] if _given(row, "image") else []
    fields = {"id": row.get("id"), "response": response, "images": images}
    question = _said(row, ("user", "human"))
    return {**fields, "question": question} if boxed is None else {**fields, **_asked(question, boxed)}


TRAINING_SETS: dict[str, Mapper] = {
    "geometry3k": geometry3k,
    "geometry3k_choice": geometry3k_choice,
    "mm_eureka": mm_eureka,
    "mmk12": mmk12,
    "virl39k": virl39k,
    "video_r1": video_r1,
    "sophiavl_r1": sophiavl_r1,
    "r1_onevision": r1_onevision,
}


def named_mapper(name: str) -> Mapper:
    """An entry of TRAINING_SETS, or a function of one row by "module:function". Raises UserError."""
    if name in TRAINING_SETS:
        return TRAINING_SETS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise unknown("training set", name, TRAINING_SETS, "data.mapping")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"data.mapping={name}: {error}; write module:function, where function(row) returns the standard columns") from None


def _asked(question: str, answer: Any) -> dict[str, Any]:
    """Question and answer. Where the answer is a letter, the options are taken out of the question's text, if they can be told apart."""
    gold = unwrapped(answer) if isinstance(answer, str) else answer
    if not isinstance(gold, str) or not _LETTERS_ONLY.fullmatch(gold):
        return {"question": question, **_graded(answer)}
    choice = lettered(question, gold)
    options = {"options": list(choice.options)} if choice.options else {"kind": "choice"}
    return {"question": choice.question, "answer": gold.rstrip("."), **options, **choice.meta}


def _graded(answer: Any) -> dict[str, Any]:
    """An open answer and its kind: yes/no and numbers as such, anything with digits or signs as mathematics, words as text."""
    text = unwrapped(answer) if isinstance(answer, str) else str(answer)
    kind = infer_kind(text)
    return {"answer": text, "kind": "math" if kind == "text" and _FORMAL.search(text) else kind}


def _said(row: Fields, roles: tuple[str, ...]) -> str:
    """The first turn of one of `roles` in a list of {role, content} or {from, value}, which may be JSON text."""
    turns = looked_up(row, "conversations")
    turns = json.loads(turns) if isinstance(turns, str) else turns
    for turn in turns:
        if isinstance(turn, Mapping) and (turn.get("role") or turn.get("from")) in roles:
            text = turn.get("content") or turn.get("value")
            if isinstance(text, str):
                return text
    raise ValueError(f'"conversations" has no turn of {" or ".join(roles)}')


def _last_boxed(text: str) -> str | None:
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    depth = 1
    for end in range(start + len(_BOXED), len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start : end + 1]
    return None


def _encoded(image: Any) -> Any:
    """Base64 of any format as such; a path, which has a dot, stays one."""
    return {"bytes": image.rpartition(",")[2]} if isinstance(image, str) and "." not in image else image


def _given(row: Fields, name: str) -> bool:
    return row.get(name) not in (None, "", [])


def _is_video(path: Any) -> bool:
    return isinstance(path, str) and path.lower().endswith(_VIDEO_SUFFIXES)
