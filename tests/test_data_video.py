"""Videos: qwen-vl-utils' own frames on real clips, and files that are none end as errors of their row within bounded time."""

import os
import random
import re
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from clips_small import BIKES, BUNNY, CARPHONE, CLIPS, SMALL, clip, turned, write_clip, write_frames
from PIL import Image

from data.decoding import VideoInfo, pool
from data.edits import GREY
from data.media import decode_image, image_size, strip_png
from data.video import check_video, decode_video, frame_size, frames_media, probe_video, uniform_media
from data.views import blank
from vlm_rl.errors import RowError
from vlm_rl.types import Edit, Media, Sample, VideoBudget


@pytest.mark.parametrize("backend", ["decord", "pyav"])
@pytest.mark.parametrize(
    "path, budget",
    [
        (BIKES, {}),
        (BIKES, {"fps": 1.0, "max_frames": 7}),
        (CARPHONE, {"fps": 0.5, "min_frames": 6}),
        (CLIPS / "carphone_distorted.mp4", {"fps": 4.0, "max_pixels": 150_000}),
        (BUNNY, {"max_frames": 8, "total_pixels": 700_000}),
    ],
)
def test_frames_are_those_of_qwen_vl_utils(monkeypatch, path, budget, backend):
    theirs = pytest.importorskip("qwen_vl_utils.vision_process")
    monkeypatch.setattr(theirs, "get_video_reader_backend", lambda: "decord")
    (frames, about), sampled = theirs.fetch_video({"video": str(path), **budget}, return_video_sample_fps=True, return_video_metadata=True)
    got = decode_video(clip(path), VideoBudget(**{**budget, "max_frames": budget.get("max_frames", 768)}, backend=backend), "r")
    assert list(got.indices) == about["frames_indices"] and got.total == about["total_num_frames"]
    assert (got.fps, got.sampled_fps) == (about["fps"], sampled)
    assert np.array_equal(got.frames, frames.permute(0, 2, 3, 1).numpy())
    assert got.timestamps == tuple(i / got.fps for i in got.indices)


def test_bytes_decode_as_the_file_does_and_turned_videos_are_upright():
    want = decode_video(clip(CARPHONE), SMALL, "r")
    assert np.array_equal(decode_video(Media("video", data=CARPHONE.read_bytes()), SMALL, "r").frames, want.frames)
    sideways = Media("video", data=turned(CARPHONE.read_bytes()))
    assert probe_video(sideways, "r") == VideoInfo(120, 30000 / 1001, 176, 144)
    one, other = (decode_video(sideways, VideoBudget(max_frames=4, backend=name), "r").frames for name in ("decord", "pyav"))
    assert np.array_equal(one, other) and one.shape[1] > one.shape[2]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mov", "a.ts", "video_named.png"])
def test_the_content_decides_what_a_file_is(tmp_path, name):
    path = write_clip(tmp_path / ("x.mp4" if name.endswith("png") else name), 20).rename(tmp_path / name)
    for backend in ("decord", "pyav"):
        got = decode_video(clip(path), VideoBudget(min_pixels=1, max_frames=4, factor=2, backend=backend), "r")
        levels = got.frames.mean(axis=(1, 2, 3))
        assert len(got.indices) == 4 and np.abs(levels - 8 * np.array(got.indices)).max() < 6


def broken(tmp_path, what):
    path = tmp_path / "bad.mp4"
    first = write_clip(tmp_path / "first.mp4", 60, movflags="faststart").read_bytes()
    if what == "one":
        return write_clip(path, 1)
    if what == "zero":
        return write_clip(path, 0)
    if what == "picture":
        Image.new("RGB", (8, 8)).save(path, "PNG")
    contents = {
        "empty": b"",
        "text": b"#EXTM3U\n#EXTINF:10,\nhttp://example.com/a.ts\n",
        "noise": b"\0\0\0\x1cftypisom" + random.Random(0).randbytes(5000),
        "cut, index last": BIKES.read_bytes()[:200_000],
        "cut, index first": first[: len(first) * 6 // 10],
        "destroyed": bytes(b if i < 48 or i > 5e5 else i % 251 for i, b in enumerate(BIKES.read_bytes())),
        "bomb": uniform_media(VideoInfo(4, 1.0, 20_000, 20_000), GREY).data,
    }
    if what in contents:
        path.write_bytes(contents[what])
    return path


@pytest.mark.parametrize(
    "what, cause",
    [
        ("missing", "no such file"),
        ("empty", r"empty \(0 bytes\)"),
        ("picture", "a PNG picture, not a video"),
        ("text", "not a video"),
        ("noise", "cannot be decoded|truncated"),
        ("cut, index last", "truncated: 200000 bytes are there"),
        ("cut, index first", r"truncated: \d+ bytes are there"),
        ("destroyed", "cannot be decoded"),
        ("zero", "cannot be decoded|no video stream|no frames"),
        ("one", "a video of 1 frame; 2 are needed"),
        ("bomb", "not a video"),
    ],
)
def test_what_is_no_video_is_an_error_of_its_row(tmp_path, what, cause):
    path = broken(tmp_path, what)
    for backend in ("decord", "pyav", "any"):
        started = time.perf_counter()
        with pytest.raises(RowError, match=f"row r7: .*bad.mp4: .*({cause})"):
            decode_video(clip(path), VideoBudget(backend=backend), "r7")
        assert time.perf_counter() - started < 10
    if what != "missing":
        with pytest.raises(RowError, match="row r7: video in memory: "):
            check_video(Media("video", data=path.read_bytes()), "r7")


def test_random_damage_never_stalls_or_escapes():
    rng, whole = random.Random(1), CARPHONE.read_bytes()
    for _ in range(25):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 10, 300])):
            data[rng.randrange(586_000 if rng.random() < 0.5 else 40, len(data))] = rng.randrange(256)
        try:
            got = decode_video(Media("video", data=bytes(data)), SMALL, "r", 5)
            assert got.frames.shape[0] == len(got.indices) <= 6
        except RowError as error:
            assert error.row_id == "r" and "\n" not in error.reason and len(error.reason) < 300


def test_a_stuck_decoder_is_killed_and_replaced():
    check_video(clip(CARPHONE), "r")
    worker = pool().idle[-1]
    os.kill(worker.process.pid, signal.SIGSTOP)
    started = time.perf_counter()
    with pytest.raises(RowError, match=r"row slow: .*carphone_pristine.mp4: decoding it took longer than 0.5 s"):
        decode_video(clip(CARPHONE), SMALL, "slow", 0.5)
    assert time.perf_counter() - started < 3 and worker.process.poll() is not None
    assert len(decode_video(clip(CARPHONE), SMALL, "r").frames) == 6
    os.kill(pool().idle[-1].process.pid, signal.SIGKILL)
    time.sleep(0.05)
    assert len(decode_video(clip(CARPHONE), SMALL, "r").frames) == 6


def test_a_decoder_that_dies_at_work_costs_one_row():
    check_video(clip(CARPHONE), "r")
    victim = pool().idle[-1]
    os.kill(victim.process.pid, signal.SIGSTOP)
    later = threading.Timer(0.3, os.kill, (victim.process.pid, signal.SIGKILL))
    later.start()
    with pytest.raises(RowError, match="the decoder crashed on it"):
        decode_video(clip(CARPHONE), SMALL, "r", 20)
    assert len(decode_video(clip(CARPHONE), SMALL, "r").frames) == 6


def test_thirty_thousand_frames_are_sampled_within_the_budget(tmp_path):
    path = write_clip(tmp_path / "long.mp4", 30_000, (32, 32))
    budget = VideoBudget(max_frames=16, min_pixels=1, max_pixels=16 * 16, factor=2)
    with pytest.raises(RowError, match=r"row long: .*long.mp4: decoding it took longer than 0.02 s"):
        decode_video(clip(path), budget, "long", 0.02)
    got = decode_video(clip(path), budget, "long")
    assert got.frames.nbytes <= 16 * 16 * 16 * 3 and got.indices[-1] == 29_999 and got.total == 30_000
    assert probe_video(clip(CARPHONE), "r").frames == 120


def test_threads_share_the_workers():
    want = [decode_video(clip(path), SMALL, "r").frames for path in (BIKES, CARPHONE)]
    got: dict[int, bool] = {}

    def work(i: int) -> None:
        got[i] = np.array_equal(decode_video(clip((BIKES, CARPHONE)[i % 2]), SMALL, "r").frames, want[i % 2])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == dict.fromkeys(range(6), True) and len(pool().idle) <= pool().size


@pytest.mark.parametrize("frames, height, width", [(10, 100, 100), (768, 720, 1280), (2, 30, 4000), (100, 56, 56)])
def test_frame_sizes_keep_to_the_budget(frames, height, width):
    budget = VideoBudget(min_pixels=4 * 784, max_pixels=64 * 784, total_pixels=4000 * 784)
    tall, wide = frame_size(budget, frames, VideoInfo(1000, 25, height, width))
    assert tall % 28 == wide % 28 == 0 < tall and tall * wide >= 4 * 784 and (tall * wide <= 64 * 784 or tall == 28)
    assert tall * wide * frames <= max(2 * budget.total_pixels, frames * budget.min_pixels * 1.05)


def test_a_strip_and_frames_of_ones_own():
    frames = np.random.default_rng(0).integers(0, 255, (5, 28, 56, 3), np.uint8)
    own = frames_media(frames, 10.0)
    got = decode_video(own, VideoBudget(fps=10, min_frames=2, min_pixels=1), "r")
    assert got.indices == (0, 1, 3, 4) and np.array_equal(got.frames, frames[[0, 1, 3, 4]]) and got.fps == 10.0
    assert own.id == frames_media(frames, 10.0).id != frames_media(frames[::-1], 10.0).id
    assert strip_png(list(got.frames), 14).startswith(b"\x89PNG")


def test_a_blank_video_is_grey_and_as_long_and_large():
    sample = Sample(id="r", question="?", answer="A", media=(clip(BIKES),))
    (grey,) = blank(sample).media
    assert probe_video(grey, "r") == probe_video(sample.media[0], "r")
    got, want = (decode_video(m, SMALL, "r") for m in (grey, sample.media[0]))
    assert got.indices == want.indices and got.frames.shape == want.frames.shape and (got.frames == 128).all()
    assert blank(sample).media[0] is grey


@pytest.mark.parametrize("backend", ["decord", "pyav"])
@pytest.mark.parametrize("start, end", [(1.0, 3.0), (None, 2.5), (2.26, None), (0.0, 99.0), (1.01, 1.1), (7.3, 8.9)])
def test_a_part_of_a_video_is_drawn_from_as_qwen_vl_utils_does(monkeypatch, start, end, backend):
    theirs = pytest.importorskip("qwen_vl_utils.vision_process")
    monkeypatch.setattr(theirs, "get_video_reader_backend", lambda: "decord")
    bounds = {name: value for name, value in (("video_start", start), ("video_end", end)) if value is not None}
    budget = {"fps": 3.0, "min_frames": 2, "min_pixels": 28 * 28, "max_pixels": 112 * 112}
    asked = {"video": str(BIKES), **budget, **bounds}
    (frames, about), sampled = theirs.fetch_video(asked, return_video_sample_fps=True, return_video_metadata=True)
    part = Media("video", path=BIKES, start=start, end=end)
    got = decode_video(part, VideoBudget(**budget, backend=backend), "r")
    assert list(got.indices) == about["frames_indices"] and got.total == about["total_num_frames"]
    assert (got.fps, got.sampled_fps) == (about["fps"], sampled)
    assert np.array_equal(got.frames, frames.permute(0, 2, 3, 1).numpy())


def test_parts_of_a_video_have_their_own_ids_and_one_file_id():
    parts = [Media("video", path=BIKES, start=a, end=b) for a, b in ((None, None), (1.0, None), (None, 3.0), (1.0, 3.0), (1.0, 3.5))]
    assert len({part.id for part in parts}) == 5 and {part.file_id for part in parts} == {clip(BIKES).id}
    assert parts[3].id == Media("video", data=BIKES.read_bytes(), start=1.0, end=3.0).id
    assert parts[3].edited(Edit("reverse")).id != parts[1].edited(Edit("reverse")).id


def test_frames_are_reordered_within_the_part():
    part, budget = Media("video", path=BIKES, start=1.0, end=3.0), VideoBudget(max_frames=6, min_pixels=28 * 28, max_pixels=56 * 56)
    forth, back = (decode_video(medium, budget, "r") for medium in (part, part.edited(Edit("reverse"))))
    assert forth.indices == back.indices and np.array_equal(back.frames[::-1], forth.frames)
    assert probe_video(part, "r") == VideoInfo(frames=51, fps=25.0, height=272, width=640, first=25)


def test_a_blank_part_of_a_video_shows_the_same_times():
    sample = Sample(id="r", question="?", answer="A", media=(Media("video", path=BIKES, start=1.23, end=3.4),))
    (grey,) = blank(sample).media
    got, want = (decode_video(m, SMALL, "r") for m in (grey, sample.media[0]))
    assert got.indices == want.indices and got.frames.shape == want.frames.shape and (got.frames == 128).all()
    assert got.timestamps == want.timestamps and got.total == want.total


@pytest.mark.parametrize("start, end", [(99.0, None), (1.0, 1.02), (None, 0.0)])
def test_a_part_without_frames_is_named(start, end):
    with pytest.raises(RowError, match=r"row r: .*bikes.mp4.* s: the video of \d+ frames at 25 a second has fewer than two frames there"):
        check_video(Media("video", path=BIKES, start=start, end=end), "r")


@pytest.mark.parametrize("backend", ["decord", "pyav", "any"])
def test_a_picture_can_be_a_frame_of_a_video(tmp_path, backend):
    path = write_clip(tmp_path / "a.mp4", 60)
    for second, level in ((0.0, 0), (0.5, 96), (0.2, 40), (1.0, 200), (2.39, 27 * 8)):
        picture = decode_image(Media("image", path=path, start=second), "r", backend)
        assert picture.size == (32, 24) and abs(np.asarray(picture).mean() - level) < 6
    blurred = Media("image", path=path, start=0.5).edited(Edit("crop", boxes=((0, 0, 8, 4),)))
    assert decode_image(blurred, "r").size == image_size(blurred, "r") == (8, 4)
    assert image_size(Media("image", path=path, start=0.5), "r") == (32, 24)
    with pytest.raises(RowError, match=r"a.mp4 at 2.4 s: the video ends at 2.40 s"):
        decode_image(Media("image", path=path, start=2.4), "r", backend)


def test_a_file_that_changes_is_opened_again(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 60)
    before = np.asarray(decode_image(Media("image", path=path, start=0.5), "r")).mean()
    write_clip(tmp_path / "b.mp4", 61, (40, 24)).replace(path)
    after = decode_image(Media("image", path=path, start=0.5), "r")
    assert abs(before - 96) < 6 and after.size == (40, 24)


def test_a_folder_of_frames_is_a_video(tmp_path):
    folder = write_frames(tmp_path / "frames", 30)
    film = Media("video", path=folder, fps=3.0)
    budget = VideoBudget(fps=1.0, min_pixels=1, factor=2)
    for backend in ("decord", "pyav", "any"):
        got = decode_video(film, VideoBudget(fps=1.0, min_pixels=1, factor=2, backend=backend), "r")
        assert (got.total, got.fps, len(got.indices)) == (30, 3.0, 10)
        assert np.abs(got.frames.mean(axis=(1, 2, 3)) - 8 * np.array(got.indices)).max() < 6
    part = decode_video(Media("video", path=folder, fps=3.0, start=2.0, end=5.0), budget, "r")
    assert part.indices == (6, 9, 12, 15) and np.abs(part.frames.mean(axis=(1, 2, 3)) - 8 * np.array(part.indices)).max() < 6
    copy = write_frames(tmp_path / "elsewhere", 30)
    assert film.id == Media("video", path=copy, fps=3.0).id != Media("video", path=copy, fps=4.0).id
    (copy / "00007.jpg").write_bytes((copy / "00008.jpg").read_bytes())
    assert film.file_id != Media("video", path=copy, fps=3.0).file_id


@pytest.mark.parametrize(
    "what, cause",
    [
        ("no rate", r'a folder; where it holds frames, write {"path": ..., "fps": frames a second}'),
        ("rate of a file", "not a folder of frames, and only those need fps"),
        ("empty", r"the folder is empty \(0 bytes\)"),
        ("no pictures", "it has no frames"),
        ("damaged", "its frame 00010.jpg is no picture or a damaged one"),
        ("another size", "its frame 00010.jpg is not of 32 x 24 pixels"),
        ("picture", "not a file"),
    ],
)
def test_what_is_no_folder_of_frames_is_named(tmp_path, what, cause):
    folder = write_frames(tmp_path / "frames", {"empty": 0, "no pictures": 0}.get(what, 10))
    if what == "no pictures":
        (folder / "notes.txt").write_text("x")
    if what == "damaged":
        (folder / "00010.jpg").write_bytes((folder / "00001.jpg").read_bytes()[:300])
    if what == "another size":
        Image.new("RGB", (30, 24)).save(folder / "00010.jpg")
    path = folder / "00001.jpg" if what == "rate of a file" else folder
    with pytest.raises(RowError, match=f"row r: .*frames.*: {cause}"):
        if what == "picture":
            decode_image(Media("image", path=folder), "r")
        check_video(Media("video", path=path, fps=None if what == "no rate" else 3.0), "r")


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    folder = write_frames(tmp_path / "frames", 12)
    for file in folder.iterdir():
        file.rename(folder / f"frame_{int(file.stem)}.jpg")
    got = decode_video(Media("video", path=folder, fps=12.0), VideoBudget(fps=12.0, min_pixels=1, factor=2), "r")
    assert (np.diff(got.frames.mean(axis=(1, 2, 3))) > 4).all() and len(got.frames) == 12


def test_a_codec_that_decord_lacks_is_told(tmp_path):
    path = write_clip(tmp_path / "a.mkv", 12, (64, 64), codec="libsvtav1")
    assert check_video(clip(path), "r", "pyav").frames == check_video(clip(path), "r", "any").frames == 12
    with pytest.raises(RowError, match=r"no video stream that decord can decode; for AV1 write model\.video_backend=pyav"):
        check_video(clip(path), "r", "decord")


def test_pyav_tells_of_frames_that_its_decoder_made_up():
    """Of 12 copies with one wrong byte each: what is shown is right or refused, but for damage that is a valid stream again."""
    whole, rng, refused, wrong = CARPHONE.read_bytes(), random.Random(0), 0, 0
    budget = VideoBudget(max_frames=12, min_pixels=28 * 28, max_pixels=56 * 56, backend="pyav")
    want = decode_video(clip(CARPHONE), budget, "r").frames
    first = whole.find(b"mdat") + 2000
    for _ in range(12):
        data = bytearray(whole)
        data[rng.randrange(first, len(whole) * 8 // 10)] ^= 255
        try:
            got = decode_video(Media("video", data=bytes(data)), budget, "r").frames
            wrong += not np.array_equal(got, want)
        except RowError as error:
            refused += bool(re.search(r"damaged: of frame \d+ of 120 a part is made up|cannot be decoded|truncated", error.reason))
    assert refused >= 6 and wrong <= 3
    assert decode_video(Media("video", data=bytes(data)), replace(budget, backend="decord"), "r").frames.shape == want.shape
