"""Filters, duplicates and contamination."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import data
from data.rows import LazyRows
from data.select import distinct, matching
from data.split import overlap
from vlm_rl.config import DataConfig
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Media, Sample


def row(row_id: int, question: str = "q?", answer: str = "x", options: tuple[str, ...] = (), **meta: Any) -> Sample:
    media = tuple(Media("image", data=content) for content in meta.pop("images", ()))
    return Sample(str(row_id), question, answer, "choice" if options else "text", options, media, meta=meta)


ROWS = [
    row(0, level=1, subject="Algebra", skills=["a", "b"], info={"year": 2020}),
    row(1, level="2", subject="geometry", skills=["b"], images=(b"1",)),
    row(2, level=3.0, subject="geometry", images=(b"1", b"2")),
    row(3, subject=None, options=("x", "y"), answer="A"),
    row(4, level="hard", subject="Topology", flag=True),
]


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        ({"subject": "algebra"}, "0"),
        ({"subject": ["Algebra", "TOPOLOGY"]}, "04"),
        ({"level": 3}, "2"),
        ({"level": 2}, "1"),
        ({"level": {"min": 2}}, "12"),
        ({"level": {"min": 1, "max": 2}}, "01"),
        ({"level": {"max": 2}, "subject": "geometry"}, "1"),
        ({"skills": "b"}, "01"),
        ({"info.year": 2020}, "0"),
        ({"kind": "choice"}, "3"),
        ({"images": {"max": 1}}, "0134"),
        ({"images": 2}, "2"),
        ({"options": {"min": 2}}, "3"),
        ({"flag": True}, "4"),
        ({"id": [1, 3]}, "13"),
    ],
)
def test_conditions_keep_rows(conditions: dict, kept: str):
    assert "".join(sample.id for sample in matching(ROWS, conditions)) == kept


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [({"levle": 3}, "did you mean 'level'"), ({"level": 77}, "none of 5 rows has level = 77"), ({"info.month": 3}, "unknown field")],
)
def test_conditions_that_keep_nothing_are_named(conditions: dict, reason: str):
    with pytest.raises(UserError, match=reason):
        matching(ROWS, conditions)


class Faulty(LazyRows):
    """Every other row cannot be read."""

    def __len__(self) -> int:
        return 6

    def row(self, index: int) -> Sample:
        if index % 2:
            raise RowError(str(index), "bad")
        return row(index, level=index)


def test_unreadable_rows_are_kept_for_the_checks():
    kept = matching(Faulty(), {"level": {"max": 2}})
    assert len(kept) == 5
    with pytest.raises(RowError):
        kept[1]
    assert len(distinct(Faulty())) == 4


def test_the_first_of_equal_rows_is_kept(caplog: pytest.LogCaptureFixture):
    rows = [
        row(0, "What  is it?", "cat", images=(b"1",)),
        row(1, "what is it?", "cat", images=(b"1",)),
        row(2, "What is it?", "cat", images=(b"2",)),
        row(3, "What is it?", "dog", images=(b"1",)),
        row(4, "Which?", "A", ("x", "y")),
        row(5, "Which?", "B", ("x", "y")),
        row(6, "Which?", "A", ("y", "x")),
    ]
    with caplog.at_level(logging.INFO):
        assert [sample.id for sample in distinct(rows)] == ["0", "2", "4", "6"]
    assert "drops 3 of 7 rows" in caplog.text and "2 of the dropped rows give another answer" in caplog.text
    assert distinct(rows[:1]) == rows[:1]


def test_media_of_equal_content_in_several_files_are_duplicates(tmp_path: Path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"same")
    (tmp_path / "c.png").write_bytes(b"another")
    lines = [{"id": name, "question": "q", "answer": "x", "images": [f"{name}.png"]} for name in ("a", "b", "c", "gone")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = DataConfig(name="jsonl", path=str(tmp_path / "rows.jsonl"), deduplicate=True)
    assert [sample.id for sample in data.load_rows(config)] == ["a", "c", "gone"]


def test_where_then_duplicates_then_limit(tmp_path: Path):
    lines = [{"id": str(i), "question": f"q{i % 10}", "answer": "x", "level": i % 3} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = data.load_rows(DataConfig(name="jsonl", path=str(tmp_path / "rows.jsonl"), where={"level": [0, 1]}, deduplicate=True, limit=4))
    assert len(rows) == 4 and len({sample.question for sample in rows}) == 4
    assert all(sample.meta["level"] in (0, 1) and int(sample.id) < 30 for sample in rows)


def test_contamination_reads_only_files_of_a_size_that_occurs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, content in {"a": b"12", "copy": b"12", "other": b"34", "large": b"12345"}.items():
        (tmp_path / name).write_bytes(content)

    def sample(name: str) -> Sample:
        return Sample(name, "q", "x", media=(Media("image", path=tmp_path / name),))

    read: list[str] = []
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args, **kwargs: read.append(self.name) or original(self, *args, **kwargs))
    assert overlap([sample("large"), sample("copy"), sample("other")], [sample("a")]) == ["a"]
    assert "large" not in read and "other" in read


def test_contamination_by_a_question_of_text_only_rows():
    train = [row(0, "What is  two?"), row(1, "With a picture?", images=(b"1",))]
    test = [row(2, "What is two?"), row(3, "With a picture?"), row(4, "What is two?", images=(b"2",))]
    assert overlap(train, test) == ["2"]


def test_contamination_goes_on_past_bad_rows_when_told_to():
    bad: list[RowError] = []
    missing = Sample("m", "q", "x", media=(Media("image", path=Path("/nowhere.png")),))
    assert overlap([missing, row(9, images=(b"1",))], [row(1, images=(b"1",)), missing], bad.append) == ["1"]
    assert [error.row_id for error in bad] == ["m", "m"]
