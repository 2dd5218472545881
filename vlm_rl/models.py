"""Loading and saving models with their tokenizer and processor, which are one artefact: a fingerprint of vocabulary and template travels in
the model's config and is checked at load."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from vlm_rl import adapters, lora, parts, small
from vlm_rl.chat import Chat
from vlm_rl.config import ModelConfig, TrainedModelConfig, project_path
from vlm_rl.errors import UserError

log = logging.getLogger(__name__)
transformers.utils.logging.disable_progress_bar()  # a bar per file read would tear the live console
FINGERPRINT = "vlm_rl_tokenizer"


def device_of(config: ModelConfig) -> str:
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_processor(config: ModelConfig, texts: Iterable[str] = ()) -> Any:
    """The processor at `model.path`, or for `model.scratch` a small one whose tokenizer is trained on `texts`."""
    if config.scratch:
        return small.make_processor(config.scratch, small.train_tokenizer(texts, config.scratch.vocab_size, config.scratch.family))
    source = _source(config)
    if adapters.is_adapter(source) and not any(Path(source).glob("*processor_config.json")):
        source = _base(source)
    try:
        return transformers.AutoProcessor.from_pretrained(source)
    except (OSError, ValueError, ImportError) as error:  # SmolVLM's needs num2words
        raise UserError(f"model.path={config.path}: no processor could be loaded from {source}: {_first_line(error)}") from None


def load_model(config: ModelConfig, chat: Chat, path: str | Path | None = None, seed: int = 0) -> Any:
    """The model at `path` (a checkpoint of this run), else at `model.path`, else a random one of `model.scratch`'s sizes."""
    dtype = getattr(torch, config.dtype)
    if config.scratch and path is None:
        model = small.make_model(config.scratch, chat.tokenizer, seed).to(dtype)
    else:
        given = path or _source(config)
        source = _base(given) if adapters.is_adapter(given) else given
        try:
            loaded: Any = transformers.AutoModelForImageTextToText.from_pretrained(source, dtype=dtype, output_loading_info=True)
        except (OSError, ValueError) as error:
            raise UserError(f"model.path={config.path}: no model could be loaded from {source}: {_first_line(error)}") from None
        model, found = loaded
        if absent := sorted(found["missing_keys"]) + [str(key) for key in found["mismatched_keys"]]:
            raise UserError(
                f"the weights at {source} are not whole: {len(absent)} tensors are missing or of another shape, such as {absent[0]}"
            )
        if source != given:
            model = adapters.merged(model, given, "model.path")
    saved = getattr(model.config, FINGERPRINT, None)
    if saved not in (None, chat.fingerprint):
        raise UserError(
            f"the weights at {path or config.path} were made with another tokenizer or chat template (fingerprint {saved}, found "
            f"{chat.fingerprint}); keep the files of one model directory together"
        )
    return nn.Module.to(model, device_of(config))


def load_trained(config: TrainedModelConfig, chat: Chat, path: Path | None = None, seed: int = 0) -> Any:
    """What `load_model` gives, with what does not train frozen; with model.lora the model at `model.path` with adapters, new ones or those
    of the checkpoint at `path`."""
    if config.lora is None:
        model = load_model(config, chat, path, seed)
        parts.freeze_others(model, config.train)
        return model
    source = _source(config)
    if adapters.is_adapter(source):
        raise UserError(f"model.path={config.path} is an adapter itself; write it into its model with vlm-rl merge, and train on that")
    model = load_model(config, chat, seed=seed)
    base = str(Path(source).resolve()) if Path(source).exists() else source
    lora.attach(model, config.lora, base, seed)
    if path is not None:
        lora.load(path, model)
    return model


def save_model(directory: Path, model: Any, chat: Chat) -> None:
    """One Hugging Face directory that `from_pretrained` and vLLM load: weights, tokenizer, processor, chat template. Of a model with
    adapters those alone, in PEFT's layout."""
    if lora.has_adapters(model):
        lora.save(directory, model)
        chat.processor.save_pretrained(directory)
        return
    setattr(model.config, FINGERPRINT, chat.fingerprint)
    model.save_pretrained(directory)
    chat.processor.save_pretrained(directory)


def _base(adapter: str | Path) -> str:
    return source_of(adapters.base_of(adapter, "model.path"), f"{adapter}/{adapters.SETTINGS}: base_model_name_or_path")


def _source(config: ModelConfig) -> str:
    return source_of(str(config.path), "model.path")


def source_of(path: str, key: str) -> str:
    """A local directory when there is one; anything else is left to the hub. Raises UserError naming the config's `key`."""
    local = project_path(path)
    if local.exists():
        return str(local)
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise UserError(f"{key}={path}: there is no such directory, and it is no hub id of the form owner/name")
    return path


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
