"""A few generated rows in the shape that a data set is published in, for dry runs where the data itself is not there.

Each goes through the data set's own source and mapping, from files of that shape. What is asked is about generated scenes.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data import load_rows
from vlm_rl.config import DataConfig
from vlm_rl.errors import UserError
from vlm_rl.types import LETTERS, Sample

COUNT = 12
_DRAWN = 60  # scenes among which rows of every kind are chosen
_KINDS = ("choice", "number", "text")
Fields = dict[str, Any]


def write(config: DataConfig, folder: Path, held_out: bool = False) -> DataConfig:
    """Writes rows into `folder`, or others to evaluate on; the config that reads them by the same source and mapping. Raises UserError
    where the shape is unknown."""
    if config.parts:
        parts = [
            part.model_copy(update={"data": write(part.data, folder / str(number), held_out), "label": part.label or str(number)})
            for number, part in enumerate(config.parts)
        ]
        return config.model_copy(update={"parts": tuple(parts), "where": {}})
    shape = _shape(config)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = _chosen("clips" if _shows_videos(config) else "pictures", "test" if held_out else "train")
    rows = [shape(_file(sample, folder, index), index) for index, sample in enumerate(chosen)]
    path = _written(config, rows, folder)
    alone = {"config": None, "revision": None, "media_root": None, "where": {}, "limit": None}
    return config.model_copy(update={"path": str(path), **alone})


def _shows_videos(config: DataConfig) -> bool:
    return config.mapping == "video_r1" or "videos" in config.columns


def _shape(config: DataConfig) -> Callable[[Fields, int], Fields]:
    if config.mapping is not None and config.mapping in SHAPES:
        return SHAPES[config.mapping]
    if config.mapping is not None:
        raise UserError(
            f"data.mapping={config.mapping}: rows in the shape that it reads cannot be made up here; write data.path of some local rows"
        )
    return lambda row, index: {config.columns.get(name, name): value for name, value in row.items()}


def _written(config: DataConfig, rows: list[Fields], folder: Path) -> Path:
    if config.name == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = folder / f"{config.split}.parquet"
        names = dict.fromkeys(name for row in rows for name in row)
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
        return path
    path = folder / f"{config.split}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return folder if config.name == "hub" else path


def _chosen(world: str, split: str) -> list[Sample]:
    """As many of each kind of answer as there are, by turns."""
    drawn = load_rows(DataConfig(name="scenes", config=world, split=split, limit=_DRAWN))
    by_kind = {kind: [sample for sample in map(drawn.__getitem__, range(len(drawn))) if sample.kind == kind] for kind in _KINDS}
    return [by_kind[kind].pop() for number in range(COUNT) if by_kind[kind := _KINDS[number % len(_KINDS)]]]


def _file(sample: Sample, folder: Path, index: int) -> Fields:
    """The row in the standard columns, its medium written beside it."""
    [medium] = sample.media
    name = f"{index}.{'mp4' if medium.kind == 'video' else 'png'}"
    (folder / name).write_bytes(medium.read())
    row: Fields = {"id": str(index), "question": sample.question, f"{medium.kind}s": [name], "answer": sample.answer, "kind": sample.kind}
    return row | ({"options": list(sample.options)} if sample.options else {})


def _with_options(row: Fields) -> str:
    """The question with its options in the text, as many sets have them."""
    lines = [f"({letter}) {option}" for letter, option in zip(LETTERS, row.get("options", ()), strict=False)]
    return "\n".join([f"<image>{row['question']}", *(["Choices:", *lines] if lines else [])])


def _geometry3k(row: Fields, index: int) -> Fields:
    asked = {"id": index, "problem": f"<image>{row['question']}", "images": row["images"]}
    if "options" in row:
        return {**asked, "choices": row["options"], "ground_truth": row["answer"]}
    return {**asked, "answer": row["answer"]}


def _geometry3k_choice(row: Fields, index: int) -> Fields:
    options = row.get("options") or [row["answer"], "something else"]
    letter = row["answer"] if "options" in row else "A"
    return {"id": index, "problem": f"<image>{row['question']}", "images": row["images"], "choices": options, "ground_truth": letter}


def _mm_eureka(row: Fields, index: int) -> Fields:
    turns = [{"role": "user", "content": _with_options(row)}]
    return {"id": row["id"], "conversations": turns, "answer": row["answer"], "image_urls": row["images"]}


def _mmk12(row: Fields, index: int) -> Fields:
    return {"id": row["id"], "question": _with_options(row), "answer": row["answer"], "subject": "scenes", "image": row["images"][0]}


def _virl39k(row: Fields, index: int) -> Fields:
    answer = f"\\boxed{{{row['answer']}}}"
    asked = {"qid": row["id"], "question": _with_options(row), "answer": answer, "image": row["images"]}
    return {**asked, "category": "scenes", "source": "generated", "PassRate_32BTrained": index / COUNT, "PassRate_7BBase": -1.0}


def _video_r1(row: Fields, index: int) -> Fields:
    videos = "videos" in row
    kinds = {"choice": "multiple choice", "number": "numerical", "text": "free-form"}
    return {
        "problem_id": index,
        "problem": row["question"],
        "data_type": "video" if videos else "image",
        "problem_type": kinds[row["kind"]],
        "options": [f"{letter}. {option}" for letter, option in zip(LETTERS, row.get("options", ()), strict=False)],
        "solution": f"<answer>{row['answer']}</answer>",
        "path": row["videos" if videos else "images"][0],
        "data_source": "generated",
    }


def _r1_onevision(row: Fields, index: int) -> Fields:
    said = f"<think>I look at it.</think> The answer is \\boxed{{{row['answer']}}}."
    turns = [{"from": "human", "value": _with_options(row)}, {"from": "gpt", "value": said}]
    return {"id": row["id"], "image": row["images"][0], "conversations": turns}


SHAPES: Mapping[str, Callable[[Fields, int], Fields]] = {
    "geometry3k": _geometry3k,
    "geometry3k_choice": _geometry3k_choice,
    "mm_eureka": _mm_eureka,
    "mmk12": _mmk12,
    "virl39k": _virl39k,
    "video_r1": _video_r1,
    "sophiavl_r1": _video_r1,
    "r1_onevision": _r1_onevision,
}
