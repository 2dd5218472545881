"""`vlm-rl data bench`: how fast rows are read, media decoded and prompts processed on this machine, in one thread.

A decoder's or processor's first use, and reading files that the system has not cached yet, are part of what is measured.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

import rich.console
from rich.table import Table

from data import Subset, seeded_order
from data.files import size_of
from data.media import decode_image
from data.templates import render
from data.video import decode_video
from vlm_rl import cli_parts
from vlm_rl.chat import Chat
from vlm_rl.cli_data import AnyConfig, Source, sources
from vlm_rl.config import SftConfig
from vlm_rl.config_judge_eval import JudgeEvalConfig
from vlm_rl.console import Console
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Media, Sample

ItemT = TypeVar("ItemT")
Owned = tuple[Media, str]


@dataclass
class Stage:
    """One measured step: how many things of each unit were done in `seconds`, `failed` items left out."""

    name: str
    done: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    failed: int = 0

    def rate(self, unit: str) -> str:
        speed = self.done[unit] / max(self.seconds, 1e-9)
        return f"{speed:,.0f} {unit}/s" if speed >= 100 else f"{speed:.3g} {unit}/s"


def bench(config: AnyConfig, count: int) -> None:
    """Print a table for `count` rows of each data set, drawn by its seed."""
    screen = rich.console.Console()
    for source in sources(config):
        with Console(0) as console:
            stages = _stages(config, source, count, console)
        screen.print(_table(f"{source.key}: {min(count, len(source.rows))} of {len(source.rows)} rows", stages))


def _stages(config: AnyConfig, source: Source, count: int, console: Console) -> list[Stage]:
    rows = Subset(source.rows, sorted(seeded_order(len(source.rows), source.config.seed)[:count].tolist()))
    samples: list[Sample] = []

    def read(index: int) -> Mapping[str, float]:
        samples.append(rows[index])
        return {"rows": 1}

    stages = [_timed("read rows", range(len(rows)), read, console)]
    write = render(config.data.template)
    if isinstance(config, JudgeEvalConfig) or (config.model.path is None and config.model.scratch is None):
        raise UserError("the config names no model; write model=PATH")
    # An evaluation's config has what is needed of the others: a model and a template.
    chat = cli_parts.make_chat(cast(SftConfig, config), (write(sample) for sample in samples) if config.model.scratch else ())
    stages += [stage for stage in _decoding(samples, chat, console) if stage.done or stage.failed]

    def process(sample: Sample) -> Mapping[str, float]:
        return {"prompts": 1, "media": len(sample.media), "tokens": len(chat.prompt(sample).expanded_ids)}

    stages.append(_timed("decode and process", samples, process, console))
    stages.append(_timed("process again, cached", samples, process, console))
    return stages


def _decoding(samples: Sequence[Sample], chat: Chat, console: Console) -> list[Stage]:
    owned = [(medium, sample.id) for sample in samples for medium in sample.media]

    def image(pair: Owned) -> Mapping[str, float]:
        picture = decode_image(*pair, chat.look.budget.backend)
        return {"images": 1, "MB": _megabytes(pair[0]), "megapixels": picture.width * picture.height / 1e6}

    def video(pair: Owned) -> Mapping[str, float]:
        clip = decode_video(pair[0], chat.look.budget, pair[1])
        return {"videos": 1, "MB": _megabytes(pair[0]), "frames": len(clip.indices)}

    return [
        _timed("decode images", [pair for pair in owned if pair[0].kind == "image"], image, console),
        _timed("decode videos", [pair for pair in owned if pair[0].kind == "video"], video, console),
    ]


def _timed(name: str, items: Sequence[ItemT], work: Callable[[ItemT], Mapping[str, float]], console: Console) -> Stage:
    """`work` on every item; it returns how many things of which unit it did."""
    stage, started = Stage(name), time.perf_counter()
    for done, item in enumerate(items, start=1):
        try:
            stage.done.update(work(item))  # type: ignore[arg-type]  # a Counter adds floats as well
        except RowError:
            stage.failed += 1
        console.phase(name, done, len(items))
    stage.seconds = time.perf_counter() - started
    return stage


def _megabytes(medium: Media) -> float:
    """Of encoded bytes."""
    return size_of(medium) / 1e6


def _table(title: str, stages: Sequence[Stage]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    table.add_column("speed")
    table.add_column("failed", justify="right")
    for stage in stages:
        table.add_row(stage.name, f"{stage.seconds:.2f}", "\n".join(stage.rate(unit) for unit in stage.done), str(stage.failed or ""))
    return table
