"""Processed pictures and videos, kept: in memory within a limit, and on disk between runs when a directory is given.

A file that cannot be read back is computed again with a warning; a disk that cannot be written costs speed only. What a key must tell
apart is its maker's business (vlm_rl.vision).
"""

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vlm_rl.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Vision:
    """The processor's tensors for one medium, as the model's forward names them.

    `runs` has the number of visual tokens of each uninterrupted run of them, and `text` stands for the medium in the prompt, with one
    placeholder per run: the placeholder alone, or for families that write times between frames, all of them. `size` is (height, width) in
    pixels of the picture or of a frame as the model sees it, None where the medium was not processed.
    """

    tensors: Mapping[str, torch.Tensor]
    runs: tuple[int, ...]
    text: str
    size: tuple[int, int] | None = None

    @property
    def tokens(self) -> int:
        return sum(self.runs)

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def without_tensors(self) -> "Vision":
        """What another process is told of it."""
        return replace(self, tensors={})


class VisionCache:
    """Forgets the least recently used beyond `limit` bytes, except the last one. Raises UserError for an unusable directory."""

    def __init__(self, limit: int, directory: str | Path | None = None):
        self.limit, self.directory = limit, Path(directory).expanduser() if directory else None
        self.kept: OrderedDict[str, Vision] = OrderedDict()
        self.bytes = 0
        if self.directory is not None:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"model.processor_cache_dir={directory}: cannot be made: {error.strerror or error}") from None

    def get(self, key: str, make: Callable[[], Vision]) -> Vision:
        """What is kept under `key` (a file name), else `make()`, which is then kept."""
        if key not in self.kept:
            vision = self._load(key)
            if vision is None:
                vision = make()
                self._save(key, vision)
            self._remember(key, vision)
        self.kept.move_to_end(key)
        return self.kept[key]

    def _remember(self, key: str, vision: Vision) -> None:
        self.kept[key] = vision
        self.bytes += vision.bytes
        while self.bytes > self.limit and len(self.kept) > 1:
            self.bytes -= self.kept.popitem(last=False)[1].bytes

    def _path(self, key: str) -> Path | None:
        return self.directory / f"{key}.safetensors" if self.directory is not None else None

    def _load(self, key: str) -> Vision | None:
        path = self._path(key)
        if path is None or not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["vision"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return Vision(tensors, tuple(about["runs"]), about["text"], tuple(about["size"]))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read back and is computed again: %s", path, error)
            return None

    def _save(self, key: str, vision: Vision) -> None:
        path = self._path(key)
        if path is None:
            return
        aside = path.with_name(f"{path.name}.{os.getpid()}.part")
        about = {"vision": json.dumps({"runs": vision.runs, "text": vision.text, "size": vision.size})}
        try:
            save_file({name: tensor.contiguous() for name, tensor in vision.tensors.items()}, aside, about)
            aside.replace(path)
        except (SafetensorError, OSError) as error:
            log.warning("%s cannot be written, so its content is computed again next time: %s", path, error)
            aside.unlink(missing_ok=True)
