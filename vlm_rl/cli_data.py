"""`vlm-rl data ...`: looking at the rows of any config that has `data:`. Composition and printing only."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import rich.console
from rich.table import Table

from data import Rows, load_rows, own_test_split, seeded_order
from data.benchmark_source import benchmark_rows
from data.check import check_rows
from data.contact_sheet import Sheet, cards_of, write_sheets
from data.mixture import shares_of
from data.problems import summary
from data.scene_export import export
from data.split import overlap
from data.templates import render
from data.video import THUMBNAIL
from data.views import Draw, View, compose
from rewards import grading
from vlm_rl.config import DataConfig, SftConfig, TrainConfig, project_path
from vlm_rl.config_eval import EvalConfig
from vlm_rl.config_judge_eval import JudgeEvalConfig
from vlm_rl.console import Console
from vlm_rl.loading import load, load_eval, read_tree
from vlm_rl.types import Backend, Sample

AnyConfig = TrainConfig | SftConfig | EvalConfig | JudgeEvalConfig


@dataclass(frozen=True)
class Source:
    """Rows under the key of the config that names them."""

    key: str
    config: DataConfig
    rows: Rows


def load_any(path: str, overrides: Sequence[str]) -> AnyConfig:
    """A config of `vlm-rl train` (`rewards:`), `vlm-rl sft` (`train:` alone), `vlm-rl judge` (`judges:` and nothing to evaluate) or eval.

    Raises UserError.
    """
    keys = {*read_tree(project_path(path)), *(text.partition(".")[0] for text in overrides)}
    if keys & {"rewards", "train"}:
        return load(TrainConfig if "rewards" in keys else SftConfig, path, overrides)
    judges = "judges" in keys and not keys & {"benchmark", "evaluators"}
    return load(JudgeEvalConfig, path, overrides) if judges else load_eval(path, overrides)


def sources(config: AnyConfig) -> list[Source]:
    """The data sets of a config, opened."""
    if isinstance(config, EvalConfig):
        if config.benchmark is None:
            return [Source("data", config.data, load_rows(config.data))]
        return [Source(f"benchmark {config.benchmark.name}", config.data, benchmark_rows(config.data, config.benchmark))]
    if isinstance(config, JudgeEvalConfig):
        return [Source("data", config.data, load_rows(config.data))]
    named: list[tuple[str, DataConfig | None]] = [("data", config.data)]
    named += [(f"phases.{n}", phase.data) for n, phase in enumerate(config.phases)] if isinstance(config, SftConfig) else []
    named += [("eval_data", config.eval_data or own_test_split(config.data))]
    return [Source(key, data, load_rows(data)) for key, data in named if data is not None]


def check(config: AnyConfig, most: int) -> int:
    """Print what is wrong by row id, at most `most` lines a data set (0 for all), and a summary. Returns 1 when anything is wrong."""
    screen, wrong = rich.console.Console(soft_wrap=True), 0
    opened = sources(config)
    for source in opened:
        with Console(0) as console:
            phase, budget = partial(console.phase, "checking rows"), replace(THUMBNAIL, backend=_backend(config))
            errors = check_rows(source.rows, grading.gold_problem, phase, budget=budget)
            for error in errors[: most or None]:
                console.message(str(error))
        if most and len(errors) > most:
            screen.print(f"... and {len(errors) - most} more; --most 0 prints all", markup=False)
        if errors:
            screen.print(_problems(source.key, [(kind, str(count), first) for kind, count, first in summary(errors)]))
        bad = len({error.row_id for error in errors})
        verdict = f"{len(errors)} problems in {bad} of them" if errors else "no problems"
        screen.print(f"{source.key}: {len(source.rows)} rows of {_named(source.config)}, {verdict}", markup=False, highlight=False)
        wrong += len(errors)
    trained, held_out = [s for s in opened if s.key != "eval_data"], [s for s in opened if s.key == "eval_data"]
    for source, test in itertools.product(trained, held_out):
        shared = overlap(source.rows, test.rows, on_bad_row=lambda _: None)
        if shared:
            shown = ", ".join(shared[:10]) + (", ..." if len(shared) > 10 else "")
            screen.print(f"eval_data: {len(shared)} rows show what {source.key} trains on: {shown}", markup=False, highlight=False)
        wrong += len(shared)
    return 1 if wrong else 0


def show(config: AnyConfig, title: str, count: int, out: Path, views: Mapping[str, View] | None = None, severity: int = 3) -> Path:
    """Write a contact sheet of `count` rows of each data set, drawn by its seed, beside their views. Returns its path."""
    sheets = []
    with Console(0) as console:
        for source in sources(config):
            drawn = sorted(seeded_order(len(source.rows), source.config.seed)[:count].tolist())
            write = render(config.data.template)
            draw = Draw(source.config.seed, severity, source.rows)
            changes = {name: _drawn(view, draw) for name, view in (views or {}).items()}
            cards = cards_of(source.rows, drawn, write, partial(console.phase, "drawing rows"), changes, _backend(config))
            sheets.append(Sheet(source.key, _facts(source, len(drawn)), cards))
    return write_sheets(out, title, sheets)


def make_scenes(worlds: Sequence[str], split: str, count: int, seed: int, out: Path) -> Path:
    """Write generated scenes under `out` and return the path of their rows."""
    with Console(0) as console:
        return export(worlds, split, count, seed, out, lambda done, total: console.phase("writing rows", done, total))


def views_of(text: str) -> dict[str, View]:
    """The views that --views names: "image_blur,options_permuted+image_blur" are two, the second made of two. Raises UserError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return {name: compose([part.strip() for part in name.split("+")], "--views") for name in names}


def _backend(config: AnyConfig) -> Backend:
    """The decoder that the model will see videos through; any will do where there is no model yet."""
    if isinstance(config, JudgeEvalConfig) or (config.model.path is None and config.model.scratch is None):
        return "any"
    return config.model.video_backend


def _drawn(view: View, draw: Draw) -> Callable[[Sample], Sample]:
    return lambda sample: view(sample, draw)


def _facts(source: Source, shown: int) -> tuple[tuple[str, str], ...]:
    config = source.config
    facts = [
        ("source", _named(config)),
        ("rows", f"{len(source.rows)}, {shown} drawn by seed {config.seed}"),
        ("template", config.template),
    ]
    owners, weights = shares_of(source.rows)
    if len(weights) > 1:
        sizes = [int((owners == number).sum()) for number in range(len(weights))]
        facts.append(("parts", ", ".join(f"{size} rows at weight {weight:g}" for size, weight in zip(sizes, weights, strict=True))))
    if config.where:
        facts.append(("where", ", ".join(f"{name} = {wanted}" for name, wanted in config.where.items())))
    return tuple(facts)


def _named(config: DataConfig) -> str:
    path = config.path and config.path.rstrip("/").rpartition("/")[2]
    details = (path, config.config, config.split if config.name in ("easy_vqa", "hub", "scenes") else None, config.mapping)
    return " ".join([config.name, *(detail for detail in details if detail)])


def _problems(title: str, rows: Sequence[tuple[str, str, str]]) -> Table:
    table = Table(title=f"{title}: kinds of problems", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("problem", "count", "first row"):
        table.add_column(name, justify="right" if name == "count" else "left")
    for row in rows:
        table.add_row(*row)
    return table
