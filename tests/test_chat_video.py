"""Videos in prompts: exactly what each family's own processor makes of the same frames; kept results; budgets."""

import itertools
import logging

import pytest
import torch
from clips_small import BIKES, BUNNY, CARPHONE, clip
from models_small import make, make_chat, picture, video
from transformers.video_utils import VideoMetadata

from vlm_rl.errors import RowError, UserError
from vlm_rl.packing import join_vision
from vlm_rl.policy import after_media
from vlm_rl.types import Media, Sample

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
ROWS = {
    "one": ("what happens?", (clip(CARPHONE),)),
    "two": ("before.<video> and after: <video>", (clip(BIKES), video(1, 7))),
    "mixed": ("see <video>, <image>, <video>, <image>.<video>", (video(1), picture(1), clip(BIKES), picture(2, (90, 50)), video(2, 31))),
}


def row(name: str) -> Sample:
    question, media = ROWS[name]
    return Sample(id="r1", question=question, answer="A", media=media)


def theirs(chat, sample, text):
    """The whole processor on the text with collapsed placeholders and the frames."""
    clips = [chat.look.decode_video(m, chat.look.budget, "r") for m in sample.media if m.kind == "video"]
    images = [chat.look.decode(m, "r") for m in sample.media if m.kind == "image"]
    about = [VideoMetadata(total_num_frames=c.total, fps=c.fps, frames_indices=list(c.indices)) for c in clips]
    frames = [torch.from_numpy(c.frames).permute(0, 3, 1, 2) for c in clips]
    how = {"do_sample_frames": False, "videos_kwargs": {"do_resize": False}}
    return chat.processor(text=[text], images=images or None, videos=frames, video_metadata=about, return_tensors="pt", **how)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_equal_the_familys_own_processor(family, name):
    policy, chat = make(family)
    sample = row(name)
    prompt = chat.prompt(sample)
    want = theirs(chat, sample, prompt.text)
    assert list(prompt.expanded_ids) == want["input_ids"][0].tolist()
    assert list(prompt.token_types) == want["mm_token_type_ids"][0].tolist()
    ours = join_vision([prompt], "cpu")
    names = [n for n in want if n not in ("input_ids", "attention_mask", "mm_token_type_ids")]
    assert set(ours) == set(names) and ("second_per_grid_ts" in ours) == (family == "qwen2_5_vl")
    for n in names:
        torch.testing.assert_close(ours[n], torch.as_tensor(want[n]), rtol=0, atol=0)
    grids = {n: want[n] for n in names if n.endswith(("grid_thw", "grid_ts"))}
    positions = policy.model.model.get_rope_index(want["input_ids"], mm_token_type_ids=want["mm_token_type_ids"], **grids)[0]
    ours, types = policy.rope_index(prompt), torch.tensor(prompt.token_types)
    assert torch.equal(ours, after_media(positions[:, 0], types))
    for kind in (1, 2):  # within a medium, and in a prompt without videos, nothing is changed
        for start, end in runs_of(types == kind):
            theirs_ = positions[:, 0, start:end]
            assert torch.equal(ours[:, start:end] - ours[:, start:end].amin(), theirs_ - theirs_.amin())
    for kind in ("image", "video"):
        assert prompt.ids.count(chat.placeholder[kind]) == sum(m.kind == kind for m in sample.media)


def runs_of(mask: torch.Tensor) -> list[tuple[int, int]]:
    """(start, end) of each run of True."""
    ends = itertools.accumulate(len(list(same)) for _, same in itertools.groupby(mask.tolist()))
    cuts = [0, *ends]
    return [(a, b) for a, b in itertools.pairwise(cuts) if mask[a]]


def test_text_goes_on_after_the_last_moment_of_a_video():
    """The positions vLLM 0.32 gives the same prompt: 2 x 2 tokens at moments 4 and 6, then text from 7 on."""
    types = torch.tensor([0] * 4 + [2] * 8 + [0] * 3)
    time = [0, 1, 2, 3, 4, 4, 4, 4, 6, 6, 6, 6, 6, 7, 8]
    height = [0, 1, 2, 3, 4, 4, 5, 5, 4, 4, 5, 5, 6, 7, 8]
    width = [0, 1, 2, 3, 4, 5, 4, 5, 4, 5, 4, 5, 6, 7, 8]
    fixed = after_media(torch.tensor([time, height, width]), types)
    assert fixed[:, :12].tolist() == [time[:12], height[:12], width[:12]]
    assert fixed[:, 12:].tolist() == [[7, 8, 9]] * 3
    assert torch.equal(after_media(fixed, types), fixed)


def test_times_are_written_between_frames_where_the_family_wants_them():
    chat = make_chat("qwen3_vl", video_fps=2)
    prompt = chat.prompt(row("one"))
    spelled = [c.text for c in prompt.vision]
    runs = [len(list(same)) for is_video, same in itertools.groupby(prompt.token_types) if is_video]
    assert len(runs) == 4 and runs == list(prompt.vision[0].runs)
    clip_ = chat.look.decode_video(CLIP := row("one").media[0], chat.look.budget, "r")
    times = [sum(pair) / 2 for pair in zip(clip_.timestamps[::2], clip_.timestamps[1::2], strict=True)]
    assert all(f"<{time:.1f} seconds>" in spelled[0] for time in times) and "seconds" not in prompt.text
    assert chat.look(CLIP, "r") is prompt.vision[0]


@pytest.mark.parametrize("sampled", [1.0, 8.0])
def test_positions_follow_the_seconds_of_the_source(sampled):
    policy, _ = make("qwen2_5_vl")
    chat = make_chat("qwen2_5_vl", video_fps=sampled)
    prompt = chat.prompt(row("one"))
    clip_ = chat.look.decode_video(row("one").media[0], chat.look.budget, "r")
    assert prompt.vision[0].tensors["second_per_grid_ts"].tolist() == pytest.approx([2 / clip_.sampled_fps])
    temporal = policy.rope_index(prompt)[0][torch.tensor(prompt.token_types) == 2].unique()
    seconds_per_patch = 2 / clip_.sampled_fps
    per_second = policy.model.config.vision_config.tokens_per_second
    want = [int(per_second * seconds_per_patch * i) for i in range(len(clip_.indices) // 2)]
    assert (temporal - temporal[0]).tolist() == want


def test_each_medium_is_processed_once_and_kept_within_the_limit():
    chat = make_chat(processor_cache_mb=0)
    first = chat.prompt(row("two"))
    assert chat.look.calls == 2 and len(chat.look.cache.kept) == 1
    chat = make_chat()
    first = chat.prompt(row("two"))
    again = chat.prompt(Sample(id="x", question="<video>", answer="A", media=(Media("video", data=BIKES.read_bytes()),)))
    assert chat.look.calls == 2 and again.vision[0] is first.vision[0]
    assert chat.look.cache.bytes == sum(v.bytes for v in first.vision)


def test_kept_on_disk_between_runs_and_damage_is_only_a_warning(tmp_path, caplog):
    kept = tmp_path / "deep" / "kept"
    want = make_chat("qwen3_vl", processor_cache_dir=str(kept)).prompt(row("mixed"))
    files = sorted(kept.iterdir())
    assert len(files) == 5 and all(file.suffix == ".safetensors" for file in files)

    def again(**settings) -> int:
        chat = make_chat("qwen3_vl", processor_cache_dir=str(kept), **settings)
        got = chat.prompt(row("mixed"))
        if not settings:
            assert got.expanded_ids == want.expanded_ids
            for ours, theirs_ in zip(got.vision, want.vision, strict=True):
                assert all(torch.equal(ours.tensors[n], t) for n, t in theirs_.tensors.items()) and ours.runs == theirs_.runs
        return chat.look.calls

    assert again() == 0
    whole = files[0].read_bytes()
    for damage in (b"", b"rubbish", whole[: len(whole) // 2]):
        files[0].write_bytes(damage)
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            assert again() == 1
        assert files[0].name in caplog.text and "computed again" in caplog.text
        assert again() == 0
    assert again(video_max_frames=6) == 3 and again(image_max_pixels=56 * 56) == 2
    assert not list(kept.glob("*.part"))
    with pytest.raises(UserError, match=r"model\.processor_cache_dir=.*cannot be made"):
        make_chat(processor_cache_dir=str(files[0]))


def test_budgets_bound_frames_and_tokens():
    for settings, frames in (({"video_max_frames": 4}, 4), ({"video_fps": 1, "video_min_frames": 6}, 6), ({"video_fps": 0.1}, 4)):
        chat = make_chat(**settings)
        grid = chat.prompt(row("one")).vision[0].tensors["video_grid_thw"][0].tolist()
        assert grid[0] * 2 == frames and 28 * 28 <= grid[1] * grid[2] * 14 * 14 <= 56 * 84
    default = make_chat(video_min_pixels=None, video_max_pixels=None, max_prompt_tokens=100)
    assert (default.look.budget.min_pixels, default.look.budget.max_pixels) == (128 * 784, 768 * 784)
    with pytest.raises(RowError, match=r"row r1: the prompt has \d+ tokens .*lower model.video_max_frames or model.video_max_pixels"):
        default.prompt(Sample(id="r1", question="?", answer="A", media=(clip(BUNNY),)))
    assert make_chat("qwen3_vl", video_min_pixels=None, video_max_pixels=500).look.budget.min_pixels == 500


def test_bad_videos_name_their_row(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing of the kind")
    chat = make_chat()
    with pytest.raises(RowError, match=r"row r9: .*bad\.mp4: not a video"):
        chat.prompt(Sample(id="r9", question="?", answer="A", media=(clip(tmp_path / "bad.mp4"),)))
    with pytest.raises(RowError, match=r"row r9: cannot read .*gone\.mp4"):
        chat.prompt(Sample(id="r9", question="?", answer="A", media=(clip(tmp_path / "gone.mp4"),)))


@pytest.mark.parametrize("bounds, tokens", [({}, 9), ({"image_max_pixels": 56 * 56}, 4), ({"image_min_pixels": 112 * 112}, 16)])
def test_the_configs_pixel_bounds_replace_the_processors(bounds, tokens, recwarn):
    chat = make_chat(**bounds)
    assert chat.prompt(Sample(id="a", question="?", answer="A", media=(picture(1),))).vision[0].tokens == tokens
    assert not [w for w in recwarn if issubclass(w.category, FutureWarning)]
