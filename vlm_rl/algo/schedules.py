"""How reward weights and the learning rate change over training: pure functions of the step, so that a resumed run needs no state."""

import math
from collections.abc import Callable

from vlm_rl.errors import unknown


def constant(progress: float, final: float) -> float:
    """1 throughout."""
    return 1.0


def linear(progress: float, final: float) -> float:
    """1 + (final - 1) p, and `final` from p = 1 on."""
    return 1.0 + (final - 1.0) * min(progress, 1.0)


def cosine(progress: float, final: float) -> float:
    """final + (1 - final) (1 + cos(pi p)) / 2, and `final` from p = 1 on."""
    return final + (1.0 - final) * (1.0 + math.cos(math.pi * min(progress, 1.0))) / 2


def exponential(progress: float, final: float) -> float:
    """exp(-p), going on below exp(-1) after p = 1; SophiaVL-R1, arXiv 2505.17018. `final` is not used."""
    return math.exp(-progress)


FACTORS: dict[str, Callable[[float, float], float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "exponential": exponential,
}


def factor(kind: str, step: int, anneal_steps: int, final: float) -> float:
    """The multiplier of a weight at `step`, with progress p = step / anneal_steps: 1 at step 0. Raises UserError for an unknown kind.

    Example: factor("exponential", 750, 1500, 0.0) -> 0.6065.
    """
    if kind not in FACTORS:
        raise unknown("schedule", kind, FACTORS)
    return FACTORS[kind](step / anneal_steps, final)


def learning_rate(base: float, kind: str, step: int, steps: int, warmup: int) -> float:
    """The rate of the update made after `step` earlier ones, of `steps` in all: `constant`, or `linear` or `cosine` down to 0 at `steps`.

    The first `warmup` updates rise in equal parts, base / warmup, 2 base / warmup, ..., base; no update has rate 0.
    Raises UserError for an unknown kind. Example: learning_rate(1e-3, "linear", 5, 10, 0) -> 5e-4.
    """
    known = [name for name in FACTORS if name != "exponential"]
    if kind not in known:
        raise unknown("learning-rate schedule", kind, known)
    if step < warmup:
        return base * (step + 1) / warmup
    return base * FACTORS[kind]((step - warmup) / max(steps - warmup, 1), 0.0)
