"""Questions worth looking at, as a report shows them: pictures with the boxes of the trace, the prompt, and what was said to it, as asked
and under the conditions of an evaluator. Reads records and decides nothing; text is passed on as it stands, to be escaped by the page.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.scene_traces import verify_trace
from data.scenes import by_id, scene_of
from eval.evaluator import Section, Study
from eval.marking import Piece, added, marked
from eval.run_files import picture, spread
from rewards import response
from rewards.boxes import CONVENTIONS, Convention, Picture, spoken, to_pixels
from vlm_rl.types import LETTERS, Box, Record

EXAMPLES = 6
_BESIDE = 3
_PICTURES = 4
_BOXES = 16
_LONGEST = 1500
_SHRUNK_AT = 192  # thumbnails of pictures at least this large may have been made smaller, so that pixels are no longer the picture's
_STRIP = 3.0


@dataclass(frozen=True)
class Drawn:
    """A box over a picture, in pixels of its thumbnail; `wrong` where the truth is known and the box does not hold what it should."""

    x: float
    y: float
    width: float
    height: float
    wrong: bool


@dataclass(frozen=True)
class Shown:
    """A picture, or a strip of a video's frames: a data: address, its size in pixels, and boxes."""

    address: str
    width: int
    height: int
    boxes: tuple[Drawn, ...] = ()

    @property
    def strip(self) -> bool:
        return self.width >= _STRIP * self.height


@dataclass(frozen=True)
class Option:
    letter: str
    text: str
    gold: bool


@dataclass(frozen=True)
class Said:
    """One answer: what was asked where that differs from the clean question, what was given of its turn, trace, answer.

    `correct` None: no answer but a judge's opinion, which stands in the place of the trace.
    """

    condition: str
    asked: tuple[Piece, ...]
    options: tuple[Option, ...]
    given: str
    trace: tuple[Piece, ...]
    answer: str
    correct: bool | None
    notes: tuple[str, ...]
    pictures: tuple[Shown, ...]


@dataclass(frozen=True)
class Example:
    """A question as asked, and what was said under other conditions."""

    id: str
    question: str
    options: tuple[Option, ...]
    gold: str
    pictures: tuple[Shown, ...]
    absent: int
    said: tuple[Said, ...]


def shown_marks(section: Section) -> list[str]:
    """The questions of a section that a report shows: at most EXAMPLES of those marked, evenly drawn."""
    return spread(list(dict.fromkeys(section.marks)), EXAMPLES)


def examples(run_dir: Path, name: str, section: Section, study: Study, convention: Convention = "abs_original") -> list[Example]:
    """The answered ones of `shown_marks`. `name` is its evaluator's, with which its conditions begin."""
    clean = study.greedy()
    others: dict[str, list[Record]] = {}
    wanted = {i for i in section.marks if i in clean}
    for record in study.records:
        if record.sample_id in wanted and record.condition.startswith(f"{name}/") and "error" not in record.detail:
            others.setdefault(record.sample_id, []).append(record)
    chosen = [i for i in shown_marks(section) if i in clean]
    return [_example(run_dir, clean[i], _telling(clean[i], others.get(i, [])), convention) for i in chosen]


def across_runs(runs: Sequence[tuple[str, Path]], records: Sequence[Record], convention: Convention = "abs_original") -> Example:
    """One question as several runs answered it, a record each in the runs' order."""
    first = records[0]
    shown = [_first_shown([run_dir for _, run_dir in runs], media_id, first, convention) for media_id in first.media_ids[:_PICTURES]]
    kept = tuple(replace(picture, boxes=()) for picture in shown if picture is not None)
    said = tuple(
        replace(_said(run_dir, record, first, convention), condition=name) for (name, run_dir), record in zip(runs, records, strict=True)
    )
    return Example(first.sample_id, cut(first.question), _options(first), cut(first.gold), kept, len(first.media_ids) - len(kept), said)


def _first_shown(run_dirs: Sequence[Path], media_id: str, record: Record, convention: Convention) -> Shown | None:
    found = (_shown(run_dir, media_id, record, convention) for run_dir in run_dirs)
    return next((shown for shown in found if shown is not None), None)


def _telling(clean: Record, others: Sequence[Record]) -> list[Record]:
    """The first record of each condition, those first whose answer is another one, in the order of the run."""
    first: dict[str, Record] = {}
    for record in others:
        if "reply" in record.detail or _turn(record) != _turn(clean):
            first.setdefault(record.condition, record)
    told = sorted(first.values(), key=lambda r: (r.correct == clean.correct, r.answer == clean.answer))[:_BESIDE]
    return [record for record in first.values() if record in told]


def _turn(record: Record) -> tuple[object, ...]:
    return record.question, record.options, record.media_ids, record.prefill, record.completion


def _example(run_dir: Path, clean: Record, others: Sequence[Record], convention: Convention) -> Example:
    shown = [_shown(run_dir, media_id, clean, convention) for media_id in clean.media_ids[:_PICTURES]]
    kept = tuple(picture for picture in shown if picture is not None)
    said = (_said(run_dir, clean, clean, convention), *(_said(run_dir, record, clean, convention) for record in others))
    options = _options(clean)
    return Example(clean.sample_id, cut(clean.question), options, cut(clean.gold), kept, len(clean.media_ids) - len(kept), said)


def _said(run_dir: Path, record: Record, clean: Record, convention: Convention) -> Said:
    if "judge" in record.detail and "reply" in record.detail:
        return _opinion(record)
    trace = response.parse(record.prefill + record.completion).trace or ""
    notes = {
        "cut off": record.finish == "length",
        "not well-formed": not record.wellformed,
        "no reasoning": not trace,
    }
    pieces = tuple(marked(cut(trace or record.completion), record))
    other = record.media_ids if record.media_ids != clean.media_ids else ()
    shown = [_shown(run_dir, media_id, record, convention) for media_id in other[:_PICTURES]]
    return Said(
        condition="as asked" if record is clean else _condition(record),
        asked=tuple(added(cut(record.question), cut(clean.question))) if record.question != clean.question else (),
        options=_options(record) if record.options != clean.options else (),
        given="" if any("given" in piece.marks for piece in pieces) else cut(record.prefill),
        trace=pieces,
        answer=_answer(record),
        correct=record.correct,
        notes=tuple(note for note, applies in notes.items() if applies),
        pictures=tuple(picture for picture in shown if picture is not None),
    )


def _opinion(record: Record) -> Said:
    """What a judge replied about the answer; it is neither right nor wrong here."""
    reply = (Piece(cut(str(record.detail["reply"]))),)
    notes = (f"judge {cut(str(record.detail['judge']))}",)
    return Said(_condition(record), (), (), "", reply, "", None, notes, ())


def _condition(record: Record) -> str:
    return record.condition.replace("_", " ")


def _answer(record: Record) -> str:
    """What was answered, the letter of an option with its words: "B teal"."""
    said = cut(record.answer or "")
    letters = dict(zip(LETTERS, record.options, strict=False))
    return f"{said} {cut(letters[said])}" if said in letters else said


def _options(record: Record) -> tuple[Option, ...]:
    right = {letter.strip() for letter in record.gold.split(",")}
    return tuple(Option(letter, cut(text), letter in right) for letter, text in zip(LETTERS, record.options, strict=False))


def cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text) - _LONGEST} more characters)"


def evaluator_of(config: Mapping[str, object], label: str) -> str:
    """The name of the evaluator that a config has under a label: what it uses, or the label itself."""
    evaluators = config.get("evaluators")
    entry = evaluators.get(label) if isinstance(evaluators, dict) else None
    used = entry.get("use") if isinstance(entry, dict) else None
    return used if isinstance(used, str) else label


def convention_of(config: Mapping[str, object]) -> Convention:
    """The convention of boxes that an evaluator of the config names; pixels of the picture where none does."""
    evaluators = config.get("evaluators")
    entries = evaluators.values() if isinstance(evaluators, dict) else ()
    named = [entry.get("convention") for entry in entries if isinstance(entry, dict)]
    found: list[Convention] = [known for name in named for known in CONVENTIONS if known == name]
    return found[0] if found else "abs_original"


def _shown(run_dir: Path, media_id: str, record: Record, convention: Convention) -> Shown | None:
    address = picture(run_dir, media_id)
    if address is None:
        return None
    width, height = _png_size(address)
    shown = Shown(address, width, height)
    if not width or not height or shown.strip or record.media_ids[0] != media_id:
        return shown if width and height else None
    return Shown(address, width, height, _boxes(record, convention, (width, height)))


def _png_size(address: str) -> tuple[int, int]:
    """Width and height from the header of a PNG in a data: address."""
    header = base64.b64decode(address.partition(",")[2][:32])
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def _boxes(record: Record, convention: Convention, size: tuple[int, int]) -> tuple[Drawn, ...]:
    """The boxes of the trace, where it is certain which pixels they mean."""
    trace = response.parse(record.prefill + record.completion).trace or record.completion
    row = by_id(record.sample_id)
    if row is not None:
        scene = scene_of(row)
        found = [(claim.box, claim.box_holds is False or claim.true is False) for claim in verify_trace(trace, scene).claims if claim.box]
        return _scaled(found, (scene.canvas[0], scene.canvas[1]), size)
    relative = convention in ("rel_1", "rel_1000")
    if not relative and max(size) >= _SHRUNK_AT:
        return ()
    whole = Picture(*size, seen=(size[1], size[0]))
    boxes = [to_pixels(said.numbers, convention, whole) for said in spoken(trace[:8_000]) if not isinstance(said.numbers, str)]
    return _scaled([(box, False) for box in boxes], size, size)


def _scaled(found: Sequence[tuple[Box, bool]], canvas: tuple[float, float], size: tuple[int, int]) -> tuple[Drawn, ...]:
    across, down = size[0] / canvas[0], size[1] / canvas[1]
    drawn = []
    for (left, top, right, bottom), wrong in found[:_BOXES]:
        x0, x1 = (min(max(x * across, 0.0), size[0]) for x in (left, right))
        y0, y1 = (min(max(y * down, 0.0), size[1]) for y in (top, bottom))
        if x0 < x1 and y0 < y1:
            drawn.append(Drawn(x0, y0, x1 - x0, y1 - y0, wrong))
    return tuple(drawn)
