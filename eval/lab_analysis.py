"""What trainings over several seeds, answering the same held-out questions, say about a claim. Numbers in, numbers and words out.

Questions are paired between arms and shared by all seeds, so both vary: trainings differ by their seed, and other questions would have
given another number. The variance of an effect is the sum of both, each estimated on its own (crossed random effects; the additive form
of Owen's pigeonhole bootstrap, arXiv 0712.1111):

    Var = Var*(mean over seeds of the effect, questions resampled by cluster) + Var(effects of the seeds) / seeds

The noise that a seed shares with its questions is in both, which makes the interval somewhat too wide, never too narrow. Few seeds are no
normal sample: bounds are effect -+ t(df) x SE with Satterthwaite's degrees of freedom (1946), which are those of the seeds where the seeds
vary most. Deviation from a percentile bootstrap over seeds: with three of them that covers far less than it says.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from eval.metrics import holm

Items = Mapping[str, tuple[float, float]]
Direction = Literal["up", "down", "same"]
Word = Literal["holds", "does not hold", "undecided"]
POWER = 0.8
MOST_SEEDS, MOST_TIMES = 40, 40
_AT_ONCE = 500


@dataclass(frozen=True)
class Effect:
    """A difference with its interval over `seeds` seeds and `questions` clusters of questions. `p` is two-sided against no difference.

    `over_questions` and `over_seeds` are the two parts of the variance. With one seed the latter is unknown and counted as 0, which a
    verdict does not accept. `detectable` is the smallest true effect that would be found with a power of 80%.
    """

    value: float
    low: float
    high: float
    p: float
    detectable: float
    seeds: int
    questions: int
    over_questions: float
    over_seeds: float
    by_seed: Mapping[int, float]
    level: float = 0.95


def contrast(
    one: Mapping[int, Items],
    other: Mapping[int, Items],
    clusters: Mapping[str, str] | None = None,
    level: float = 0.95,
    resamples: int = 4_000,
) -> Effect | None:
    """Ratio of `one` less ratio of `other` (sums of numerators / sums of denominators by question), the mean over the seeds both have.

    A question that a side lacks counts for nothing there. `clusters` names what a question stands or falls with; itself by default. None
    where there is no common seed or a ratio of some seed is not defined.
    """
    seeds = sorted(one.keys() & other.keys())
    ids = sorted({i for side in (one, other) for seed in seeds for i in side[seed]})
    if not seeds or not ids:
        return None
    names = [clusters.get(i, i) if clusters else i for i in ids]
    number = {name: k for k, name in enumerate(dict.fromkeys(names))}
    members = np.array([number[name] for name in names])
    sums_SKC = np.stack([[_sums(side[seed], ids, members, part) for side in (one, other) for part in (0, 1)] for seed in seeds])
    whole_S = _differences(sums_SKC.sum(axis=2)[None])[0]
    if not np.isfinite(whole_S).all():
        return None
    rng, count, means = np.random.default_rng(0), len(number), []
    for start in range(0, resamples, _AT_ONCE):
        weights_BC = rng.multinomial(count, np.full(count, 1 / count), size=min(_AT_ONCE, resamples - start))
        means.append(_differences(np.einsum("bc,skc->bsk", weights_BC, sums_SKC)).mean(axis=1))
    drawn = np.concatenate(means)
    drawn = drawn[np.isfinite(drawn)]
    spread = float(np.var(drawn, ddof=1)) if count > 1 and len(drawn) > 1 else 0.0
    return _effect(dict(zip(seeds, whole_S.tolist(), strict=True)), spread, count, level)


def contrast_of_values(one: Mapping[int, float], other: Mapping[int, float], level: float = 0.95) -> Effect | None:
    """The same for numbers that no question can be told apart in (an AUROC, seconds): paired over seeds alone, Student's t."""
    seeds = sorted(one.keys() & other.keys())
    return _effect({seed: one[seed] - other[seed] for seed in seeds}, 0.0, 0, level) if seeds else None


def _sums(items: Items, ids: Sequence[str], members: np.ndarray, part: int) -> np.ndarray:
    return np.bincount(members, [items.get(i, (0.0, 0.0))[part] for i in ids])


def _differences(sums_BSK: np.ndarray) -> np.ndarray:
    """(..., seeds, 4) sums -> (..., seeds) differences of ratios; not a number where one is not defined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums_BSK[..., 0] / sums_BSK[..., 1] - sums_BSK[..., 2] / sums_BSK[..., 3]


def _effect(by_seed: Mapping[int, float], over_questions: float, questions: int, level: float) -> Effect:
    values = list(by_seed.values())
    over_seeds = float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0
    value, variance = float(np.mean(values)), over_questions + over_seeds
    df = degrees(over_questions, questions, over_seeds, len(values))
    error, t = math.sqrt(variance), float(stats.t.ppf((1 + level) / 2, df))
    p = float(2 * stats.t.sf(abs(value) / error, df)) if error else float(value == 0)
    detectable = (t + float(stats.t.ppf(POWER, df))) * error
    return Effect(
        value, value - t * error, value + t * error, p, detectable, len(values), questions, over_questions, over_seeds, dict(by_seed), level
    )


def degrees(over_questions: float, questions: int, over_seeds: float, seeds: int) -> float:
    """Satterthwaite's degrees of freedom of the sum of two variances. degrees(1, 101, 1, 3) -> 4 / (1/100 + 1/2) = 7.84"""
    below = sum(v * v / (n - 1) for v, n in ((over_questions, questions), (over_seeds, seeds)) if n > 1)
    if not below:
        return float(max(questions, seeds, 2) - 1)
    return (over_questions + over_seeds) ** 2 / below


@dataclass(frozen=True)
class Verdict:
    """`word`, and `because` in a sentence; of what is undecided `needs` says what would decide it."""

    word: Word
    because: str
    needs: str = ""


def decide(effect: Effect | None, direction: Direction, margin: float) -> Verdict:
    """By the margin that was registered. The effect e is taken in the claimed direction, its interval is [low, high]:

    up, down    high < margin            does not hold (no effect of interest, or the opposite)
                low > 0, high >= margin  holds
    same        -margin < low, high < margin   holds;   low > margin or high < -margin   does not hold
    else, and with a single seed         undecided
    """
    if effect is None:
        return Verdict(
            "undecided", "it is not defined: nothing was measured, or there is nothing to divide by", "finished runs of both arms"
        )
    if effect.seeds < 2:
        return Verdict("undecided", "one seed says nothing about others", "another seed")
    sign = -1.0 if direction == "down" else 1.0
    value, low, high = sign * effect.value, *sorted((sign * effect.low, sign * effect.high))
    if direction == "same":
        if -margin < low and high < margin:
            return Verdict("holds", "the interval lies within the margin on both sides")
        if low > margin or high < -margin:
            return Verdict("does not hold", "the interval lies outside of the margin")
        return Verdict("undecided", "the interval lies across the margin", _needed(effect, abs(margin - abs(value))))
    if high < margin:
        small = (
            "there is an effect, smaller than the smallest of interest"
            if low > 0
            else "the interval leaves no room for an effect of interest"
        )
        opposite = "the effect is the opposite one"
        return Verdict("does not hold", opposite if high < 0 else small)
    if low > 0:
        return Verdict("holds", "the interval excludes no effect, in the claimed direction")
    return Verdict("undecided", "the interval holds both no effect and one of interest", _needed(effect, max(value, margin - value)))


def _needed(effect: Effect, half: float) -> str:
    """How many seeds, or questions, or both make half the interval shorter than `half`, if the effect and its spread are as measured."""
    enough = [
        (seeds, times)
        for seeds in range(effect.seeds, MOST_SEEDS + 1)
        for times in (range(1, MOST_TIMES + 1) if effect.questions else (1,))
        if _half(effect, seeds, times) < half
    ]
    if not enough:
        return f"more than {MOST_SEEDS} seeds and {MOST_TIMES} times the questions: the effect, if any, lies near what decides"
    by_seeds = min((seeds for seeds, times in enough if times == 1), default=None)
    by_questions = min((times for seeds, times in enough if seeds == effect.seeds), default=None)
    ways = [
        f"about {by_seeds} seeds" if by_seeds else "",
        f"about {(by_questions or 0) * effect.questions} questions" if by_questions else "",
    ]
    if not any(ways):
        seeds, times = min(enough, key=lambda pair: pair[0] * pair[1])
        ways = [f"about {seeds} seeds and {times * effect.questions} questions"]
    return f"{' or '.join(way for way in ways if way)}, were the effect and its spread as measured"


def _half(effect: Effect, seeds: int, times: int) -> float:
    questions, over_seeds = effect.over_questions / times, effect.over_seeds * effect.seeds / seeds
    df = degrees(questions, effect.questions * times, over_seeds, seeds)
    return float(stats.t.ppf((1 + effect.level) / 2, df)) * math.sqrt(questions + over_seeds)


def adjusted(effects: Sequence[Effect | None]) -> list[float | None]:
    """Holm's p of the tests that could be made, None for the others."""
    told = iter(holm([effect.p for effect in effects if effect is not None]))
    return [None if effect is None else next(told) for effect in effects]
