"""The rows of a benchmark from the hub, a local copy, JSONL or parquet, in its own schema. Grading and metrics are not its business."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from data import select
from data.benchmarks import BENCHMARK_ROWS, Place, to_sample
from data.hub import files_of_split, hub_table
from data.rows import LazyRows, Rows, Subset, seeded_order
from data.subtitles import check_subtitles, with_subtitles
from data.tables import Table, json_table
from vlm_rl.config import DataConfig, project_path
from vlm_rl.config_eval import BenchmarkConfig
from vlm_rl.errors import RowError, UserError, unknown
from vlm_rl.types import Sample


class BenchmarkRows(LazyRows):
    """One table of raw rows as Samples. Raises RowError at access for a row outside the benchmark's schema.

    `subtitle_frames` frames' subtitles are shown with the videos, where that is not None.
    """

    def __init__(self, table: Table, name: str, place: Place, subtitle_frames: int | None = None):
        self.table, self.name, self.place, self.subtitle_frames = table, name, place, subtitle_frames

    def __len__(self) -> int:
        return len(self.table)

    def row(self, index: int) -> Sample:
        try:
            fields = self.table.fields(index)
        except (ValueError, OSError) as error:
            raise RowError(self.table.default_id(index), f"{self.table.place(index)}: {error}") from None
        sample = to_sample(self.name, fields, replace(self.place, number=index))
        return with_subtitles(self.name, sample, self.place, self.subtitle_frames) if self.subtitle_frames else sample


class Joined(LazyRows):
    """Several sequences of rows, one after another."""

    def __init__(self, parts: Sequence[Rows]):
        self.parts, self._ends = parts, list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, index: int) -> Sample:
        part = bisect_right(self._ends, index)
        return self.parts[part][index - (self._ends[part - 1] if part else 0)]


def benchmark_rows(data: DataConfig, benchmark: BenchmarkConfig) -> Rows:
    """All rows of the benchmark's configurations and splits, then `data.where` and a seeded subset of `data.limit` of them.

    Raises UserError for an unknown benchmark or source, and for settings that a benchmark has no use for.
    """
    if benchmark.name not in BENCHMARK_ROWS:
        raise unknown("benchmark", benchmark.name, BENCHMARK_ROWS, "benchmark.name")
    if data.mapping or data.columns or data.demonstrations:
        raise UserError("data.mapping, data.columns and data.demonstrations do not go with a benchmark: it has a schema of its own")
    # Of a config's folders a part may be used; one that is not, beside a configuration without any, is a name misspelled.
    folders, configs = set(benchmark.media_folders), set(benchmark.configs)
    if folders - configs and not (configs and configs <= folders):
        raise unknown("configuration", min(folders - configs), configs - folders, "benchmark.media_folders")
    parts = [
        _part(data.model_copy(update={"config": config, "split": split}), benchmark)
        for config in benchmark.configs or (data.config,)
        for split in benchmark.splits or (data.split,)
    ]
    rows: Rows = Joined(parts)
    if not len(rows):
        raise UserError(f"benchmark '{benchmark.name}' ({data.path}) has no rows")
    if data.where:
        rows = select.matching(rows, data.where)
    if data.limit is None or data.limit >= len(rows):
        return rows
    return Subset(rows, np.sort(seeded_order(len(rows), data.seed)[: data.limit]))


def _part(data: DataConfig, benchmark: BenchmarkConfig) -> BenchmarkRows:
    table = _table(data)
    base = project_path(data.media_root) if data.media_root else table.folder or Path()
    folder = benchmark.media_folders.get(data.config or "", "")
    split, revision = data.split.strip(), data.revision or ""
    place = Place(config=data.config or "", split=split, base=base / folder, revision=revision, bounded=benchmark.whole_videos)
    if benchmark.subtitle_frames:
        check_subtitles(benchmark.name, place)
    return BenchmarkRows(table, benchmark.name, place, benchmark.subtitle_frames)


def _table(data: DataConfig) -> Table:
    if data.name not in _TABLES:
        raise unknown("source of a benchmark", data.name, _TABLES, "data.name")
    if not data.path:
        raise UserError(f"data.name is {data.name} but data.path is not set; write data.path=FILE, a directory or a hub id")
    return _TABLES[data.name](data)


def _parquet(data: DataConfig) -> Table:
    from data.parquet import Parquet

    path = project_path(data.path or "")
    return Parquet(files_of_split(path, (".parquet",), data.split), path) if path.is_dir() else Parquet([path], path.parent)


_TABLES = {"hub": hub_table, "jsonl": lambda data: json_table(project_path(data.path or "")), "parquet": _parquet}
