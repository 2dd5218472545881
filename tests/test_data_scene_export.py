"""`vlm-rl data make scenes`: files that read back to equal rows, in this program and in plain Python."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import data
from data.check import check_rows
from data.media import decode_image
from data.scene_export import export
from data.scene_traces import verify_trace
from data.scenes import make
from data.video import decode_video
from rewards import grading
from vlm_rl.cli import app
from vlm_rl.config import DataConfig
from vlm_rl.errors import UserError
from vlm_rl.types import Sample, VideoBudget

BUDGET = VideoBudget(fps=4, min_frames=4, max_frames=16, min_pixels=84 * 84, max_pixels=84 * 84)


def quietly(done: int, total: int) -> None:
    """Nobody watches."""


def read(path: Path) -> data.Rows:
    return data.load_rows(DataConfig(name="jsonl", path=str(path)))


def fields(sample: Sample) -> dict[str, Any]:
    return {name: value for name, value in vars(sample).items() if name != "media"}


def frames(sample: Sample) -> np.ndarray:
    (medium,) = sample.media
    return decode_video(medium, BUDGET, "").frames if medium.kind == "video" else np.asarray(decode_image(medium, ""))


def test_what_is_written_reads_back_to_equal_rows(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    path = export(["pictures", "charts", "clips"], "test_more", 12, 3, tmp_path / "new" / "scenes", lambda *at: seen.append(at))
    assert path == tmp_path / "new" / "scenes" / "rows.jsonl" and seen == [(n, 36) for n in range(1, 37)]
    rows = read(path)
    made = [make(world, "test_more", 3, index) for world in ("pictures", "charts", "clips") for index in range(12)]
    assert [fields(row) for row in rows] == [fields(row) for row in made]
    assert [row.media[0].id for row in rows] == [row.media[0].id for row in made]
    for row, other in zip(rows[::5], made[::5], strict=True):
        assert np.array_equal(frames(row), frames(other))
    assert all(verify_trace(row.meta["trace"], row.meta["scene"]).sound for row in rows)
    assert check_rows(rows, grading.gold_problem) == []


def test_any_program_can_read_the_rows(tmp_path: Path):
    path = export(["pictures", "clips"], "train", 5, 0, tmp_path, quietly)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert {frozenset(row) - {"boxes", "grading", "wrong_trace", "wrong_caption", "wrong_answer"} for row in rows} == {
        frozenset(
            (
                "id",
                "question",
                "images",
                "videos",
                "options",
                "answer",
                "kind",
                "family",
                "level",
                "verifiable",
                "trace",
                "caption",
                "scene",
            )
        )
    }
    files = sorted(str(f.relative_to(tmp_path)) for f in (tmp_path / "media").iterdir())
    assert files == sorted(name for row in rows for name in (*row["images"], *row["videos"])) and len(files) == 10
    with Image.open(tmp_path / rows[0]["images"][0]) as image:
        assert image.size == tuple(rows[0]["scene"]["canvas"])
    assert (tmp_path / rows[5]["videos"][0]).read_bytes()[4:8] == b"ftyp"
    said = (tmp_path / "README.txt").read_text()
    for text in ("version 1", "worlds pictures, clips", "seed 0", "5 rows of each world", "MIT licence", "--world pictures --world clips"):
        assert text in said
    assert {p.name for p in tmp_path.iterdir()} == {"rows.jsonl", "media", "README.txt", "recipe.json"}


def test_what_was_interrupted_goes_on(tmp_path: Path):
    def stopped(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    whole = export(["pictures"], "train", 20, 0, tmp_path / "whole", quietly)
    folder = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        export(["pictures"], "train", 20, 0, folder, stopped)
    assert not (folder / "rows.jsonl").exists()
    part = folder / "rows.jsonl.part"
    part.write_bytes(part.read_bytes()[:-40])  # the last line as a killed process may leave it
    (folder / "media" / "pictures-v1-train-0-6.png").write_bytes(b"cut off")
    seen: list[int] = []
    again = export(["pictures"], "train", 20, 0, folder, lambda done, _: seen.append(done))
    assert seen == list(range(7, 21)) and not part.exists()
    assert again.read_bytes() == whole.read_bytes()
    assert [m.media[0].id for m in read(again)] == [m.media[0].id for m in read(whole)]
    before = again.stat().st_mtime_ns
    assert export(["pictures"], "train", 20, 0, folder, stopped).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"count": 4}, "holds other scenes \\(count 3 and not 4\\)"),
        ({"worlds": ["charts", "clips"]}, "worlds pictures, charts and not charts, clips"),
        ({"seed": 1, "split": "test"}, "split train and not test, seed 0 and not 1"),
        ({"worlds": ["picture"]}, "unknown world 'picture' in --world; did you mean 'pictures'"),
        ({"split": "valid"}, "unknown split 'valid' in --split"),
        ({"count": 0}, "--count is from 1 to 40000"),
        ({"count": 4001, "split": "test"}, "--count is from 1 to 4000, the rows of split test"),
        ({"folder": "foreign"}, "holds something else; --out is a new or empty directory"),
        ({"folder": "recipes"}, "holds something else"),
        ({"folder": "file"}, "is a file; --out is a directory"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_touched(tmp_path: Path, changes: dict, reason: str):
    wanted: dict[str, Any] = {"worlds": ["pictures", "charts"], "split": "train", "count": 3, "seed": 0, "folder": "ours"}
    export(**{**wanted, "folder": tmp_path / "ours"}, progress=quietly)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "recipe.json").write_text('{"cake": 1}')
    (tmp_path / "file").write_text("mine")
    asked = wanted | changes
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=reason):
        export(**{**asked, "folder": tmp_path / asked["folder"]}, progress=quietly)
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


def test_the_command(tmp_path: Path):
    asked = ["--world", "charts", "--split", "test_pairs", "--count", "3", "--seed", "2"]
    run = CliRunner().invoke(app, ["data", "make", "scenes", *asked, "--out", str(tmp_path)])
    assert run.exit_code == 0 and run.output.strip().replace("\n", "") == str(tmp_path / "rows.jsonl")
    assert [row.id for row in read(tmp_path / "rows.jsonl")] == [f"charts-v1-test_pairs-2-{i}" for i in range(3)]
    assert isinstance(CliRunner().invoke(app, ["data", "make", "scenes", "--world", "chart", "--out", str(tmp_path)]).exception, UserError)


def test_by_default_pictures_are_made(tmp_path: Path):
    run = CliRunner().invoke(app, ["data", "make", "scenes", "--count", "1", "--out", str(tmp_path)])
    assert run.exit_code == 0 and read(tmp_path / "rows.jsonl")[0].id == "pictures-v1-train-0-0"
