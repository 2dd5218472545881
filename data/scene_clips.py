"""Short clips: shapes that move, appear one after the other, or turn another colour; what is asked about them; real mp4 files of them.

A clip has SECONDS seconds at FPS frames a second. All that changes changes at whole seconds, moves too, so that whichever frames are drawn
of it show what is true of their second. Things are sightings: what is seen in each second, where it is then.
"""

import io
import random
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from data.scene_logic import COLOURS, SHAPES, Box, Query, Thing
from data.scene_pictures import UNSEEN_SHAPES, draw_picture, pairs
from data.scene_types import Scene

SIDE, SECONDS, FPS = 84, 4, 4
SIZE = 24
WAY_A_SECOND = 12
WAY = WAY_A_SECOND * (SECONDS - 1)
STEP = 4

Look = tuple[str, str]
_KINDS = {"motion": ("motion",), "change": ("turned",), "order": ("when", "which", "relation", "count")}
Path = dict[int, tuple[Look, Box]]  # frame -> how it looks and where it is; frames it is not seen in are left out


def clip(rng: random.Random, split: str) -> tuple[Scene, list[Path]]:
    """A clip and a question about it. "test_pairs": the first shape's pair is unseen; "test_more": one shape more (three).

    Trained on are clips of one or two shapes.
    """
    kind = rng.choice(tuple(_KINDS))
    family = rng.choice(_KINDS[kind])
    count = 3 if split == "test_more" else 2 if family in ("when", "which", "relation") else rng.randint(1, 2)
    looks = _looks(rng, count, split == "test_pairs")
    tracks = _tracks(rng, kind, looks)
    return _ask(rng, family, looks, _sightings(tracks)), tracks


def _looks(rng: random.Random, count: int, unseen: bool) -> list[Look]:
    """Shapes of different kind and colour, the unseen pair first."""
    first = rng.choice(pairs(unseen))
    looks = [first]
    while len(looks) < count:
        colour, shape = rng.choice(pairs(unseen=False))
        if all(colour != c and shape != s for c, s in looks):
            looks.append((colour, shape))
    return looks


def _tracks(rng: random.Random, kind: str, looks: list[Look]) -> list[Path]:
    """One path for each look, in lanes of their own so that nothing overlaps."""
    lanes = rng.sample(range(3), len(looks))
    upright = rng.random() < 0.5
    starts = [0] * len(looks)
    if kind == "order":
        starts = [second * FPS for second in rng.sample(range(SECONDS), len(looks))]
    tracks = []
    for number, (look, lane, start) in enumerate(zip(looks, lanes, starts, strict=True)):
        across, begin = 2 + 28 * lane, rng.randrange(0, (SIDE - SIZE - WAY) // STEP + 1) * STEP
        moves = kind == "motion" and (number == 0 or rng.random() < 0.5)
        back = rng.random() < 0.5
        turned = _turned(rng, look) if kind == "change" and number == 0 else look
        at = rng.randrange(1, SECONDS) * FPS
        path: Path = {}
        for frame in range(start, SECONDS * FPS):
            along = begin + (frame // FPS * WAY_A_SECOND if moves else 0)
            along = SIDE - SIZE - along if back else along
            x, y = (across, along) if upright else (along, across)
            path[frame] = (turned if frame >= at else look), (x, y, x + SIZE, y + SIZE)
        tracks.append(path)
    return tracks


def _turned(rng: random.Random, look: Look) -> Look:
    """The look in another colour, none that makes an unseen pair."""
    return rng.choice([c for c in COLOURS if c != look[0] and (c, look[1]) not in UNSEEN_SHAPES]), look[1]


def _sightings(tracks: list[Path]) -> tuple[Thing, ...]:
    """By second, and of one second from left to right as they lie at the end."""
    return tuple(
        Thing(look[0], look[1], box=box, time=second)
        for second in range(SECONDS)
        for path in sorted(tracks, key=lambda path: path[SECONDS * FPS - 1][1])
        if second * FPS in path
        for look, box in [path[second * FPS]]
    )


def _ask(rng: random.Random, family: str, looks: list[Look], things: tuple[Thing, ...]) -> Scene:
    target = {"colour": looks[0][0], "shape": looks[0][1]}
    seen = [i for i, t in enumerate(things) if t.shape == looks[0][1]]
    if family == "motion":
        return _scene(things, {"family": family, "target": target}, (seen[0], seen[-1]), 1)
    if family == "turned":
        return _scene(things, {"family": family, "target": {"shape": looks[0][1]}}, (seen[0], seen[-1]), 2)
    if family == "when":
        return _scene(things, {"family": family, "target": target}, (seen[0],), 1)
    if family == "count":
        last = tuple(i for i, t in enumerate(things) if t.time == SECONDS - 1)
        query: Query = {"family": family, "target": _counted(rng, looks), "time": SECONDS - 1}
        return _scene(things, query, last, 2)
    other = next(i for i, t in enumerate(things) if t.shape == looks[1][1])
    a, b = target, {"colour": looks[1][0], "shape": looks[1][1]}
    if rng.random() < 0.5:
        a, b = b, a
    return _scene(things, {"family": family, "relation": rng.choice(("before", "after")), "a": a, "b": b}, (seen[0], other), 2)


def _counted(rng: random.Random, looks: list[Look]) -> dict[str, str]:
    """All shapes; or those of a colour or a kind, which are there as often as not."""
    part, there = rng.randrange(2), rng.random() < 0.5
    values = [v for v in (COLOURS, SHAPES)[part] if (v in {look[part] for look in looks}) == there]
    key = ("colour", "shape")[part]
    return {"shape": "shape"} if rng.random() < 0.25 else {"shape": "shape", key: rng.choice(values)}


def _scene(things: tuple[Thing, ...], query: Query, evidence: tuple[int, ...], level: int) -> Scene:
    return Scene("clips", (SIDE, SIDE), things, query, tuple(sorted(evidence)), level)


def encode(tracks: list[Path], on: Image.Image) -> bytes:
    """The clip on its ground as an mp4 file: H.264, lossless, in full colour resolution; one encoder version always writes equal bytes."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv444p"
        stream.options = {"qp": "0", "preset": "ultrafast", "threads": "1"}
        for frame in range(SECONDS * FPS):
            shown = tuple(Thing(*path[frame][0], box=path[frame][1]) for path in tracks if frame in path)
            picture = np.asarray(draw_picture(shown, on))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()
