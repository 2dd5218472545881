"""JSON arrays, parquet and hub data sets as tables: lazy, exact, and errors that name the place."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import data
from data.tables import JsonArray
from vlm_rl.config import DataConfig
from vlm_rl.errors import RowError, UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def config(name: str, path: Path | str, **fields: Any) -> DataConfig:
    return DataConfig(**{"name": name, "path": str(path), **fields})


def numbered(count: int, start: int = 0) -> list[dict]:
    return [{"id": f"r{i}", "question": f"What is {i}?", "answer": i} for i in range(start, start + count)]


def table(path: Path, rows: list[dict], group: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4), min_size=1, max_size=6), st.integers(0, 3), st.booleans())
def test_an_array_has_the_elements_that_json_reads(rows: list[dict], indent: int, ascii_only: bool):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        path.write_text(json.dumps(rows, indent=indent or None, ensure_ascii=ascii_only), encoding="utf-8")
        array = JsonArray(path)
        assert [array.fields(i) for i in range(len(array))] == rows


def test_a_json_file_may_hold_lines_too(tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_text("\n".join(map(json.dumps, numbered(3))))
    assert [row.id for row in data.load_rows(config("jsonl", path))] == ["r0", "r1", "r2"]
    path.write_text("\ufeff [" + ",".join(map(json.dumps, numbered(3))) + "]\n", encoding="utf-8")
    rows = data.load_rows(config("jsonl", path))
    assert [row.id for row in rows] == ["r0", "r1", "r2"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[", "not closed"), ("[1, 2]", "has no rows"), ('[{"a": 1}', "not closed"), ("[]", "has no rows"), ('[{"a": "', "not closed")],
)
def test_a_broken_array_is_named(text: str, reason: str, tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(UserError, match=reason):
        data.load_rows(config("jsonl", path))


def test_a_broken_element_is_a_row_error(tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_text('[{"question": "q", "answer": 1}, {"question": q}, {"question": "q", "answer": 3}]')
    rows = data.load_rows(config("jsonl", path))
    assert (rows[0].answer, rows[2].answer) == ("1", "3")
    with pytest.raises(RowError, match=r"rows\.json element 2: not valid JSON"):
        rows[1]


def test_a_hostile_array_costs_linear_time(tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_text("[" + '"' + '\\"' * 2_000_000)
    with pytest.raises(UserError):
        data.load_rows(config("jsonl", path))


def test_parquet_files_are_one_table_in_order(tmp_path: Path):
    table(tmp_path / "train-00001-of-00002.parquet", numbered(25, 40), group=10)
    table(tmp_path / "train-00000-of-00002.parquet", numbered(40), group=7)
    table(tmp_path / "test-00000-of-00001.parquet", numbered(5, 100))
    rows = data.load_rows(config("parquet", tmp_path))
    assert [row.id for row in rows] == [f"r{i}" for i in range(65)]
    assert [rows[i].answer for i in (64, 0, 39, 40)] == ["64", "0", "39", "40"]
    assert [row.id for row in data.load_rows(config("parquet", tmp_path, split="test"))] == [f"r{i}" for i in range(100, 105)]
    assert len(data.load_rows(config("parquet", tmp_path / "test-00000-of-00001.parquet"))) == 5
    with pytest.raises(UserError, match=r"unknown split 'tset'.*did you mean 'test'"):
        data.load_rows(config("parquet", tmp_path, split="tset"))


def test_a_bad_parquet_row_is_named_with_file_and_row(tmp_path: Path):
    table(tmp_path / "a.parquet", numbered(3))
    table(tmp_path / "b.parquet", [*numbered(2), {"id": "bad", "question": None, "answer": 3}], group=2)
    rows = data.load_rows(config("parquet", tmp_path))
    with pytest.raises(RowError, match=r'row bad: b\.parquet row 2: "question" is missing'):
        rows[5]


def test_row_groups_are_read_when_asked_for_and_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from data import parquet

    rows = [{**row, "padding": "x" * 1000} for row in numbered(100)]
    file = parquet.Parquet([table(tmp_path / "rows.parquet", rows, group=10)], tmp_path)
    read = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda self, group: read.append(group) or original(self, group))
    monkeypatch.setattr(parquet, "KEPT_BYTES", 25_000)
    assert [file.fields(i)["answer"] for i in (5, 6, 15, 7, 25, 16, 95)] == [5, 6, 15, 7, 25, 16, 95]
    assert read == [0, 1, 2, 1, 9]
    assert file.fields(17)["answer"] == 17 and read == [0, 1, 2, 1, 9]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1", b"rubbish" * 50])
def test_what_is_not_parquet_is_named(content: bytes, tmp_path: Path):
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"rows\.parquet is not a readable parquet"):
        data.load_rows(config("parquet", path))


def test_damaged_pages_are_row_errors(tmp_path: Path):
    path = table(tmp_path / "rows.parquet", numbered(2000))
    content = bytearray(path.read_bytes())
    content[100:2000] = b"\xee" * 1900
    path.write_bytes(content)
    rows = data.load_rows(config("parquet", path))
    with pytest.raises(RowError):
        rows[3]


def test_missing_places_are_named(tmp_path: Path):
    for name, path, reason in [
        ("parquet", tmp_path / "no.parquet", "no such file"),
        ("parquet", tmp_path, r"no \.parquet file"),
        ("hub", tmp_path, "no saved data set"),
        ("hub", tmp_path / "nowhere", "neither a directory nor a hub id"),
        ("hub", "./nowhere/else", "neither a directory nor a hub id"),
    ]:
        with pytest.raises(UserError, match=reason):
            data.load_rows(config(name, path))
    with pytest.raises(UserError, match=r"data\.path is not set"):
        data.load_rows(DataConfig(name="hub"))


def test_a_hub_id_that_cannot_be_loaded_is_a_user_error(monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")

    def refuse(path: str, name: str | None, **options: Any) -> None:
        raise ConnectionError(f"offline: {path} {name} {options}")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match=r"owner/name en test abc could not be loaded.*offline.*'split': 'test', 'revision': 'abc'"):
        data.load_rows(DataConfig(name="hub", path="owner/name", config="en", split="test", revision="abc"))


def test_a_local_copy_of_a_hub_repository(tmp_path: Path):
    table(tmp_path / "en" / "train-00000-of-00001.parquet", numbered(3))
    table(tmp_path / "de" / "train-00000-of-00001.parquet", numbered(4))
    (tmp_path / "README.md").write_text("card")
    assert len(data.load_rows(config("hub", tmp_path, config="de"))) == 4
    with pytest.raises(UserError, match=r"no folder fr; it has README\.md, de, en"):
        data.load_rows(config("hub", tmp_path, config="fr"))


@pytest.mark.parametrize("splits", [False, True])
def test_saved_data_sets_with_picture_columns(splits: bool, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    picture = Image.new("RGB", (5, 4), "red")
    features = datasets.Features(
        {"question": datasets.Value("string"), "answer": datasets.Value("string"), "images": datasets.List(datasets.Image())}
    )
    rows = datasets.Dataset.from_list([{"question": "q", "answer": str(i), "images": [picture] * i} for i in range(3)], features=features)
    (datasets.DatasetDict({"validation": rows}) if splits else rows).save_to_disk(tmp_path / "saved")
    loaded = data.load_rows(config("hub", tmp_path / "saved", split="validation"))
    assert [(row.answer, len(row.media)) for row in loaded] == [("0", 0), ("1", 1), ("2", 2)]
    from data.media import decode_image

    assert decode_image(loaded[1].media[0], "1").getpixel((0, 0)) == (255, 0, 0)
    if splits:
        with pytest.raises(UserError, match="unknown split 'train'"):
            data.load_rows(config("hub", tmp_path / "saved"))


def test_many_array_elements_cost_little_memory(tmp_path: Path):
    path = tmp_path / "large.json"
    with path.open("w") as file:
        file.write("[")
        for i in range(50_000):
            file.write(f'{{"question": "How many are there in picture {i}?", "images": ["{i}.png"], "answer": {i}}},\n')
        file.write('{"question": "last", "answer": 1}]')
    tracemalloc.start()
    rows = data.load_rows(config("jsonl", path))
    assert (len(rows), rows[12_345].answer, rows[-1].id) == (50_001, "12345", "50001")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20, peak
