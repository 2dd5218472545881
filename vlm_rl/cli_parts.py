"""Parts that `train`, `sft` and `data check` put together in the same way: rows, chat, checks, evaluation. Composition only, no logic."""

import resource
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data import Rows, Subset, load_rows, own_test_split, seeded_order
from data.media import decode_image, strip_png, thumbnail_png
from data.split import hold_out, overlap
from data.templates import render
from data.video import THUMBNAIL, decode_video
from data.views import blank
from eval.runner import CLEAN, Ask, Plan, unchanged
from eval.runner import evaluate as ask_all
from eval.summary import BLANK
from vlm_rl import checkpoint, models
from vlm_rl.chat import Chat
from vlm_rl.config import DataConfig, EvalSection, ModelConfig, RolloutConfig, SftConfig, TrainConfig
from vlm_rl.errors import RowError, UserError
from vlm_rl.tracker import MediaFolder
from vlm_rl.types import Media, Record, Sample

HELD_OUT_SHARE = 0.1
TryRows = Callable[[Rows], list[RowError]]


@dataclass(frozen=True)
class Splits:
    """Rows to train on and rows never trained on."""

    train: Rows
    held_out: Rows


def open_rows(config: TrainConfig | SftConfig) -> Splits:
    """`data` and `eval_data`; without the latter the source's own test split, or a held-out tenth of `data` disjoint by media.

    Raises UserError when a held-out picture is trained on.
    """
    rows = load_rows(config.data)
    test = config.eval_data or own_test_split(config.data)
    if test is None:
        train, held_out = hold_out(rows, HELD_OUT_SHARE, config.data.seed)
        return Splits(train, first(held_out, config.eval.questions, config.data.seed))
    held_out = first(load_rows(test), config.eval.questions, test.seed)
    refuse_overlap(rows, held_out)
    return Splits(rows, held_out)


def refuse_overlap(rows: Rows, held_out: Rows) -> None:
    """Raises UserError when a held-out picture is trained on. Unreadable rows are left to the row check, which names all of them."""
    if shared := overlap(rows, held_out, on_bad_row=lambda _: None):
        raise UserError(
            f"{len(shared)} held-out rows show pictures that are trained on (the first: {', '.join(shared[:3])}); "
            "remove them from eval_data, or leave eval_data out and a disjoint tenth is held out"
        )


def first(rows: Rows, count: int, seed: int) -> Rows:
    """A subset drawn by `seed`, the same for every run on the same rows."""
    return rows if count >= len(rows) else Subset(rows, sorted(seeded_order(len(rows), seed)[:count].tolist()))


def check_used(rows: Rows, used: Iterable[int], data: DataConfig, try_rows: TryRows) -> dict[str, RowError]:
    """Try every row that will be met. With on_bad_row: error any bad one stops; with skip they are returned by row id, to be left out."""
    chosen = Subset(rows, sorted(set(used)))
    errors = try_rows(chosen)
    bad = {error.row_id: error for error in errors}
    if bad and data.on_bad_row == "error":
        shown = "\n".join(f"  {error}" for error in errors[:10])
        raise UserError(
            f"{len(bad)} of the {len(chosen)} rows that would be used are bad:\n{shown}\n"
            "mend them (vlm-rl data check CONFIG lists all that show without a model), or write data.on_bad_row=skip"
        )
    return bad


def without(rows: Rows, bad: Mapping[str, RowError]) -> Rows:
    """The rows that can be read and are not among the bad ones."""
    return Subset(rows, [i for i in range(len(rows)) if _is_good(rows, i, bad)]) if bad else rows


def _is_good(rows: Rows, index: int, bad: Mapping[str, RowError]) -> bool:
    try:
        return rows[index].id not in bad
    except RowError:
        return False


def make_chat(config: TrainConfig | SftConfig, texts: Iterable[str] = (), checkpoint_path: Path | None = None) -> Chat:
    model = config.model
    if checkpoint_path is not None:
        model = model.model_copy(update={"path": str(checkpoint_path), "scratch": None})
    return chat_of(config.model, config.data.template, models.load_processor(model, texts))


def chat_of(model: ModelConfig, template: str, processor: Any = None) -> Chat:
    """A chat with the processor at `model.path`, or another one."""
    pictures, clips = partial(decode_image, backend=model.video_backend), partial(decode_video, seconds=model.decode_timeout_s)
    return Chat(models.load_processor(model) if processor is None else processor, model, render(template), pictures, clips)


def resume_point(run_dir: Path) -> tuple[Path | None, int]:
    """The newest whole checkpoint and its step, or (None, 0)."""
    newest = checkpoint.newest(run_dir / "checkpoints")
    return newest, int(newest.name.removeprefix("step_")) if newest else 0


def evaluate(rows: Sequence[Sample], ask: Ask, settings: EvalSection, rollout: RolloutConfig, full: bool) -> list[Record]:
    """Greedy answers on clean rows; in full also samples, and the blank-picture control."""
    conditions = {CLEAN: unchanged}
    if full and settings.blank_control and any(row.media for row in rows):
        conditions[BLANK] = blank
    plan = Plan(settings.samples if full else 0, rollout.max_new_tokens, rollout.temperature, rollout.stop)
    return ask_all(rows, conditions, plan, ask)


def shares(records: Sequence[Record]) -> dict[str, float]:
    """Of greedy answers: how many are right and well-formed, and how many are right without the picture where that was asked."""
    greedy = [r for r in records if r.mode == "greedy"]
    clean, blind = ([r for r in greedy if r.condition == condition] for condition in (CLEAN, BLANK))
    return {
        "eval/accuracy": sum(r.correct for r in clean) / len(clean),
        "eval/wellformed": sum(r.wellformed for r in clean) / len(clean),
        **({"eval/blank": sum(r.correct for r in blind) / len(blind)} if blind else {}),
    }


def keep_pictures(folder: MediaFolder, samples: Iterable[Sample]) -> None:
    """Thumbnails for the report; of a video a strip of frames."""
    for sample in samples:
        for media in sample.media:
            if not folder.has_media(media.id):
                folder.save_media(media.id, _small_png(media, sample.id))


def _small_png(media: Media, row: str) -> bytes:
    if media.kind == "video":
        return strip_png(decode_video(media, THUMBNAIL, row).frames)
    return thumbnail_png(decode_image(media, row))


def peak_memory() -> dict[str, float]:
    """Largest resident size of this process so far, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return {"system/peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
