import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import data
from data.rows import Rows
from vlm_rl.config import DataConfig
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Sample


def jsonl(path: Path, **fields: Any) -> DataConfig:
    return DataConfig(**{"name": "jsonl", "path": str(path), **fields})


def write(folder: Path, *rows: Any) -> DataConfig:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return jsonl(path)


def read(folder: Path, *rows: Any) -> Rows:
    return data.load_rows(write(folder, *rows))


def one(folder: Path, **fields: Any) -> Sample:
    return read(folder, {"question": "What?", **fields})[0]


def problem(folder: Path, row: Any) -> str:
    rows = read(folder, {"question": "fine?", "answer": "x"}, "", row)
    assert rows[0].answer == "x"
    with pytest.raises(RowError) as caught:
        rows[1]
    assert "rows.jsonl line 3" in caught.value.reason
    assert caught.value.row_id == (str(row["id"]) if isinstance(row, dict) and "id" in row else "3")
    return caught.value.reason


def test_a_row_becomes_a_sample(tmp_path: Path):
    sample = one(tmp_path, id=7, images=["a.png", "/abs/b.png"], videos=["c.mp4"], options=["cat", "dog"], answer="B", source="web")
    assert (sample.id, sample.kind, sample.answer, sample.options) == ("7", "choice", "B", ("cat", "dog"))
    assert [(m.kind, m.path) for m in sample.media] == [
        ("image", tmp_path / "a.png"),
        ("image", Path("/abs/b.png")),
        ("video", tmp_path / "c.mp4"),
    ]
    assert sample.meta == {"source": "web"} and sample.response is None


def test_line_numbers_are_default_ids_and_blank_lines_count(tmp_path: Path):
    rows = read(tmp_path, "\ufeff" + json.dumps({"question": "a", "answer": "1"}), "", "  \r", {"question": "b", "answer": "2"}, "")
    assert [row.id for row in rows] == ["1", "4"]
    assert rows[-1].question == "b" and [row.id for row in rows[1:]] == ["4"]
    with pytest.raises(IndexError):
        rows[2]


GOLD = [
    ("B", "B"),
    ("b", "B"),
    ("(B)", "B"),
    ("B.", "B"),
    ("dog", "B"),
    (" Dog ", "B"),
    ("B. dog", "B"),
    ("(b) dog", "B"),
    (1, "B"),
    (0, "A"),
    ("C,A", "A,C"),
    ("(A), (C)", "A,C"),
    (["dog", 0], "A,B"),
    (["A"], "A"),
]


@pytest.mark.parametrize(("answer", "letters"), GOLD)
def test_gold_answers_become_letters(answer: Any, letters: str, tmp_path: Path):
    assert one(tmp_path, options=["cat", "dog", "a big, old cow"], answer=answer).answer == letters


@pytest.mark.parametrize(
    ("options", "answer", "stripped", "letters"),
    [
        (["A. cat", "B. dog"], "B. dog", ("cat", "dog"), "B"),
        (["(A) cat", "(B) dog"], "cat", ("cat", "dog"), "A"),
        (["a) cat", "b) dog"], "b", ("cat", "dog"), "B"),
        (["A: cat", "B: dog"], "A: cat", ("cat", "dog"), "A"),
        (["B. cat", "A. dog"], 0, ("B. cat", "A. dog"), "A"),
        (["A. cat", "dog"], 1, ("A. cat", "dog"), "B"),
        (["A.", "B."], "B", ("A.", "B."), "B"),
        (["A", "B"], "B", ("A", "B"), "B"),
        ([2, 4, 6.5], "4", ("2", "4", "6.5"), "B"),
        ([20, 40], 40, ("20", "40"), "B"),
        (["Pb", "PB"], "PB", ("Pb", "PB"), "B"),
        (["x", "x"], "A", ("x", "x"), "A"),
    ],
)
def test_letter_prefixes_are_stripped_only_when_all_are_right(options: list, answer: Any, stripped: tuple, letters: str, tmp_path: Path):
    sample = one(tmp_path, options=options, answer=answer)
    assert (sample.options, sample.answer) == (stripped, letters)


@pytest.mark.parametrize(
    ("fields", "kind", "answer"),
    [
        ({"answer": "yes"}, "yesno", "yes"),
        ({"answer": "No"}, "yesno", "No"),
        ({"answer": "42"}, "number", "42"),
        ({"answer": 42}, "number", "42"),
        ({"answer": -0.5}, "number", "-0.5"),
        ({"answer": "1,234.5"}, "number", "1,234.5"),
        ({"answer": ".5e-3"}, "number", ".5e-3"),
        ({"answer": "e5"}, "text", "e5"),
        ({"answer": "1,23"}, "text", "1,23"),
        ({"answer": "12 cm"}, "text", "12 cm"),
        ({"answer": "\\frac{1}{2}"}, "text", "\\frac{1}{2}"),
        ({"answer": "\\frac{1}{2}", "kind": "math"}, "math", "\\frac{1}{2}"),
        ({"answer": "42", "kind": "text"}, "text", "42"),
        ({"answer": "(b)", "kind": "choice"}, "choice", "B"),
        ({"response": "I see a cat."}, "text", ""),
        ({"response": "B", "options": ["x", "y"]}, "choice", ""),
    ],
)
def test_the_kind_is_inferred_unless_said(fields: dict, kind: str, answer: str, tmp_path: Path):
    sample = one(tmp_path, **fields)
    assert (sample.kind, sample.answer) == (kind, answer)


def test_marks_order_the_media(tmp_path: Path):
    sample = read(tmp_path, {"question": "<video> then <image>?", "images": "a.png", "videos": ["b.mp4"], "answer": "x"})[0]
    assert [m.kind for m in sample.media] == ["video", "image"]


TWO = {"question": "q", "options": ["cat", "dog"]}
BAD = [
    ('{"question": "q", ', "not valid JSON"),
    ("[" * 100_000, "not valid JSON"),
    ('{"question": "q", "answer": ' + "9" * 5000 + "}", "not valid JSON"),
    ('{"question": "\\ud800", "answer": "x"}', "surrogate"),
    ("[1, 2]", "a row is an object"),
    ('"text"', "a row is an object"),
    ({"id": "r1", "answer": "x"}, '"question" is missing'),
    ({"id": "r1", "question": "  ", "answer": "x"}, "blank"),
    ({"id": "r1", "question": 5, "answer": "x"}, '"question" is not a text'),
    ({"id": "r1", "question": "q"}, '"answer" is missing'),
    ({"question": "q", "answer": ""}, '"answer" is missing'),
    ({"question": "q", "answer": "  "}, "blank"),
    ({"question": "q", "answer": None}, '"answer" is missing'),
    ({"question": "q", "answer": True}, "a text or a number"),
    ('{"question": "q", "answer": NaN}', "a text or a number"),
    ({"question": "q", "answer": {"a": 1}}, "a text or a number"),
    ({**TWO, "answer": "dgo"}, "did you mean 'dog'"),
    ({**TWO, "answer": "C"}, "not among the 2 options"),
    ({**TWO, "answer": 2}, "not among the 2 options"),
    ({**TWO, "answer": True}, "neither a letter"),
    ({**TWO, "answer": "A,C"}, "not among"),
    ({"question": "q", "options": ["B", "A"], "answer": "A"}, "write the 0-based index"),
    ({"question": "q", "options": [1, 2, 3], "answer": 2}, "write a letter"),
    ({"question": "q", "options": ["x", "x"], "answer": "x"}, "can mean A"),
    ({"question": "q", "options": ["x"], "answer": "x"}, "1 entries"),
    ({"question": "q", "options": [str(i) for i in range(27)], "answer": "3"}, "27 entries"),
    ({"question": "q", "options": "cat or dog", "answer": "cat"}, "list of texts"),
    ({"question": "q", "options": [["cat"], "dog"], "answer": "dog"}, "list of texts"),
    ({"question": "q", "choices": ["cat", "dog"], "answer": "dog"}, 'the key is "options"'),
    ({"question": "q", "image": "a.png", "answer": "dog"}, 'the key is "images"'),
    ({**TWO, "answer": "A", "kind": "number"}, 'of kind "choice"'),
    ({"question": "q", "answer": "A", "kind": "chioce"}, "did you mean 'choice'"),
    ({"question": "q", "answer": "A", "kind": ["choice"]}, "unknown kind"),
    ({"question": "q", "answer": "cat", "kind": "choice"}, "must be a letter"),
    ({"question": "<image> q <image>", "images": ["a.png"], "answer": "x"}, '2 "<image>" marks for 1 images'),
    ({"question": "<image> q", "answer": "x"}, '1 "<image>" marks for 0 images'),
    ({"question": "<image> q", "images": ["a.png"], "videos": ["b.mp4"], "answer": "x"}, '0 "<video>" marks for 1 videos'),
    ({"question": "q", "images": [3], "answer": "x"}, "list of file paths"),
    ({"question": "q", "images": ["a\0.png"], "answer": "x"}, "list of file paths"),
    ({"question": "q", "images": ["https://x.org/a.png"], "answer": "x"}, "save it to a file"),
    ({"question": "q", "answer": "x", "response": 4}, '"response" is not a text'),
    ('{"id": {}, "question": "q", "answer": "x"}', '"id" is'),
]


@pytest.mark.parametrize(("row", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_bad_rows_are_named_with_their_line_and_cause(row: Any, reason: str, tmp_path: Path):
    if isinstance(row, str):
        rows = read(tmp_path, {"question": "fine?", "answer": "x"}, "", row)
        with pytest.raises(RowError, match=r"rows\.jsonl line 3") as caught:
            rows[1]
        assert caught.value.row_id == "3" and reason in str(caught.value)
    else:
        assert reason in problem(tmp_path, row)


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xef\xbb\xbf\n"])
def test_an_empty_file_is_named(content: bytes, tmp_path: Path):
    path = tmp_path / "none.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"none\.jsonl has no rows"):
        data.load_rows(jsonl(path))


def test_bad_sources_are_named(tmp_path: Path):
    for config, reason in [
        (jsonl(tmp_path, name="jsnl"), "did you mean 'jsonl'"),
        (jsonl(tmp_path).model_copy(update={"path": None}), "data.path is not set"),
        (jsonl(tmp_path / "no.jsonl"), "no such file"),
        (jsonl(tmp_path), "is a directory; name the file in it"),
        (jsonl(tmp_path, demonstrations={"letter_a": 0.5}), "response"),
    ]:
        with pytest.raises(UserError, match=reason):
            data.load_rows(config)


def test_binary_rubbish_is_a_row_error(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(bytes(range(256)) * 4)
    rows = data.load_rows(jsonl(path))
    for index in range(len(rows)):
        with pytest.raises(RowError):
            rows[index]


def test_a_limit_is_a_seeded_subset_in_the_source_order(tmp_path: Path):
    config = write(tmp_path, *({"question": str(i), "answer": "x"} for i in range(50)))

    def drawn(limit: int, seed: int) -> list[int]:
        return [int(row.id) for row in data.load_rows(config.model_copy(update={"limit": limit, "seed": seed}))]

    assert drawn(10, 0) == sorted(drawn(10, 0)) and len(set(drawn(10, 0))) == 10
    assert drawn(10, 0) == drawn(10, 0) != drawn(10, 1)
    assert set(drawn(10, 0)) < set(drawn(20, 0))
    assert drawn(99, 0) == list(range(1, 51))


def test_many_rows_cost_little_memory(tmp_path: Path):
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for i in range(200_000):
            file.write(f'{{"question": "How many are there in picture {i}?", "images": ["{i}.png"], "answer": {i}}}\n')
    tracemalloc.start()
    rows = data.load_rows(jsonl(path))
    assert (len(rows), rows[123_456].answer, rows[-1].id) == (200_000, "123456", "200000")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20, peak


def test_importing_data_is_cheap():
    code = "import data, sys; print([m for m in ('torch', 'PIL', 'data.sources', 'data.easy_vqa') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
