"""From a raw row to a Sample: which column means what, gold answers in one form, media as handles. It opens no file and decodes nothing.

The standard columns are id, question, images, videos, options, answer, kind, response; whatever else a row holds goes to `meta`.
"""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from data.answers import gold_letters, infer_kind, letters_only, strip_letters
from data.benchmark_fields import texts
from data.media import media_from
from data.rows import LazyRows
from data.tables import Table
from vlm_rl.errors import RowError, UserError, unknown
from vlm_rl.types import LETTERS, AnswerKind, Media, Sample

Fields = Mapping[str, Any]
Mapper = Callable[[Fields], Fields]

STANDARD = ("id", "question", "images", "videos", "options", "answer", "kind", "response")
_MISTAKEN = {"image": "images", "video": "videos", "option": "options", "choices": "options"}
_MARK = re.compile(r"<(image|video)>")


class MappedRows(LazyRows):
    """The rows of a table as Samples. `mapper` turns a row into one with the standard columns; relative media paths start at `folder`."""

    def __init__(self, table: Table, mapper: Mapper | None = None, folder: Path | None = None):
        self.table, self.mapper = table, mapper
        self.folder = folder if folder is not None else table.folder

    def __len__(self) -> int:
        return len(self.table)

    def row(self, index: int) -> Sample:
        row_id = self.table.default_id(index)
        try:
            fields = self._mapped(self.table.fields(index))
            row_id = _id(fields, row_id)
            return to_sample(fields, row_id, self.folder)
        except (ValueError, UserError, OSError) as error:
            raise RowError(row_id, f"{self.table.place(index)}: {error}") from None

    def _mapped(self, fields: Fields) -> Fields:
        if self.mapper is None:
            return fields
        try:
            return self.mapper(fields)
        except (TypeError, LookupError, AttributeError) as error:  # a mapper written for another shape of row
            raise ValueError(f"data.mapping does not fit the row: {type(error).__name__}: {error}"[:300]) from None


def column_mapper(columns: Mapping[str, str]) -> Mapper:
    """A mapper that renames: {"answer": "solution", "difficulty": "info.level"}; a dot goes into an object, and `kind` may name a kind.

    The other columns are kept under their own names unless they are standard ones, which only `columns` may fill. Answers wrapped whole in
    <answer> tags or \\boxed{} are unwrapped, options given as an object by letter or as lines become a list.
    """
    for name in columns.values():
        if not name:
            raise UserError("data.columns: a column's name is empty")

    def rename(row: Fields) -> Fields:
        sources = {name.split(".")[0] for name in columns.values()}
        fields = {key: value for key, value in row.items() if key not in STANDARD and key not in sources}
        for name, column in columns.items():
            if column not in row and name == "kind" and column in get_args(AnswerKind):
                fields["kind"] = column
            else:
                fields[name] = looked_up(row, column)
        if isinstance(fields.get("answer"), str):
            fields["answer"] = unwrapped(fields["answer"])
        fields["options"] = as_options(fields.get("options"))
        return fields

    return rename


def looked_up(row: Fields, column: str) -> Any:
    """The value under "level" or "info.level". Raises ValueError naming the columns there are."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ValueError(f'the column "{column}" is missing (the row has: {", ".join(map(str, row)) or "nothing"})'[:300])
        value = value[part]
    return value


def unwrapped(answer: str) -> str:
    """ "<answer> \\boxed{4} </answer>" -> "4". Only what wraps the whole text goes."""
    text = answer.strip()
    if text.startswith("<answer>") and text.endswith("</answer>"):
        text = text[len("<answer>") : -len("</answer>")].strip()
    if text.startswith("$") and text.endswith("$") and text.strip("$") and "$" not in text.strip("$"):
        text = text.strip("$").strip()
    for opening in ("\\boxed{", "\\text{"):
        if text.startswith(opening) and _closing_brace(text, len(opening)) == len(text) - 1:
            text = text[len(opening) : -1].strip()
    return text


def as_options(value: Any) -> Any:
    """{"A": "cat", "B": "dog"}, "cat\\ndog" or "['cat', 'dog']" as a list; other values as they are."""
    if isinstance(value, Mapping):
        return [value[key] for key in sorted(value) if value[key] is not None]
    if not isinstance(value, str):
        return value
    return list(texts(value, "options")) if value.lstrip().startswith("[") else [line for line in value.splitlines() if line.strip()]


def to_sample(fields: Fields, row_id: str, folder: Path | None) -> Sample:
    """A Sample of a row with the standard columns. Raises ValueError or UserError saying what is wrong with it."""
    for wrong, right in _MISTAKEN.items():
        if wrong in fields and right not in fields:
            raise ValueError(f'the key is "{right}", not "{wrong}"; other names go under data.columns')
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
        meta={key: value for key, value in fields.items() if key not in STANDARD},
    )


def _closing_brace(text: str, start: int) -> int:
    """Index of the brace that closes the one before `start`; -1 when it is not closed."""
    depth = 1
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index
    return -1


def _id(fields: Fields, default: str) -> str:
    value = fields.get("id")
    if value is None:
        return default
    if isinstance(value, (dict, list, bool)) or not str(value).strip():
        raise ValueError(f'"id" is text or a number, not {str(value)[:100]!r}')
    return str(value)


def _text(fields: Fields, key: str) -> str | None:
    value = fields.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'"{key}" is not a text or is blank: {str(value)[:100]!r}')
    return value


def _options(fields: Fields) -> tuple[str, ...]:
    values = fields.get("options")
    if values is None or values == []:
        return ()
    if not isinstance(values, list) or not all(isinstance(v, (str, int, float)) and not isinstance(v, bool) for v in values):
        raise ValueError('"options" is a list of texts, such as ["cat", "dog"]')
    if not 2 <= len(values) <= len(LETTERS):
        raise ValueError(f'"options" has {len(values)} entries; from 2 to {len(LETTERS)} can be lettered')
    return strip_letters([str(value) for value in values])


def _answer(fields: Fields, options: tuple[str, ...], demonstrated: bool) -> tuple[str, AnswerKind]:
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
        raise ValueError(f'"answer" is a text or a number, not {str(value)[:100]}; there are no "options" to choose from')
    text = str(value).strip()
    if not text:
        raise ValueError('"answer" is blank')
    if kind == "choice":
        letters = letters_only(text)
        if letters is None:
            raise ValueError(f'kind is "choice" and there are no "options", so "answer" must be a letter, not {text[:100]!r}')
        return letters, "choice"
    return text, kind or infer_kind(text)


def _media(fields: Fields, question: str, folder: Path | None) -> tuple[Media, ...]:
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


def _handles(fields: Fields, kind: Literal["image", "video"], folder: Path | None) -> list[Media]:
    values = fields.get(f"{kind}s")
    values = [] if values is None else values if isinstance(values, list) else [values]
    if not all(isinstance(v, (str, Mapping)) and v and not (isinstance(v, str) and (not v.strip() or "\0" in v)) for v in values):
        raise ValueError(f'"{kind}s" is a list of file paths, base64 texts or {{"bytes", "path"}} objects')
    if remote := [v for v in values if isinstance(v, str) and "://" in v[:20]]:
        raise ValueError(f'"{kind}s" holds files; {remote[0][:80]!r} is not one, save it to a file first')
    return [media_from(value, kind, folder or Path()) for value in values]
