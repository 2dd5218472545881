"""Boxes read from text: formats, conventions, rejections, padding, crops of crops, areas; sizes as the processor makes them."""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models_small import make_chat, picture, sample
from PIL import Image

from data.boxes import area, distinct, iou, union_area
from data.media import decode_image
from rewards import boxes_selftest
from rewards.boxes import CONVENTIONS, MOST_BOXES, Picture, read_boxes, spoken, to_pixels
from vlm_rl import small
from vlm_rl.config import ModelConfig, ScratchConfig
from vlm_rl.errors import UserError
from vlm_rl.types import Box, Reply
from vlm_rl.vision import VisualProcessor
from vlm_rl.vision_cache import VisionCache

FULL_HD = Picture(1920, 1080, seen=(448, 840))
SQUARE = Picture(100, 100, seen=(100, 100))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I see a red circle [8,12,28,32] and a square [60, 20, 92, 52].", [(8, 12, 28, 32), (60, 20, 92, 52)]),
        ("[0.5, .25, 1.0, 1e0] [-3,+4,5,6.]", [(0.5, 0.25, 1, 1), (-3, 4, 5, 6)]),
        ("a set [1, 2, 3], an interval [0, 1], [1,2,3,4,5], f(1)[0], [a, b, c, d]", []),
        ("{bbox_2d: [1,2,3,4], bbox_2d: [5,6,7,8]}", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ('{"bbox_2d": [1, 2, 3, 4], "label": "a [9,9,9,9]", "bbox_2d" : [5,6,7,8], "label": "b"}', [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("{'bbox_2d': [[1,2,3,4], [5,6,7,8]]}", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ('the values [1,2,3,4]; "bbox_2d": [5,6,7,8]', [(5, 6, 7, 8)]),
        ("<box>[[1,2,3,4]]</box> <box>[[1,2,3,4],[5,6,7,8]]</box>", [(1, 2, 3, 4), (1, 2, 3, 4), (5, 6, 7, 8)]),
        ("<|box_start|>(1,2),(3,4)<|box_end|> <box>5, 6, 7, 8</box>", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("(1,2),(3,4) but not the points (5, 6), (7, 8)", [(1, 2, 3, 4)]),
        ("[nan,1,2,3] [1,2,3,inf]", ["number", "number"]),
        ('"bbox_2d": [1, 2, 3], "bbox_2d": [], "bbox_2d": [1,2,3,4,5]', ["count", "count", "count"]),
        ('"bbox_2d": [1, 2, 3, "x"], "bbox_2d": [1_0,2,3,4] "bbox_2d": [１,2,3,4], "bbox_2d": [1e999,2,3,4]', ["number"] * 4),
        ('"bbox_2d": "none" ... "bbox_2d": {"x": 1}, <box>1,2,3', ["syntax", "syntax", "syntax"]),
        ('"bbox_2d": [1, 2', ["syntax"]),
        ("", []),
    ],
)
def test_formats(text: str, found: list) -> None:
    assert [said.numbers for said in spoken(text)] == found


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ('{"bbox_2d": [0,0,1,1], "source": "original_image"}', [0]),
        ('{"bbox_2d": [0,0,1,1], "source": "observation_2"}', [2]),
        ('{"bbox_2d": [0,0,1,1], "target_image": 1} {"target_image": 3, "bbox_2d": [0,0,1,1]}', [0, 2]),
        ('{"bbox_2d": [0,0,1,1], "source": "the moon"} {"bbox_2d": [0,0,1,1], "target_image": 0}', [None, None]),
        ('{"bbox_2d": [0,0,1,1], "source": "observation_-1"}', [None]),
        ('"source": "observation_1", {"bbox_2d": [0,0,1,1]} and "source": "observation_1"', [0]),
    ],
)
def test_the_picture_a_box_names(text: str, sources: list) -> None:
    assert [said.source for said in spoken(text)] == sources


@pytest.mark.parametrize(
    ("numbers", "convention", "view", "pixels"),
    [
        ((100, 50, 300, 250), "abs_resized", FULL_HD, (228.57, 120.54, 685.71, 602.68)),
        ((250, 500, 750, 1000), "rel_1000", FULL_HD, (480, 540, 1440, 1080)),
        ((0.5, 0.5, 1.0, 1.0), "rel_1", Picture(1000, 800), (500, 400, 1000, 800)),
        ((100, 50, 300, 250), "abs_original", FULL_HD, (100, 50, 300, 250)),
        ((0.25, 0.5, 0.75, 1.0), "rel_1", Picture(400, 400, corner=(200, 100)), (300, 300, 500, 500)),
        ((250, 500, 750, 1000), "rel_1000", Picture(400, 400, corner=(200, 100)), (300, 300, 500, 500)),
    ],
)
def test_conventions(numbers: Box, convention, view: Picture, pixels: Box) -> None:
    assert to_pixels(numbers, convention, view) == pytest.approx(pixels, abs=0.01)


def test_a_size_that_is_not_known_is_not_made_up() -> None:
    with pytest.raises(UserError, match="abs_resized"):
        to_pixels((0, 0, 1, 1), "abs_resized", Picture(10, 10))


@pytest.mark.parametrize(
    ("text", "convention", "pad", "box"),
    [
        ("[0.4,0.4,0.5,0.5]", "rel_1", 0.1, (300, 240, 600, 480)),
        ("[0.95,0.95,1.0,1.0]", "rel_1", 0.1, (850, 680, 1000, 800)),
        ("[0.5, 0.5, 1.0, 1.0]", "rel_1", 0.0, (500, 400, 1000, 800)),
        ("[-20, 700, 60, 900]", "abs_original", 0.0, (0, 700, 60, 800)),
        ("[10.2, 10.2, 19.1, 19.9]", "abs_original", 0.0, (10, 10, 20, 20)),
        ("[0.29, 0.29, 0.57, 0.58]", "rel_1", 0.0, (290, 232, 570, 464)),
    ],
)
def test_what_is_cut_out_is_clamped_padded_and_whole(text: str, convention, pad: float, box: Box) -> None:
    assert read_boxes(text, convention, Picture(1000, 800), pad).boxes == (box,)


def test_padding_makes_a_small_box_nine_times_as_large() -> None:
    [box] = read_boxes("[0.4,0.4,0.5,0.5]", "rel_1", Picture(1000, 1000), pad=0.1).boxes
    assert area(box) / 1000**2 == pytest.approx(0.09)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('"bbox_2d": [1,2,3]', "count"),
        ('"bbox_2d": [1,2,3,4,5]', "count"),
        ("[nan,1,2,3]", "number"),
        ("[30,10,20,40]", "order"),
        ("[10,10,10,40]", "order"),
        ("[10,40,20,10]", "order"),
        ("[100,0,120,50]", "outside"),
        ("[-50,-50,0,0]", "outside"),
        ("[1e300,0,2e300,5]", "outside"),
        ("[0,0,1000,1]", "thin"),
        ('{"bbox_2d": [1,2,3,4], "source": "observation_1"}', "source"),
        ('{"bbox_2d": [1,2,3,4], "source": "video"}', "source"),
        ('"bbox_2d": oops', "syntax"),
    ],
)
def test_rejections_have_a_reason(text: str, reason: str) -> None:
    reading = read_boxes(text, "abs_original", Picture(2000 if reason == "thin" else 100, 100))
    assert (reading.boxes, [rejected.reason for rejected in reading.rejected]) == ((), [reason])


def test_a_good_box_stands_beside_bad_ones() -> None:
    reading = read_boxes("[1,2,30,40] [5,5,1,1]", "abs_original", SQUARE)
    assert reading.boxes == ((1, 2, 30, 40),)
    assert reading.rejected[0].text == "[5,5,1,1]"


def test_crops_of_crops() -> None:
    text = '{"bbox_2d": [0.2,0.1,0.6,0.5], "source": "original_image"} {"bbox_2d": [0.25,0.5,0.75,1.0], "source": "observation_1"}'
    assert read_boxes(text, "rel_1", Picture(1000, 1000)).boxes == ((200, 100, 600, 500), (300, 300, 500, 500))
    deeper = text + ' {"bbox_2d": [0.5,0,2,0.5], "source": "observation_2"}'
    assert read_boxes(deeper, "rel_1", Picture(1000, 1000)).boxes[2] == (400, 300, 500, 400), "clamped to the crop it names"
    pixels = text.replace("0.2,0.1,0.6,0.5", "20,10,60,50").replace("0.25,0.5,0.75,1.0", "10,20,30,40")
    assert read_boxes(pixels, "abs_original", SQUARE).boxes[1] == (30, 30, 50, 50)
    unknown = read_boxes(pixels, "abs_resized", SQUARE)
    assert (len(unknown.boxes), unknown.rejected[0].reason) == (1, "source"), "nobody knows at which size the crop was seen"


def test_nearly_equal_boxes_are_one_and_the_first_stays() -> None:
    assert read_boxes("[0,0,100,100] [0,0,100,96] [0,0,100,94]", "abs_original", SQUARE).boxes == ((0, 0, 100, 100), (0, 0, 100, 94))


def test_only_so_many_boxes_are_cut_out() -> None:
    reading = read_boxes(" ".join(f"[{i},0,{i + 10},10]" for i in range(0, 90, 3)), "abs_original", SQUARE)
    assert len(reading.boxes) == MOST_BOXES
    assert {rejected.reason for rejected in reading.rejected} == {"many"}
    assert len(read_boxes("[0,0,9,9] [50,50,90,90]", "abs_original", SQUARE, most=1).boxes) == 1


HOSTILE = [
    "[",
    "[1,",
    '"bbox_2d":[',
    "bbox_2d: ",
    "<box>",
    "(1,2),(",
    "[1,1,1,1]",
    '{"source": "observation_1"',
    "[[[",
    "1e9,",
    "<|box_start|>",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_takes_no_time(piece: str) -> None:
    start = time.perf_counter()
    read_boxes(piece * 4000, "abs_original", SQUARE)
    assert time.perf_counter() - start < 3


@given(
    st.lists(st.sampled_from([*HOSTILE, "]", "}", "7", ",", " ", "</box>", "nan", "original_image"]), max_size=30),
    st.sampled_from(CONVENTIONS),
)
def test_whatever_is_written_the_boxes_lie_on_the_picture(pieces: list[str], convention) -> None:
    view = Picture(60, 40, seen=(84, 56))
    for left, top, right, bottom in read_boxes("".join(pieces), convention, view, pad=0.1).boxes:
        assert 0 <= left < right <= 60 and 0 <= top < bottom <= 40


@given(
    st.tuples(st.integers(0, 400), st.integers(0, 300), st.integers(8, 400), st.integers(8, 300)),
    st.tuples(st.integers(28, 2000), st.integers(28, 2000)),
    st.sampled_from(CONVENTIONS),
)
def test_each_convention_undoes_its_own_writing(spot, seen, convention) -> None:
    """A box written down by the definition of its convention is read back where it was."""
    box = (spot[0], spot[1], spot[0] + spot[2], spot[1] + spot[3])
    view = Picture(800, 600, seen=seen)
    unit = {"abs_original": (800, 600), "abs_resized": (seen[1], seen[0]), "rel_1": (1, 1), "rel_1000": (1000, 1000)}[convention]
    written = tuple(side / whole * one for side, whole, one in zip(box, (800, 600) * 2, unit * 2, strict=True))
    assert to_pixels(written, convention, view) == pytest.approx(box, abs=1e-6)
    assert read_boxes(f"[{','.join(f'{side:.15f}' for side in written)}]", convention, view).boxes == (box,)


BOXES = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19), st.integers(1, 20), st.integers(1, 20)), max_size=8).map(
    lambda spots: [(x, y, min(20, x + w), min(20, y + h)) for x, y, w, h in spots]
)


@pytest.mark.parametrize(
    ("boxes", "covered"),
    [
        ([(0, 0, 50, 50), (25, 25, 75, 75)], 4375),
        ([(10, 10, 20, 20), (10, 10, 20, 20)], 100),
        ([(0, 0, 100, 100)], 10_000),
        ([(0, 0, 10, 10), (20, 0, 30, 10), (0, 20, 10, 30)], 300),
        ([], 0),
    ],
)
def test_union_area(boxes: list[Box], covered: float) -> None:
    assert union_area(boxes) == covered


@given(BOXES)
def test_union_area_counts_every_pixel_once(boxes: list) -> None:
    painted = np.zeros((20, 20), bool)
    for left, top, right, bottom in boxes:
        painted[top:bottom, left:right] = True
    assert union_area(boxes) == painted.sum()


@given(BOXES)
def test_distinct_boxes_are_kept_once_and_none_is_lost(boxes: list) -> None:
    kept = distinct(boxes)
    assert all(iou(a, b) < 0.95 for i, a in enumerate(kept) for b in kept[:i])
    assert all(any(iou(box, other) >= 0.95 for other in kept) for box in boxes)
    assert distinct(kept) == kept


@pytest.mark.parametrize(
    ("family", "size", "bounds", "seen"),
    [
        ("qwen2_5_vl", (1920, 1080), (None, 12_845_056), (1092, 1932)),
        ("qwen2_5_vl", (1920, 1080), (None, 401_408), (448, 840)),
        ("qwen2_5_vl", (1920, 1080), (None, 2_000_000), (1036, 1876)),
        ("qwen2_5_vl", (640, 480), (3136, 12_845_056), (476, 644)),
        ("qwen3_vl", (1920, 1080), (None, 16384 * 32 * 32), (1088, 1920)),
    ],
)
def test_the_size_a_picture_is_seen_at_is_the_processors(family, size, bounds, seen) -> None:
    sizes = ScratchConfig(family=family, patch_size=16 if family == "qwen3_vl" else 14, image_size=28)
    processor = small.make_processor(sizes, small.train_tokenizer(["a"], 300))
    config = ModelConfig(scratch=sizes, image_min_pixels=bounds[0], image_max_pixels=bounds[1])
    look = VisualProcessor(processor, config, lambda media, row: Image.new("RGB", size))
    assert look(picture(0), "r").size == seen


def test_prompts_tell_the_sizes_and_the_cache_on_disk_keeps_them(tmp_path: Path) -> None:
    prompt = make_chat().prompt(sample("two", pictures=2, size=(120, 50)))
    assert len(prompt.sizes) == 2
    for (height, width), vision in zip(prompt.sizes, prompt.vision, strict=True):
        assert height * width == 14 * 14 * 4 * vision.tokens
        assert height < width
    cache = VisionCache(1 << 20, tmp_path)
    cache.get("image-a", lambda: prompt.vision[0])
    assert VisionCache(1 << 20, tmp_path).get("image-a", lambda: pytest.fail("not kept")).size == prompt.sizes[0]


def pointing(convention, sizes, jitter: float = 0.0) -> list[Reply]:
    """What a policy of this convention says about the squares of the self-test."""
    replies = []
    for ((width, height), square), seen in zip(boxes_selftest.SQUARES, sizes, strict=True):
        unit = {"abs_original": (width, height), "abs_resized": seen[::-1], "rel_1": (1, 1), "rel_1000": (1000, 1000)}[convention]
        sides = [side / whole * one for side, whole, one in zip(square, (width, height) * 2, unit * 2, strict=True)]
        sides = [side + jitter * (sides[2] - sides[0]) for side in sides]
        replies.append(Reply(f'```json\n[{{"bbox_2d": [{", ".join(f"{side:.3f}" for side in sides)}], "label": "square"}}]\n```'))
    return replies


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_the_self_test_tells_conventions_apart(family, convention, jitter) -> None:
    """With the bounds of the released processors: 56 x 56 pixels at least, 256 x 256 for Qwen3-VL."""
    sizes = ScratchConfig(family=family, patch_size=16 if family == "qwen3_vl" else 14)
    processor = small.make_processor(sizes, small.train_tokenizer(["a"], 300))
    config = ModelConfig(scratch=sizes, image_min_pixels=65536 if family == "qwen3_vl" else 3136, image_max_pixels=12_845_056)
    queries = boxes_selftest.ask()
    look = VisualProcessor(processor, config, decode_image)
    seen = [look(query.sample.media[0], "r").size for query in queries]
    found = boxes_selftest.read(queries, pointing(convention, seen, jitter), seen)
    assert found.best == convention
    assert found.overlap[convention] > (0.99 if not jitter else 0.6)
    assert found.problem(convention) is None
    for other in CONVENTIONS:
        assert other == convention or f"write convention: {convention}" in (found.problem(other) or "")


def test_the_self_test_does_not_guess() -> None:
    queries = boxes_selftest.ask("policy")
    assert {query.target for query in queries} == {"policy"}
    sizes = [(56, 84)] * len(queries)
    for text in ("I cannot see any.", "[1,1,2,2]", "[0,0,9999,9999]"):
        found = boxes_selftest.read(queries, [Reply(text)] * len(queries), sizes)
        assert found.best is None
        assert "cannot be told" in (found.problem("rel_1") or "")
    failed = boxes_selftest.read(queries, [Reply(error="too long")] * len(queries), sizes)
    assert (failed.found, failed.asked) == (0, len(queries))


def test_conventions_that_coincide_are_both_right() -> None:
    queries = boxes_selftest.ask()
    sizes = [(height, width) for (width, height), _ in boxes_selftest.SQUARES]
    found = boxes_selftest.read(queries, pointing("abs_original", sizes), sizes)
    assert found.problem("abs_original") is None
    assert found.problem("abs_resized") is None
    assert found.problem("rel_1000") is not None


def test_the_squares_are_where_they_are_said_to_be() -> None:
    for query, (size, square) in zip(boxes_selftest.ask(), boxes_selftest.SQUARES, strict=True):
        image = decode_image(query.sample.media[0], "r")
        red = np.asarray(image)[:, :, 1] < 100
        assert image.size == size
        assert red.sum() == area(square) == red[square[1] : square[3], square[0] : square[2]].sum()
