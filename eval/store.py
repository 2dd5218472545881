"""What an evaluation keeps on disk: its questions, a line for every answer, and how far it is. Whole chunks only; no model, no media.

rows.jsonl holds the questions, records.jsonl the answers as `eval.runner` writes them, progress.jsonl one line a chunk: how many questions
were done with how many records. What was appended after the last such line is cut off on the next start.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.evaluator import Study
from eval.runner import record_from, save_records
from vlm_rl.errors import UserError
from vlm_rl.types import Record, Sample

ROWS, RECORDS, PROGRESS = "rows.jsonl", "records.jsonl", "progress.jsonl"


class RecordStore:
    """records.jsonl of a run that may have been killed at any moment. `done` questions are answered; more are appended in whole chunks.

    Raises UserError for files that cannot be written.
    """

    def __init__(self, run_dir: Path):
        self._records, self._progress = run_dir / RECORDS, run_dir / PROGRESS
        last = _last_whole(run_dir)
        self.done, self._kept, self.seconds = last.questions, last.records, last.seconds
        _write(self._records, _whole_lines(self._records)[: self._kept])
        _write(self._progress, [_line(dataclasses.asdict(last))] if self.done else [])

    def append(self, records: Sequence[Record], questions: int, seconds: float) -> None:
        """Write the answers to the next `questions` questions, which took so long, and wait until they are on the disk."""
        _append(self._records, [_line(dataclasses.asdict(record)) for record in records])
        self.done, self._kept, self.seconds = self.done + questions, self._kept + len(records), self.seconds + seconds
        _append(self._progress, [_line(dataclasses.asdict(_Whole(self.done, self._kept, self.seconds)))])


def keep_rows(run_dir: Path, rows: Iterable[Sample]) -> None:
    """Write rows.jsonl. Raises UserError where answers are stored already and were to other questions."""
    path, aside = run_dir / ROWS, run_dir / f"{ROWS}.part"
    digest = hashlib.sha256()
    with aside.open("wb") as file:
        for row in rows:
            line = _line(row_tree(row))
            digest.update(line)
            file.write(line)
        file.flush()
        os.fsync(file.fileno())
    begun = _last_whole(run_dir).questions > 0
    if begun and path.exists() and hashlib.sha256(path.read_bytes()).digest() != digest.digest():
        pairs = zip(_trees(path), _trees(aside), strict=False)
        other = next((f"'{b.get('id')}' is not as it was" for (_, a), (_, b) in pairs if a != b), "there are more or fewer")
        aside.unlink()
        raise UserError(f"the questions changed since {run_dir} was begun: {other}; put the data back, or write run_dir=OTHER")
    aside.replace(path)


def row_tree(row: Sample) -> dict[str, Any]:
    """A question as it is stored: without media and demonstration."""
    texts = {"id": row.id, "question": row.question, "answer": row.answer, "kind": row.kind, "prefill": row.prefill}
    return {**texts, "options": list(row.options), "meta": dict(row.meta)}


def load_rows(path: Path) -> dict[str, Sample]:
    """The questions by id, without their media. Raises UserError naming file and line."""
    rows: dict[str, Sample] = {}
    for number, tree in _trees(path):
        texts = {name: tree.get(name) for name in ("id", "question", "answer", "kind", "prefill")}
        options, meta = tree.get("options"), tree.get("meta")
        if not all(isinstance(text, str) for text in texts.values()) or not isinstance(options, list) or not isinstance(meta, dict):
            raise UserError(f"{path}, line {number}: not a question as an evaluation stores it")
        rows[str(tree["id"])] = Sample(**texts, options=tuple(map(str, options)), meta=meta)  # pyright: ignore[reportArgumentType]
    return rows


def load_study(run_dir: Path) -> Study:
    """Questions and answers of a run; of an unfinished one the questions answered so far. Raises UserError."""
    for name in (ROWS, RECORDS):
        if not (run_dir / name).exists():
            raise UserError(f"{run_dir} holds no {name}: it is not the directory of a `vlm-rl eval` or `vlm-rl stress` run")
    records, path = [], run_dir / RECORDS
    for number, line in enumerate(_whole_lines(path)[: _last_whole(run_dir).records], start=1):
        try:
            records.append(record_from(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not an evaluation record: {error}") from None
    answered = {record.sample_id for record in records}
    return Study({i: row for i, row in load_rows(run_dir / ROWS).items() if i in answered}, records)


def replace_records(run_dir: Path, records: Sequence[Record]) -> None:
    """Put records with other grades in the place of those of a `load_study`, all or nothing."""
    save_records(run_dir / RECORDS, records)


@dataclass(frozen=True)
class _Whole:
    """A line of progress.jsonl: questions done, with how many records, in how much time."""

    questions: int = 0
    records: int = 0
    seconds: float = 0.0


def _last_whole(run_dir: Path) -> _Whole:
    """Of the last chunk that is whole on the disk."""
    progress, there = run_dir / PROGRESS, len(_whole_lines(run_dir / RECORDS))
    found = [_Whole()]
    for _, tree in _trees(progress) if progress.exists() else ():
        questions, records, seconds = (tree.get(name) for name in ("questions", "records", "seconds"))
        if isinstance(questions, int) and isinstance(records, int) and isinstance(seconds, int | float) and 0 <= records <= there:
            found.append(_Whole(questions, records, float(seconds)))
    return found[-1]


def _whole_lines(path: Path) -> list[bytes]:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith(b"\n")]


def _trees(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a file; a last line cut off by a kill is left out. Raises UserError for another that is damaged."""
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            tree = json.loads(line)
        except (ValueError, RecursionError):
            tree = None
        if not isinstance(tree, dict):
            raise UserError(f"{path}, line {number}: not a JSON object; it is not as an evaluation writes it")
        yield number, tree


def _line(tree: Any) -> bytes:
    return json.dumps(tree, default=str).encode() + b"\n"


def _write(path: Path, lines: Sequence[bytes]) -> None:
    aside = path.with_name(path.name + ".part")
    aside.unlink(missing_ok=True)
    _append(aside, lines)
    aside.replace(path)


def _append(path: Path, lines: Sequence[bytes]) -> None:
    try:
        with path.open("ab") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): free some space; the same command then goes on") from None
