"""Generated scenes as rows: pictures of shapes, bar charts, short clips, each with a question and the exact truth about it.

A row is a function of (VERSION, world, split, seed, index), which its id spells: "pictures-v1-train-0-123". Splits never share a picture:
"train"; "test"; "test_pairs", whose evidence has colours with shapes (charts: with values) that training never shows; "test_more", with one
shape or bar more than any training picture. Own data, MIT like the code.
"""

import random
import re
from functools import lru_cache
from typing import Any, get_args

from data.media import png_media
from data.options import letter_options
from data.rows import LazyRows, Rows
from data.scene_clips import SIDE as CLIP_SIDE
from data.scene_clips import clip, encode
from data.scene_demonstrations import check_shares, demonstrated
from data.scene_pictures import SIDE, chart, draw_chart, draw_picture, ground, picture
from data.scene_types import VERSION, Scene, World, alternatives, answer_kind, question, scene_from
from data.scene_writing import caption, mislead, trace
from vlm_rl.config import DataConfig
from vlm_rl.errors import UserError, unknown
from vlm_rl.seeds import stable_hash
from vlm_rl.types import LETTERS, Media, Sample

WORLDS: tuple[World, ...] = get_args(World)
SPLITS = {"train": 40_000, "test": 4_000, "test_pairs": 2_000, "test_more": 2_000}
MOST_OPTIONS = 4
CLIPS_KEPT = 16_384
_ID = re.compile(
    rf"(?:\S+/)?(?P<world>{'|'.join(WORLDS)})-v{VERSION}-(?P<split>{'|'.join(SPLITS)})"
    r"-(?P<seed>-?[0-9]{1,18})-(?P<index>0|[1-9][0-9]{0,17})"
)


def load(config: DataConfig) -> Rows:
    """Rows of the world `config.config` names ("pictures", "charts" or "clips"), drawn by `config.seed`; several worlds are a mixture.

    meta: "scene" (what `verify_trace` reads), "family", "level", "verifiable" (False where the answer is an open description), "boxes" (of
    the minimal evidence, pictures and charts only), "trace" and "caption" (right ones) and, where evidence can be changed so that a
    wrong answer follows, "wrong_trace", "wrong_caption" and "wrong_answer"; texts are graded by the rule "exact".
    `config.demonstrations` adds responses. Raises UserError.
    """
    if config.path is not None:
        raise UserError("data.path is set but data.name is scenes, which makes its own pictures; for rows in files write data.name=jsonl")
    world = _world(config.config or "pictures")
    if world is None:
        raise unknown("world of scenes", str(config.config), WORLDS, "data.config")
    if config.split not in SPLITS:
        raise unknown("split", config.split, SPLITS, "data.split")
    if config.options != (2, MOST_OPTIONS):
        raise UserError(f"data.options is not for scenes, whose questions have from 2 to {MOST_OPTIONS} options; leave it out")
    check_shares(config.demonstrations)
    return Scenes(world, config.split, config.seed, config.demonstrations)


class Scenes(LazyRows):
    """Rows made when they are asked for."""

    def __init__(self, world: World, split: str, seed: int, demonstrations: dict[str, float]):
        self.world: World = world
        self.split, self.seed = split, seed
        self.imperfections = demonstrations

    def __len__(self) -> int:
        return SPLITS[self.split]

    def row(self, index: int) -> Sample:
        sample = make(self.world, self.split, self.seed, index)
        return demonstrated(sample, self.imperfections) if self.imperfections else sample


def make(world: World, split: str, seed: int, index: int) -> Sample:
    """The one row of these coordinates."""
    drawn = stable_hash("scenes", VERSION, world, split, seed, index)
    scene, media = _filmed(split, drawn) if world == "clips" else _drawn(world, split, random.Random(drawn))
    rng = random.Random(stable_hash(drawn, "question"))
    kind = answer_kind(scene, rng.random())
    others = alternatives(scene, rng) if scene.query.get("attribute") != "all" else []
    options, answer = (), scene.gold
    if kind == "choice":
        count = min(len(others) + 1, rng.randint(2, MOST_OPTIONS))
        others = others[: count - 1]
        options, answer = letter_options(scene.gold, others, count, stable_hash(drawn, "options"))
    row_id = f"{world}-v{VERSION}-{split}-{seed}-{index}"
    return Sample(row_id, question(scene.query), answer, kind, options, (media,), meta=_meta(scene, kind, options, others, rng))


def _world(name: str) -> World | None:
    return next((world for world in WORLDS if world == name), None)


def by_id(row_id: str) -> Sample | None:
    """The row that an id spells, None when it spells no row of this version."""
    match = _ID.fullmatch(row_id)
    if match is None or int(match["index"]) >= SPLITS[match["split"]]:
        return None
    world = _world(match["world"])
    assert world is not None
    return make(world, match["split"], int(match["seed"]), int(match["index"]))


def scene_of(sample: Sample) -> Scene:
    """The truth about a row. Raises ValueError for rows that are no scenes."""
    return scene_from(sample.meta.get("scene", {}))


def _drawn(world: World, split: str, rng: random.Random) -> tuple[Scene, Media]:
    scene = picture(rng, split) if world == "pictures" else chart(rng, split)
    draw = draw_picture if world == "pictures" else draw_chart
    return scene, png_media(draw(scene.things, ground(rng, SIDE)))


@lru_cache(maxsize=CLIPS_KEPT)
def _filmed(split: str, drawn: int) -> tuple[Scene, Media]:
    """Kept, about 8 kB each: to encode a clip takes five times as long as all else about its row."""
    rng = random.Random(drawn)
    scene, tracks = clip(rng, split)
    return scene, Media("video", data=encode(tracks, ground(rng, CLIP_SIDE)))


def _meta(scene: Scene, kind: str, options: tuple[str, ...], others: list[str], rng: random.Random) -> dict[str, Any]:
    family = scene.query["attribute"] if scene.query["family"] == "attribute" else scene.query["family"]
    meta: dict[str, Any] = {"scene": scene.record(), "family": family, "level": scene.level}
    meta |= {"verifiable": scene.query.get("attribute") != "all", "trace": trace(scene), "caption": caption(scene)}
    if kind == "text":
        meta["grading"] = "exact"  # the truth is known: what merely overlaps with it ("a large red circle" for a yellow one) is wrong
    if scene.world != "clips":
        meta["boxes"] = [list(thing.box) for thing in scene.shown if thing.box]
    misled = mislead(scene, others, rng)
    if misled is not None:
        things, wrong = misled
        meta |= {"wrong_trace": trace(scene, things), "wrong_caption": caption(scene, things)}
        meta["wrong_answer"] = LETTERS[options.index(wrong)] if kind == "choice" else wrong
    return meta
