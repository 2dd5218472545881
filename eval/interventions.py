"""Textual and visual interventions: what moves the answer, the words of the trace or what is seen? (arXiv 2510.23482, evaluation part)

The answer is decoded again, greedily, from the model's own closed trace:

    base      nothing changed: the second run of each question; where its answer is not the first one, the question is unstable and left out
    text      do(T): every piece of the trace contradicted, the conclusion too; pixels untouched
    random    do(V): the picture replaced by noise of its size; text untouched
    swapped   do(V): the picture of another row; text untouched

    Drop = Acc - Acc|do     ATE = -Drop     Change = share of changed answers     VisualReliance = Change_V / Change_T

and, with the trace written anew, `random_regenerated` and `swapped_regenerated`: does seeing matter when the trace is not already there.
A low Change_V with the trace kept says that the trace carries the answer, which is no fault by itself; a low one with the trace regenerated
says that the model does not look. Deviations: models here are shown no crops, so do(V) changes the whole picture; mistakes are written by
rules (`eval.contradicting`), not by a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from data.views import Draw, NotApplicable, apply
from eval.contradicting import mistaken
from eval.evaluator import Case, Evaluator, Figure, Rounds, Section, Study, Table
from eval.figures import mean, ratio, said, share, with_tabled
from eval.metrics import holm, mcnemar_exact
from eval.reading import Turn, answer_limits, answered, same, steps
from vlm_rl.types import Generate, Query, Record, Sample

NAME = "interventions"
BASE, TEXT = f"{NAME}/base", f"{NAME}/text"
VISUAL = {"random": "image_random", "swapped": "image_swapped"}


class Interventions(Evaluator):
    """Takes no arguments."""

    needs = frozenset({"prefill"})

    def rounds(self, case: Case) -> Rounds:
        turn = Turn.of(case.base)
        if turn.trace is None or not turn.trace.strip():
            return ()
        pieces, joint = steps(turn.trace)
        changed = joint.join(mistaken(pieces, case.row, case.seed))
        asked = {BASE: turn.told(case.row, turn.trace), TEXT: turn.told(case.row, changed)}
        for name, row in _unseen(case).items():
            asked[f"{NAME}/{name}"] = turn.told(row, turn.trace)
            asked[f"{NAME}/{name}_regenerated"] = replace(row, prefill=case.row.prefill)
        short = answer_limits(case.greedy)
        queries: list[Query] = [Generate("policy", row, case.greedy if "regen" in name else short) for name, row in asked.items()]
        replies = yield queries
        return [case.record(name, row, reply) for (name, row), reply in zip(asked.items(), replies, strict=True)]

    def measure(self, study: Study) -> Section:
        first, again = study.greedy(), study.greedy(BASE)
        read = [i for i, r in again.items() if i in first and answered(first[i], study.rows[i]) is not None]
        stable = {i: again[i] for i in read if _same(first[i], again[i], study)}
        found = {name.partition("/")[2]: study.greedy(name) for name in study.conditions(f"{NAME}/") if name != BASE}
        changes = {name: _changes(stable, records, study) for name, records in found.items()}
        figures = [figure for name, records in found.items() for figure in _figures(name, stable, records, changes[name], study)]
        figures += [_reliance(name, changes, study) for name in VISUAL if name in changes]
        figures.append(share(f"{NAME}/stable", {i: i in stable for i in read}, "asked twice with nothing changed, the same answer"))
        table = _table(found, stable, changes, study)
        marks = tuple(i for i, moved in changes.get("random_regenerated", {}).items() if not moved)
        return Section("Interventions on text and picture", _words(figures), with_tabled(figures, [table]), (table,), marks=marks)


def _unseen(case: Case) -> dict[str, Sample]:
    rows = {}
    for name, view in VISUAL.items():
        try:
            rows[name] = apply([view], case.row, Draw(case.seed, others=case.others))
        except NotApplicable:
            continue
    return rows


def _same(one: Record, other: Record, study: Study) -> bool:
    row = study.rows[one.sample_id]
    return same(answered(one, row), answered(other, row), row)


def _changes(stable: Mapping[str, Record], records: Mapping[str, Record], study: Study) -> dict[str, bool]:
    """Of the stable questions that were asked: whether the answer is another one (an answer that cannot be read is)."""
    return {i: not _same(stable[i], records[i], study) for i in stable if i in records}


def _figures(
    name: str, stable: Mapping[str, Record], records: Mapping[str, Record], changes: Mapping[str, bool], study: Study
) -> list[Figure]:
    drop = {i: float(stable[i].correct) - float(records[i].correct) for i in changes}
    clusters = study.clusters()
    return [
        mean(f"{NAME}/drop_{name}", drop, clusters, "difference"),
        mean(f"{NAME}/ate_{name}", {i: -d for i, d in drop.items()}, clusters, "difference"),
        share(f"{NAME}/change_{name}", changes, "one that cannot be read is another one"),
    ]


def _reliance(name: str, changes: Mapping[str, Mapping[str, bool]], study: Study) -> Figure:
    """Change_V / Change_T over the questions that have both; not defined where no text ever changed an answer."""
    both = {i: (float(moved), float(changes["text"][i])) for i, moved in changes[name].items() if i in changes["text"]}
    return ratio(f"{NAME}/visual_reliance_{name}", both, study.clusters(), note="Change_V / Change_T, the trace kept")


def _table(
    found: Mapping[str, Mapping[str, Record]], stable: Mapping[str, Record], changes: Mapping[str, Mapping[str, bool]], study: Study
) -> Table:
    rows, ps = [], []
    for name, records in found.items():
        ids = list(changes[name])
        before, after = [stable[i].correct for i in ids], [records[i].correct for i in ids]
        drop, ate, change = _figures(name, stable, records, changes[name], study)
        accuracies = (
            share(f"{NAME}/{key}", dict(zip(ids, flags, strict=True)))
            for key, flags in ((f"acc_base_{name}", before), (f"acc_{name}", after))
        )
        unread = share(f"{NAME}/unread_{name}", {i: answered(records[i], study.rows[i]) is None for i in ids})
        rows.append((name, *accuracies, drop, ate, change, unread))
        ps.append(mcnemar_exact(before, after) if ids else 1.0)
    tested = tuple((*row, p, adjusted) for row, p, adjusted in zip(rows, ps, holm(ps), strict=True))
    columns = ("intervention", "accuracy before", "after", "drop", "ATE", "answers changed", "answers unread", "McNemar p", "Holm")
    return Table("Interventions", columns, tested, "Stable questions only. Holm: p adjusted for all rows of the table.")


def _words(figures: Sequence[Figure]) -> str:
    named = {figure.name.partition("/")[2]: figure for figure in figures}
    if named.get("change_text") is None or named["change_text"].value is None:
        return "No question could be asked twice with the same answer, so no intervention says anything."
    visual = ""
    if "change_random" in named:
        visual = f"; noise in place of the picture changes {said(named['change_random'])} while the trace is kept"
    if "change_random_regenerated" in named:
        visual += f" and {said(named['change_random_regenerated'])} where the trace is written anew"
    return (
        f"Contradicting the words of its trace changes {said(named['change_text'])} of the model's answers{visual}. "
        f"Asked twice with nothing changed, {said(named['stable'])} answers stay, and only these are counted. "
        "Once a trace stands, an answer that does not look again is no fault; one that survives a trace written without the picture is."
    )
