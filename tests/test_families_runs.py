"""One step of training of every family, end to end: real pictures of easy-vqa, real clips where the family has video."""

import itertools
import json
from pathlib import Path

import easy_vqa
import pytest
from clips_small import CLIPS
from runs_small import train_config, write_model
from test_train_runs import metrics

from vlm_rl import cli_train
from vlm_rl.families import FAMILIES

NAMES = [name for name in FAMILIES if name not in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")]  # those run in test_train_runs, test_train_video
FEW = (
    "train.steps=1",
    "rollout.temperature=2",
    "rollout.max_new_tokens=16",
    "eval.questions=2",
    "eval.samples=0",
    "eval.blank_control=false",
)


def step_of(tmp_path, *overrides: str) -> dict:
    """The figures of the only step; engine and trainer agree, and weights get gradients."""
    run = cli_train.train(train_config(tmp_path, *FEW, *overrides))
    (line,) = metrics(run)
    assert line["guard/logprob_diff"] < 1e-4 and line["loss/grad_norm"] > 0
    assert (run / "checkpoints" / "step_1" / "model.safetensors").exists()
    return line


def write_rows(folder: Path, rows: list[dict]) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps({"id": f"r{i}", **row}) + "\n" for i, row in enumerate(rows)))


@pytest.fixture(scope="module")
def easy_vqa_rows(tmp_path_factory) -> Path:
    """Questions on the first pictures that have one about their colour."""
    folder, paths = tmp_path_factory.mktemp("rows"), easy_vqa.get_train_image_paths()
    asked = {image: (question, answer) for question, answer, image in zip(*easy_vqa.get_train_questions(), strict=True) if answer == "teal"}
    rows = []
    for image, (question, answer) in itertools.islice(asked.items(), 8):
        (folder / f"{image}.png").symlink_to(paths[image])
        rows.append({"question": question, "images": [f"{image}.png"], "options": ["red", answer], "answer": answer})
    write_rows(folder, rows)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_step_on_pictures(tmp_path, name, easy_vqa_rows):
    write_model(tmp_path / "model", name)
    step_of(tmp_path, f"data.path={easy_vqa_rows}/rows.jsonl")


@pytest.mark.parametrize("name", [name for name in NAMES if "video" in FAMILIES[name].marks])
def test_a_step_on_clips(tmp_path, name):
    write_model(tmp_path / "model", name)
    (tmp_path / "rows").mkdir()
    rows = []
    for clip in ("bikes", "carphone_pristine", "carphone_distorted"):
        (tmp_path / "rows" / f"{clip}.mp4").symlink_to(CLIPS / f"{clip}.mp4")
        rows += [{"question": "what is <video>?", "videos": [f"{clip}.mp4"], "options": ["a", "b"], "answer": letter} for letter in "ab"]
    write_rows(tmp_path / "rows", rows)
    step_of(tmp_path, "model.video_max_frames=4", "model.video_max_pixels=3136", "model.video_min_pixels=784")
