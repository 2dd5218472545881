"""The report of the perturbation suite: accuracy and consistency side by side, charts over severity, a verdict in words."""

from collections.abc import Mapping, Sequence

from eval.calibration import Bin, reliability_bins
from eval.charts import Chart
from eval.drawings import curve_chart, reliability_chart
from eval.evaluator import Figure, Section, Study, Table
from eval.figures import said
from eval.perturb_conditions import Condition
from eval.perturb_figures import Figures, between, of_answers, of_letters, of_pairs, p_values, robust, surviving
from eval.perturb_outcomes import Outcome, Suite, suite
from eval.perturb_verdict import Verdict, summary, verdicts

TITLE = "Perturbations"
MARKS = 12
_LEVEL = 0.05
_CLEAN = "base"
_SAID_ELSEWHERE = "kept"  # 1 - flip


def section(study: Study, asked: Sequence[Condition]) -> Section:
    """Everything that the records tell about these conditions."""
    found = suite(study, tuple(asked))
    if not found.base:
        return Section(TITLE, "No question was answered without a perturbation.", ())
    measured = _measured(found)
    ps = p_values(found)
    extra = [*between(found), *robust(found)]
    letters = _letters(found)
    survival = {name: figures for name in found.asked if (figures := surviving(name, found))}
    judged = verdicts(measured)
    tables = [
        _joint(measured, found),
        _changes(measured, found, ps),
        *([_probabilities(letters)] if letters else []),
        *([_survival(survival)] if survival else []),
        *([Table("Repairs and controls", ("figure", "value"), tuple((f.name.partition("/")[2], f) for f in extra))] if extra else []),
        Table("Verdicts", ("verdict", "under", "firm", "because"), tuple(_told(v) for v in judged)),
    ]
    groups = (*measured.values(), *letters.values(), *survival.values())
    figures = (*(figure for group in groups for measure, figure in group.items() if measure != _SAID_ELSEWHERE), *extra)
    words = " ".join([summary(judged), *(v.words for v in judged), *_more(found, measured, ps, survival, extra)])
    return Section(TITLE, words, figures, tuple(tables), tuple(_charts(found, measured, letters)), _marks(found))


def _measured(found: Suite) -> dict[str, Figures]:
    measured = {_CLEAN: of_answers(_CLEAN, found.base)}
    for name, one in found.asked.items():
        if one.outcomes:
            measured[name] = {**of_answers(name, one.outcomes), **(of_pairs(name, found) if found.both(name) else {})}
    return measured


def _letters(found: Suite) -> dict[str, Figures]:
    outcomes: dict[str, Mapping[str, Outcome]] = {_CLEAN: found.base, **{name: one.outcomes for name, one in found.asked.items()}}
    known = {name: {i: o for i, o in held.items() if i in found.clusters} for name, held in outcomes.items()}
    return {name: figures for name, held in known.items() if (figures := of_letters(name, held, found.clusters))}


def _joint(measured: Mapping[str, Figures], found: Suite) -> Table:
    columns = ("accuracy", "consistency", "faith_accuracy", "no_conclusion", "short", "abstained")
    rows = [(name, *(figures[c] for c in columns)) for name, figures in measured.items()]
    heads = ("condition", "accuracy", "consistency", "right and consistent", "no conclusion", "short traces", "abstained")
    exact = all("scene" in one.row.meta for one in found.base.values())
    how = "what the grammar of scene traces reads" if exact else "the one answer that the trace's last sentence states"
    note = f"Consistency: of the answers that can be read, those that are what the whole trace concludes ({how}). Read the two together."
    return Table("Accuracy and consistency", heads, tuple(rows), note)


def _changes(measured: Mapping[str, Figures], found: Suite, ps: Mapping[str, tuple[float, float]]) -> Table:
    columns = ("drop", "rel_drop", "flip", "follow", "same")
    rows: list[tuple[str | float | Figure | None, ...]] = []
    for name, one in found.asked.items():
        figures = measured.get(name, {})
        p = tuple(f"{value:.3g}" for value in ps[name]) if name in ps else (None, None)
        rows.append((name, *(figures.get(c) for c in columns), *p, one.not_asked, one.failed))
    heads = (
        "condition",
        "drop",
        "relative drop",
        "flipped",
        "pushed answer copied",
        "same answer",
        "p",
        "p (Holm)",
        "not asked",
        "failed",
    )
    note = "Differences are paired by question, intervals by picture; p is McNemar's exact test. Flipped: of the answers right in base."
    return Table("What changed", heads, tuple(rows), note)


def _probabilities(letters: Mapping[str, Figures]) -> Table:
    columns = ("entropy", "normal_entropy", "p_correct", "margin", "mass", "off_format", "ece", "brier")
    rows = tuple((name, *(figures[c] for c in columns)) for name, figures in letters.items())
    heads = ("condition", "H (nats)", "H / ln K", "P(correct)", "margin", "mass", "off format", "ECE", "Brier")
    note = "After each answer's own reasoning. Off format: the options together get under half of the probability; left out of the rest."
    return Table("Option probabilities", heads, rows, note)


def _survival(survival: Mapping[str, Figures]) -> Table:
    columns = ("auroc_p_correct_all", "auroc_certainty_all", "auroc_p_correct_right", "auroc_certainty_right")
    rows = tuple((name, *(figures[c] for c in columns)) for name, figures in survival.items())
    heads = ("condition", "P(correct), all", "-H, all", "P(correct), right in base", "-H, right in base")
    note = "AUROC of the clean score for being right under the condition. Over all questions it also tells which were right to begin with."
    return Table("Does the clean score tell what survives?", heads, rows, note)


def _told(verdict: Verdict) -> tuple[str, str, str, str]:
    return verdict.name or "-", verdict.about, "yes" if verdict.firm else "no", verdict.words


def _more(
    found: Suite,
    measured: Mapping[str, Figures],
    ps: Mapping[str, tuple[float, float]],
    survival: Mapping[str, Figures],
    extra: list[Figure],
) -> list[str]:
    clean = measured[_CLEAN]
    lines = [f"Clean accuracy is {said(clean['accuracy'])} at a consistency of {said(clean['consistency'])}."]
    lost = [name for name, (_, p) in ps.items() if p < _LEVEL and (measured[name]["drop"].value or 0) > 0]
    lines.append(
        f"Accuracy falls beyond chance (Holm) under {', '.join(lost)}." if lost else "No condition lowers accuracy beyond chance (Holm)."
    )
    graded = [name for name, one in found.asked.items() if one.condition.severity is not None and "drop" in measured.get(name, {})]
    if graded:
        worst = max(graded, key=lambda name: measured[name]["drop"].value or 0.0)
        lines.append(f"Of what comes in severities {worst} costs most: {said(measured[worst]['drop'])}.")
    held = [f for f in extra if f.name.endswith("robust_accuracy")]
    lines += [f"{said(f)} are right in base and {f.note} that leave the evidence." for f in held]
    kept = [name for name in lost if found.asked[name].condition.keeps_evidence and name in survival]
    told = [(name, survival[name]) for name in kept if survival[name]["auroc_p_correct_right"].value is not None]
    if told:
        name, figures = max(told, key=lambda pair: abs(measured[pair[0]]["drop"].value or 0))
        p, h = figures["auroc_p_correct_right"], figures["auroc_certainty_right"]
        lines.append(
            f"Of the answers right in base, clean P(correct) tells which survive {name} with an AUROC of {said(p)}, low entropy {said(h)}."
        )
    lines += [f"{name} was not run: {one.reason or 'nothing was asked'}." for name, one in found.asked.items() if not one.outcomes]
    return [*lines, f"Option probabilities were not run: {found.no_options}."] if found.no_options else lines


def _charts(found: Suite, measured: Mapping[str, Figures], letters: Mapping[str, Figures]) -> list[Chart]:
    charts = []
    for measure, title in (("accuracy", "Accuracy over severity"), ("consistency", "Consistency over severity")):
        curves: dict[str, dict[float, Figure]] = {}
        for name, one in found.asked.items():
            if one.condition.severity is not None and name in measured:
                curve = curves.setdefault(one.condition.series, {0.0: measured[_CLEAN][measure]})
                curve[float(one.condition.severity)] = measured[name][measure]
        if curves:
            places = {x: "clean" if x == 0 else f"{x:.0f}" for x in sorted({x for curve in curves.values() for x in curve})}
            charts.append(curve_chart(title, curves, "severity", places))
    bins = {name: _bins(held) for name, held in _reliability(found).items() if name in letters}
    if any(bins.values()):
        charts.append(reliability_chart("Reliability of option probabilities", bins))
    return charts


def _reliability(found: Suite) -> dict[str, Mapping[str, Outcome]]:
    """Clean answers and those under wrong text: few enough to be read in one drawing."""
    wanted = [name for name, one in found.asked.items() if one.condition.pushes][:4]
    return {_CLEAN: found.base, **{name: found.asked[name].outcomes for name in wanted}}


def _bins(outcomes: Mapping[str, Outcome]) -> list[Bin]:
    kept = [o.letters for o in outcomes.values() if o.letters is not None and not o.letters.off_format]
    return reliability_bins([x.confidence for x in kept], [x.chosen == x.gold for x in kept])


def _marks(found: Suite) -> tuple[str, ...]:
    """Questions whose right answer became the pushed one, then others that flipped."""
    pushed, flipped = [], []
    for name, one in found.asked.items():
        for i, (before, after) in found.both(name).items():
            if before.correct and not after.correct and one.condition.keeps_evidence:
                (pushed if i in one.targets and after.gives(one.targets[i]) else flipped).append(i)
    return tuple(dict.fromkeys([*pushed, *flipped]))[:MARKS]
