"""Every family: prompts are its own processor's, what it saves it loads, its parts are named, and one step of training runs end to end."""

import logging
from dataclasses import replace

import pytest
import torch
from models_small import completions, make, make_chat, parts, picture, sample, video
from transformers.video_utils import VideoMetadata

from rewards.boxes import CONVENTIONS
from vlm_rl import models, small
from vlm_rl.attention import dense_mask
from vlm_rl.attention_windows import dense_masks
from vlm_rl.chat import Chat
from vlm_rl.config import ModelConfig, ScratchConfig
from vlm_rl.doctor_machine import processor_ids
from vlm_rl.doctor_model import run_problem
from vlm_rl.engine.vllm import read_as
from vlm_rl.errors import RowError, UserError
from vlm_rl.families import FAMILIES, family_of, family_of_processor
from vlm_rl.packing import Item, join_vision
from vlm_rl.parts import linear_layers, part_of
from vlm_rl.policy import Policy
from vlm_rl.turns import content_parts
from vlm_rl.types import Media, Outline, Sample
from vlm_rl.visual_inputs import visual_inputs

NAMES = list(FAMILIES)
WITH_VIDEO = [name for name, family in FAMILIES.items() if "video" in family.marks]
VIDEO_SETTINGS = {"video_fps", "video_max_frames", "video_min_pixels", "video_max_pixels"}
WIDE, TALL = (150, 40), (40, 170)


def row(question: str, *media: Media) -> Sample:
    return Sample(id="r1", question=question, answer="A", media=media)


IMAGES = {
    "text": row("how many?"),
    "one": row("what is it?", picture(1)),
    "one wide": row("what is it?", picture(2, WIDE)),
    "one tall": row("left: <image>", picture(3, TALL)),
    "two": row("what differs?", picture(4), picture(5, WIDE)),
    "three in the text": row("is <image> or <image> like\n<image>?", picture(6, TALL), picture(7, (84, 84)), picture(8, (30, 20))),
}
VIDEOS = {
    "video": row("what happens?", video(1)),
    "two videos": row("first <video>, then <video>.", video(2, 6, (90, 40)), video(3, 6, (90, 40))),
}


def theirs(chat: Chat, given: Sample, text: str):
    """The whole processor on the template's text and the media."""
    images = [chat.look.decode(m, "r") for m in given.media if m.kind == "image"]
    clips = [chat.look.decode_video(m, chat.look.budget, "r") for m in given.media if m.kind == "video"]
    how = {"images": [images]} if images else {}
    if clips:
        times = [
            VideoMetadata(total_num_frames=c.total, fps=c.fps, frames_indices=list(c.indices), duration=c.total / c.fps) for c in clips
        ]
        frames = [torch.from_numpy(c.frames).permute(0, 3, 1, 2) for c in clips]
        how |= {"videos": [frames], "video_metadata": [times], "videos_kwargs": {"do_sample_frames": False}}
        if not chat.family.whole_frames:
            how["videos_kwargs"]["do_resize"] = False
    return chat.processor(text=[text], return_tensors="pt", add_special_tokens=False, **how)


def assert_same_prompt(name: str, given: Sample) -> None:
    policy, chat = make(name)
    prompt = chat.prompt(given)
    turns = [{"role": "user", "content": content_parts(given, given.question)}]
    assert prompt.text == chat.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    want = theirs(chat, given, prompt.text)
    assert list(prompt.expanded_ids) == want["input_ids"][0].tolist()
    shown, marks = set(chat.placeholder.values()), list(chat.family.marks.values())
    assert [id_ in shown for id_ in prompt.expanded_ids] == [type_ > 0 for type_ in prompt.token_types]
    assert sum(prompt.text.count(mark) for mark in marks) == len(given.media)
    assert sum(v.tokens for v in prompt.vision) == sum(type_ > 0 for type_ in prompt.token_types)
    ours = visual_inputs(policy.model, join_vision([prompt], "cpu"))
    if given.media:
        for part in ("pixel_values", "pixel_values_videos", "pixel_attention_mask"):
            assert (part in ours) == (part in want)
            if part in want:
                pixels = torch.as_tensor(want[part])
                assert torch.equal(ours[part].reshape(-1), padding_left_out(pixels).reshape(-1))


def padding_left_out(pixels: torch.Tensor) -> torch.Tensor:
    """LLaVA's processor pads pictures of a batch to the same number of tiles."""
    if pixels.ndim != 5:
        return pixels
    tiles = pixels.flatten(0, 1)
    return tiles[tiles.flatten(1).abs().sum(1) > 0]


@pytest.mark.parametrize("case", IMAGES)
@pytest.mark.parametrize("name", NAMES)
def test_prompts_equal_the_familys_own_processor(name, case):
    assert_same_prompt(name, IMAGES[case])


@pytest.mark.parametrize("case", VIDEOS)
@pytest.mark.parametrize("name", WITH_VIDEO)
def test_prompts_with_videos_equal_the_familys_own_processor(name, case):
    assert_same_prompt(name, VIDEOS[case])


@pytest.mark.parametrize("name", NAMES)
def test_the_doctor_counts_their_visual_tokens(name):
    chat = make_chat(name)
    for given in [*IMAGES.values(), *(VIDEOS.values() if name in WITH_VIDEO else ())]:
        prompt = chat.prompt(given)
        assert run_problem(chat, prompt) is None
        assert processor_ids(chat, prompt) == prompt.expanded_ids
        if given.media:
            first = next(i for i, type_ in enumerate(prompt.token_types) if type_)
            ids, types = list(prompt.expanded_ids), list(prompt.token_types)
            twice = replace(
                prompt, expanded_ids=(*ids[:first], ids[first], *ids[first:]), token_types=(*types[:first], types[first], *types[first:])
            )
            assert "placeholders" in (run_problem(chat, twice) or "")


@pytest.mark.parametrize("name", NAMES)
def test_outlines_tell_the_length_without_pixels(name):
    chat = make_chat(name)
    for given in [*IMAGES.values(), *(VIDEOS.values() if name in WITH_VIDEO else ())]:
        outlines = []
        for medium in given.media:
            if medium.kind == "image":
                width, height = chat.look.decode(medium, "r").size
                outlines.append(Outline(height, width))
            else:
                outlines.append(chat.look.decode_video(medium, chat.look.budget, "r").outline)
        prompt = chat.prompt(given)
        alone = sum(m.kind == "image" for m in given.media) == 1
        for medium, outline, seen in zip(given.media, outlines, prompt.vision, strict=True):
            told = chat.look.outlined(medium, outline, "r", alone)
            assert (told.runs, told.text) == (seen.runs, seen.text)
        assert chat.problem(given, outlines) is None


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITH_VIDEO])
def test_videos_are_refused_by_row_where_the_family_has_none(name):
    chat = make_chat(name)
    assert chat.look.budget.factor == 1  # what the check of rows asks for whatever they show
    with pytest.raises(RowError, match=r"row r1: it shows a video, and a .*Processor takes none"):
        chat.prompt(VIDEOS["video"])
    assert "takes none" in (chat.problem(VIDEOS["video"], [Outline(10, 10, (0, 1), 2, 1.0)]) or "")


@pytest.mark.parametrize("name", NAMES)
def test_visual_tokens_are_outside_the_support(name):
    policy, chat = make(name)
    vocabulary = chat.tokenizer.get_vocab()
    assert {vocabulary[token] for token in chat.family.visual_tokens if token in vocabulary} == set(chat.visual_ids)
    assert set(chat.placeholder.values()) <= set(chat.visual_ids)
    prompt, size = chat.prompt(sample("one", 0)), len(policy.banned_V)
    row_ = policy.pack([Item(prompt, tuple((i,) for i in range(size)), tuple(range(size)))])
    with torch.no_grad():
        logprob = policy(row_).logprob_T
    assert (logprob[list(chat.visual_ids)] == float("-inf")).all()
    assert logprob.exp().sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_seen(name):
    """A random model answers otherwise to another picture, to a picture turned over, and to no picture."""
    policy, chat = make(name)
    said = completions(chat, [4], 1)
    prompts = [chat.prompt(row("what?", picture(seed, WIDE))) for seed in (1, 2)] + [chat.prompt(row("what?"))]
    with torch.no_grad():
        told = [policy(policy.pack([Item(prompt, said, (0,))])).logprob_T for prompt in prompts]
    assert (told[0] - told[1]).abs().max() > 1e-3 and (told[0] - told[2]).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_is_the_same(name, tmp_path):
    policy, chat = make(name)
    models.save_model(tmp_path, policy.model, chat)
    config = ModelConfig(path=str(tmp_path), device="cpu", **chat.config.model_dump(include=VIDEO_SETTINGS))
    again = Chat(models.load_processor(config), config, chat.render, chat.look.decode, chat.look.decode_video)
    loaded = Policy(models.load_model(config, again), again.visual_ids, policy.mode)
    assert (loaded.model.config.model_type, again.fingerprint) == (name, chat.fingerprint)
    rows = [IMAGES["one wide"], IMAGES["three in the text"], *([VIDEOS["two videos"]] if name in WITH_VIDEO else [])]
    for given in rows:
        ours, theirs_ = chat.prompt(given), again.prompt(given)
        assert ours.expanded_ids == theirs_.expanded_ids
        said = completions(chat, [3, 5], 2)
        with torch.no_grad():
            a, b = (p(p.pack([Item(prompt, said, (0, 1))])).logprob_T for p, prompt in ((policy, ours), (loaded, theirs_)))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_belongs_to_a_part_and_every_part_has_some(name):
    policy, _ = make(name)
    found = {part_of(name, weight) for weight, _ in policy.model.named_parameters()}
    assert found == {"text", "tower", "projector"}
    assert linear_layers(policy.model, ("text",)) and linear_layers(policy.model, ("tower",))


@pytest.mark.parametrize("name", NAMES)
def test_a_family_that_does_not_pack_says_so(name, caplog):
    with caplog.at_level(logging.WARNING):
        policy, _ = make(name)
    packs = FAMILIES[name].packs
    assert policy.mode == ("shared_prefix" if packs else "plain")
    assert ("no tested shared-prefix forward" in caplog.text) == (not packs)


def test_families_with_one_processor_are_rendered_alike():
    rendering = ("marks", "shown", "controls", "whole_frames", "pixel_bounds", "alone", "nested")
    for family in FAMILIES.values():
        first = next(other for other in FAMILIES.values() if other.processor == family.processor)
        assert all(getattr(first, name) == getattr(family, name) for name in rendering)
    assert set(small.RECIPES) == set(FAMILIES)
    assert {family.boxes for family in FAMILIES.values()} <= {None, *CONVENTIONS}


def test_unknown_families_are_refused_by_name():
    with pytest.raises(UserError, match=r"models of type qwen3_vlm are not supported; known: qwen2_vl, .*Did you mean qwen3_vl\?"):
        family_of("qwen3_vlm")
    with pytest.raises(UserError, match="prompts cannot be rendered by a str; known processors: Qwen2VLProcessor, "):
        family_of_processor("x")
    with pytest.raises(ValueError, match=r"models of type llava are not supported; known: qwen2_vl, "):
        ScratchConfig(family="llava")


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.pixel_bounds])
def test_bounds_of_a_pictures_area_are_refused_where_there_are_none(name):
    with pytest.raises(UserError, match=r"model\.image_min_pixels and model.image_max_pixels: a .* has no bounds of a picture's area"):
        make_chat(name, image_max_pixels=500).prompt(IMAGES["one"])


def test_layers_that_were_not_tried_are_forwarded_plainly_and_said(caplog):
    """The allow-list knows types of layers: a text model with windows behind a family that has none is not packed."""
    sizes, tokenizer, _ = parts("internvl")
    model = small.make_model(sizes, tokenizer)
    model.config.text_config.layer_types = ["sliding_attention", "full_attention"]
    with caplog.at_level(logging.WARNING):
        assert Policy(model, (), "shared_prefix").mode == "plain"
    assert "internvl: no tested shared-prefix forward (layers of type sliding_attention)" in caplog.text


def test_gemmas_window_and_pictures_change_what_is_computed():
    """Or the test of equality would hold for a mask that knows neither."""
    policy, chat = make("gemma3", "dense")
    item = Item(chat.prompt(IMAGES["two"]), completions(chat, [6, 4], 1), (0, 1))
    row_ = policy.pack([item])
    mask = dense_mask(row_.lengths, torch.float32)
    masks = dense_masks(row_.lengths, row_.types_L, mask, policy.model.config.text_config.sliding_window)
    assert ((masks["full_attention"] == 0) & (mask < 0)).sum() == 2 * 9 * 8 // 2  # both ways among 9 tokens, twice
    assert ((masks["sliding_attention"] < 0) & (masks["full_attention"] == 0)).any()


def test_vllms_ids_of_frames_are_read_as_the_processors():
    """vLLM 0.32 leaves InternVL's <video> at every visual token of its frames; anything else that differs still shows."""
    chat = make_chat("internvl")
    prompt = chat.prompt(VIDEOS["video"])
    mark, shown = chat.tokenizer.convert_tokens_to_ids("<video>"), chat.placeholder["video"]
    theirs_ = [mark if id_ == shown else id_ for id_ in prompt.expanded_ids]
    assert theirs_ != list(prompt.expanded_ids) == read_as(chat, theirs_)
    assert read_as(chat, theirs_[1:]) != list(prompt.expanded_ids)
    assert read_as(make_chat("qwen3_vl"), theirs_) == theirs_
