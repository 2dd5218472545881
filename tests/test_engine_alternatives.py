"""Log-probs of the likeliest first tokens from the model loaded here; an adapter merged into its base."""

import json
import math
from pathlib import Path

import pytest
import torch
from models_small import make, sample
from runs_small import write_model

from vlm_rl import models
from vlm_rl.adapters import is_adapter
from vlm_rl.asking import Asker
from vlm_rl.cli_parts import chat_of
from vlm_rl.config import ModelConfig
from vlm_rl.engine.hf import HFEngine
from vlm_rl.errors import UserError
from vlm_rl.types import Generate, Sampling, Score


def test_alternatives_are_the_log_probs_of_the_first_token():
    policy, chat = make()
    ask = Asker({"policy": HFEngine(policy, chat)}, chat)
    row = sample("a")
    told, untold = ask([Generate("policy", row, Sampling(2, 0.0, alternatives=400)), Generate("policy", row, Sampling(2, 0.0))])
    assert untold.alternatives == {} and told.text == untold.text
    assert sum(math.exp(p) for p in told.alternatives.values()) == pytest.approx(1, abs=1e-4)
    letters = [text for text in "AB" if text in told.alternatives]
    scores = ask([Score("policy", row, letter) for letter in letters])
    assert letters and [s.logprobs[0] for s in scores] == pytest.approx([told.alternatives[text] for text in letters], abs=1e-3)
    (few,) = ask([Generate("policy", row, Sampling(2, 0.7, alternatives=9))])  # at temperature 1, whatever is drawn at
    whole = {text: p for text, p in few.alternatives.items() if text.isascii()}
    assert whole and whole == pytest.approx({text: told.alternatives[text] for text in whole}, abs=1e-4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model")


def adapter(base: Path, directory: Path) -> Path:
    import peft

    config = ModelConfig(path=str(base))
    model = models.load_model(config, chat_of(config, "plain"))
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    wrapped.save_pretrained(directory)
    settings = json.loads((directory / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": str(base)}))
    return directory


def test_an_adapter_directory_is_its_base_with_the_adapter_merged_in(base: Path, tmp_path: Path):
    path = adapter(base, tmp_path / "adapter")
    assert is_adapter(path) and not is_adapter(base)
    config, plain = ModelConfig(path=str(path)), ModelConfig(path=str(base))
    chat = chat_of(config, "plain")
    own = dict(models.load_model(plain, chat_of(plain, "plain")).named_parameters())
    merged = dict(models.load_model(config, chat).named_parameters())
    assert own.keys() == merged.keys()
    changed = {name for name in own if not torch.equal(own[name], merged[name])}
    assert changed and all(".q_proj." in name or ".v_proj." in name for name in changed)


def test_an_adapter_without_its_base_is_named(base: Path, tmp_path: Path):
    path = adapter(base, tmp_path / "adapter")
    (path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "./gone"}))
    with pytest.raises(UserError, match=r"base_model_name_or_path=\./gone: there is no such directory"):
        chat_of(ModelConfig(path=str(path)), "plain")
    (path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="does not name its base_model_name_or_path"):
        chat_of(ModelConfig(path=str(path)), "plain")
