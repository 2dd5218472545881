"""Generated scenes as files that any program reads: rows.jsonl, PNG and mp4 files beside it, and a README.txt that says what they are.

What is begun goes on where it stopped; a directory that holds anything else is left alone. It draws nothing itself.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from data.scene_types import VERSION, World
from data.scenes import SPLITS, WORLDS, make
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Sample

ROWS, MEDIA, README, RECIPE = "rows.jsonl", "media", "README.txt", "recipe.json"
_SUFFIX = {"image": ".png", "video": ".mp4"}
_README = """Generated scenes: pictures of shapes, bar charts and short clips, with questions and the exact truth about them.

Made by vlm-rl's generator of scenes, version {version}: worlds {worlds}, split {split}, seed {seed}, {count} rows of each world, by

    vlm-rl data make scenes {options}

A row is a function of (version, world, split, seed, index), which its id spells: the same command writes the same rows and pixels.

rows.jsonl holds one JSON object a line: id, question, images or videos (paths from this directory), options, answer (an option's letter, or
the answer itself), kind, family, level (1 to 3), verifiable (false for open descriptions), boxes of the evidence ([x0, y0, x1, y1] in
pixels), trace and caption (true ones), where there are any wrong_trace, wrong_caption and wrong_answer, and scene: all things in it, the
question as a small program, and the things that the answer follows from. To train on it:

    vlm-rl train CONFIG data.name=jsonl data.path={folder}/rows.jsonl

MIT licence

Copyright (c) 2026 the vlm-rl developers

Permission is hereby granted, free of charge, to any person obtaining a copy of this data set and associated documentation files (the
"Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish,
distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the
following conditions: The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY
CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def export(worlds: Sequence[str], split: str, count: int, seed: int, folder: Path, progress: Callable[[int, int], None]) -> Path:
    """Write the first `count` rows of each world into `folder` and return the path of its rows.jsonl, which appears when all is written.

    `progress` gets (rows done, rows). Raises UserError for an unknown world or split, more rows than the split has, and a folder that
    holds something other than a whole or unfinished export of the same rows.
    """
    wanted: list[tuple[World, int]] = [(_world(name), index) for name in dict.fromkeys(worlds) for index in range(count)]
    if split not in SPLITS:
        raise unknown("split", split, SPLITS, "--split")
    if not 1 <= count <= SPLITS[split]:
        raise UserError(f"--count is from 1 to {SPLITS[split]}, the rows of split {split}, not {count}")
    recipe = {"generator": "scenes", "version": VERSION, "worlds": [*dict.fromkeys(worlds)], "split": split, "count": count, "seed": seed}
    _claim(folder, recipe)
    rows = folder / ROWS
    if not rows.exists():
        _write_rows(wanted, split, seed, folder, progress)
    return rows


def _world(name: str) -> World:
    world: World | None = next((world for world in WORLDS if world == name), None)
    if world is None:
        raise unknown("world", name, WORLDS, "--world")
    return world


def _claim(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Make the folder this export's own, or find that it is."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; --out is a directory")
    found = _recipe(folder / RECIPE)
    if found is None and folder.exists() and any(path.name != f"{RECIPE}.part" for path in folder.iterdir()):
        raise UserError(f"{folder} holds something else; --out is a new or empty directory, or one that the same command began to fill")
    differing = [key for key in recipe if found is not None and found.get(key) != recipe[key]]
    if found is not None and differing:
        told = ", ".join(f"{key} {_plain(found.get(key))} and not {_plain(recipe[key])}" for key in differing)
        raise UserError(f"{folder} holds other scenes ({told}); give --out another directory")
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(folder / RECIPE, json.dumps(recipe, indent=1) + "\n")
    (folder / MEDIA).mkdir(exist_ok=True)
    options = " ".join([*(f"--world {w}" for w in recipe["worlds"]), *(f"--{key} {recipe[key]}" for key in ("split", "count", "seed"))])
    said = {**recipe, "worlds": _plain(recipe["worlds"]), "options": f"{options} --out {folder.name}", "folder": folder.name}
    _write_whole(folder / README, _README.format(**said))


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _recipe(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("generator") == "scenes" else None


def _write_whole(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def _write_rows(wanted: list[tuple[World, int]], split: str, seed: int, folder: Path, progress: Callable[[int, int], None]) -> None:
    """A row's line follows its files, so every whole line of an unfinished rows.jsonl.part stands for a whole row."""
    unfinished = folder / f"{ROWS}.part"
    with unfinished.open("a+b") as file:
        done = _whole_lines(file)
        for number, (world, index) in islice(enumerate(wanted, start=1), done, None):
            sample = make(world, split, seed, index)
            file.write(json.dumps(_fields(sample, folder), ensure_ascii=False).encode() + b"\n")
            progress(number, len(wanted))
    unfinished.replace(folder / ROWS)


def _whole_lines(file: BinaryIO) -> int:
    """How many there are; what follows the last one is cut off."""
    file.seek(0)
    count = size = 0
    for line in file:
        if line.endswith(b"\n"):
            count, size = count + 1, size + len(line)
    file.truncate(size)
    return count


def _fields(sample: Sample, folder: Path) -> dict[str, Any]:
    """The row as a JSON object, its media written as files."""
    paths: dict[str, list[str]] = {"image": [], "video": []}
    for number, medium in enumerate(sample.media):
        path = f"{MEDIA}/{sample.id}{f'-{number}' if number else ''}{_SUFFIX[medium.kind]}"
        (folder / path).write_bytes(medium.read())
        paths[medium.kind].append(path)
    standard = {"id": sample.id, "question": sample.question, "images": paths["image"], "videos": paths["video"]}
    return {**standard, "options": list(sample.options), "answer": sample.answer, "kind": sample.kind, **sample.meta}
