"""Raw rows as files hold them, before they mean anything: a `Table`, and JSON files as tables. It knows no column's meaning."""

import json
import mmap
import re
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from vlm_rl.errors import UserError

MAX_ROW_BYTES = 16 * 2**20
SHAPE = '{"id": "7", "question": "What is it?", "images": ["7.png"], "options": ["cat", "dog"], "answer": "B"}'
# Strings match to the end of the file when they are not closed: no second try, so hostile files cost linear time.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[{}\[\]]', re.DOTALL)

Fields = Mapping[str, Any]


class Table(Protocol):
    """Rows by index, read when they are asked for. `folder` is where relative media paths start, None when there is no such place."""

    @property
    def folder(self) -> Path | None: ...

    def __len__(self) -> int: ...

    def fields(self, index: int) -> dict[str, Any]:
        """The row's columns. Raises ValueError or OSError."""
        ...

    def place(self, index: int) -> str:
        """Where a person finds the row: "rows.jsonl line 3"."""
        ...

    def default_id(self, index: int) -> str:
        """The id of a row that carries none, unique within the table."""
        ...


class JsonLines:
    """The non-blank lines of a file by byte offset: 16 bytes a row. Line numbers count from 1 and include blank lines."""

    def __init__(self, path: Path):
        self.path = path
        offsets, numbers = array("q"), array("q")
        with opened(path) as file:
            for number, offset in _lines(file, path):
                offsets.append(offset)
                numbers.append(number)
        if not offsets:
            raise UserError(f"{path} has no rows; write one object a line, such as {SHAPE}")
        self._offsets, self._numbers = np.frombuffer(offsets, np.int64), np.frombuffer(numbers, np.int64)

    @property
    def folder(self) -> Path:
        return self.path.parent

    def __len__(self) -> int:
        return len(self._offsets)

    def fields(self, index: int) -> dict[str, Any]:
        with self.path.open("rb") as file:
            file.seek(int(self._offsets[index]))
            return _object(file.readline(MAX_ROW_BYTES + 1))

    def place(self, index: int) -> str:
        return f"{self.path.name} line {self._numbers[index]}"

    def default_id(self, index: int) -> str:
        return str(self._numbers[index])


class JsonArray:
    """The elements of one JSON array in a file, by byte offsets: 16 bytes a row. Elements count from 1."""

    def __init__(self, path: Path):
        self.path = path
        spans = array("q")
        with opened(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            for start, end in _elements(text, path):
                spans.extend((start, end))
        if not spans:
            raise UserError(f"{path} has no rows; write a list of objects, such as [{SHAPE}]")
        self._spans = np.frombuffer(spans, np.int64).reshape(-1, 2)

    @property
    def folder(self) -> Path:
        return self.path.parent

    def __len__(self) -> int:
        return len(self._spans)

    def fields(self, index: int) -> dict[str, Any]:
        start, end = map(int, self._spans[index])
        with self.path.open("rb") as file:
            file.seek(start)
            return _object(file.read(end - start))

    def place(self, index: int) -> str:
        return f"{self.path.name} element {index + 1}"

    def default_id(self, index: int) -> str:
        return str(index + 1)


def json_table(path: Path) -> JsonLines | JsonArray:
    """One object a line, or one list of objects. Raises UserError."""
    with opened(path) as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return JsonArray(path) if path.suffix == ".json" and head.startswith(b"[") else JsonLines(path)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file named in data.path, for reading bytes; whatever stands in the way is a UserError."""
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"data.path: no such file {path}") from None
    except IsADirectoryError:
        raise UserError(
            f"data.path: {path} is a directory; name the file in it, or write data.name=hub for a copy of a hub data set"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"data.path: {path} cannot be read: {error}") from None


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, int]]:
    """(line number, byte offset) of each non-blank line."""
    number = offset = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            raise UserError(f"{path} line {number}: longer than {MAX_ROW_BYTES} bytes; JSONL has one object a line")
        if line.strip() not in (b"", b"\xef\xbb\xbf"):
            yield number, offset
        offset += len(line)


def _elements(text: mmap.mmap, path: Path) -> Iterator[tuple[int, int]]:
    """(start, end) byte offsets of the objects in the outermost list."""
    depth = start = 0
    for token in _TOKEN.finditer(text):
        mark = token[0][:1]
        if mark in (b"{", b"["):
            start = token.start() if depth == 1 else start
            depth += 1
        elif mark != b'"':
            depth -= 1
            if depth == 1:
                _check_size(token.end() - start, start, path)
                yield start, token.end()
            if depth <= 0:
                return
    raise UserError(f"{path}: the list is not closed; the file is cut off or no JSON")


def _check_size(size: int, start: int, path: Path) -> None:
    if size > MAX_ROW_BYTES:
        raise UserError(f"{path} byte {start}: a row of {size} bytes, more than {MAX_ROW_BYTES}")


def _object(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"a row is an object, such as {SHAPE}, not a {type(fields).__name__}")
    if b"\\ud" in line.lower():  # half of a surrogate pair cannot be encoded again, and would fail far from here
        try:
            json.dumps(fields, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("not valid text: it holds half of a surrogate pair") from None
    return fields
