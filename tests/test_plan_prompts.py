"""How `vlm-rl plan` measures prompts, for every family: against prompts rendered with their pixels, and by the command."""

import json

import models_small
import pytest
from runs_small import train_config, write_model, write_rows
from test_plan import setting

from vlm_rl import cli_plan, cli_plan_prompts, small
from vlm_rl.architecture import Architecture, find, of_config
from vlm_rl.config import ModelConfig
from vlm_rl.errors import UserError
from vlm_rl.families import FAMILIES
from vlm_rl.footprint_layers import SINGLE
from vlm_rl.types import Prompt, Sample


def rows_of(prompt: Prompt, arch: Architecture) -> int:
    """Of the tower, from the tensors that the model is given."""
    found = 0
    for vision in prompt.vision:
        for name, tensor in vision.tensors.items():
            if name in ("pixel_values", "pixel_values_videos") and arch.tower.tile:
                found += len(tensor) * arch.tower.tile
            found += int(tensor.prod(1).sum()) if name.endswith("grid_thw") else 0
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_those_of_training(family):
    """Tokens and rows of the tower, of one picture of several shapes, of two, and of a video."""
    chat = models_small.make_chat(family)
    sizes, tokenizer, _ = models_small.parts(family)
    arch = of_config(small.make_model(sizes, tokenizer).config, "a test")
    ruler = cli_plan_prompts.ByProcessor(chat, arch)
    samples = [
        models_small.sample(f"s{i}", n, size=size)
        for i, (n, size) in enumerate([(1, (64, 64)), (1, (300, 90)), (2, (64, 120)), (0, (1, 1))])
    ]
    if "video" in FAMILIES[family].marks:
        samples.append(
            Sample(id="v", question="what moves?", answer="A", options=("red", "teal"), kind="choice", media=(models_small.video(3),))
        )
    for sample in samples:
        prompt = chat.prompt(sample)
        assert ruler.prompt(sample) == (len(prompt.expanded_ids), rows_of(prompt, arch)), sample.id


@pytest.mark.parametrize("family", FAMILIES)
def test_the_largest_picture_bounds_all(family):
    chat = models_small.make_chat(family)
    sizes, tokenizer, _ = models_small.parts(family)
    arch = of_config(small.make_model(sizes, tokenizer).config, "a test")
    tokens, rows = max(cli_plan_prompts.ByProcessor(chat, arch).pictures())
    for size in [(64, 64), (640, 480), (100, 700), (1200, 300)]:
        prompt = chat.prompt(models_small.sample("a", 1, size=size))
        assert rows_of(prompt, arch) <= rows and sum(v.tokens for v in prompt.vision) <= tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_the_command_plans_every_family(family, tmp_path):
    if family == "smolvlm":
        pytest.importorskip("num2words")
    write_model(tmp_path / "model", family)
    write_rows(tmp_path / "rows")
    config, shown = train_config(tmp_path), []
    assert cli_plan.planned(config, "24", 1, shown.append, tmp_path / "plan.json") == 0
    found = json.loads((tmp_path / "plan.json").read_text())
    assert "by the model's processor" in found["prompts"]["source"] and found["prompts"]["patches"] > 0
    assert found["largest_pack"]["form"] == ("shared_prefix" if FAMILIES[family].packs else "plain")
    assert ("not packed" in str(found["tokens"][-1])) == (not FAMILIES[family].packs)
    assert found["phases"]["update"]["weights"] == SINGLE * sum(found["parameters"].values())


def test_tiles_need_the_processors_files(tmp_path):
    """Of a family whose rules are known the config.json is enough."""
    for family, said in (("idefics3", "preprocessor_config.json"), ("qwen2_5_vl", None)):
        folder = tmp_path / family
        sizes, tokenizer, _ = models_small.parts(family)
        small.make_model(sizes, tokenizer).config.save_pretrained(folder)
        config = setting(tmp_path).config
        config = config.model_copy(update={"model": ModelConfig(path=str(folder))})
        arch = find(config.model)
        if said is None:
            assert cli_plan_prompts.prompts_of(config, arch).tokens == config.model.max_prompt_tokens
            continue
        with pytest.raises(UserError, match=said):
            cli_plan_prompts.prompts_of(config, arch)


def test_layers_that_are_not_described_are_refused(tmp_path):
    sizes, tokenizer, _ = models_small.parts("internvl")
    config = small.make_model(sizes, tokenizer).config
    config.text_config.model_type = "gpt_oss"
    with pytest.raises(UserError, match=r"a gpt_oss, whose layers cannot be planned; known: .*qwen2"):
        of_config(config, "config.json")
