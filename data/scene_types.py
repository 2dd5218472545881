"""A generated scene as data: what is in it, what is asked, what shows the answer; and how the question is put into words.

`Scene.record` is what a row carries in meta["scene"], JSON through and through, and `scene_from` reads it back.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from data.scene_logic import COLOURS, DIRECTIONS, PLACES, SHAPES, SIZES, Facts, Query, Thing, answer, name
from vlm_rl.types import AnswerKind

VERSION = 1
World = Literal["pictures", "charts", "clips"]
NEAR = 5
_FURTHER = {
    "left of": "further left",
    "right of": "further right",
    "above": "higher up",
    "below": "lower down",
    "larger than": "larger",
    "smaller than": "smaller",
    "higher than": "higher",
    "lower than": "lower",
    "before": "seen first",
    "after": "seen last",
}
MOST = {
    "left of": "leftmost",
    "right of": "rightmost",
    "above": "topmost",
    "below": "lowest",
    "higher than": "highest",
    "lower than": "lowest",
}


@dataclass(frozen=True)
class Scene:
    """`evidence` are indices into `things`: the fewest that determine the answer. `canvas` is (width, height) in pixels."""

    world: World
    canvas: tuple[int, int]
    things: tuple[Thing, ...]
    query: Query
    evidence: tuple[int, ...]
    level: int

    @cached_property
    def gold(self) -> str:
        """The answer's text, whatever form the question takes: "red", "yes", "3"."""
        text = answer(self.query, Facts(self.things))
        assert text is not None, f"a question its scene does not answer: {self.query}"
        return text

    @property
    def shown(self) -> tuple[Thing, ...]:
        """The things of the minimal evidence."""
        return tuple(self.things[i] for i in self.evidence)

    def record(self) -> dict[str, Any]:
        """The scene as JSON, with the answer; unset attributes of things are left out."""
        things = [{key: value for key, value in vars(t).items() if value not in ("", None)} for t in self.things]
        return {
            "version": VERSION,
            "world": self.world,
            "canvas": list(self.canvas),
            "things": [t | {"box": list(t["box"])} for t in things],
            "query": dict(self.query),
            "evidence": list(self.evidence),
            "level": self.level,
            "answer": self.gold,
        }


def scene_from(record: Mapping[str, Any]) -> Scene:
    """A scene from its record. Raises ValueError for anything else."""
    try:
        if record["version"] != VERSION:
            raise ValueError(f"version {record['version']!r}, not {VERSION}")
        things = tuple(Thing(**{**thing, "box": tuple(thing["box"])}) for thing in record["things"])
        width, height = record["canvas"]
        scene = Scene(record["world"], (width, height), things, record["query"], tuple(record["evidence"]), record["level"])
        if scene.gold != record["answer"] or not all(0 <= i < len(things) for i in scene.evidence):
            raise ValueError("its things do not give its answer")
        return scene
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"not the record of a scene ({error!r:.200}); rows made by data.name=scenes carry one in meta['scene']") from None


def plural(target: Mapping[str, str]) -> str:
    called = name(target)
    return f"{called}es" if called.endswith("s") else f"{called}s"


def question(query: Query) -> str:
    """The query in words."""
    family = query["family"]
    if family == "attribute":
        return _attribute(query)
    target = name(query["target"]) if "target" in query else ""
    if family == "count":
        return f"How many {plural(query['target'])} are there{' at the end' if 'time' in query else ''}?"
    if family in ("relation", "which", "sum"):
        return _pair(query, name(query["a"]), name(query["b"]))
    if family == "extreme":
        most = MOST[query["relation"]]
        what = "bar" if query["relation"] in ("higher than", "lower than") else "shape"
        return f"Describe the {most} {what}." if query["attribute"] == "all" else f"What {query['attribute']} is the {most} {what}?"
    return {
        "place": f"Where is the {target}?",
        "bar": f"What is the value of the {target}?",
        "motion": f"Which way does the {target} move?",
        "turned": f"What colour does the {target} turn?",
        "when": f"At which second does the {target} appear?",
    }[family]


def _attribute(query: Query) -> str:
    called = name(query["target"])
    if query["attribute"] == "shape":
        return f"What is the {called}?"
    return f"Is the {called} small or large?" if query["attribute"] == "size" else f"What colour is the {called}?"


def _pair(query: Query, a: str, b: str) -> str:
    if query["family"] == "sum":
        return f"What is the {a} plus the {b}?" if query["sign"] == "+" else f"What is the {a} minus the {b}?"
    if query["family"] == "which":
        return f"Which is {_FURTHER[query['relation']]}, the {a} or the {b}?"
    return f"Is the {a} {'seen ' if query['relation'] in ('before', 'after') else ''}{query['relation']} the {b}?"


def alternatives(scene: Scene, rng: random.Random) -> list[str]:
    """Other answers of the right type, in an order drawn by `rng`: what multiple choice offers beside the gold one."""
    query, family = scene.query, scene.query["family"]
    pools: dict[str, tuple[str, ...]] = {"colour": COLOURS, "shape": SHAPES, "size": SIZES}
    if family in ("count", "when", "bar", "sum"):
        pool: tuple[str, ...] = tuple(map(str, _numbers(scene, rng)))
    elif family == "which":
        pool = (name(query["a"]), name(query["b"]))
    else:
        named = {"place": PLACES, "relation": ("yes", "no"), "motion": DIRECTIONS, "turned": COLOURS}
        pool = named.get(family) or pools[query["attribute"]]
    others = [text for text in pool if text != scene.gold]
    rng.shuffle(others)
    return others


def _numbers(scene: Scene, rng: random.Random) -> range:
    """All there could be, or for sums some about the right one, off centre: "the one in the middle" must not find it."""
    family = scene.query["family"]
    if family == "sum":
        first = max(0, int(scene.gold) - rng.randrange(NEAR))
        return range(first, first + NEAR)
    if family == "count":
        return range(1 + (max(2, len(scene.evidence)) if scene.world == "clips" else max(4, len(scene.things))))
    return range(4) if family == "when" else range(1, 10)


def answer_kind(scene: Scene, draw: float) -> AnswerKind:
    """The form a question is asked in, from a draw in [0, 1): multiple choice mostly, else the family's open form."""
    family = scene.query["family"]
    if scene.query.get("attribute") == "all":
        return "text"
    if family in ("count", "bar", "sum", "when"):
        return "number" if draw < 0.4 else "choice"
    return "text" if draw < 0.2 and family in ("attribute", "place", "motion", "turned", "extreme") else "choice"
