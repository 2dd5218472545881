"""Where rows come from: a table of data sets by name and `load_rows`. It decodes no media and turns no row into a prompt.

The table holds import paths, so `import data` loads no data set and no image library.
"""

import importlib

from data.rows import LazyRows, Rows, Subset, seeded_order
from vlm_rl.config import DataConfig
from vlm_rl.errors import UserError, unknown

__all__ = ["DATASETS", "LazyRows", "Rows", "Subset", "load_rows", "seeded_order"]

DATASETS: dict[str, str] = {
    "easy_vqa": "data.easy_vqa:load",
    "jsonl": "data.sources:jsonl",
}


def load_rows(config: DataConfig) -> Rows:
    """The rows that `config` names, in the source's own order.

    With `limit`, a subset drawn by `config.seed` that keeps that order; a larger limit holds the rows of a smaller one.
    Raises UserError for an unknown name (with the nearest known one) and for a source without rows.
    """
    if config.name not in DATASETS:
        raise unknown("data set", config.name, DATASETS, "data.name")
    module, _, function = DATASETS[config.name].partition(":")
    rows: Rows = getattr(importlib.import_module(module), function)(config)
    if not len(rows):
        raise UserError(f"data set '{config.name}' ({config.path or config.split}) has no rows")
    if config.limit is None or config.limit >= len(rows):
        return rows
    return Subset(rows, sorted(seeded_order(len(rows), config.seed)[: config.limit].tolist()))
