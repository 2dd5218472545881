"""The table of views: names, composition, seeds, severities; views of text load no image library."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data.media import png_media
from data.views import SEVERITIES, VIEWS, Draw, NotApplicable, apply, blank, compose, find
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Sample

PICTURES = [png_media(Image.radial_gradient("L").resize((60, 40)).convert("RGB")), png_media(Image.new("RGB", (30, 30), "teal"))]
META = {
    "caption": "A teal disc lies on the left.",
    "wrong_answer": "C",
    "wrong_caption": "A red disc lies on the left.",
    "boxes": [[5, 5, 20, 20]],
}
ROWS = [
    Sample("1", "What colour is it?", "B", "choice", ("red", "teal", "blue"), (PICTURES[0],), meta=META),
    Sample("2", "How many are there?", "C", "choice", ("one", "two", "three"), (PICTURES[1],)),
]
DRAW = Draw(5, 3, ROWS)
OF_VIDEO = [name for name in VIEWS if name.startswith("frames_")]
OF_PICTURE = [name for name in VIEWS if name not in OF_VIDEO]


@pytest.mark.parametrize("name", OF_PICTURE)
def test_a_view_changes_the_row_keeps_what_is_right_and_depends_on_seed_and_row_only(name: str):
    row = ROWS[0]
    seen = apply([name], row, DRAW)
    again = apply([name], Sample(**vars(row)), Draw(5, 3, list(ROWS)))
    assert seen == again and [m.id for m in seen.media] == [m.id for m in again.media]
    assert seen != row and seen.id == row.id and seen.kind == row.kind
    assert [seen.options["ABCD".index(letter)] for letter in seen.answer.split(",")] == ["teal"]
    assert row.meta is META and len(META) == 4


@pytest.mark.parametrize("name", VIEWS)
def test_a_row_with_nothing_to_change_is_named_with_the_reason(name: str):
    bare = Sample("7", "Why?", "", "text")
    if name in ("question_paraphrased", "think_empty"):
        assert apply([name], bare, Draw(0)) != bare
        bare = Sample("7", "", "", "text", prefill="<think>")
    with pytest.raises(NotApplicable, match="row 7: ") as caught:
        apply([name], bare, Draw(0))
    assert isinstance(caught.value, RowError) and len(caught.value.reason) > 10


@pytest.mark.parametrize("name", OF_VIDEO)
def test_views_of_videos_do_not_apply_to_pictures(name: str):
    with pytest.raises(NotApplicable, match="no video"):
        apply([name], ROWS[0], DRAW)


def test_views_are_made_in_order():
    both = apply(["options_permuted", "image_blur"], ROWS[0], DRAW)
    assert (
        both
        == apply(["image_blur"], apply(["options_permuted"], ROWS[0], DRAW), DRAW)
        == compose(["options_permuted", "image_blur"])(ROWS[0], DRAW)
    )
    assert [edit.name for edit in apply(["image_noise", "image_blur"], ROWS[0], DRAW).media[0].edits] == ["noise", "blur"]
    assert apply([], ROWS[0], DRAW) is ROWS[0]


def test_other_seeds_and_rows_draw_otherwise():
    orders = {apply(["options_permuted"], ROWS[0], Draw(seed)).options for seed in range(60)}
    assert len(orders) == 5  # all but the row's own
    same = [apply(["options_permuted"], dataclasses.replace(ROWS[0], id=str(i)), Draw(0)).options for i in range(20)]
    assert len(set(same)) > 1


def test_unknown_views_are_named_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown view 'image_blurr' in stress.views; did you mean 'image_blur'\?"):
        compose(["options_permuted", "image_blurr"], "stress.views")
    for name in ("nowhere:View", "data.views:nothing", ":", "data.views_text:"):
        with pytest.raises(UserError, match="there is no such function"):
            find(name)
    assert find("data.views_text:think_wrong") is find("think_wrong")


@pytest.mark.parametrize("severity", [0, -1, 6, 2.5])
def test_severities_are_one_to_five(severity):
    with pytest.raises(UserError, match=r"write 1 \(mild\) to 5"):
        Draw(0, severity)
    assert [Draw(0, level).severity for level in SEVERITIES] == [1, 2, 3, 4, 5]


def test_every_view_is_short_and_says_what_it_does():
    for name in VIEWS:
        view = find(name)
        function = getattr(view, "func", view)
        assert function.__doc__, name
        assert len([line for line in _source(function) if line.strip()]) < 15, name


def _source(function) -> list[str]:
    import inspect

    return inspect.getsource(function).splitlines()


def test_views_of_text_load_no_image_library():
    code = """
import sys
from data.views import Draw, VIEWS, apply
from vlm_rl.types import Sample
row = Sample("1", "What?", "A", "choice", ("x", "y", "z"))
for name in VIEWS:
    if name.startswith(("caption_r", "caption_w", "hint_g", "option", "question", "think")):
        apply([name], row, Draw(0))
sys.exit(bool({"PIL", "torch", "av"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0


def test_blank_is_for_rows_with_and_without_pictures():
    assert blank(ROWS[0]).media == apply(["image_blank"], ROWS[0], DRAW).media
    bare = Sample("7", "Why?", "x")
    assert blank(bare) is bare
