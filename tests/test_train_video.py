"""Whole runs on questions about real clips and on rows with several pictures."""

import json
from pathlib import Path

import pytest
import torch
from clips_small import CLIPS, write_clip
from PIL import Image
from runs_small import train_config, write_model
from safetensors.torch import load_file
from test_train_runs import Killed, metrics, stop_after

from vlm_rl import cli_train
from vlm_rl.errors import UserError

NAMES = ("bikes", "made", "carphone_pristine", "carphone_distorted")
FEW = ("model.video_max_frames=4", "model.video_min_pixels=784", "model.video_max_pixels=3136", "train.steps=2", "eval.samples=0")


def write_rows(folder: Path, rows: list[dict]) -> None:
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps({"id": f"r{i}", **row}) + "\n" for i, row in enumerate(rows)))


def about_clips(tmp_path: Path) -> list[str]:
    """Twelve questions about four clips, by relative path."""
    rows = [
        {"question": f"{'<video> ' if i % 2 else ''}what is seen?", "videos": [f"{NAMES[i % 4]}.mp4"], "options": ["a", "b"], "answer": "a"}
        for i in range(12)
    ]
    write_rows(tmp_path / "rows", rows)
    write_clip(tmp_path / "rows" / "made.mp4", 60)
    for name in set(NAMES) - {"made"}:
        (tmp_path / "rows" / f"{name}.mp4").symlink_to(CLIPS / f"{name}.mp4")
    return ["checkpoint.every=1", *FEW]


def about_pictures(tmp_path: Path) -> list[str]:
    rows = []
    for i in range(12):
        names = [f"{i}_{k}.png" for k in range(1 + i % 3)]
        marks = " and ".join(["<image>"] * len(names))
        rows.append({"question": f"compare {marks}.", "images": names, "options": ["a", "b"], "answer": "b"})
    write_rows(tmp_path / "rows", rows)
    for i, row in enumerate(rows):
        for k, name in enumerate(row["images"]):
            Image.new("RGB", (40 + 20 * k, 50), (20 * i, 80 * k, 99)).save(tmp_path / "rows" / name)
    return ["checkpoint.every=1", *FEW]


@pytest.mark.parametrize("make", [about_clips, about_pictures])
def test_two_steps_and_the_same_after_a_break(tmp_path, monkeypatch, make):
    write_model(tmp_path / "model")
    overrides = make(tmp_path)
    whole = cli_train.train(train_config(tmp_path, f"run_dir={tmp_path}/whole", *overrides))
    lines = metrics(whole)
    assert [line["step"] for line in lines] == [1, 2] and all(line["guard/logprob_diff"] < 1e-4 for line in lines)
    assert all(line["loss/grad_norm"] > 0 for line in lines)
    rollouts = [json.loads(line) for line in (whole / "rollouts.jsonl").read_text().splitlines()]
    shown = {media for rollout in rollouts[:1] for media in rollout["media_ids"]}
    for media in shown:
        with Image.open(whole / "media" / f"{media}.png") as picture:
            assert picture.width > (2.5 * picture.height if make is about_clips else 0)
    conditions = {json.loads(line)["condition"] for line in (whole / "eval" / "before.jsonl").read_text().splitlines()}
    assert conditions == {"clean", "blank"}
    config = train_config(tmp_path, f"run_dir={tmp_path}/broken", *overrides)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Killed):
            cli_train.train(config)
    broken = cli_train.train(config)
    assert metrics(broken) == lines
    for name, tensor in load_file(whole / "checkpoints" / "step_2" / "model.safetensors").items():
        assert torch.equal(tensor, load_file(broken / "checkpoints" / "step_2" / "model.safetensors")[name]), name


def test_a_broken_video_is_named_before_training_starts(tmp_path):
    write_model(tmp_path / "model")
    overrides = about_clips(tmp_path)
    broken = tmp_path / "rows" / "bikes.mp4"
    broken.unlink()
    broken.write_bytes((CLIPS / "bikes.mp4").read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"(?s)rows that would be used are bad.*row r\d: .*bikes\.mp4: truncated: 100000 bytes"):
        cli_train.train(train_config(tmp_path, *overrides, "train.steps=8"))
