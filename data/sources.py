"""The sources of a user's own rows: a JSONL file, parquet files, a Hugging Face data set. Rows are read when asked for, media not at all.

A row has the standard columns ({"id", "question", "images", "videos", "options", "answer", "kind"?, "response"?, ...}), or
`data.columns` / `data.mapping` say how to read it.
"""

from pathlib import Path

from data.hub import files_of_split, hub_table
from data.mapping import MappedRows, Mapper, column_mapper
from data.rows import Rows
from data.tables import Table, json_table
from data.training_sets import named_mapper
from vlm_rl.config import DataConfig, project_path
from vlm_rl.errors import UserError


def jsonl(config: DataConfig) -> Rows:
    """The rows of the file `config.path`: one object a line, or (.json) one list of objects. Media paths are relative to it.

    Raises UserError for a missing, unreadable or empty file. A bad row raises RowError when it is read, not before.
    """
    return _mapped(json_table(_path(config, "FILE.jsonl")), config)


def parquet(config: DataConfig) -> Rows:
    """The rows of one parquet file, or of those of `config.split` in a directory. Pictures are {"bytes", "path"} columns or paths."""
    path = _path(config, "FILE.parquet")
    files = files_of_split(path, (".parquet",), config.split) if path.is_dir() else [path]
    if not files:
        raise UserError(f"data.path: {path} has no .parquet file")
    from data.parquet import Parquet

    return _mapped(Parquet(files, path if path.is_dir() else path.parent), config)


def hub(config: DataConfig) -> Rows:
    """The rows of a Hugging Face data set: hub id with `config`, `split`, `revision`, or a local copy, which needs no network."""
    _path(config, "OWNER/NAME or a directory")
    return _mapped(hub_table(config), config)


def _path(config: DataConfig, example: str) -> Path:
    if config.demonstrations:
        raise UserError('data.demonstrations is for generated data; rows of a file carry their own under "response"')
    if not config.path:
        raise UserError(f"data.name is {config.name} but data.path is not set; write data.path={example}")
    return project_path(config.path)


def _mapped(table: Table, config: DataConfig) -> Rows:
    folder = project_path(config.media_root) if config.media_root else None
    return MappedRows(table, _mapper(config), folder)


def _mapper(config: DataConfig) -> Mapper | None:
    if config.mapping:
        return named_mapper(config.mapping)
    return column_mapper(config.columns) if config.columns else None
