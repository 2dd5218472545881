"""Every row of a data set tried before training: parsed, media decoded (of videos a few frames), gold answer accepted by its own verifier.

It mends nothing.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from data.media import decode_image
from data.rows import Rows
from data.video import check_video
from vlm_rl.errors import RowError
from vlm_rl.types import Backend, Media, Sample

Progress = Callable[[int, int], None]
_AHEAD_PER_WORKER = 16


def check_rows(
    rows: Rows,
    grade_problem: Callable[[Sample], str | None],
    progress: Progress | None = None,
    workers: int = 2,
    video_backend: Backend = "any",
) -> list[RowError]:
    """What is wrong with `rows`, in row order; an empty list means nothing.

    `grade_problem` says why a sample's gold answer fails its own verifier, or None; it is called in the caller's thread, one row at a time.
    `progress` gets (rows done, rows). Parsing and decoding use `workers` threads that run a little ahead; each file is decoded once.
    """
    errors: list[RowError] = []
    first_use: dict[str, int] = {}
    for done, looked in enumerate(_look_at_all(rows, workers, video_backend), start=1):
        errors += looked.errors
        if looked.sample is not None:
            errors += _check_sample(looked.sample, grade_problem)
            first = first_use.setdefault(looked.sample.id, done)
            errors += [RowError(looked.sample.id, f"its id is used twice, by rows {first} and {done}")] if first != done else []
        if progress is not None:
            progress(done, len(rows))
    return errors


@dataclass(frozen=True)
class _Looked:
    sample: Sample | None
    errors: list[RowError] = field(default_factory=list)


def _look_at_all(rows: Rows, workers: int, backend: Backend) -> Iterator[_Looked]:
    known: dict[Path, str | None] = {}
    pending: deque[Future[_Looked]] = deque()
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        indices = iter(range(len(rows)))
        for index in itertools.islice(indices, max(1, workers) * _AHEAD_PER_WORKER):
            pending.append(pool.submit(_look, rows, index, known, backend))
        while pending:
            looked = pending.popleft().result()
            for index in itertools.islice(indices, 1):
                pending.append(pool.submit(_look, rows, index, known, backend))
            yield looked


def _look(rows: Rows, index: int, known: dict[Path, str | None], backend: Backend) -> _Looked:
    try:
        sample = rows[index]
    except RowError as error:
        return _Looked(None, [error])
    problems = [_media_problem(medium, sample.id, known, backend) for medium in sample.media]
    return _Looked(sample, [RowError(sample.id, problem) for problem in problems if problem])


def _media_problem(medium: Media, row: str, known: dict[Path, str | None], backend: Backend) -> str | None:
    """Why this medium is unusable. Two threads may try the same file at once, which costs time and nothing else."""
    if medium.path is not None and medium.path in known:
        return known[medium.path]
    try:
        if medium.kind == "image":
            decode_image(medium, row)
        else:
            check_video(medium, row, backend)
        problem = None
    except RowError as error:
        problem = error.reason
    if medium.path is not None:
        known[medium.path] = problem
    return problem


def _check_sample(sample: Sample, grade_problem: Callable[[Sample], str | None]) -> list[RowError]:
    if not sample.answer.strip():
        return [] if sample.response else [RowError(sample.id, "it has no answer")]
    try:
        problem = grade_problem(sample)
    except Exception as error:  # a verifier that breaks on one row must not hide the errors of the others
        problem = f"the verifier fails on the gold answer: {type(error).__name__}: {error}"
    return [RowError(sample.id, problem)] if problem else []
