"""Subtitles of benchmark videos, for the settings "with subtitles": read, picked by the frames that show them, put into the question.

The two benchmarks that have some prescribe how: Video-MME (arXiv 2405.21075) lists those of the drawn frames before the question,
LongVideoBench (arXiv 2407.15754) puts each between the frames it is spoken at. Sound is not read, and nothing is cut to a length.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from data.benchmark_fields import Place, below
from data.video import probe_video
from vlm_rl.errors import RowError, UserError, unknown
from vlm_rl.types import Media, Sample

_MOST_BYTES = 32 * 2**20
_CLOCK = r"(\d{1,3}):(\d{1,2}):(\d{1,2}(?:[.,]\d{1,6})?)"
_TIME = re.compile(_CLOCK)
_TIMES = re.compile(rf"{_CLOCK}\s{{0,20}}-->\s{{0,20}}{_CLOCK}")
# Fonts and positions; a mark such as <video> would stand for a medium.
_MARKUP = re.compile(r"<[^<>\n]{1,200}>|\{\\[^{}\n]{1,100}\}")
_MARK = re.compile(r"<(?:image|video)>")
_LEAST_SECONDS = 1.0


@dataclass(frozen=True)
class Subtitle:
    """What is said or written from `start` to `end`, in seconds of the video."""

    start: float
    end: float
    text: str


def read_srt(path: Path) -> list[Subtitle]:
    """The subtitles of a SubRip file in its order; those without words are left out. Raises ValueError for a file that holds no times."""
    found: list[Subtitle] = []
    lines = [line.strip() for line in _text(path).splitlines()]
    heads = [i for i, line in enumerate(lines) if "-->" in line and _TIMES.match(line)]
    for head, following in pairwise([*heads, len(lines) + 1]):
        times = _TIMES.match(lines[head])
        assert times is not None
        body = lines[head + 1 : following - 1]  # the line before the next times is its number
        words = _words(" ".join(body[: body.index("")] if "" in body else body))
        if words:
            found.append(Subtitle(_seconds(times[1], times[2], times[3]), _seconds(times[4], times[5], times[6]), words))
    if not heads:
        raise ValueError(f"{path}: not an SRT file, it holds no line such as 00:00:01,000 --> 00:00:02,500")
    return found


def read_json(path: Path, start: float, duration: float) -> list[Subtitle]:
    """LongVideoBench's two shapes: {"timestamp": [s, e], "text"} and {"start": "0:00:01.5", "end", "line"}.

    Times become those of the video, which begins at `start` of what was subtitled and is `duration` seconds long. Raises ValueError for
    anything else.

    A missing end is the end of the video. Deviation: the published loader takes an end that is a whole number for a missing one too.
    """
    text = _text(path)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {str(error)[:100]}") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: a list of subtitles is expected, not a {type(entries).__name__}")
    return [
        subtitle for number, entry in enumerate(entries) if (subtitle := _from_entry(entry, start, duration, f"{path} [{number}]")).text
    ]


def _from_entry(entry: Any, offset: float, duration: float, where: str) -> Subtitle:
    try:
        first, last = entry["timestamp"] if "timestamp" in entry else (entry["start"], entry["end"])
        words = _words(entry["text" if "timestamp" in entry else "line"])
        start, end = _moment(first), duration + offset if last is None else _moment(last)
    except (KeyError, TypeError, ValueError):
        shown = '{"timestamp": [seconds, seconds], "text": ...} or {"start": "0:00:01.5", "end": ..., "line": ...}'
        raise ValueError(f"{where}: a subtitle is {shown}, not {str(entry)[:100]}") from None
    return Subtitle(start - offset, end - offset, words)


def _moment(value: Any) -> float:
    if isinstance(value, str) and (clock := _TIME.fullmatch(value.strip())):
        return _seconds(clock[1], clock[2], clock[3])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    return float(value)


def _seconds(hours: str, minutes: str, seconds: str) -> float:
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))


def _words(text: str) -> str:
    return " ".join(_MARKUP.sub(" ", text).split())


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path}: more than {_MOST_BYTES} bytes of subtitles")
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None


def shown_at(subtitles: Sequence[Subtitle], times: Sequence[float]) -> list[Subtitle]:
    """Those that are on screen at one of the ascending `times`, each once, in their order."""
    clock = np.asarray(times)
    spans = np.array([(subtitle.start, subtitle.end) for subtitle in subtitles]).reshape(-1, 2)
    shown = np.searchsorted(clock, spans[:, 0], "left") < np.searchsorted(clock, spans[:, 1], "left")
    return [subtitle for subtitle, there in zip(subtitles, shown, strict=True) if there]


def interleaved(subtitles: Sequence[Subtitle], times: Sequence[float]) -> str:
    """One "<image>" per frame at the ascending `times` and, between them, the subtitles that some frame shows, each before the first frame
    that follows its middle. One of less than a second counts for a second. A line each.
    """
    lines: list[str] = []
    frames = 0
    for subtitle in subtitles:
        middle = (subtitle.start + subtitle.end) / 2
        while frames < len(times) and times[frames] <= middle:
            lines.append("<image>")
            frames += 1
        half, near = max(subtitle.end - subtitle.start, _LEAST_SECONDS) / 2, bisect_right(times, middle)
        if any(abs(time - middle) < half for time in times[max(0, near - 1) : near + 1]):
            lines.append(subtitle.text)
    return "\n".join([*lines, *["<image>"] * (len(times) - frames)])


def videomme(sample: Sample, place: Place, frames: int) -> Sample:
    """The subtitles of `frames` evenly drawn frames before the question. Some videos have none: meta["subtitles"] says "yes" or "no"."""
    (video,) = sample.media
    path = below(place, f"subtitle/{sample.meta['cluster']}.srt")
    if not path.exists():
        return replace(sample, meta={**sample.meta, "subtitles": "no"})
    info = probe_video(video, sample.id)
    places = np.linspace(0, info.frames - 1, min(frames, info.frames)).astype(int)
    texts = [subtitle.text for subtitle in shown_at(read_srt(path), (places / info.fps).tolist())]
    question = "\n".join(["This video's subtitles are listed below:", *texts, "", sample.question]) if texts else sample.question
    return replace(sample, question=question, meta={**sample.meta, "subtitles": "yes"})


def longvideobench(sample: Sample, place: Place, frames: int) -> Sample:
    """The video as at most `frames` pictures, one a second or fewer, with the subtitles between them, then the question.

    Deviation: frames are drawn at exact fractions of the duration; the published loader rounds their distance down to whole frames.
    """
    (video,), duration = sample.media, sample.meta.get("duration")
    if not isinstance(duration, (int, float)) or duration < 1:
        raise ValueError(f'the field "duration" is the seconds of the video, which subtitles need, not {str(duration)[:40]!r}')
    path = below(place, *(f"{folder}{sample.meta['subtitle_path']}" for folder in ("subtitles/", "")))
    subtitles = read_json(path, float(sample.meta.get("starting_timestamp_for_subtitles") or 0.0), float(duration))
    count = min(frames, int(duration))
    times = [duration / count * i for i in range(count)]
    pictures = tuple(Media("image", path=video.path, start=time) for time in times)
    question = f"{interleaved(subtitles, times)}\n{_MARK.sub('', sample.question).strip()}"
    return replace(sample, question=question, media=pictures, meta={**sample.meta, "subtitles": "yes"})


Subtitled = Callable[[Sample, Place, int], Sample]
SUBTITLED: dict[str, tuple[Subtitled, str, str]] = {  # how, in which folder, and in which file of the hub's that folder comes
    "longvideobench": (longvideobench, "subtitles", "subtitles.tar"),
    "videomme": (videomme, "subtitle", "subtitle.zip"),
}


def check_subtitles(name: str, place: Place) -> None:
    """Raises UserError for a benchmark without subtitles, and where their folder is missing: not one row would be with subtitles."""
    if name not in SUBTITLED:
        raise unknown("benchmark with subtitles", name, SUBTITLED, "benchmark.subtitle_frames")
    _, folder, archive = SUBTITLED[name]
    if not (place.base / folder).is_dir():
        raise UserError(f"benchmark.subtitle_frames: there is no folder {place.base / folder}; unpack {archive} there")


def with_subtitles(name: str, sample: Sample, place: Place, frames: int) -> Sample:
    """The sample in the benchmark's setting with subtitles. Raises RowError for a broken file, and a missing one where each row has one."""
    try:
        return SUBTITLED[name][0](sample, place, frames)
    except (ValueError, OSError) as error:
        raise RowError(sample.id, f"subtitles: {error}") from None
