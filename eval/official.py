"""The metrics that benchmarks define for themselves beyond plain accuracy, as pure functions of graded answers.

An answer that cannot be read is wrong and counted in `unparsed`; no metric draws a random letter or drops an item. Shares are fractions.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from data.benchmarks_video import VSI_CHOICE, VSI_NUMERIC
from eval.graded import Graded, OfficialResult, grouped, mean, result, table
from rewards import grading
from vlm_rl.errors import UserError

log = logging.getLogger(__name__)

TEXT_ONLY = "Text Only"
_DIRECTION = "object_rel_direction"
_PRO_STANDARD, _PRO_VISION = "standard (10 options)", "vision"
_COMPOSITES = 525


def mathverse(name: str, graded: Sequence[Graded]) -> OfficialResult:
    """Accuracy over all versions but Text Only, which shows no picture (arXiv 2403.14624); tables by version, subject and kind.

    Deviation: the published score has a language model judge each step; this is the accuracy of final answers.
    """
    seen = [item for item in graded if item.sample.meta.get("version") != TEXT_ONLY] or list(graded)
    parts = {"with_picture/n": float(len(seen)), **table(graded, "version", "subject", "question_type")}
    return result(name, mean(item.score for item in seen), graded, parts)


def mmmu_pro(name: str, graded: Sequence[Graded]) -> OfficialResult:
    """The mean of standard (10 options) and vision where both were asked (arXiv 2409.02813), else the accuracy over all items."""
    settings = {setting: mean(i.score for i in items) for setting, items in grouped(graded, "setting").items()}
    both = [settings[s] for s in (_PRO_STANDARD, _PRO_VISION) if s in settings]
    headline = mean(both) if len(both) == 2 else mean(item.score for item in graded)
    return result(name, headline, graded, table(graded, "setting", "discipline", "subject"))


def pope(name: str, graded: Sequence[Graded]) -> OfficialResult:
    """F1 of "yes" as headline; accuracy, precision, recall and the share of "yes" among the predictions (arXiv 2305.10355), by category.

    A prediction that is neither counts as wrong and as no "yes". A precision without any "yes", a recall without any gold "yes", and
    their F1, are 0.
    """
    parts = _binary(graded)
    for category, items in grouped(graded, "category").items():
        parts |= {f"category/{category}/{key}": value for key, value in _binary(items).items()}
        parts[f"category/{category}/n"] = float(len(items))
    return result(name, parts["f1"], graded, parts)


def _binary(graded: Sequence[Graded]) -> dict[str, float]:
    pairs = [(grading.yes_or_no(item.sample.answer), grading.yes_or_no(item.answer or "")) for item in graded]
    hits = sum(gold is True and said is True for gold, said in pairs)
    said_yes, gold_yes = sum(said is True for _, said in pairs), sum(gold is True for gold, _ in pairs)
    precision = hits / said_yes if said_yes else 0.0
    recall = hits / gold_yes if gold_yes else 0.0
    return {
        "accuracy": mean(float(said is gold) for gold, said in pairs),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "yes_ratio": said_yes / len(pairs),
    }


def vsibench(name: str, graded: Sequence[Graded]) -> OfficialResult:
    """The plain mean over the 8 tasks (arXiv 2412.14171): accuracy for choices, MRA for numbers; the three directions are one task.

    A subset that lacks a task averages over those it has; "tasks" counts them. `headline_public_mra` is the same with the published code's
    floating-point thresholds (see `rewards.rules.mean_relative_accuracy`).
    """
    public = [_public_mra(item) if item.sample.meta["question_type"] in VSI_NUMERIC else item for item in graded]
    tasks, public_tasks = _vsi_tasks(graded), _vsi_tasks(public)
    parts = {f"task/{task}": score for task, score in tasks.items()}
    parts |= {f"task/{task}/n": float(sum(_vsi_task(i) == task for i in graded)) for task in tasks}
    parts |= {"tasks": float(len(tasks)), "headline_public_mra": mean(public_tasks.values())}
    return result(name, mean(tasks.values()), graded, parts | table(graded, "question_type", "dataset"))


def _vsi_tasks(graded: Sequence[Graded]) -> dict[str, float]:
    """Each direction type is averaged first, then the three together, whatever their sizes."""
    by_type = {kind: mean(i.score for i in items) for kind, items in grouped(graded, "question_type").items()}
    tasks = {kind: score for kind, score in by_type.items() if not kind.startswith(_DIRECTION)}
    directions = [score for kind, score in by_type.items() if kind.startswith(_DIRECTION)]
    return dict(sorted((tasks | ({_DIRECTION: mean(directions)} if directions else {})).items()))


def _vsi_task(item: Graded) -> str:
    kind = str(item.sample.meta["question_type"])
    assert kind in VSI_NUMERIC or kind in VSI_CHOICE
    return _DIRECTION if kind.startswith(_DIRECTION) else kind


def _public_mra(item: Graded) -> Graded:
    sample = replace(item.sample, meta={**item.sample.meta, "mra_public": True})
    return replace(item, score=grading.grade(sample, item.answer) if item.parsed else 0.0)


def hrbench(name: str, graded: Sequence[Graded]) -> OfficialResult:
    """The mean over option rotations of each rotation's accuracy (arXiv 2408.15556); by category the same way."""
    parts = {"items": mean(item.score for item in graded), **table(graded, "cycle")}
    for category, items in grouped(graded, "category").items():
        parts |= {f"category/{category}": _cycle_mean(items), f"category/{category}/n": float(len(items))}
    return result(name, _cycle_mean(graded), graded, parts)


def _cycle_mean(graded: Sequence[Graded]) -> float:
    return mean(mean(item.score for item in items) for items in grouped(graded, "cycle").values())


def dynamath(name: str, graded: Sequence[Graded]) -> OfficialResult:
    """Worst case over a seed question's variants, as headline, and the average over all items (arXiv 2411.00836).

    Worst case = mean over seeds of the minimum over its variants. The seed is the first name of `meta["seeds"]` that brings several
    variants together. Where none does (a small subset), the worst case equals the average, and a warning says so.
    """
    groups = _seeds(graded)
    sizes = [len(items) for items in groups]
    if max(sizes) == 1:
        log.warning("%s: no seed question has two variants here, so the worst case is the average", name)
    units = tuple(min(item.score for item in items) for items in groups)
    worst = mean(units)
    parts = {"average": mean(item.score for item in graded), "worst_case": worst, "seeds": float(len(groups))}
    parts |= {"variants_min": float(min(sizes)), "variants_max": float(max(sizes)), **table(graded, "subject", "level")}
    return replace(result(name, worst, graded, parts), units=units)


def _seeds(graded: Sequence[Graded]) -> list[list[Graded]]:
    """A field that is the same everywhere groups nothing (a variant number in a split of its own), so each must part the items too."""
    names = [tuple(item.sample.meta["seeds"]) for item in graded]
    for position in range(max(map(len, names))):
        keys = [row[position] for row in names]
        if all(keys) and len(graded) > len(set(keys)) and (len(set(keys)) > 1 or len(graded) <= 10):
            return list(_by(graded, keys).values())
    return [[item] for item in graded]


def _by(graded: Iterable[Graded], keys: Iterable[Hashable]) -> dict[Hashable, list[Graded]]:
    groups: dict[Hashable, list[Graded]] = {}
    for item, key in zip(graded, keys, strict=True):
        groups.setdefault(key, []).append(item)
    return groups


@dataclass(frozen=True)
class FourWay:
    """Counts of composite problems (arXiv 2407.01284): insufficient knowledge, inadequate generalisation, complete mastery, rote."""

    ik: int
    ig: int
    cm: int
    rm: int

    @property
    def total(self) -> int:
        return self.ik + self.ig + self.cm + self.rm

    @property
    def score(self) -> float:
        """(N - 0.5 IG - RM - IK) / N, with N = 525 in the full set."""
        return (self.total - 0.5 * self.ig - self.rm - self.ik) / self.total

    @property
    def units(self) -> tuple[float, ...]:
        """What each composite adds to the score, whose mean it is."""
        return (1.0,) * self.cm + (0.5,) * self.ig + (0.0,) * (self.rm + self.ik)


def four_way(problems: Iterable[tuple[Sequence[bool], bool]], loose: bool = False) -> FourWay:
    """Sort composites, given as (are the steps right, is the whole right). Loose: one right step is enough for mastery."""
    counts = {"ik": 0, "ig": 0, "cm": 0, "rm": 0}
    for steps, whole in problems:
        mastered = any(steps) if loose else all(steps)
        kind = ("cm" if mastered else "rm") if whole else ("ig" if all(steps) else "ik")
        counts[kind] += 1
    return FourWay(**counts)


def wemath(name: str, graded: Sequence[Graded]) -> OfficialResult:
    """The strict four-way score as headline, the loose one, both with their shares, and accuracy by number of steps.

    Deviation: problems of which a question is missing (a subset) are left out and counted; the published code always divides by 525,
    which is the same for the whole set.
    """
    problems, incomplete = _composites(graded)
    if not problems:
        raise UserError(f"{name}: no composite problem is complete; the four-way score needs all steps of a problem, so raise data.limit")
    if len(problems) != _COMPOSITES:
        log.info("%s: four-way score over %d composite problems; the full set has %d", name, len(problems), _COMPOSITES)
    strict, loose = four_way(problems), four_way(problems, loose=True)
    parts = {"accuracy": mean(item.score for item in graded), "composites": float(len(problems)), "incomplete": float(incomplete)}
    for kind, counts in (("strict", strict), ("loose", loose)):
        shares = {key: getattr(counts, key) / counts.total for key in ("ik", "ig", "cm", "rm")}
        parts |= {f"{kind}/score": counts.score, **{f"{kind}/{key}": share for key, share in shares.items()}}
    # Rote memorisation is published as a share of the composites answered rightly.
    right = strict.cm + strict.rm
    parts |= {f"{kind}/rote_rate": counts.rm / right if right else 0.0 for kind, counts in (("strict", strict), ("loose", loose))}
    return replace(result(name, strict.score, graded, parts | _wemath_table(graded)), units=strict.units)


def _composites(graded: Sequence[Graded]) -> tuple[list[tuple[list[bool], bool]], int]:
    whole: list[tuple[list[bool], bool]] = []
    groups = _by(graded, ((item.sample.meta["problem"], item.sample.meta["steps"]) for item in graded))
    for (_, steps), items in groups.items():  # type: ignore[misc]
        right = {item.sample.meta["step"]: item.score >= 0.5 for item in items}
        wanted = [str(i + 1) for i in range(int(steps[0]))]
        if all(step in right for step in (*wanted, "multi")):
            whole.append(([right[step] for step in wanted], right["multi"]))
    return whole, len(groups) - len(whole)


def _wemath_table(graded: Sequence[Graded]) -> dict[str, float]:
    of: Mapping[str, Callable[[Graded], bool]] = {
        "one_step": lambda item: item.sample.meta["step"] != "multi",
        "two_steps": lambda item: item.sample.meta["step"] == "multi" and item.sample.meta["steps"] == "2steps",
        "three_steps": lambda item: item.sample.meta["step"] == "multi" and item.sample.meta["steps"] == "3steps",
    }
    rows: dict[str, float] = {}
    for label, belongs in of.items():
        if items := [item for item in graded if belongs(item)]:
            rows |= {f"steps/{label}": mean(i.score for i in items), f"steps/{label}/n": float(len(items))}
    return rows
