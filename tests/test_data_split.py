from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.check import check_rows
from data.media import png_media
from data.rows import LazyRows
from data.split import hold_out, overlap
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Media, Sample


def sample(row_id: object, *contents: int, question: str = "What?") -> Sample:
    return Sample(str(row_id), question, "x", media=tuple(Media("image", data=str(c).encode()) for c in contents))


def contents(rows) -> set[str]:
    return {medium.id for row in rows for medium in row.media}


@given(st.lists(st.lists(st.integers(0, 12), max_size=3), min_size=2, max_size=40), st.floats(0.01, 0.99), st.integers(0, 99))
def test_no_medium_and_no_bare_question_is_on_both_sides(pictures: list[list[int]], share: float, seed: int):
    rows = [sample(i, *p, question="What?" if p else f"Q{i % 3}") for i, p in enumerate(pictures)]
    try:
        train, held = hold_out(rows, share, seed)
    except UserError as error:
        assert "eval_data" in str(error)
        return
    assert len(train) and len(held)
    assert sorted([*(r.id for r in train), *(r.id for r in held)]) == sorted(r.id for r in rows)
    assert contents(train).isdisjoint(contents(held)) and overlap(train, held) == []
    assert {r.question for r in train if not r.media}.isdisjoint(r.question for r in held if not r.media)


def test_the_share_is_met_and_depends_on_content_not_position():
    rows = [sample(i, i) for i in range(200)]
    train, held = hold_out(rows, 0.1, seed=0)
    assert (len(train), len(held)) == (180, 20)
    assert [r.id for r in train] == sorted((r.id for r in train), key=int)
    backwards = hold_out(rows[::-1], 0.1, seed=0)[1]
    assert {r.id for r in backwards} == {r.id for r in held} != {r.id for r in hold_out(rows, 0.1, seed=1)[1]}


def test_a_picture_of_most_rows_is_not_held_out():
    rows = [sample(i, 0) for i in range(90)] + [sample(i, i) for i in range(90, 100)]
    for seed in range(20):
        assert len(hold_out(rows, 0.1, seed)[1]) == 10


def test_rows_chained_by_pictures_stay_together():
    rows = [sample(i, i, i + 1) for i in range(9)] + [sample("apart", 99)]
    assert [r.id for r in hold_out(rows, 0.5)[1]] == ["apart"]


def test_parts_and_frames_of_one_video_stay_together():
    film = [Media("video", data=b"film", start=float(i), end=i + 1.0) for i in range(8)] + [Media("image", data=b"film", start=3.0)]
    rows = [Sample(str(i), "What?", "x", media=(part,)) for i, part in enumerate(film)] + [sample("apart", 99)]
    assert [r.id for r in hold_out(rows, 0.5)[1]] == ["apart"]
    assert overlap(rows[:4], rows[4:]) == [r.id for r in rows[4:-1]]


@pytest.mark.parametrize("rows", [[sample(1, 1)], [sample(1, 1), sample(2, 1)], [sample(1), sample(2)], []])
def test_rows_that_cannot_be_parted_are_refused(rows: list[Sample]):
    with pytest.raises(UserError, match="eval_data"):
        hold_out(rows)


def test_overlap_names_the_test_rows():
    assert overlap([sample(1, 1, 2), sample(2, 3)], [sample("a", 4), sample("b", 5, 2), sample("c"), sample("d", 3)]) == ["b", "d"]
    with pytest.raises(RowError, match="nowhere"):
        overlap([Sample("1", "q", "x", media=(Media("image", path=Path("/nowhere.png")),))], [])


class Faulty(LazyRows):
    """Rows 3, 13, ... cannot be parsed, 5, 15, ... have a broken picture."""

    def __len__(self) -> int:
        return 100

    def row(self, index: int) -> Sample:
        if index % 10 == 3:
            raise RowError(str(index), "bad JSON")
        picture = Path("/nowhere.png") if index % 10 == 5 else None
        return Sample(str(index), "q", "x", media=(Media("image", path=picture, data=None if picture else b"%d" % index),))


def test_bad_rows_do_not_stop_the_split():
    train, held = hold_out(Faulty(), 0.2)
    assert len(train) + len(held) == 100 and len(held) == 20


def test_checking_goes_on_after_errors_and_names_every_bad_row():
    good = png_media(Image.new("RGB", (4, 4)))
    rows = [
        Sample("1", "q", "x", media=(good,)),
        Sample("2", "q", "x", media=(good, Media("image", data=b"rubbish"))),
        Sample("3", "q", ""),
        Sample("4", "q", "", response="shown"),
        Sample("1", "q", "x"),
        Sample("6", "q", "unparsable"),
        Sample("7", "q", "explosive"),
        Sample("8", "q", "x", media=(Media("video", path=Path("/nowhere.mp4")),)),
    ]

    def grade(row: Sample) -> str | None:
        if row.answer == "explosive":
            raise RuntimeError("boom")
        return "its own verifier refuses it" if row.answer == "unparsable" else None

    seen: list[tuple[int, int]] = []
    errors = check_rows(rows, grade, lambda done, total: seen.append((done, total)))
    assert [e.row_id for e in errors] == ["2", "3", "1", "6", "7", "8"]
    for error, reason in zip(errors, ["not an image", "no answer", "used twice", "refuses", "boom", "no such file"], strict=True):
        assert reason in error.reason
    assert seen == [(i, 8) for i in range(1, 9)]


def test_checking_reports_rows_that_do_not_parse():
    errors = check_rows(Faulty(), lambda _: None, workers=3)
    assert [e.row_id for e in errors] == [str(i) for i in range(100)]
    assert {e.reason for e in errors if int(e.row_id) % 10 == 3} == {"bad JSON"}
