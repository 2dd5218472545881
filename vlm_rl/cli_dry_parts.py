"""What a dry run puts in the place of a training's parts: rows, model, judges and sizes. Composition only."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import DATASETS, Rows, load_rows, stand_in
from vlm_rl import cli_parts, models, small
from vlm_rl.cli_judges import judges_of
from vlm_rl.config import DataConfig, DistributedConfig, ModelConfig, ScratchConfig, TrainConfig, project_path
from vlm_rl.engine.base import Judge
from vlm_rl.errors import RowError, UserError
from vlm_rl.published import PUBLISHED
from vlm_rl.standin import StandIn

PROMPTS, ROLLOUTS, TOKENS = 3, 4, 24  # at most, of the step
ROWS = 64  # at most, of data that is here
PIXELS = 112 * 112  # of a picture or frame, at most
PROBE_SECONDS = 5.0
FILES = ("hub", "jsonl", "parquet")


@dataclass(frozen=True)
class Found:
    """The config with rows that can be read here, and what they are."""

    config: TrainConfig
    rows: Rows
    said: str


@dataclass(frozen=True)
class Small:
    """The config with a small model's directory, and what it is."""

    config: TrainConfig
    said: str


@dataclass(frozen=True)
class Judges:
    made: Mapping[str, Judge]
    said: str


def find_data(config: TrainConfig, folder: Path, hub: bool) -> Found:
    """Rows that are here (or, with `hub`, that can be had from there), else generated ones in the data set's own shape."""
    data, said = _rows_of(config.data, folder / "train", hub)
    update: dict[str, Any] = {"data": data}
    if config.eval_data is not None:
        update["eval_data"], more = _rows_of(config.eval_data, folder / "eval", hub, held_out=True)
        said += f"; to evaluate on: {more}"
    changed = config.model_copy(update=update)
    return Found(changed, load_rows(changed.data), said)


def _rows_of(data: DataConfig, folder: Path, hub: bool, held_out: bool = False) -> tuple[DataConfig, str]:
    limited = data.model_copy(update={"limit": min(data.limit or ROWS, ROWS)})
    if not _needs_hub(data) or hub:
        load_rows(limited)
        return limited, f"real rows of {data.path or data.name}"
    made = stand_in.write(data, folder, held_out)
    shape = data.mapping or ("its columns" if data.columns else "the standard columns")
    return made, f"STAND-IN rows, generated in the shape of {shape}: {_where(data)} is not here (--hub loads it from the hub)"


def _needs_hub(data: DataConfig) -> bool:
    if data.parts:
        return any(_needs_hub(part.data) for part in data.parts)
    return data.name in FILES and data.name in DATASETS and not (data.path is not None and project_path(data.path).exists())


def _where(data: DataConfig) -> str:
    return ", ".join(_where(part.data) for part in data.parts) if data.parts else str(data.path or data.name)


def small_model(config: TrainConfig, directory: Path) -> Small:
    """Random weights of the family, with a tokenizer trained on the rows' texts, saved as a model's files; and a step of few rollouts."""
    family = family_of(config.model)
    texts = _texts(config)
    sizes = ScratchConfig(family=family, hidden_size=64, heads=2, layers=2, vision_hidden_size=32, vocab_size=1024, image_size=56)
    processor = small.make_processor(sizes, small.train_tokenizer(texts, sizes.vocab_size, family))
    changed = shrunk(config, str(directory))
    chat = cli_parts.chat_of(changed.model, config.data.template, processor)
    models.save_model(directory, small.make_model(sizes, chat.tokenizer, config.seed), chat)
    left_out = ["rollout.engine=vllm is not started, transformers write the rollouts"] if config.rollout.engine == "vllm" else []
    left_out += [f"one process, without distributed.zero={config.distributed.zero}"] if config.distributed.zero else []
    adapted = [f"adapters of rank {config.model.lora.rank}"] if config.model.lora else []
    said = [f"a random {family} in {config.model.dtype} in the place of {config.model.path or 'model.scratch'}", *adapted, *left_out]
    return Small(changed, "; ".join(said))


def family_of(model: ModelConfig) -> str:
    """Of a local directory by its config.json, of a published model by its name. Raises UserError."""
    if model.scratch is not None:
        return model.scratch.family
    assert model.path is not None
    if model.path in PUBLISHED:
        return str(PUBLISHED[model.path]["model_type"])
    file = project_path(model.path) / "config.json"
    try:
        family = json.loads(file.read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        known = ", ".join(PUBLISHED)
        raise UserError(f"model.path={model.path}: its family is not known here; write one of {known}, or a local directory") from None
    if family not in small.RECIPES:
        raise UserError(f"model.path={model.path}: no small model of the family {family} can be made; there are {', '.join(small.RECIPES)}")
    return str(family)


def shrunk(config: TrainConfig, path: str) -> TrainConfig:
    """One step of few short rollouts, small pictures, few questions, a checkpoint; everything else as it is."""
    model, rollout, train = config.model, config.rollout, config.train
    sizes = {
        "path": path,
        "scratch": None,
        "max_prompt_tokens": max(model.max_prompt_tokens, 16384),  # a small tokenizer makes more tokens of a text
        "image_min_pixels": None,
        "image_max_pixels": min(model.image_max_pixels or PIXELS, PIXELS),
        "video_min_frames": min(model.video_min_frames, 4),
        "video_max_frames": min(model.video_max_frames, 4),
        "video_min_pixels": None,
        "video_max_pixels": min(model.video_max_pixels or PIXELS, PIXELS),
        "video_total_pixels": None,
        "processor_cache_dir": None,
    }
    step = {
        "engine": "hf",
        "prompts_per_step": min(rollout.prompts_per_step, PROMPTS),
        "group_size": min(rollout.group_size, ROLLOUTS),
        "max_new_tokens": min(rollout.max_new_tokens, TOKENS),
    }
    passes = {"steps": 1, "mini_batches": min(train.mini_batches, 2), "updates_per_rollout": min(train.updates_per_rollout, 2)}
    evaluation = {"questions": 2, "samples": min(config.eval.samples, 1), "every_questions": 2}
    return config.model_copy(
        update={
            "model": model.model_copy(update=sizes),
            "rollout": rollout.model_copy(update=step),
            "train": train.model_copy(update=passes),
            "eval": config.eval.model_copy(update=evaluation),
            "checkpoint": config.checkpoint.model_copy(update={"every": 1}),
            "distributed": DistributedConfig(),
        }
    )


def _texts(config: TrainConfig) -> list[str]:
    rows = load_rows(config.data)
    texts = []
    for index in range(min(len(rows), ROWS)):
        try:
            sample = rows[index]
        except RowError:  # the check of rows tells of it
            continue
        texts += [sample.question, *sample.options, sample.answer, "<think>So the answer is</think><answer>A</answer>"]
    return texts


def judges(config: TrainConfig, environment: Mapping[str, str]) -> Judges:
    """Each that can be asked now; a stand-in for each that cannot, and for files that would have to be fetched first."""
    made: dict[str, Judge] = {}
    said = []
    for name, settings in config.judges.items():
        quick = {"timeout_s": min(settings.timeout_s, PROBE_SECONDS), "retries": 0} if settings.kind == "openai" else {}
        try:
            if settings.path is not None and not project_path(settings.path).is_dir():
                raise UserError(f"{settings.path} is no local directory")
            [made[name]] = judges_of({name: settings.model_copy(update=quick)}, config.model, environment).values()
            made[name].probe()
            said.append(f"{name} answers")
        except UserError as error:
            made[name] = StandIn(settings.kind)
            said.append(f"{name}: a STAND-IN of kind {settings.kind} that knows nothing, because {str(error).splitlines()[0]}")
    return Judges(made, "; ".join(said) or "none are asked")


def keys(config: TrainConfig) -> dict[str, str]:
    """Something in the place of every key, so that one that is not set keeps no dry run from starting."""
    return {judge.api_key_env: "dry-run" for judge in config.judges.values() if judge.api_key_env}
