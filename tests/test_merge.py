"""What a run leaves behind: adapters in PEFT's layout, whole models merged from them, and the card beside a model."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from runs_small import train_config, write_model, write_rows

from vlm_rl import checkpoint, cli_sft, cli_train, models
from vlm_rl.cli_merge import merge
from vlm_rl.cli_parts import chat_of
from vlm_rl.config import ModelConfig, SftConfig
from vlm_rl.errors import UserError
from vlm_rl.loading import load

LORA = "model.lora={parts: [text, tower, projector], rank: 4, alpha: 32}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run with adapters that moved far."""
    config = train_config(tmp_path_factory.mktemp("lora"), LORA, "optim.learning_rate=0.02", "eval.every=null")
    return cli_train.train(config)


def logprobs(model, directory: Path) -> torch.Tensor:
    """Of a picture and a line of text."""
    from PIL import Image

    processor = transformers.AutoProcessor.from_pretrained(directory)
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what color is the teal circle?"}]}], tokenize=False
    )
    inputs = processor(text=[text], images=[Image.new("RGB", (40, 60), (0, 128, 128))], return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.log_softmax(-1)


@pytest.mark.parametrize("what", ["run", "checkpoint"])
def test_the_merged_model_is_the_adapter_on_its_base(trained: Path, tmp_path: Path, what: str) -> None:
    from peft import PeftModel

    path = trained / "checkpoints" / "step_4"
    (told,) = merge(trained if what == "run" else path, tmp_path / "merged")
    assert "README.md says" in told
    base = json.loads((path / "adapter_config.json").read_text())["base_model_name_or_path"]
    start, plain = (transformers.AutoModelForImageTextToText.from_pretrained(base) for _ in range(2))
    adapted = PeftModel.from_pretrained(plain, str(path)).eval()
    whole, found = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"] and whole.dtype == torch.float32
    want, got, before = (logprobs(model, path) for model in (adapted, whole, start))
    assert (want - got).abs().max() < 1e-5 and (want - before).abs().max() > 0.1
    config = ModelConfig(path=str(tmp_path / "merged"))
    models.load_model(config, chat_of(config, "plain"))


def test_a_bfloat16_model_is_merged_in_float32_and_saved_as_it_was(tmp_path: Path) -> None:
    config = train_config(tmp_path, LORA, "model.dtype=bfloat16", "eval.every=null", "train.steps=1", "optim.learning_rate=0.02")
    base = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    base.save_pretrained(tmp_path / "model")
    run = cli_train.train(config)
    merge(run, tmp_path / "merged")
    whole = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype="auto")
    assert whole.dtype == torch.bfloat16 and whole.config.get_text_config().dtype == torch.bfloat16


def test_what_cannot_be_merged_is_named(trained: Path, tmp_path: Path) -> None:
    whole = write_model(tmp_path / "whole")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for source, out, message in [
        (whole, "out", r"whole has no adapter_config\.json; it is a whole model: there is nothing to merge"),
        (tmp_path / "taken", "out", "it holds no model"),
        (tmp_path / "none", "out", "none is no directory"),
        (tmp_path / "run", "out", "has no whole checkpoint yet"),
        (trained, "taken", "is there already and not empty; write --out OTHER"),
    ]:
        with pytest.raises(UserError, match=message):
            merge(source, tmp_path / out)
    assert {p.name for p in tmp_path.iterdir()} == {"whole", "taken", "run"}, "nothing is left behind"


def read_card(directory: Path) -> tuple[dict, str]:
    _, header, body = (directory / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header), body


def test_the_card_of_an_adapter_says_what_its_run_measured(trained: Path, tmp_path: Path) -> None:
    path = trained / "checkpoints" / "step_4"
    summary = json.loads((trained / "summary.json").read_text())
    header, body = read_card(path)
    assert header["library_name"] == "peft" and header["tags"] == ["vlm-rl", "grpo", "lora"] and "base_model" not in header
    (entry,) = header["model-index"]
    values = {metric["name"]: metric["value"] for metric in entry["results"][0]["metrics"]}
    assert values == {"accuracy (greedy)": summary["eval/accuracy_after"], "accuracy (sampled)": summary["eval/sampled_after"]}
    low, high = summary["eval/accuracy_ci95_after"]
    assert f"| accuracy_after | {summary['eval/accuracy_after']:.4g} | {low:.4g} to {high:.4g} |" in body
    low, high = summary["eval/difference_ci95"]
    assert f"| difference | {summary['eval/difference']:.4g} | {low:.4g} to {high:.4g} |" in body
    assert hashlib.sha256((trained / "config.yaml").read_bytes()).hexdigest() in body
    assert "| brief | runs_small:Brief | 1 |" in body and "| format | format | 0.1 |" in body
    assert "LoRA of rank 4 on: text, tower, projector" in body and "PeftModel.from_pretrained" in body
    assert "| torch |" in body and "| peft |" in body and "| trained on | jsonl | path: " in body
    assert checkpoint.find_damage(path) is None, "a card changes nothing that the manifest lists"
    assert not (trained / "checkpoints" / "step_2" / "README.md").exists()
    merge(path.parent / "step_2", tmp_path / "early")
    header, body = read_card(tmp_path / "early")
    assert header["library_name"] == "transformers" and "model-index" not in header
    assert "step 2" in body and "This checkpoint was not evaluated." in body


def test_models_trained_in_full_have_cards_too(tmp_path: Path) -> None:
    run = cli_train.train(train_config(tmp_path, "train.steps=1", "eval.every=null", "rewards.brief.weight=0.5"))
    header, body = read_card(run / "checkpoints" / "step_1")
    assert header["library_name"] == "transformers" and header["tags"] == ["vlm-rl", "grpo"]
    assert "trained: the whole model" in body and "| brief | runs_small:Brief | 0.5 |" in body and "| blank_after |" in body
    rows = write_rows(tmp_path / "imitated", responses=True)
    base = tmp_path / "sft.yaml"
    base.write_text(
        f"run_dir: {tmp_path}/sft\nmodel: {{path: {tmp_path}/model, lora: {{parts: [text], dropout: 0.2}}}}\n"
        f"data: {{name: jsonl, path: {rows}}}\ntrain: {{steps: 2, batch_size: 4}}\noptim: {{learning_rate: 0.01}}\n"
        "eval: {questions: 4}\nrollout: {max_new_tokens: 8}\ncheckpoint: {every: 1}\ntracker: {tensorboard: false}\n"
    )
    tuned = cli_sft.sft(load(SftConfig, base))
    header, body = read_card(tuned / "checkpoints" / "step_2")
    assert header["tags"] == ["vlm-rl", "sft", "lora"] and "supervised fine-tuning" in body and "## Rewards" not in body
    assert "| accuracy | " in body and " to " in body
