"""Where rows come from: a table of data sets by name and `load_rows`. It decodes no media and turns no row into a prompt.

The table holds import paths, so `import data` loads no data set and no image library.
"""

import importlib

import numpy as np

from data import select
from data.mixture import Mixture, Part
from data.rows import LazyRows, Rows, Subset, seeded_order
from vlm_rl.config import DataConfig
from vlm_rl.errors import UserError, unknown

__all__ = ["DATASETS", "LazyRows", "Rows", "Subset", "load_rows", "own_test_split", "seeded_order"]

DATASETS: dict[str, str] = {
    "easy_vqa": "data.easy_vqa:load",
    "graded_scenes": "data.graded_scenes:load",
    "hub": "data.sources:hub",
    "jsonl": "data.sources:jsonl",
    "matched_scenes": "data.matched_scenes:load",
    "parquet": "data.sources:parquet",
    "scenes": "data.scenes:load",
}
WITH_TEST_SPLIT = ("easy_vqa", "graded_scenes", "matched_scenes", "scenes")


def own_test_split(config: DataConfig) -> DataConfig | None:
    """The held-out rows that a source brings itself, asked in the same way, or None: then some of its rows must be held out."""
    if config.name not in WITH_TEST_SPLIT or config.split == "test":
        return None
    return config.model_copy(update={"split": "test", "limit": None, "where": {}, "curriculum": None, "demonstrations": {}})


def load_rows(config: DataConfig) -> Rows:
    """The rows that `config` names, in the source's own order; those of a mixture one part after another.

    `where`, then `deduplicate`, then `limit` choose among them. The last is a subset drawn by `config.seed` that keeps the order; a larger
    limit holds the rows of a smaller one. Raises UserError for an unknown name (with the nearest known one) and when there are no rows.
    """
    rows = _mixture(config) if config.name == "mixture" else _source(config)
    if not len(rows):
        raise UserError(f"data set '{config.name}' ({config.path or config.split}) has no rows")
    if config.where:
        rows = select.matching(rows, config.where)
    if config.deduplicate:
        rows = select.distinct(rows)
    if config.limit is None or config.limit >= len(rows):
        return rows
    return Subset(rows, np.sort(seeded_order(len(rows), config.seed)[: config.limit]))


def _source(config: DataConfig) -> Rows:
    if config.name not in DATASETS:
        raise unknown("data set", config.name, [*DATASETS, "mixture"], "data.name")
    module, _, function = DATASETS[config.name].partition(":")
    return getattr(importlib.import_module(module), function)(config)


def _mixture(config: DataConfig) -> Rows:
    return Mixture([Part(part.label or str(number), part.weight, load_rows(part.data)) for number, part in enumerate(config.parts)])
