"""LoRA adapter directories (PEFT's: adapter_config.json and weights): which model they belong to, and that model with them merged in."""

import json
from pathlib import Path
from typing import Any

from vlm_rl.errors import UserError

SETTINGS = "adapter_config.json"


def is_adapter(source: str | Path) -> bool:
    return (Path(source) / SETTINGS).is_file()


def base_of(adapter: str | Path, key: str) -> str:
    """The model that an adapter directory was trained on, as it names it. Raises UserError naming the config's `key`."""
    path = Path(adapter) / SETTINGS
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{key}={adapter}: {path} cannot be read: {error}") from None
    base = tree.get("base_model_name_or_path") if isinstance(tree, dict) else None
    if not isinstance(base, str) or not base:
        raise UserError(f"{key}={adapter}: {path} does not name its base_model_name_or_path")
    return base


def merged(model: Any, adapter: str | Path, key: str) -> Any:
    """`model` with the adapter's weights added to its own: one model, as fast as it was. Raises UserError where the two do not fit."""
    import peft  # only here: importing it takes a while

    try:
        return peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()  # pyright: ignore[reportCallIssue]
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{key}={adapter}: the adapter cannot be put on its base model: {reason}") from None
