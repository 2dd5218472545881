"""Views of real photographs and clips: harder at a higher severity, the same for the same seed, real media for whatever decodes them."""

import time
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from clips_small import BIKES, CARPHONE, clip, write_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from models_small import make_chat
from PIL import Image
from skimage import data as photographs
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from data.boxes import area, distinct, fitted, iou
from data.edits import (
    BLUR_RADIUS,
    DROPPED_SHARE,
    FROZEN_SHARE,
    GREY,
    JPEG_QUALITY,
    LEAST_FRAMES,
    NOISE_DEVIATION,
    OCCLUDED_CELLS,
    ORDERS,
    PIXELS,
    ROTATION_DEGREES,
    SHUFFLED_BLOCKS,
    edited_image,
    frame_order,
)
from data.media import decode_image, image_size, png_media
from data.video import THUMBNAIL, check_video, decode_video, probe_video
from data.views import SEVERITIES, Draw, NotApplicable, apply
from vlm_rl.errors import RowError
from vlm_rl.types import Box, Edit, Media, Sample, VideoBudget

PHOTOS = {name: png_media(Image.fromarray(getattr(photographs, name)())) for name in ("astronaut", "coffee", "chelsea")}
SCALED = ("image_blur", "image_noise", "image_jpeg", "image_occluded", "image_rotated")
ALL = VideoBudget(fps=1000, max_frames=400, min_pixels=1, max_pixels=64 * 64, factor=2, backend="any")


def row(*media: Media, **meta) -> Sample:
    return Sample("r", "What is it?", "B", "choice", ("x", "y"), media, meta=meta)


def pixels(sample: Sample, index: int = 0) -> np.ndarray:
    return np.asarray(decode_image(sample.media[index], "r"))


@cache
def photo(name: str) -> np.ndarray:
    return pixels(row(PHOTOS[name]))


@pytest.mark.parametrize(
    "table", [BLUR_RADIUS, NOISE_DEVIATION, OCCLUDED_CELLS, ROTATION_DEGREES, DROPPED_SHARE, SHUFFLED_BLOCKS, FROZEN_SHARE]
)
def test_tables_hold_a_stronger_value_for_each_severity(table):
    assert len(table) == len(SEVERITIES) == len(JPEG_QUALITY) and all(a < b for a, b in pairwise(table))
    assert list(JPEG_QUALITY) == sorted(JPEG_QUALITY, reverse=True)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("which", PHOTOS)
def test_a_higher_severity_is_further_from_the_photograph(name: str, which: str):
    seen = [pixels(apply([name], row(PHOTOS[which]), Draw(1, level))) for level in SEVERITIES]
    assert all(picture.shape == photo(which).shape for picture in seen)
    if name == "image_rotated":  # neighbouring pixels swap places: similarity says nothing, the grey around it does
        shares = [(picture == GREY).all(-1).mean() for picture in seen]
        assert shares == sorted(shares) and shares[0] > 0.05
        return
    signal = [peak_signal_noise_ratio(photo(which), picture) for picture in seen]
    small = [np.asarray(Image.fromarray(picture).resize((150, 150))) for picture in (photo(which), *seen)]
    alike = [structural_similarity(small[0], picture, channel_axis=-1) for picture in small[1:]]
    assert signal == sorted(signal, reverse=True) and len(set(signal)) == 5 and signal[0] < 38, signal
    assert alike == sorted(alike, reverse=True), alike


@pytest.mark.parametrize("name", [*SCALED, "image_random", "image_blank"])
def test_bytes_are_the_same_for_the_same_seed_and_others_for_another(name: str):
    one, again, other = (apply([name], row(PHOTOS["coffee"]), Draw(seed, 2)) for seed in (1, 1, 2))
    assert one.media[0].id == again.media[0].id and pixels(one).tobytes() == pixels(again).tobytes()
    same = pixels(one).tobytes() == pixels(other).tobytes()
    assert same == (name in ("image_blur", "image_jpeg", "image_blank")) or name == "image_rotated"
    copied = row(Media("image", data=PHOTOS["coffee"].read()))
    assert apply([name], copied, Draw(1, 2)).media[0].id == one.media[0].id


def test_rotations_go_either_way():
    turned = {pixels(apply(["image_rotated"], row(PHOTOS["coffee"]), Draw(seed))).tobytes() for seed in range(10)}
    assert len(turned) == 2


def test_occluded_cells_are_as_many_as_the_table_says_and_nested():
    white = row(png_media(Image.new("RGB", (60, 36), "white")))
    hidden = [(pixels(apply(["image_occluded"], white, Draw(3, level))) == GREY).all(-1) for level in SEVERITIES]
    assert [mask.mean() for mask in hidden] == [cells / 36 for cells in OCCLUDED_CELLS]
    assert all((less <= more).all() for less, more in pairwise(hidden))


def test_noise_has_its_deviation_and_a_grain_that_grows_with_the_picture():
    for side, grain in ((200, 1), (896, 4)):
        picture = row(png_media(Image.new("RGB", (side, side), GREY)))
        seen = pixels(apply(["image_noise"], picture, Draw(0, 1))).astype(float) - 128
        assert abs(seen.std() / 255 - NOISE_DEVIATION[0]) < 0.003 and abs(seen.mean()) < 1
        assert (seen[:grain, :grain] == seen[0, 0]).all() and not (seen[: 2 * grain, : 2 * grain] == seen[0, 0]).all()


def test_random_pixels_keep_nothing_but_the_size():
    seen = pixels(apply(["image_random"], row(PHOTOS["coffee"]), Draw(0)))
    assert seen.shape == photo("coffee").shape and abs(seen.mean() - 127.5) < 1 and abs(seen.std() - 73.9) < 1
    assert abs(np.corrcoef(seen.ravel(), photo("coffee").ravel())[0, 1]) < 0.01


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(set(PIXELS) - {"crop"})), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
def test_pictures_of_a_few_pixels_survive_every_edit(name, width, height, severity, seed):
    picture = Image.new("RGB", (width, height), "teal")
    seen = edited_image(picture, [Edit(name, severity, seed, ((0, 0, 1, 1),))])
    assert seen.size == picture.size and seen.mode == "RGB" and (np.asarray(picture) == (0, 128, 128)).all()


def test_another_rows_picture_is_another_picture_of_the_same_kinds():
    coffee, cat = PHOTOS["coffee"], PHOTOS["chelsea"]
    mine = row(coffee, boxes=[[0, 0, 9, 9]])
    clips = [row(clip(CARPHONE)), row(coffee, cat), row(Media("image", data=coffee.read())), mine]
    with pytest.raises(NotApplicable, match="none of the other rows"):
        apply(["image_swapped"], mine, Draw(0, others=clips))
    others = [*clips, row(Media("image", path=Path("gone.png"))), row(cat)]
    for seed in range(10):
        seen = apply(["image_swapped"], mine, Draw(seed, others=others))
        assert seen.media == (cat,) and (seen.id, seen.answer, seen.question) == (mine.id, mine.answer, mine.question)
    with pytest.raises(NotApplicable, match="no boxes are known"):
        apply(["image_swapped", "boxes_cropped"], mine, Draw(0, others=others, boxes=((0, 0, 9, 9),)))


BOXES = [[10, 20, 60, 90], [10.2, 20.1, 59.7, 89.9], [-5, 300, 50.5, 1000], [12, 20, 60, 90]]


def test_each_box_becomes_its_own_picture_in_order_without_near_twins():
    sample = Sample("r", "Is it <image>?", "B", "choice", ("x", "y"), (PHOTOS["coffee"],), meta={"boxes": BOXES})
    seen = apply(["boxes_cropped"], sample, Draw(0))
    assert iou((10, 20, 60, 90), (12, 20, 60, 90)) == 0.96
    assert [image_size(medium, "r") for medium in seen.media] == [(50, 70), (51, 100)]
    assert np.array_equal(pixels(seen, 0), photo("coffee")[20:90, 10:60]) and np.array_equal(pixels(seen, 1), photo("coffee")[300:, :51])
    assert seen.question == "Is it <image><image>?" and seen.answer == "B"
    for name in ("boxes_cropped", "boxes_kept", "boxes_covered"):
        with pytest.raises(NotApplicable, match="no boxes are known that fit"):
            apply(["boxes_cropped", name], sample, Draw(0, boxes=((0, 0, 5, 5),)))


def test_boxes_of_the_draw_come_before_the_rows_own():
    sample = row(PHOTOS["coffee"], boxes=BOXES)
    for known in (sample, row(PHOTOS["coffee"])):
        seen = apply(["boxes_cropped"], known, Draw(0, boxes=((1, 2, 30, 40),)))
        assert [image_size(medium, "r") for medium in seen.media] == [(29, 38)] and seen.question == "What is it?"


def test_covered_and_kept_pixels_are_each_others_rest():
    sample = row(PHOTOS["coffee"], boxes=BOXES)
    inside = np.zeros(photo("coffee").shape[:2], bool)
    inside[20:90, 10:60] = inside[300:, :51] = True
    kept, covered = (pixels(apply([name], sample, Draw(0))) for name in ("boxes_kept", "boxes_covered"))
    assert np.array_equal(kept[inside], photo("coffee")[inside]) and (kept[~inside] == 128).all()
    assert np.array_equal(covered[~inside], photo("coffee")[~inside]) and (covered[inside] == 128).all()
    blurred = pixels(apply(["image_blur", "boxes_kept"], sample, Draw(0)))
    assert (blurred[~inside] == 128).all() and not np.array_equal(blurred[inside], photo("coffee")[inside])


@pytest.mark.parametrize(
    ("box", "want"),
    [
        ((0, 0, 10, 5), (0, 0, 10, 5)),
        ([-3, 2.5, 40, 9], (0, 2, 30, 9)),
        ([0.2, 0.2, 0.9, 0.9], (0, 0, 1, 1)),
        (["1", "2", "3", "4"], (1, 2, 3, 4)),
        *(
            (bad, None)
            for bad in ([1, 2, 3], [1, 2, 3, 4, 5], "1234", b"1234", None, 7, [1, 2, "x", 4], [1, 2, float("nan"), 4], [0, 0, 10**400, 4])
        ),
        *((bad, None) for bad in ([5, 0, 5, 9], [9, 0, 5, 9], [30, 0, 40, 9], [0, -9, 4, 0], [[1], 2, 3, 4], [float("inf"), 0, 1, 1])),
    ],
)
def test_boxes_are_fitted_or_refused(box, want):
    if want is not None:
        assert fitted(box, 30, 20) == want
        return
    with pytest.raises(ValueError, match=r"is not a box|holds nothing of a picture of 30 x 20"):
        fitted(box, 30, 20)
    with pytest.raises(NotApplicable, match="row r: "):
        apply(["boxes_cropped"], row(png_media(Image.new("RGB", (30, 20))), boxes=[box]), Draw(0))


SIDES = st.tuples(*[st.floats(-50, 150)] * 4)


@given(st.lists(SIDES, max_size=6))
def test_fitted_boxes_lie_inside_and_distinct_ones_keep_the_first(boxes):
    kept: list[Box] = []
    for box in boxes:
        try:
            kept.append(fitted(box, 100, 80))
        except ValueError:
            continue
    for left, top, right, bottom in kept:
        assert 0 <= left < right <= 100 and 0 <= top < bottom <= 80 and area((left, top, right, bottom)) >= 1
    few = distinct(kept)
    assert distinct(few) == few and few[:1] == tuple(kept[:1]) and all(any(iou(a, b) >= 0.95 for b in few) for a in kept)


def test_boxes_do_not_apply_to_several_pictures_or_a_clip():
    for media in ((PHOTOS["coffee"], PHOTOS["chelsea"]), (clip(CARPHONE),), ()):
        with pytest.raises(NotApplicable, match="boxes are of one picture"):
            apply(["boxes_kept"], row(*media, boxes=BOXES), Draw(0))


def test_an_edited_medium_is_decoded_not_read_and_unreadable_ones_are_named():
    seen = apply(["image_blur"], row(PHOTOS["coffee"]), Draw(0)).media[0]
    assert seen.source == PHOTOS["coffee"] and seen.id != seen.source.id
    with pytest.raises(AssertionError, match="decode it"):
        seen.read()
    gone = row(Media("image", path=Path("gone.png")), boxes=BOXES)
    for name in (*SCALED, "image_blank", "boxes_kept"):
        with pytest.raises(RowError, match=r"row r: .*gone\.png"):
            decode_image(apply([name], gone, Draw(0)).media[0], "r")


def test_prompts_show_what_the_view_shows():
    chat = make_chat()
    chat.look.decode = decode_image
    plain, blurred, again = (
        chat.prompt(sample).vision[0].tensors["pixel_values"]
        for sample in (row(PHOTOS["coffee"]), *(apply(["image_blur"], row(PHOTOS["coffee"]), Draw(0)) for _ in range(2)))
    )
    assert blurred is again and blurred.shape == plain.shape and (blurred != plain).any()


# Videos


def frames(sample: Sample) -> np.ndarray:
    return decode_video(sample.media[0], ALL, "r").frames


@cache
def film() -> np.ndarray:
    return frames(row(clip(CARPHONE)))


def order(sample: Sample) -> list[int]:
    """Which frame of the source each frame shows, found in the pixels."""
    return [int(np.flatnonzero((film() == frame).all(axis=(1, 2, 3)))[0]) for frame in frames(sample)]


def test_clips_are_shuffled_reversed_frozen_and_thinned_out_frame_by_frame():
    sample, info = row(clip(CARPHONE)), probe_video(clip(CARPHONE), "r")
    total = info.frames
    assert len(film()) == total == 120 and order(sample) == list(range(total))
    assert order(apply(["frames_reversed"], sample, Draw(0))) == list(range(total))[::-1]
    mixed = order(apply(["frames_shuffled"], sample, Draw(0, 2)))
    blocks = [mixed[i : i + 30] for i in range(0, 120, 30)]
    assert sorted(mixed) == list(range(total)) != mixed and all(b == list(range(b[0], b[0] + 30)) for b in blocks)
    still = order(apply(["frames_frozen"], sample, Draw(0, 3)))
    assert len(still) == total and sum(i != j for i, j in enumerate(still)) == 71 and len(set(still)) == 49
    for name in ("frames_shuffled", "frames_reversed", "frames_frozen"):
        assert probe_video(apply([name], sample, Draw(0)).media[0], "r") == info
    thin = apply(["frames_dropped"], sample, Draw(0, 2))
    assert len(order(thin)) == 72 and order(thin) == sorted(set(order(thin)))
    assert probe_video(thin.media[0], "r").fps == info.fps and probe_video(thin.media[0], "r").frames == 72


def test_views_of_frames_compose():
    sample = row(clip(CARPHONE))
    twice = apply(["frames_reversed", "frames_reversed"], sample, Draw(0))
    assert twice.media[0].id != sample.media[0].id and np.array_equal(frames(twice), film())
    both = apply(["frames_dropped", "frames_reversed", "image_blur"], sample, Draw(0, 4))
    assert len(both.media[0].edits) == 3 and len(frames(both)) == 24
    thin = frames(apply(["frames_dropped"], sample, Draw(0, 4)))
    assert peak_signal_noise_ratio(thin[::-1], frames(both)) > peak_signal_noise_ratio(thin, frames(both))


@given(st.sampled_from(sorted(ORDERS)), st.integers(1, 300), st.integers(1, 5), st.integers(0, 2**60))
def test_orders_of_frames(name, total, severity, seed):
    got = list(frame_order(total, [Edit(name, severity, seed)]))
    assert got == list(frame_order(total, [Edit(name, severity, seed)])) and set(got) <= set(range(total))
    if name == "drop":
        assert got == sorted(set(got)) and len(got) == max(min(total, LEAST_FRAMES), round(total * (1 - DROPPED_SHARE[severity - 1])))
        return
    assert len(got) == total and (total == 1 or got != list(range(total)))
    if name == "freeze":
        assert sum(i == j for i, j in enumerate(got)) >= 1 and got == sorted(got)
    else:
        assert sorted(got) == list(range(total))


@pytest.mark.parametrize("name", ["frames_shuffled", "frames_frozen"])
def test_a_higher_severity_leaves_fewer_frames_in_their_order(name: str):
    def kept(level: int) -> float:
        orders = [
            frame_order(96, [Edit(name.removeprefix("frames_").replace("shuffled", "shuffle").replace("frozen", "freeze"), level, s)])
            for s in range(40)
        ]
        return float(np.mean([sum(b == a + 1 for a, b in pairwise(got)) for got in orders]))

    shares = [kept(level) for level in SEVERITIES]
    assert shares == sorted(shares, reverse=True) and len(set(shares)) == 5


def test_frames_get_worse_like_pictures_and_noise_moves():
    sample = row(clip(BIKES))
    budget = VideoBudget(max_frames=4, min_pixels=1, max_pixels=160 * 160, factor=2, backend="any")
    plain = decode_video(sample.media[0], budget, "r").frames
    for name in SCALED[:4]:
        seen = [decode_video(apply([name], sample, Draw(1, level)).media[0], budget, "r").frames for level in (1, 3, 5)]
        signal = [peak_signal_noise_ratio(plain, frames) for frames in seen]
        assert signal == sorted(signal, reverse=True) and seen[0].shape == plain.shape, (name, signal)
    same, other = (
        decode_video(apply([name], row(grey()), Draw(1)).media[0], budget, "r").frames for name in ("image_occluded", "image_noise")
    )
    assert all(np.array_equal(same[0], frame) for frame in same) and not np.array_equal(other[0], other[1])


def grey() -> Media:
    return apply(["image_blank"], row(clip(CARPHONE)), Draw(0)).media[0]


def test_edited_clips_go_the_way_of_other_clips(tmp_path: Path):
    sample = row(clip(CARPHONE))
    chat = make_chat()
    shown = [chat.prompt(s).vision[0] for s in (sample, apply(["frames_reversed"], sample, Draw(0)))]
    tensors = [v.tensors["pixel_values_videos"] for v in shown]
    assert tensors[0].shape == tensors[1].shape and (tensors[0] != tensors[1]).any()
    for backend in ("decord", "pyav"):
        check_video(apply(["frames_shuffled", "image_noise"], sample, Draw(0)).media[0], "r", backend)
        thumbs = [
            decode_video(m, VideoBudget(max_frames=8, backend=backend), "r")
            for m in (sample.media[0], apply(["frames_reversed"], sample, Draw(0)).media[0])
        ]
        assert thumbs[0].indices == thumbs[1].indices and np.array_equal(thumbs[0].frames[0], thumbs[1].frames[-1])
    blank = apply(["frames_dropped", "image_blank"], sample, Draw(0, 3)).media[0]
    assert probe_video(blank, "r").frames == 48 and (decode_video(blank, THUMBNAIL, "r").frames == 128).all()
    short = row(clip(write_clip(tmp_path / "short.mp4", 4)))
    with pytest.raises(NotApplicable, match="fewer than 5 frames"):
        apply(["frames_dropped"], short, Draw(0))
    assert len(frames(apply(["frames_reversed"], short, Draw(0)))) == 4


def test_a_long_clip_costs_no_more_when_its_frames_change_places(tmp_path: Path):
    long = row(clip(write_clip(tmp_path / "long.mp4", 20_000, (32, 32))))
    budget = VideoBudget(max_frames=16, min_pixels=1, max_pixels=16 * 16, factor=2)
    started = time.perf_counter()
    seen = apply(["frames_shuffled", "image_blur"], long, Draw(0, 5)).media[0]
    got = decode_video(seen, budget, "r")
    assert len(got.indices) == 16 and got.total == 20_000 and got.frames.nbytes <= 16 * 16 * 16 * 3 and len(seen.edits) == 2
    assert time.perf_counter() - started < 30
