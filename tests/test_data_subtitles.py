"""Settings with subtitles: files read, the subtitles that frames show, and where they stand in the question."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_rows import ROWS, SRT, SUBTITLES
from clips_small import write_clip
from hypothesis import given
from hypothesis import strategies as st

from data.benchmark_source import benchmark_rows
from data.media import decode_image
from data.subtitles import Subtitle, interleaved, read_json, read_srt, shown_at
from rewards.grading import gold_problem
from vlm_rl.config import DataConfig
from vlm_rl.config_eval import BenchmarkConfig
from vlm_rl.errors import RowError, UserError


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(name: str, folder: Path, frames: int | None, *rows: dict[str, Any]) -> Any:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return benchmark_rows(DataConfig(name="jsonl", path=str(path), split="test"), BenchmarkConfig(name=name, subtitle_frames=frames))


WANTED = [
    Subtitle(0.0, 2.0, "We begin."),
    Subtitle(2.0, 3.5, "There are five planets in the sky."),
    Subtitle(60, 62, "Long after the end."),
]


@pytest.mark.parametrize("change", [lambda s: s, lambda s: s.replace("\n", "\r\n"), lambda s: "\ufeff" + s, lambda s: s.replace(",", ".")])
def test_srt_files(tmp_path, change):
    assert read_srt(write(tmp_path / "a.srt", change(SRT))) == WANTED


@pytest.mark.parametrize("content", ["", "1\n2\n", "WEBVTT", "1\n00:00 --> 00:01\nx", "--> " * 10_000, "<" * 100_000])
def test_what_is_no_srt_file_is_told(tmp_path, content):
    with pytest.raises(ValueError, match=r"a\.srt: not an SRT file"):
        read_srt(write(tmp_path / "a.srt", content))


def test_marks_of_media_in_subtitles_are_taken_out(tmp_path):
    text = "1\n00:00:01,000 --> 00:00:02,000\n<video> and <image> {\\an8}there\n"
    assert read_srt(write(tmp_path / "a.srt", text)) == [Subtitle(1.0, 2.0, "and there")]


def test_json_files_in_both_shapes_become_times_of_the_video(tmp_path):
    found = read_json(write(tmp_path / "a.json", SUBTITLES), 10.0, 30.0)
    assert found == [
        Subtitle(-0.5, 1.5, "Good morning."),
        Subtitle(2.0, 2.375, "Thanks."),
        Subtitle(2.875, 4.5, "The cup is mine."),
        Subtitle(590.0, 30.0, "Never heard."),
    ]


@pytest.mark.parametrize(
    "content, cause",
    [
        ("[", "not valid JSON"),
        ({"timestamp": [0, 1]}, "a list of subtitles is expected, not a dict"),
        ([{"timestamp": [0], "text": "x"}], r"a.json \[0\]: a subtitle is"),
        ([{"timestamp": [0, 1], "text": "x"}, {"start": "soon", "end": "0:00:02", "line": "x"}], r"a.json \[1\]: a subtitle is"),
        ([{"timestamp": [0, 1], "text": 3}], "a subtitle is"),
        ([3], "a subtitle is"),
    ],
)
def test_what_is_no_list_of_subtitles_is_told(tmp_path, content, cause):
    with pytest.raises(ValueError, match=cause):
        read_json(write(tmp_path / "a.json", content), 0.0, 10.0)


@pytest.mark.parametrize(
    "times, texts",
    [
        ([0.0, 1.0], ["We begin."]),
        ([1.99], ["We begin."]),
        ([2.0, 2.1, 2.2], ["There are five planets in the sky."]),
        ([3.5, 4.0], []),
        ([0.0, 3.0, 61.0], [subtitle.text for subtitle in WANTED]),
        ([], []),
    ],
)
def test_only_what_a_frame_shows_is_listed_and_once(times, texts):
    assert [subtitle.text for subtitle in shown_at(WANTED, times)] == texts


@pytest.mark.parametrize(
    "times, spans, want",
    [
        ([0, 1, 2, 3], [(0.0, 3.0)], "I I a I I"),  # its middle is 1.5
        ([0, 1, 2, 3], [(0.0, 2.0)], "I I a I I"),  # a frame at the middle comes first
        ([0, 4, 8], [(5.0, 6.0)], "I I I"),  # no frame shows it
        ([0, 4, 8], [(4.3, 4.5)], "I I a I"),  # less than a second counts for one: 3.9 to 4.9
        ([0, 4, 8], [(4.5, 4.6)], "I I I"),  # 4.05 to 5.05
        ([0, 1], [(0.0, 1.6), (0.6, 1.6), (5.0, 9.0)], "I a I b"),
        ([], [(0.0, 1.0)], ""),
        ([0, 1], [], "I I"),
    ],
)
def test_subtitles_stand_between_the_frames_they_are_spoken_at(times, spans, want):
    subtitles = [Subtitle(start, end, "abc"[i]) for i, (start, end) in enumerate(spans)]
    assert interleaved(subtitles, times).replace("<image>", "I").split() == want.split()


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=8), st.lists(st.integers(0, 40), unique=True, max_size=10))
def test_every_frame_stands_once_and_every_subtitle_that_one_shows(spans, places):
    subtitles = [Subtitle(start / 4, (start + length) / 4, f"s{i}") for i, (start, length) in enumerate(sorted(spans))]
    times = [place / 4 for place in sorted(places)]
    lines = interleaved(subtitles, times).split("\n") if interleaved(subtitles, times) else []
    assert lines.count("<image>") == len(times)
    for subtitle in subtitles:
        middle = (subtitle.start + subtitle.end) / 2
        half = max(0.5, (subtitle.end - subtitle.start) / 2)
        assert (subtitle.text in lines) == any(middle - half < time < middle + half for time in times)


def test_videomme_lists_the_subtitles_of_its_frames(tmp_path):
    row = ROWS["videomme"][1][0]
    write_clip(tmp_path / "data" / "xxXXxxXXxx0.mp4", 100) if (tmp_path / "data").mkdir() is None else None
    write(tmp_path / "subtitle" / "xxXXxxXXxx0.srt", SRT)
    plain, few, many = (read("videomme", tmp_path, frames, row)[0] for frames in (None, 2, 50))
    assert plain.question == "How many planets are drawn?" and "subtitles" not in plain.meta
    # Of two frames the last is at 3.96 s, when nothing is said.
    head = "This video's subtitles are listed below:\nWe begin.\n"
    assert few.question == f"{head}\nHow many planets are drawn?"
    assert many.question == f"{head}There are five planets in the sky.\n\nHow many planets are drawn?"
    assert many.media == plain.media and gold_problem(many) is None and many.meta["subtitles"] == "yes"


def test_a_video_without_subtitles_is_asked_about_all_the_same_and_counted(tmp_path):
    (tmp_path / "subtitle").mkdir()
    sample = read("videomme", tmp_path, 8, ROWS["videomme"][1][0])[0]
    assert sample.question == "How many planets are drawn?" and sample.meta["subtitles"] == "no"


def test_longvideobench_puts_subtitles_between_its_frames(tmp_path):
    row = ROWS["longvideobench"][1][0] | {"duration": 4.5, "starting_timestamp_for_subtitles": 10.0}
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "abc.mp4", 110)
    write(tmp_path / "subtitles" / "abc_en.json", SUBTITLES)
    sample = read("longvideobench", tmp_path, 3, row)[0]
    lines = ["<image>", "Good morning.", "<image>", "<image>", "The cup is mine.", row["question"]]
    assert sample.question.split("\n") == lines and gold_problem(sample) is None
    assert [(m.kind, m.start) for m in sample.media] == [("image", 0.0), ("image", 1.5), ("image", 3.0)]
    for medium, frame in zip(sample.media, (0, 37, 75), strict=True):
        assert abs(np.asarray(decode_image(medium, "r")).mean() - 8 * (frame % 32)) < 6
    assert [len(read("longvideobench", tmp_path, count, row)[0].media) for count in (1, 4, 64)] == [1, 4, 4]
    plain = read("longvideobench", tmp_path, None, row)[0]
    assert [(m.kind, m.end) for m in plain.media] == [("video", 4.5)] and plain.question == row["question"]


def test_what_is_missing_is_named(tmp_path):
    row = ROWS["longvideobench"][1][0]
    with pytest.raises(UserError, match=r"subtitle_frames: there is no folder .*subtitles; unpack subtitles.tar there"):
        read("longvideobench", tmp_path, 8, row)
    with pytest.raises(UserError, match=r"unknown benchmark with subtitles 'mvbench'.*known: longvideobench, videomme"):
        read("mvbench", tmp_path, 8, ROWS["mvbench"][1][0])
    (tmp_path / "subtitles").mkdir()
    for change, cause in (({}, "abc_en.json: no such file"), ({"duration": None}, '"duration" is the seconds'), ({"duration": 0.4}, "0.4")):
        with pytest.raises(RowError, match=f"row abc_0: subtitles: [^:]*{cause}"):
            read("longvideobench", tmp_path, 8, row | change)[0]
    with pytest.raises(RowError, match="not a path below"):
        read("longvideobench", tmp_path, 8, row | {"subtitle_path": "../../etc/passwd"})[0]
