"""Every row of a data set tried before training: parsed, media decoded (of videos a few frames), gold answer accepted by its own verifier,
and, where a model is known, short enough as a prompt. It mends nothing and knows no model.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from data.decoding import VideoInfo
from data.files import name_of
from data.media import decode_image
from data.rows import Rows
from data.video import THUMBNAIL, check_video, outline_of
from vlm_rl.errors import RowError
from vlm_rl.types import Backend, Media, Outline, Sample, VideoBudget

Progress = Callable[[int, int], None]
PromptProblem = Callable[[Sample, Sequence[Outline] | None], str | None]
Found = Outline | VideoInfo | str  # what was learnt of a medium, or why it is unusable
_AHEAD_PER_WORKER = 16


def check_rows(
    rows: Rows,
    grade_problem: Callable[[Sample], str | None],
    progress: Progress | None = None,
    workers: int = 2,
    budget: VideoBudget = THUMBNAIL,
    prompt_problem: PromptProblem | None = None,
) -> list[RowError]:
    """What is wrong with `rows`, in row order; an empty list means nothing.

    `grade_problem` says why a sample's gold answer fails its own verifier, or None, and `prompt_problem` why no prompt can be made of it,
    given its media's outlines under `budget` (None where a medium is unusable); both are called in the caller's thread, one row at a time.
    `progress` gets (rows done, rows). Parsing and decoding use `workers` threads that run a little ahead; each file is decoded once.
    """
    errors: list[RowError] = []
    first_use: dict[str, int] = {}
    for done, looked in enumerate(_look_at_all(rows, workers, budget), start=1):
        errors += looked.errors
        if looked.sample is not None:
            errors += _check_sample(looked.sample, grade_problem)
            problem = prompt_problem(looked.sample, looked.outlines) if prompt_problem else None
            errors += [RowError(looked.sample.id, problem)] if problem else []
            first = first_use.setdefault(looked.sample.id, done)
            errors += [RowError(looked.sample.id, f"its id is used twice, by rows {first} and {done}")] if first != done else []
        if progress is not None:
            progress(done, len(rows))
    return errors


@dataclass(frozen=True)
class _Looked:
    sample: Sample | None
    errors: list[RowError]
    outlines: list[Outline] | None = None


def _look_at_all(rows: Rows, workers: int, budget: VideoBudget) -> Iterator[_Looked]:
    known: dict[Media, Found] = {}
    pending: deque[Future[_Looked]] = deque()
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        indices = iter(range(len(rows)))
        for index in itertools.islice(indices, max(1, workers) * _AHEAD_PER_WORKER):
            pending.append(pool.submit(_look, rows, index, known, budget))
        while pending:
            looked = pending.popleft().result()
            for index in itertools.islice(indices, 1):
                pending.append(pool.submit(_look, rows, index, known, budget))
            yield looked


def _look(rows: Rows, index: int, known: dict[Media, Found], budget: VideoBudget) -> _Looked:
    try:
        sample = rows[index]
    except RowError as error:
        return _Looked(None, [error])
    found = [_outline(medium, sample.id, known, budget) for medium in sample.media]
    errors = [RowError(sample.id, problem) for problem in found if isinstance(problem, str)]
    return _Looked(sample, errors, None if errors else [outline for outline in found if isinstance(outline, Outline)])


def _outline(medium: Media, row: str, known: dict[Media, Found], budget: VideoBudget) -> Outline | str:
    """Two threads may try the same file at once, which costs time and nothing else. The frames' indices are too many to remember."""
    found = known.get(medium) if medium.path is not None else None
    if found is None:
        found = _decoded(medium, row, budget.backend)
    if medium.path is not None:
        known[medium] = found
    if not isinstance(found, VideoInfo):
        return found
    try:
        return outline_of(found, budget)
    except ValueError as error:
        return f"{name_of(medium)}: {error}"


def _decoded(medium: Media, row: str, backend: Backend) -> Found:
    try:
        if medium.kind == "video":
            return check_video(medium, row, backend)
        picture = decode_image(medium, row, backend)
        return Outline(picture.height, picture.width)
    except RowError as error:
        return error.reason


def _check_sample(sample: Sample, grade_problem: Callable[[Sample], str | None]) -> list[RowError]:
    if not sample.answer.strip():
        return [] if sample.response else [RowError(sample.id, "it has no answer")]
    try:
        problem = grade_problem(sample)
    except Exception as error:  # a verifier that breaks on one row must not hide the errors of the others
        problem = f"the verifier fails on the gold answer: {type(error).__name__}: {error}"
    return [RowError(sample.id, problem)] if problem else []
