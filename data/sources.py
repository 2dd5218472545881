"""A user's own rows from a JSONL file, with no code. Lines are parsed when they are asked for, media are not touched at all.

One object a line: {"id", "question", "images": [...], "videos": [...], "options": [...], "answer", "kind"?, "response"?, ...}.
"""

import json
import math
import re
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np

from data.answers import gold_letters, infer_kind, letters_only, strip_letters
from data.rows import LazyRows, Rows
from vlm_rl.config import DataConfig, project_path
from vlm_rl.errors import RowError, UserError, unknown
from vlm_rl.types import LETTERS, AnswerKind, Media, Sample

MAX_LINE_BYTES = 16 * 2**20
_KEYS = ("id", "question", "images", "videos", "options", "answer", "kind", "response")
_MISTAKEN = {"image": "images", "video": "videos", "option": "options", "choices": "options"}
_MARK = re.compile(r"<(image|video)>")
_SHAPE = '{"id": "7", "question": "What is it?", "images": ["7.png"], "options": ["cat", "dog"], "answer": "B"}'


def jsonl(config: DataConfig) -> Rows:
    """The rows of the JSONL file `config.path`; media paths are relative to it.

    Raises UserError for a missing, unreadable or empty file. A bad row raises RowError when it is read, not before.
    """
    if not config.path:
        raise UserError("data.name is jsonl but data.path is not set; write data.path=FILE.jsonl")
    if config.demonstrations:
        raise UserError('data.demonstrations is for generated data; rows of a JSONL file carry their own under "response"')
    return JsonlRows(project_path(config.path))


class JsonlRows(LazyRows):
    """The non-blank lines of a file by byte offset: 16 bytes a row. Line numbers count from 1 and include blank lines."""

    def __init__(self, path: Path):
        self.path = path
        offsets, numbers = array("q"), array("q")
        try:
            with path.open("rb") as file:
                for number, offset in _lines(file, path):
                    offsets.append(offset)
                    numbers.append(number)
        except FileNotFoundError:
            raise UserError(f"data.path: no such file {path}") from None
        except (OSError, ValueError) as error:
            raise UserError(f"data.path: {path} cannot be read: {error}") from None
        if not offsets:
            raise UserError(f"{path} has no rows; write one object a line, such as {_SHAPE}")
        self._offsets, self._numbers = np.frombuffer(offsets, np.int64), np.frombuffer(numbers, np.int64)

    def __len__(self) -> int:
        return len(self._offsets)

    def row(self, index: int) -> Sample:
        number = int(self._numbers[index])
        row_id, place = str(number), f"{self.path.name} line {number}"
        try:
            with self.path.open("rb") as file:
                file.seek(int(self._offsets[index]))
                fields = _object(file.readline(MAX_LINE_BYTES + 1))
            row_id = _id(fields, row_id)
            return _sample(fields, row_id, self.path.parent)
        except (ValueError, UserError, OSError) as error:
            raise RowError(row_id, f"{place}: {error}") from None


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, int]]:
    """(line number, byte offset) of each non-blank line."""
    number = offset = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise UserError(f"{path} line {number}: longer than {MAX_LINE_BYTES} bytes; JSONL has one object a line")
        if line.strip() not in (b"", b"\xef\xbb\xbf"):
            yield number, offset
        offset += len(line)


def _object(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"a row is an object, such as {_SHAPE}, not a {type(fields).__name__}")
    if b"\\ud" in line.lower():  # half of a surrogate pair cannot be encoded again, and would fail far from here
        try:
            json.dumps(fields, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("not valid text: it holds half of a surrogate pair") from None
    return fields


def _id(fields: Mapping[str, Any], default: str) -> str:
    value = fields.get("id")
    if value is None:
        return default
    if isinstance(value, (dict, list, bool)) or not str(value).strip():
        raise ValueError(f'"id" is text or a number, not {str(value)[:100]!r}')
    return str(value)


def _sample(fields: Mapping[str, Any], row_id: str, folder: Path) -> Sample:
    for wrong, right in _MISTAKEN.items():
        if wrong in fields and right not in fields:
            raise ValueError(f'the key is "{right}", not "{wrong}"')
    question = _text(fields, "question")
    if question is None:
        raise ValueError(f'"question" is missing (the row has: {", ".join(map(str, fields)) or "nothing"})'[:300])
    options = _options(fields)
    response = _text(fields, "response")
    answer, kind = _answer(fields, options, response is not None)
    return Sample(
        id=row_id,
        question=question,
        answer=answer,
        kind=kind,
        options=options,
        media=_media(fields, question, folder),
        response=response,
        meta={key: value for key, value in fields.items() if key not in _KEYS},
    )


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'"{key}" is not a text or is blank: {str(value)[:100]!r}')
    return value


def _options(fields: Mapping[str, Any]) -> tuple[str, ...]:
    values = fields.get("options")
    if values is None or values == []:
        return ()
    if not isinstance(values, list) or not all(isinstance(v, (str, int, float)) and not isinstance(v, bool) for v in values):
        raise ValueError('"options" is a list of texts, such as ["cat", "dog"]')
    if not 2 <= len(values) <= len(LETTERS):
        raise ValueError(f'"options" has {len(values)} entries; from 2 to {len(LETTERS)} can be lettered')
    return strip_letters([str(value) for value in values])


def _answer(fields: Mapping[str, Any], options: tuple[str, ...], demonstrated: bool) -> tuple[str, AnswerKind]:
    value, kind = fields.get("answer"), fields.get("kind")
    if kind is not None and kind not in get_args(AnswerKind):
        raise unknown("kind", str(kind), get_args(AnswerKind))
    if options and kind not in (None, "choice"):
        raise ValueError(f'a row with "options" is of kind "choice", not "{kind}"')
    if value is None or value == "" or value == []:
        if not demonstrated:
            raise ValueError('"answer" is missing')
        return "", kind or ("choice" if options else "text")
    if options:
        return gold_letters(value, options), "choice"
    if isinstance(value, (bool, list, dict)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f'"answer" is a text or a number, not {json.dumps(value)[:100]}; there are no "options" to choose from')
    text = str(value).strip()
    if not text:
        raise ValueError('"answer" is blank')
    if kind == "choice":
        letters = letters_only(text)
        if letters is None:
            raise ValueError(f'kind is "choice" and there are no "options", so "answer" must be a letter, not {text[:100]!r}')
        return letters, "choice"
    return text, kind or infer_kind(text)


def _media(fields: Mapping[str, Any], question: str, folder: Path) -> tuple[Media, ...]:
    """Handles in the order of the question's marks; without marks, images and then videos."""
    by_kind = {"image": _handles(fields, "image", folder), "video": _handles(fields, "video", folder)}
    marks = _MARK.findall(question)
    if not marks:
        return (*by_kind["image"], *by_kind["video"])
    for kind, handles in by_kind.items():
        if marks.count(kind) != len(handles):
            raise ValueError(
                f'the question has {marks.count(kind)} "<{kind}>" marks for {len(handles)} {kind}s; one per medium, or none at all'
            )
    queues = {kind: iter(handles) for kind, handles in by_kind.items()}
    return tuple(next(queues[kind]) for kind in marks)


def _handles(fields: Mapping[str, Any], kind: Literal["image", "video"], folder: Path) -> list[Media]:
    values = fields.get(f"{kind}s")
    values = [] if values is None else [values] if isinstance(values, str) else values
    if not isinstance(values, list) or not all(isinstance(v, str) and v.strip() and "\0" not in v for v in values):
        raise ValueError(f'"{kind}s" is a list of file paths')
    if remote := [v for v in values if "://" in v or v.startswith("data:")]:
        raise ValueError(f'"{kind}s" holds file paths; {remote[0][:80]!r} is not one, save it to a file first')
    return [Media(kind, path=folder / value) for value in values]
