"""How long a prompt will be, told from sizes alone: equal to the rendered prompt's length, and held against the limit before training."""

import json

import pytest
from clips_small import BIKES, CARPHONE, clip, write_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from models_small import make_chat, picture, video
from PIL import Image
from runs_small import train_config, write_model, write_rows
from test_train_runs import metrics

from data.check import check_rows
from data.decoding import pool
from vlm_rl import cli_train
from vlm_rl.chat import Chat
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Media, Outline, Sample

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
NATIVE = {"video_min_pixels": None, "video_max_pixels": None, "max_prompt_tokens": 100_000}
CASES = {
    "text": ("what?", (), {}),
    "picture": ("what?", (picture(1, (150, 60)),), {}),
    "pictures": ("first <image> then <image> and <image>", (picture(1), picture(2, (300, 20)), picture(3, (41, 333))), {}),
    "bounded": ("<image>", (picture(1, (640, 480)),), {"image_min_pixels": 28 * 28, "image_max_pixels": 112 * 112}),
    "clip": ("what happens?", (clip(CARPHONE),), {}),
    "native clip": ("what happens?", (clip(CARPHONE),), NATIVE),
    "few a second": ("what happens?", (clip(BIKES),), {"video_fps": 0.3, "video_min_frames": 2}),
    "mixed": ("see <video>, <image>, <video>.", (clip(BIKES), picture(1), video(2, 7)), {}),
}


def outlines_of(sample: Sample, chat: Chat) -> list[Outline]:
    """As the check of rows before training learns them."""
    seen: list[Outline] = []

    def keep(_: Sample, outlines) -> None:
        seen.extend(outlines)

    assert check_rows([sample], lambda _: None, budget=chat.look.budget, prompt_problem=keep) == []
    return seen


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_predicted_length_is_the_rendered_length(family, case):
    question, media, bounds = CASES[case]
    sample = Sample(id="r1", question=question, answer="A", media=media, prefill="<think>")
    chat = make_chat(family, **bounds)
    outlines = outlines_of(sample, chat)
    assert chat.look.calls == 0
    predicted = [chat.look.outlined(medium, outline, "r1") for medium, outline in zip(media, outlines, strict=True)]
    prompt = chat.prompt(sample)
    assert [(v.runs, v.text) for v in predicted] == [(v.runs, v.text) for v in prompt.vision]
    length = len(prompt.expanded_ids)
    chat.config = chat.config.model_copy(update={"max_prompt_tokens": length})
    assert chat.problem(sample, outlines) is None
    chat.config = chat.config.model_copy(update={"max_prompt_tokens": length - 1})
    with pytest.raises(RowError) as refused:
        chat.prompt(sample)
    assert chat.problem(sample, outlines) == refused.value.reason and f"the prompt has {length} tokens" in refused.value.reason


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([(None, None), (None, 60 * 60), (90 * 90, None), (28 * 28, 200 * 200)]))
def test_pictures_of_any_size_take_what_their_size_says(width, height, bounds):
    chat = make_chat(image_min_pixels=bounds[0], image_max_pixels=bounds[1])
    medium = picture(1, (width, height))
    try:
        want = chat.look(medium, "r").runs
    except RowError as error:
        with pytest.raises(RowError) as predicted:
            chat.look.outlined(medium, Outline(height, width), "r")
        assert predicted.value.reason == error.reason
    else:
        assert chat.look.outlined(medium, Outline(height, width), "r").runs == want


def test_the_check_opens_each_video_once(monkeypatch):
    chat, opened = make_chat(), []
    whole = pool().open
    monkeypatch.setattr(pool(), "open", lambda *of: (opened.append(of[0]), whole(*of))[1])
    rows = [Sample(id=f"r{i}", question="what?", answer="A", media=(clip(CARPHONE),)) for i in range(4)]
    assert check_rows(rows, lambda _: None, workers=1, budget=chat.look.budget, prompt_problem=chat.problem) == []
    assert len(opened) == 1


def test_an_unusable_medium_hides_no_other_problem_of_its_row():
    chat = make_chat()
    row = Sample(id="r1", question="a <image> and <image>", answer="A", media=(Media("image", data=b"rubbish"),))
    reasons = [error.reason for error in check_rows([row], lambda _: None, prompt_problem=chat.problem)]
    assert len(reasons) == 2 and "not an image" in reasons[0] and "marks" in reasons[1]


def test_long_prompts_are_named_before_the_first_step_or_skipped(tmp_path):
    """Every row fits but two: a picture larger than the others, and one that is too thin for any model."""
    write_model(tmp_path / "model")
    write_rows(tmp_path / "rows")
    Image.new("RGB", (700, 700)).save(tmp_path / "rows" / "5.png")
    Image.new("RGB", (900, 3)).save(tmp_path / "rows" / "6.png")
    bounds = ("model.image_min_pixels=784", "model.image_max_pixels=200000", "model.max_prompt_tokens=120", "train.steps=8")
    with pytest.raises(UserError, match=r"(?s)2 of the \d+ rows that would be used are bad.*on_bad_row=skip") as error:
        cli_train.train(train_config(tmp_path, *bounds))
    said = str(error.value)
    assert "row r5: the prompt has 256 tokens (225 visual), more than model.max_prompt_tokens=120" in said
    assert "row r6: the picture (900x3) cannot be processed" in said
    assert not (tmp_path / "run" / "metrics.jsonl").exists() and not (tmp_path / "run" / "eval").exists()
    run = cli_train.train(train_config(tmp_path, *bounds, "data.on_bad_row=skip"))
    rollouts = [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
    assert len(metrics(run)) == 8 and not {"r5", "r6"} & {rollout["sample_id"] for rollout in rollouts}


def test_long_videos_are_named_before_the_first_step(tmp_path):
    write_model(tmp_path / "model")
    (tmp_path / "rows").mkdir()
    lengths = {"short": 30, "long": 240}
    for name, frames in lengths.items():
        write_clip(tmp_path / "rows" / f"{name}.mp4", frames, (64, 48))
    rows = [
        {"id": f"r{i}", "question": f"what is {i}?", "videos": [f"{name}.mp4"], "options": ["a", "b"], "answer": "a"}
        for i, name in enumerate(["short", "short", "short", "long"] * 3)
    ]
    (tmp_path / "rows" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bounds = ("model.video_min_pixels=3136", "model.video_max_pixels=3136", "model.max_prompt_tokens=60", "train.steps=8")
    with pytest.raises(UserError, match=r"row r\d+: the prompt has \d+ tokens .*lower model.video_max_frames") as error:
        cli_train.train(train_config(tmp_path, *bounds))
    named = {line.split(":")[0].split()[-1] for line in str(error.value).splitlines() if line.startswith("  row")}
    assert named and named <= {"r3", "r7", "r11"}
