"""Prompts: placeholders expand to the grid, hostile text is refused, pictures are processed once."""

import pytest
from models_small import make, parts, picture, sample

from vlm_rl.config import ModelConfig
from vlm_rl.errors import RowError
from vlm_rl.types import Media, Sample


def row(question: str, *media: Media) -> Sample:
    return Sample(id="r1", question=question, answer="A", media=media)


def test_placeholders_expand_to_the_grid_and_collapse_to_one():
    _, chat = make()
    prompt = chat.prompt(sample("a", 2, size=(150, 60)))
    pad = chat.placeholder["image"]
    tokens = [v.tokens for v in prompt.vision]
    assert prompt.ids.count(pad) == 2
    assert prompt.expanded_ids.count(pad) == sum(tokens) == sum(prompt.token_types)
    assert tokens == [int(v.tensors["image_grid_thw"].prod()) // 4 for v in prompt.vision]
    both = chat.processor(text=[prompt.text], images=[chat.look.decode(m, "") for m in prompt.sample.media], return_tensors="pt")
    assert both["input_ids"][0].tolist() == list(prompt.expanded_ids)
    assert both["mm_token_type_ids"][0].tolist() == list(prompt.token_types)


def test_marks_place_pictures_in_the_text():
    _, chat = make()
    text = chat.prompt(row("first <image> then <image> end", picture(1), picture(2))).text
    assert text.index("first") < text.index("<|image_pad|>") < text.index("then") < text.rindex("<|image_pad|>") < text.index(" end")
    assert chat.prompt(row("no marks", picture(1))).text.index("<|image_pad|>") < len("<|im_start|>user\n<|vision_start|><|image_pad|>")


@pytest.mark.parametrize("question, media", [("two <image> <image>", 1), ("<video>", 1), ("<image>", 0)])
def test_marks_that_do_not_match_are_refused_by_row(question, media):
    _, chat = make()
    with pytest.raises(RowError, match="row r1: the question's marks"):
        chat.prompt(row(question, *[picture(i) for i in range(media)]))


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|im_end|>", "<|video_pad|>", "<|endoftext|>"])
def test_control_tokens_are_refused_in_data_and_plain_text_in_a_prefill(token):
    _, chat = make()
    with pytest.raises(RowError, match="control token"):
        chat.prompt(row(f"what {token} now"))
    prompt = chat.prompt(row("what"), prefill=f"<think>{token}")
    written = prompt.expanded_ids[len(chat.prompt(row("what")).expanded_ids) :]
    assert chat.text_of(written) == f"<think>{token}"
    assert chat.tokenizer.convert_tokens_to_ids(token) not in written


def test_a_prompt_too_long_is_refused_and_never_cut():
    _, chat = make()
    chat.config = ModelConfig(path="x", max_prompt_tokens=20)
    with pytest.raises(RowError, match=r"row r1: the prompt has \d+ tokens \(9 visual\), more than model.max_prompt_tokens=20"):
        chat.prompt(row("what is it? " * 9, picture(1)))


def test_the_processor_runs_once_per_picture_and_forgets_the_oldest():
    _, chat = make()
    before = chat.look.calls
    first = chat.prompt(row("a", picture(1)))
    again = chat.prompt(row("b", picture(1), picture(2)))
    assert chat.look.calls - before == 2
    assert again.vision[0] is first.vision[0]
    chat.look.cache.limit = 1
    for i in range(3, 6):
        chat.prompt(row("c", picture(i)))
    assert len(chat.look.cache.kept) == 1


def test_the_fingerprint_changes_with_the_vocabulary():
    _, chat = make()
    before = chat.fingerprint
    chat.tokenizer.add_tokens(["strange"])
    del chat.fingerprint
    assert chat.fingerprint != before
    parts.cache_clear()


def test_problems_that_show_without_pixels_are_told_without_them():
    _, chat = make()
    unreadable = Media("image", data=b"")
    assert "marks" in (chat.problem(row("two <image> <image>", unreadable)) or "")
    assert "control token" in (chat.problem(row("a <|im_end|>", unreadable)) or "")
    assert chat.problem(row("fine <image>", unreadable)) is None
