"""Hugging Face data sets as tables of raw rows: by hub id, or a local copy (saved by `datasets`, or a folder of parquet or JSON files).

The library `datasets` is imported only for hub ids and saved data sets; a folder of files needs no network and leaves no cache behind.
Pictures stay encoded. Streaming data sets have no random access and are not supported.
"""

import importlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.tables import Table, json_table
from vlm_rl.config import DataConfig, project_path
from vlm_rl.errors import UserError, unknown

logger = logging.getLogger(__name__)

_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}.*")
_SPLITS = ("train", "test", "validation", "val", "valid", "dev", "testmini")
_JSON = (".jsonl", ".json")
# Files that hub repositories keep beside their rows.
_NO_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


class Saved:
    """A `datasets.Dataset`, memory mapped. Rows are taken as Arrow: picture columns stay {"bytes", "path"} however deep they lie."""

    def __init__(self, dataset: Any, name: str, folder: Path | None):
        self.folder = folder
        self._dataset, self._name = dataset.with_format("arrow"), name

    def __len__(self) -> int:
        return len(self._dataset)

    def fields(self, index: int) -> dict[str, Any]:
        return self._dataset[index : index + 1].to_pylist()[0]

    def place(self, index: int) -> str:
        return f"{self._name} row {index}"

    def default_id(self, index: int) -> str:
        return str(index)


def hub_table(config: DataConfig) -> Table:
    """The rows of `config.path`: a local directory where there is one, else a hub id. Raises UserError."""
    name = str(config.path)
    local = project_path(name)
    if local.is_dir():
        return directory_table(local, config.config, config.split)
    if local.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"data.path: {name} is neither a directory nor a hub id of the form OWNER/NAME")
    try:
        dataset = _library().load_dataset(name, config.config, split=config.split, revision=config.revision)
    except Exception as error:  # the library and the network raise anything
        place = " ".join(part for part in (name, config.config, config.split, config.revision) if part)
        raise UserError(f"data.path: {place} could not be loaded from the hub: {_first_line(error)}") from None
    return Saved(dataset, name, None)


def directory_table(directory: Path, config: str | None, split: str) -> Table:
    """The rows of a local copy: of its folder `config` where that is set, and of `split` where its files name one."""
    place = directory / config if config else directory
    if not place.is_dir():
        raise UserError(f"data.config: {directory} has no folder {config}; it has {_listed(directory)}")
    if (place / "dataset_dict.json").exists() or (place / "state.json").exists():
        return _saved(place, split)
    if files := files_of_split(place, (".parquet",), split):
        from data.parquet import Parquet

        return Parquet(files, place)
    files = [file for file in files_of_split(place, _JSON, split) if file.name not in _NO_ROWS]
    if len(files) == 1:
        return json_table(files[0])
    if files:
        names = ", ".join(str(file.relative_to(place)) for file in files[:5])
        raise UserError(f"data.path: {place} has {len(files)} JSON files ({names}); write data.name=jsonl and data.path=FILE")
    raise UserError(f"data.path: {place} is no saved data set and has no .parquet, .jsonl or .json file; it has {_listed(place)}")


def files_of_split(directory: Path, suffixes: Sequence[str], split: str) -> list[Path]:
    """The files below `directory` of these kinds, sorted by name; where names or folders name splits, those of `split` only.

    "train-00000-of-00002.parquet", "test.jsonl" and "validation/0.parquet" name splits. Raises UserError when only others are there.
    """
    files = sorted(path for path in directory.rglob("*") if path.suffix in suffixes and path.is_file() and ".cache" not in path.parts)
    named = {file: _split_of(file.relative_to(directory)) for file in files}
    found = {name for name in named.values() if name}
    if not found:
        return files
    if split not in found:
        raise unknown("split", split, found, f"data.split ({directory})")
    return [file for file in files if named[file] == split]


def _split_of(path: Path) -> str | None:
    shard = _SHARD.fullmatch(path.stem)
    if shard:
        return shard[1]
    return next((part for part in (path.stem, *path.parts[:-1][::-1]) if part in _SPLITS), None)


def _saved(directory: Path, split: str) -> Saved:
    try:
        dataset = _library().load_from_disk(str(directory))
    except Exception as error:  # whatever a damaged directory makes the library raise
        raise UserError(f"data.path: {directory} could not be loaded: {_first_line(error)}") from None
    if isinstance(dataset, dict):
        if split not in dataset:
            raise unknown("split", split, dataset, f"data.split ({directory})")
        dataset = dataset[split]
    return Saved(dataset, directory.name, directory)


def _library() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise UserError(f"data.name=hub needs the package datasets, which cannot be imported ({error}); pip install datasets") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:500]


def _listed(directory: Path) -> str:
    names = sorted(path.name for path in directory.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"
