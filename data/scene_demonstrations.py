"""Responses to imitate for scenes, with chosen shares of imperfection, so that a policy starts imperfect in ways that are known exactly.

Multiple choice is answered by the option's text: a model this small learns to look up letters only from far more rows. Each share is a
row's own chance, drawn by its id:
- favourite: the answer is the favourite of its type ("gray", "yes", "2"), where that is offered, whatever the trace concludes: a habit in
  place of looking, as real models have.
- wrong_conclusion: the trace is true, its conclusion is another option, and the answer goes with the conclusion.
- false_claim: one thing is said to be what it is not, and the right conclusion is drawn all the same.
- loose_box: the box of one thing lies elsewhere.
- direct: an answer without a trace, after an empty one was given.
- crop: the picture is replaced by what lies in the boxes of the evidence, and answered directly, where such crops can show the answer.
- follow: the trace is given, in half of the rows a false one, and only the answer that it concludes is written.
- tour: the question becomes how many things there are, and the trace names every one, in clips each when it is seen first and last: the
  densest lesson in seeing.
- caption: the right caption stands before the question, and is relied on.
"""

import random
from collections.abc import Collection, Mapping
from dataclasses import replace

from data.scene_logic import COLOURS, DIRECTIONS, PLACES, SHAPES, SIZES, Thing
from data.scene_types import Scene, question, scene_from
from data.scene_writing import altered, moved, trace
from data.views import Draw, apply
from vlm_rl.errors import UserError, unknown
from vlm_rl.seeds import stable_hash
from vlm_rl.types import LETTERS, Sample

SHARES = ("favourite", "wrong_conclusion", "false_claim", "loose_box", "direct", "crop", "follow", "tour", "caption")
FAVOURITES: tuple[tuple[Collection[str], str], ...] = (
    (COLOURS, "gray"),
    (SHAPES, "circle"),
    (SIZES, "large"),
    (PLACES, "top left"),
    (DIRECTIONS, "left"),
    (("yes", "no"), "yes"),
    (tuple(map(str, range(20))), "2"),
)
CROPS_TELL = ("colour", "shape", "count")


def check_shares(shares: Mapping[str, float]) -> None:
    """Raises UserError for an unknown imperfection, or a share that is none."""
    for key, share in shares.items():
        if key not in SHARES:
            raise unknown("imperfection", key, SHARES, "data.demonstrations")
        if not 0 <= share <= 1:
            raise UserError(f"data.demonstrations.{key} is a share between 0 and 1, not {share}")


def demonstrated(sample: Sample, shares: Mapping[str, float]) -> Sample:
    """The row with a response."""
    rng = random.Random(stable_hash("demonstration", sample.id))
    chosen = {key for key in SHARES if rng.random() < shares.get(key, 0.0)}
    scene = scene_from(sample.meta["scene"])
    if "tour" in chosen:
        return _tour(sample, scene)
    if "follow" in chosen:
        return _follow(sample, rng)
    cropped = "crop" in chosen and bool(sample.meta.get("boxes")) and sample.meta["family"] in CROPS_TELL
    if cropped or "direct" in chosen:
        views = ["boxes_cropped"] if cropped else []
        asked = apply([*views, "think_empty"], sample, Draw(0))
        return replace(asked, response=f"<answer>{_answer(sample, sample.answer, chosen)}</answer>")
    conclusion, answer = _conclusion(sample, scene, chosen, rng)
    said = trace(scene, _evidence(scene, chosen, rng), conclusion)
    asked = apply(["caption_right"], sample, Draw(0)) if "caption" in chosen else sample
    return replace(asked, response=f"<think>{said}</think><answer>{_answer(sample, answer, chosen)}</answer>")


def _follow(sample: Sample, rng: random.Random) -> Sample:
    wrong = sample.meta.get("wrong_answer") if rng.random() < 0.5 else None
    asked = apply(["think_right" if wrong is None else "think_wrong"], sample, Draw(0))
    return replace(asked, response=f"</think><answer>{_answer(sample, sample.answer if wrong is None else wrong, set())}</answer>")


def _tour(sample: Sample, scene: Scene) -> Sample:
    query = {"family": "count", "target": {"shape": "bar" if scene.world == "charts" else "shape"}}
    query |= {"time": max(t.time or 0 for t in scene.things)} if scene.world == "clips" else {}
    whole = replace(scene, query=query, evidence=_toured(scene))
    response = f"<think>{trace(whole)}</think><answer>{whole.gold}</answer>"
    return replace(sample, question=question(query), options=(), answer=whole.gold, kind="number", response=response)


def _toured(scene: Scene) -> tuple[int, ...]:
    """Each thing, of a clip each shape's first and last sighting: what lies between them repeats what was said or is asked about never."""
    if scene.world != "clips":
        return tuple(range(len(scene.things)))
    sightings: dict[str, list[int]] = {}
    for i, thing in enumerate(scene.things):
        sightings.setdefault(thing.shape, []).append(i)
    return tuple(sorted({i for seen in sightings.values() for i in (seen[0], seen[-1])}))


def _evidence(scene: Scene, chosen: set[str], rng: random.Random) -> list[Thing]:
    things = list(scene.shown)
    if not things:
        return things
    if "false_claim" in chosen:
        i = rng.randrange(len(things))
        things[i] = altered(things[i], rng)
    if "loose_box" in chosen:
        i = rng.randrange(len(things))
        things[i] = moved(things[i], scene.canvas, rng)
    return things


def _conclusion(sample: Sample, scene: Scene, chosen: set[str], rng: random.Random) -> tuple[str, str]:
    """(what the trace concludes, the answer that goes with it)"""
    wrong = [i for i, letter in enumerate(LETTERS[: len(sample.options)]) if letter != sample.answer]
    if "wrong_conclusion" in chosen and wrong:
        other = rng.choice(wrong)
        return sample.options[other], LETTERS[other]
    return scene.gold, sample.answer


def _answer(sample: Sample, answer: str, chosen: set[str]) -> str:
    """As it is written: of multiple choice the option's text."""
    text = sample.options[LETTERS.index(answer)] if sample.options else answer
    if "favourite" in chosen:
        liked = next((liked for pool, liked in FAVOURITES if text in pool), text)
        return liked if liked in (sample.options or (liked,)) else text
    return text
