"""How good a trace about a generated scene is, by exact truth: what an honest judge says, and what one is trained on."""

from data.scene_traces import TraceTruth, verify_trace
from data.scene_types import Scene


def quality(trace: str, scene: Scene) -> float:
    """Quality of a trace, in [0, 1]; whether the answer is right does not enter.

    mean(claims, follows[, boxes]) x read, with claims: the share of true ones among the different claims that can be told, 0 without any;
    follows: 1 if the stated conclusion follows from the claims, else 0; boxes: the share that holds what it is said to hold, left out
    where none is given; read: the share of what is said that lies in the grammar of traces.
    """
    truth = verify_trace(trace, scene)
    distinct = {claim.text: claim for claim in truth.claims}.values()
    told = [claim.true for claim in distinct if claim.true is not None]
    held = [claim.box_holds for claim in distinct if claim.box_holds is not None]
    parts = [_share(told), float(truth.follows), *([_share(held)] if held else [])]
    return sum(parts) / len(parts) * _read_share(truth)


def _share(values: list[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


def _read_share(truth: TraceTruth) -> float:
    said = len(truth.claims) + (truth.conclusion is not None)
    return said / (said + truth.unread) if said else 0.0
