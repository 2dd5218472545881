"""Two or more runs on the same questions: what changed from the first to each other, figure by figure, and what that says in words.

Questions are paired by id, and only those that all runs were asked count. Intervals are bootstraps over pictures in which both runs are
drawn together; p values are adjusted by Holm within each section. It asks no model.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from eval.evaluator import Figure, Section, Study
from eval.figures import said
from eval.metrics import holm, mcnemar_exact, paired_t, ratio_difference
from eval.summary import interval_text, signed
from vlm_rl.errors import UserError
from vlm_rl.types import Record

ACCURACY = ("accuracy", "accuracy")
# In order of trust: exact truth about scenes, a judge that does not see the answer, the rule.
REASONING = tuple(("consistency", f"consistency/{name}") for name in ("exact", "conclude", "rule"))
Direction = Literal["up", "down", "open"]
_VERDICTS: dict[tuple[Direction, Direction], str] = {
    ("up", "up"): "the score went up, and the reasoning got better with it",
    ("up", "down"): "the score went up, the reasoning got worse",
    ("up", "open"): "the score went up; no change of the reasoning that chance alone would not make",
    ("down", "up"): "the score fell, the reasoning got better",
    ("down", "down"): "the score fell, and the reasoning got worse with it",
    ("down", "open"): "the score fell; no change of the reasoning that chance alone would not make",
    ("open", "up"): "the reasoning got better; no change of the score that chance alone would not make",
    ("open", "down"): "the reasoning got worse; no change of the score that chance alone would not make",
    ("open", "open"): "no change that chance alone would not make",
}


@dataclass(frozen=True)
class Measured:
    """A run that was measured: its questions and records, and what evaluators found, by label."""

    name: str
    study: Study
    sections: Mapping[str, Section]
    not_run: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """One figure of two runs. `difference` None: it cannot be paired (a figure that is no mean over questions, or not defined).

    `p` is McNemar's exact test where both say yes or no of the same questions, the paired t-test for other numbers about the same
    questions, else that of the bootstrap; `p_holm` is adjusted for all tests of its section.
    """

    label: str
    name: str
    before: Figure
    after: Figure
    difference: Figure | None = None
    p: float | None = None
    p_holm: float | None = None

    @property
    def direction(self) -> Direction:
        figure = self.difference
        if figure is None or figure.low is None or figure.high is None:
            return "open"
        return "up" if figure.low > 0 else "down" if figure.high < 0 else "open"


def shared_questions(runs: Sequence[Measured]) -> list[str]:
    """The ids that all runs answered as asked, in the first run's order.

    Raises UserError when there are none, or when a question differs between runs in its text, options or gold answer.
    """
    asked = [run.study.greedy() for run in runs]
    ids = [i for i in asked[0] if all(i in other for other in asked[1:])]
    if not ids:
        raise UserError(
            f"{' and '.join(run.name for run in runs)} share no question; runs are compared on the questions that all were asked"
        )
    for run, other in zip(runs[1:], asked[1:], strict=True):
        for i in ids:
            if _content(asked[0][i]) != _content(other[i]):
                raise UserError(f"question '{i}' is not the same in {runs[0].name} and {run.name}; compare evaluations of the same data")
    return ids


def _content(record: Record) -> tuple[object, ...]:
    return record.question, record.options, record.gold, record.kind


def changes(before: Measured, after: Measured, ids: Sequence[str]) -> dict[str, list[Change]]:
    """Every figure that both runs have, by section label; one that repeats another in both runs is left out (the highest of a range)."""
    clusters = before.study.clusters()
    found: dict[str, list[Change]] = {}
    for label, section in before.sections.items():
        other = {figure.name: figure for figure in after.sections[label].figures} if label in after.sections else {}
        pairs = _different([(figure, other[figure.name]) for figure in section.figures if figure.name in other])
        if pairs:
            found[label] = _adjusted([_change(label, one, two, ids, clusters) for one, two in pairs])
    return found


def _different(pairs: Sequence[tuple[Figure, Figure]]) -> list[tuple[Figure, Figure]]:
    kept: list[tuple[Figure, Figure]] = []
    for one, two in pairs:
        if not one.items or all((one.items, two.items) != (first.items, second.items) for first, second in kept):
            kept.append((one, two))
    return kept


def _adjusted(found: Sequence[Change]) -> list[Change]:
    tested = [change.p for change in found if change.p is not None]
    adjusted = iter(holm(tested))
    return [change if change.p is None else replace(change, p_holm=next(adjusted)) for change in found]


def _change(label: str, before: Figure, after: Figure, ids: Sequence[str], clusters: Mapping[str, Hashable]) -> Change:
    plain = Change(label, before.name, before, after)
    one, two = ({i: figure.items[i] for i in ids if i in figure.items} for figure in (before, after))
    if not one or not two or before.unit != after.unit:
        return plain
    either = [i for i in ids if i in one or i in two]
    nothing = (0.0, 0.0)
    estimated = ratio_difference(
        [one.get(i, nothing) for i in either], [two.get(i, nothing) for i in either], [clusters[i] for i in either]
    )
    if estimated is None:
        return plain
    estimate, p = estimated
    unit = "difference" if before.unit == "share" else before.unit
    difference = Figure(before.name, estimate.value, estimate.n, estimate.low, estimate.high, unit)
    return replace(
        plain,
        before=_only(before, one),
        after=_only(after, two),
        difference=difference,
        p=_p(one, two, p) if one.keys() == two.keys() else p,
    )


def _only(figure: Figure, items: Mapping[str, tuple[float, float]]) -> Figure:
    """The figure over the shared questions only; where that changes it, without its interval."""
    if items.keys() == figure.items.keys():
        return figure
    top, bottom = sum(a for a, _ in items.values()), sum(b for _, b in items.values())
    n = sum(b != 0 for _, b in items.values())
    return replace(figure, value=top / bottom if bottom else None, n=n, low=None, high=None, items=items, note="over the shared questions")


def _p(one: Mapping[str, tuple[float, float]], two: Mapping[str, tuple[float, float]], otherwise: float) -> float:
    pairs = [(*one[i], *two[i]) for i in one]
    if any(b != 1 or d != 1 for _, b, _, d in pairs):
        return otherwise
    if all(a in (0, 1) and c in (0, 1) for a, _, c, _ in pairs):
        return mcnemar_exact([bool(a) for a, *_ in pairs], [bool(c) for _, _, c, _ in pairs])
    tested = paired_t([c - a for a, _, c, _ in pairs])
    return otherwise if tested is None else tested


def verdict(found: Mapping[str, Sequence[Change]]) -> tuple[str, str]:
    """The tone and the sentence about score and reasoning: "accuracy +4.1 [1.2, 7.0]; consistency -6.3 [-9.0, -3.5]: the score went up,
    the reasoning got worse". Without consistency in both runs it speaks of the score alone."""
    by_name = {(change.label, change.name): change for group in found.values() for change in group if change.difference is not None}
    score = by_name.get(ACCURACY)
    reasoning = next((by_name[key] for key in REASONING if key in by_name), None)
    if score is None:
        return "open", "accuracy was not measured on the same questions in both runs"
    numbers = f"accuracy {_points(score)}"
    if reasoning is None:
        alone = {"up": "the score went up", "down": "the score fell", "open": _VERDICTS["open", "open"]}[score.direction]
        return {"up": "open", "down": "bad", "open": "open"}[
            score.direction
        ], f"{numbers}: {alone}; whether the reasoning did was not measured"
    numbers += f"; consistency {_points(reasoning)}"
    directions = (score.direction, reasoning.direction)
    tone = "bad" if "down" in directions else "good" if "up" in directions else "open"
    return tone, f"{numbers}: {_VERDICTS[directions]}"


def _points(change: Change) -> str:
    figure = change.difference
    if figure is None or figure.value is None or figure.low is None or figure.high is None:
        return "not defined"
    return f"{signed(figure.value)} {interval_text((figure.low, figure.high))}"


def in_words(found: Mapping[str, Sequence[Change]]) -> str:
    """What else changed beyond chance after Holm's adjustment, in a sentence each."""
    told = []
    for group in found.values():
        for change in group:
            if change.difference is not None and change.p_holm is not None and change.p_holm < 0.05:
                told.append(f"{change.label}, {change.name}: {said(change.difference)}, p = {p_text(change.p_holm)} after Holm")
    return "; ".join(told)


def p_text(p: float | None) -> str:
    """ "0.038", "< 0.0001", "–" """
    return "–" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.2g}"
