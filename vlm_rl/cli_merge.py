"""`vlm-rl merge`: an adapter written into the weights of its model, for programs that know no adapters."""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

from vlm_rl import adapters, checkpoint, model_card, models
from vlm_rl.errors import UserError


def merge(source: Path, out: Path) -> list[str]:
    """Write the model of an adapter directory, or of the newest whole checkpoint of a run, with the adapter in its weights to `out`.

    Sums are made in float32 and rounded once to the number format of the model's own files. Returns what is to be told.
    """
    path = adapter_of(source)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} is there already and not empty; write --out OTHER")
    base = models.source_of(adapters.base_of(path, "SOURCE"), f"{path}/{adapters.SETTINGS}: base_model_name_or_path")
    model: Any = transformers.AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    merged = adapters.merged(model, path, "SOURCE").to(_format_of(base))
    aside = out.with_name(f".tmp-{out.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        merged.save_pretrained(aside)
        has_processor = any(path.glob("*processor_config.json"))
        transformers.AutoProcessor.from_pretrained(path if has_processor else base).save_pretrained(aside)
        told = _card(path, aside)
        if out.exists():
            out.rmdir()
        aside.rename(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return [f"{out}: {base} with the adapter of {path} in its weights{told}"]


def adapter_of(source: Path) -> Path:
    """The adapter directory meant by a run, a checkpoint or an adapter directory. Raises UserError."""
    if not source.is_dir():
        raise UserError(f"{source} is no directory; name a run, one of its checkpoints or an adapter directory")
    path = source
    if (source / "checkpoints").is_dir():
        whole = [p for p in checkpoint.listed(source / "checkpoints") if checkpoint.find_damage(p) is None]
        if not whole:
            raise UserError(f"{source} has no whole checkpoint yet")
        path = whole[0]
    if not adapters.is_adapter(path):
        kind = "is a whole model: there is nothing to merge" if (path / "config.json").is_file() else "holds no model"
        raise UserError(f"{path} has no {adapters.SETTINGS}; it {kind}")
    return path


def _format_of(base: str) -> torch.dtype:
    config: Any = transformers.AutoConfig.from_pretrained(base)
    return config.dtype or config.get_text_config().dtype or torch.float32


def _card(path: Path, out: Path) -> str:
    """A model card where the adapter is a run's checkpoint."""
    if path.parent.name != "checkpoints" or not path.name.startswith("step_"):
        return ""
    written = model_card.write(out, path.parent.parent, checkpoint.step_of(path))
    return f"; {model_card.FILE} says what it was trained on" if written else ""
