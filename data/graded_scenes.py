"""Generated scenes with a response of known quality: what a judge of reasoning is trained and measured on. The scenes are `data.scenes`'.

Each row brings one response whose faults are drawn by its id, its exact `score`, and for best-of-N several good responses and bad ones
that answer otherwise. Ids are the scenes' own, so that a judge that knows the scenes knows these rows.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from data.rows import LazyRows, Rows
from data.scene_logic import Thing
from data.scene_quality import quality
from data.scene_reading import read_trace
from data.scene_types import Scene, alternatives
from data.scene_writing import altered, moved, trace
from data.scenes import load as load_scenes
from data.scenes import scene_of
from vlm_rl.config import DataConfig
from vlm_rl.errors import UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Sample

WRONG = 3
TRIES = 12
BAD_AT_MOST = 0.4  # quality of a response that counts as a wrong one
_FAULTY = (0.0, 0.0, 0.3, 0.6, 1.0)  # chances, one per response, of each thing said to be false
_BOX = re.compile(r" \[[0-9,]{7,30}\]")
_NO_TRACE, _CUT, _PADDED = 0.06, 0.1, 0.3
# None of these is among the empty answers that judges are tested with: a judge must not be right by having learnt the test.
_ANNOUNCED = (
    "I will look at the picture first.",
    "To answer this, one has to look closely.",
    "The question is about what can be seen.",
    "There are several things to consider here.",
)
_PADDING = (
    "This is a nice picture.",
    "I looked at everything with great care.",
    "It is important to be exact.",
    "There can be no doubt about it.",
    "The colours are easy to tell apart.",
    "This was a very good question.",
)


def load(config: DataConfig) -> Rows:
    """Scenes as `data.scenes.load` reads the config, graded. Raises UserError.

    meta: "score" in [0, 1], "right" (one or two responses of quality 1) and "wrong" (up to WRONG of quality BAD_AT_MOST or less).
    """
    if config.demonstrations:
        raise UserError("data.demonstrations is for name: scenes; responses of graded_scenes bring faults of their own")
    return GradedScenes(load_scenes(config))


class GradedScenes(LazyRows):
    """Rows made when they are asked for."""

    def __init__(self, scenes: Rows):
        self.scenes = scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def row(self, index: int) -> Sample:
        return graded(self.scenes[index])


def graded(sample: Sample) -> Sample:
    """The row with a response, and its meta with score, right and wrong responses."""
    scene, rng = scene_of(sample), random.Random(stable_hash("graded", sample.id))
    said = _said(scene, rng)
    meta = {"score": quality(said, scene), "right": [answered(text) for text in _right(scene)]}
    meta["wrong"] = [answered(text) for text in _wrong(scene, rng)]
    return replace(sample, response=answered(said), meta={**sample.meta, **meta})


def _right(scene: Scene) -> list[str]:
    """With boxes and, where the words alone show the answer too, without."""
    whole = trace(scene)
    return [text for text in (whole, _BOX.sub("", whole)) if quality(text, scene) == 1]


def _wrong(scene: Scene, rng: random.Random) -> list[str]:
    """Different bad traces in the form of good ones: things said to be what they are not, and an answer that need not follow."""
    found: dict[str, None] = {}
    for _ in range(TRIES):
        if len(found) < WRONG:
            text = trace(scene, _things(scene, 1.0, rng), _other_answer(scene, rng))
            if quality(text, scene) <= BAD_AT_MOST:
                found[text] = None
    return list(found)


def _said(scene: Scene, rng: random.Random) -> str:
    """A trace with none to all of its parts at fault."""
    if rng.random() < _NO_TRACE:
        return " ".join(rng.sample(_ANNOUNCED, rng.randint(1, 2)))
    faulty = rng.choice(_FAULTY)
    concluded = _other_answer(scene, rng) if rng.random() < faulty else None
    sentences = _sentences(trace(scene, _things(scene, faulty, rng), concluded))
    if rng.random() < _CUT and len(sentences) > 1:
        sentences.pop(rng.randrange(len(sentences)))
    if rng.random() < _PADDED:
        for _ in range(rng.randint(1, 4)):
            sentences.insert(rng.randrange(len(sentences) + 1), rng.choice(_PADDING))
    return " ".join(sentences)


def _sentences(text: str) -> list[str]:
    return [f"{sentence}." for sentence in text.rstrip(".").split(". ")]


def _things(scene: Scene, faulty: float, rng: random.Random) -> Sequence[Thing]:
    """The evidence, each thing false with that chance: another colour, shape, size or value, another place, or both."""
    things = []
    for thing in scene.shown:
        if rng.random() < faulty:
            kind = rng.choice(("is", "lies", "both"))
            thing = altered(thing, rng) if kind != "lies" else thing
            thing = moved(thing, scene.canvas, rng) if kind != "is" else thing
        things.append(thing)
    return things


def _other_answer(scene: Scene, rng: random.Random) -> str | None:
    """A wrong answer of the right type; None (what follows from what is said) where the answer is a description."""
    others = [] if scene.query.get("attribute") == "all" else alternatives(scene, rng)
    return others[0] if others else None


def answered(said: str) -> str:
    concluded = read_trace(said).conclusion
    return f"<think>{said}</think>" + (f"<answer>{concluded}</answer>" if concluded else "")
