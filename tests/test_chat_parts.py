"""Parts of videos, frames of videos and folders of frames in prompts: as each family's own processor has them, at the times of the file."""

import pytest
import torch
from clips_small import BIKES, write_frames
from models_small import make_chat
from PIL import Image
from test_chat_video import FAMILIES, theirs

from data.check import check_rows
from data.media import decode_image
from data.video import decode_video
from vlm_rl.packing import join_vision
from vlm_rl.types import Media, Outline, Sample

PART = Media("video", path=BIKES, start=3.2, end=8.8)


def row(question: str, *media: Media) -> Sample:
    return Sample(id="r1", question=question, answer="A", media=media)


def chat_of(family: str):
    chat = make_chat(family)
    chat.look.decode = decode_image
    return chat


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_parts_equal_the_familys_own_processor(family, tmp_path):
    chat, folder = chat_of(family), Media("video", path=write_frames(tmp_path / "frames", 20, (64, 48)), fps=3.0, start=2.0, end=5.0)
    frames = [Media("image", path=BIKES, start=second) for second in (0.0, 4.75)]
    sample = row("<image>\nhello\n<image>\n<video> and <video>?", *frames, PART, folder)
    prompt = chat.prompt(sample)
    want = theirs(chat, sample, prompt.text)
    assert list(prompt.expanded_ids) == want["input_ids"][0].tolist()
    ours = join_vision([prompt], "cpu")
    for name in ours:
        torch.testing.assert_close(ours[name], torch.as_tensor(want[name]), rtol=0, atol=0)


def test_times_in_a_prompt_are_those_of_the_whole_file():
    spelled = chat_of("qwen3_vl").prompt(row("<video>", PART)).vision[0].text
    clip = decode_video(PART, make_chat("qwen3_vl").look.budget, "r")
    assert 3.2 <= clip.timestamps[0] < 3.3 and clip.timestamps[-1] <= 8.8
    assert f"<{sum(clip.timestamps[:2]) / 2:.1f} seconds>" in spelled


def test_each_part_is_processed_apart_and_once():
    chat = chat_of("qwen2_5_vl")
    one, other = Media("video", path=BIKES, start=3.2, end=8.7), Media("image", path=BIKES, start=1.0)
    for media in ((PART,), (one,), (PART, one), (other,), (Media("image", path=BIKES, start=1.2),), (other, PART)):
        chat.prompt(row("".join(f"<{medium.kind}>" for medium in media), *media))
    assert chat.look.calls == 4


def test_rows_are_checked_by_the_same_frames():
    chat, seen = chat_of("qwen3_vl"), list[Outline]()
    sample = row("<video><image>", PART, Media("image", path=BIKES, start=1.0))

    def problem(sample, outlines):
        seen.extend(outlines)

    assert check_rows([sample], lambda sample: None, budget=chat.look.budget, prompt_problem=problem) == []
    assert seen == [decode_video(PART, chat.look.budget, "r").outline, Outline(272, 640)]
    assert isinstance(chat.look.decode(sample.media[1], "r"), Image.Image)
