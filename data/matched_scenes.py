"""Graded rows whose wording tells nothing of the score: two scenes answer one question, one is shown, a true trace of either responds.

A trace of the one is as likely met under the one's picture (score 1) as under the other's (its exact score there), so that who reads only
the text knows nothing: a judge of reasoning learns from these rows to look, and shows with them whether it does.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from data.graded_scenes import answered
from data.media import png_media
from data.rows import LazyRows, Rows
from data.scene_logic import Facts, Query, Thing, answer, matches
from data.scene_pictures import SIDE, chart, draw_chart, draw_picture, ground, picture
from data.scene_quality import quality
from data.scene_types import Scene
from data.scene_writing import trace
from data.scenes import load as load_scenes
from data.scenes import scene_of
from vlm_rl.config import DataConfig
from vlm_rl.errors import UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Sample

APART = 0.5  # most that a trace may be worth under the other picture
TRIES = 4000


def load(config: DataConfig) -> Rows:
    """One row for each of the scenes that `data.scenes.load` reads the config as: pictures or charts. Raises UserError.

    meta: "scene" (the one shown), "score" in [0, 1], "right" and "wrong" (a response each: the trace of the scene shown, and of the other).
    """
    if config.demonstrations:
        raise UserError("data.demonstrations is for name: scenes; responses of matched_scenes are true of one of two pictures")
    if config.config == "clips":
        raise UserError("data.config: clips: matched_scenes has pictures and charts")
    return MatchedScenes(load_scenes(config), config.split)


class MatchedScenes(LazyRows):
    """Rows made when they are asked for."""

    def __init__(self, scenes: Rows, split: str):
        self.scenes, self.split = scenes, split

    def __len__(self) -> int:
        return len(self.scenes)

    def row(self, index: int) -> Sample:
        return matched(self.scenes[index], self.split)


def matched(sample: Sample, split: str) -> Sample:
    """The scene's question under its own picture or another's, with the trace of either. Its id is no scene's: judges that know those do
    not know what is shown here."""
    rng = random.Random(stable_hash("matched", sample.id))
    own = scene_of(sample)
    other = _other(own, split, rng)
    media = sample.media
    shown, hidden = own, other
    if rng.random() < 0.5:
        shown, hidden = other, own
        draw = draw_picture if other.world == "pictures" else draw_chart
        media = (png_media(draw(other.things, ground(rng, SIDE))),)
    right, wrong = trace(shown), trace(hidden)
    said = right if rng.random() < 0.5 else wrong
    meta = {key: sample.meta[key] for key in ("family", "level")} | {"scene": shown.record(), "score": quality(said, shown)}
    meta |= {"right": [answered(right)], "wrong": [answered(wrong)]}
    # The answer is open: the row's options were drawn for one of the two scenes.
    return replace(
        sample, id=f"{sample.id}-matched", answer=shown.gold, kind="text", options=(), media=media, response=answered(said), meta=meta
    )


def _other(scene: Scene, split: str, rng: random.Random) -> Scene:
    """Another scene that answers the question in the same form, such that neither's trace is worth more than APART in the other."""
    text = trace(scene)
    for _ in range(TRIES):
        drawn = picture(rng, split) if scene.world == "pictures" else chart(rng, split)
        evidence = _evidence(scene.query, drawn.things)
        if evidence is None or answer(scene.query, Facts(drawn.things)) is None:
            continue
        other = replace(drawn, query=scene.query, evidence=evidence, level=scene.level)
        if quality(text, other) <= APART and quality(trace(other), scene) <= APART and quality(trace(other), other) == 1:
            return other
    raise AssertionError(f"no other scene answers {scene.query}")


def _evidence(query: Query, things: Sequence[Thing]) -> tuple[int, ...] | None:
    """The things that show the answer, None where one that is spoken of is not there once."""
    found = [[i for i, thing in enumerate(things) if matches(thing, query[key])] for key in ("target", "a", "b") if key in query]
    if query["family"] == "count":
        return tuple(found[0])
    if not found:
        return tuple(range(len(things)))
    return tuple(indices[0] for indices in found) if all(len(indices) == 1 for indices in found) else None
