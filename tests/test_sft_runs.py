"""Whole fine-tunings on a tiny model: phases, and the row check that comes before them."""

import json
from pathlib import Path

import pytest
from runs_small import write_model, write_rows

from vlm_rl import cli_sft
from vlm_rl.config import SftConfig
from vlm_rl.errors import UserError


def config(folder: Path, **more: object) -> SftConfig:
    """Two steps on one folder's rows, then two on another's; every step takes half of the first ones."""
    if not (folder / "model").exists():
        write_model(folder / "model")
        write_rows(folder / "first", 8, responses=True)
        rename(write_rows(folder / "rows", 24, responses=True), "later-")
    data = {"name": "jsonl", "path": str(folder / "rows" / "rows.jsonl")}
    phase = {"steps": 2, "data": {"name": "jsonl", "path": str(folder / "first" / "rows.jsonl")}}
    tree = {"run_dir": str(folder / "run"), "model": {"path": str(folder / "model")}, "data": data, "phases": [phase]}
    tree |= {"eval_data": {"name": "jsonl", "path": str(held_out(folder))}, "train": {"steps": 4, "batch_size": 4}}
    tree |= {"eval": {"questions": 2, "samples": 0}, "rollout": {"max_new_tokens": 4}, "tracker": {"tensorboard": False}}
    return SftConfig.model_validate(tree | more)


def held_out(folder: Path) -> Path:
    folder = folder / "held"
    folder.mkdir(exist_ok=True)
    row = {"id": "h", "question": "what color is teal?", "options": ["red", "teal"], "answer": "teal"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    return folder / "rows.jsonl"


def rename(path: Path, prefix: str) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "id": prefix + row["id"]}) + "\n" for row in rows))


def test_phases_come_first_and_their_rows_are_checked(tmp_path, monkeypatch):
    trained: list[list[str]] = []
    samples = cli_sft.SftRun.samples
    monkeypatch.setattr(cli_sft.SftRun, "samples", lambda run, step: keep(trained, samples(run, step)))
    run = cli_sft.sft(config(tmp_path))
    assert [{name.startswith("later-") for name in step} for step in trained] == [{False}, {False}, {True}, {True}]
    assert json.loads((run / "summary.json").read_text())["run/finished"] is True
    (tmp_path / "first" / "5.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"(?s)1 of the 8 rows that would be used are bad.*row r5: .*5\.png: not an image"):
        cli_sft.sft(config(tmp_path, run_dir=str(tmp_path / "again")))


def keep(trained: list[list[str]], samples: list) -> list:
    trained.append([sample.id for sample in samples])
    return samples


def test_a_finished_fine_tuning_points_to_its_model(tmp_path, caplog):
    cli_sft.sft(config(tmp_path))
    with caplog.at_level("INFO"):
        cli_sft.sft(config(tmp_path))
    assert f"is finished: {tmp_path / 'run' / 'checkpoints' / 'step_4'}; to train anew write run_dir=OTHER" in caplog.text
