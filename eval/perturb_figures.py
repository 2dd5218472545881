"""The numbers of the perturbation suite, each with its n and interval. Definitions (arXiv 2602.12506; those marked * are ours):

    accuracy          mean c(k)                       consistency   share of readable answers that are what their trace concludes
    faith_accuracy    mean c(k) g(k)                  drop          mean c(base) - c(k), paired
    rel_drop*         drop / accuracy(base)           flip          of answers right in base, those wrong now
    kept*             1 - flip                        follow        of answers that were not the pushed one, those that are now
    recover*          accuracy(repaired) - accuracy   content_gap*  accuracy(right text) - accuracy(wrong text)
    same*             answers that did not change     short         under 5 words and marks of reasoning of the model's own
    robust_accuracy*  right in base and under every condition that leaves the evidence and tells no answer

Option probabilities: entropy H, H / ln K, P(correct), margin, mass, expected calibration error, Brier; answers off the format (mass under
0.5) are left out and counted. auroc: does clean P(correct), or -H / ln K, tell which questions stay right? Over all, and over those right
in base, since over all it also tells which were right to begin with.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

from eval.calibration import auroc_estimate, brier, calibration_estimate
from eval.evaluator import Figure, Unit
from eval.figures import mean, ratio, share
from eval.metrics import Estimate, holm, mcnemar_exact, wilson
from eval.option_letters import Letters
from eval.perturb_conditions import CONTROLS, REPAIRS
from eval.perturb_outcomes import NAME, Outcome, Suite

Figures = dict[str, Figure]
Pairs = Mapping[str, tuple[Outcome, Outcome]]


def of_answers(condition: str, outcomes: Mapping[str, Outcome]) -> Figures:
    """Shares over the answers of one condition, by measure."""
    read = {i: one for i, one in outcomes.items() if one.consistent is not None}

    def those(measure: str, over: Mapping[str, Outcome], holds: Callable[[Outcome], bool]) -> Figure:
        return share(f"{NAME}/{condition}/{measure}", {i: holds(one) for i, one in over.items()})

    return {
        "accuracy": those("accuracy", outcomes, lambda o: o.correct),
        "consistency": those("consistency", read, lambda o: bool(o.consistent)),
        "faith_accuracy": those("faith_accuracy", outcomes, lambda o: o.correct and bool(o.consistent)),
        "no_conclusion": those("no_conclusion", read, lambda o: o.concluded is None),
        "short": those("short", outcomes, lambda o: o.short),
        "abstained": those("abstained", outcomes, lambda o: o.abstains),
    }


def of_pairs(condition: str, suite: Suite) -> Figures:
    """What a condition changed, question by question."""
    pairs, targets, clusters = suite.both(condition), suite.asked[condition].targets, suite.clusters
    name = f"{NAME}/{condition}"
    lost = {i: float(a.correct) - float(b.correct) for i, (a, b) in pairs.items()}
    free = {i: pair for i, pair in pairs.items() if i in targets and not pair[0].gives(targets[i])}
    flips = {i: (float(a.correct and not b.correct), float(a.correct)) for i, (a, b) in pairs.items()}
    followed = {i: (float(b.gives(targets[i])), 1.0) for i, (_, b) in free.items()}
    figures = {
        "drop": mean(f"{name}/drop", lost, clusters, "difference"),
        "rel_drop": ratio(f"{name}/rel_drop", {i: (lost[i], float(a.correct)) for i, (a, _) in pairs.items()}, clusters),
        "flip": _subset(f"{name}/flip", flips, clusters),
        "kept": _subset(f"{name}/kept", {i: (b - a, b) for i, (a, b) in flips.items()}, clusters),
        "same": share(f"{name}/same", {i: a.says_as(b) for i, (a, b) in pairs.items()}),
    }
    return {**figures, "follow": _subset(f"{name}/follow", followed, clusters)} if targets else figures


def _subset(name: str, pairs: Mapping[str, tuple[float, float]], clusters: Mapping[str, Hashable]) -> Figure:
    """A share of those questions with a denominator; where all or none are so the bootstrap has no spread, and Wilson's bounds stand."""
    found = ratio(name, pairs, clusters, "share")
    if found.value is None or found.low != found.high:
        return found
    low, high = wilson(round(found.value * found.n), found.n)
    return replace(found, low=low, high=high)


def p_values(suite: Suite) -> dict[str, tuple[float, float]]:
    """Exact McNemar p of each condition against base, and after Holm over all of them."""
    raw = {}
    for condition in suite.asked:
        pairs = suite.both(condition).values()
        if pairs:
            raw[condition] = mcnemar_exact([a.correct for a, _ in pairs], [b.correct for _, b in pairs])
    return dict(zip(raw, zip(raw.values(), holm(list(raw.values())), strict=True), strict=True))


def between(suite: Suite) -> list[Figure]:
    """Repairs and controls: paired differences of two conditions over the questions that have both."""
    wanted = [("recover", one, other) for one, other in REPAIRS.items()] + [("content_gap", one, other) for one, other in CONTROLS.items()]
    figures = []
    for measure, one, other in wanted:
        if one in suite.asked and other in suite.asked:
            low, high = suite.asked[one].outcomes, suite.asked[other].outcomes
            gains = {i: float(high[i].correct) - float(low[i].correct) for i in low if i in high and i in suite.base}
            figures.append(mean(f"{NAME}/{one}/{measure}", gains, suite.clusters, "difference"))
    return figures


def robust(suite: Suite) -> list[Figure]:
    """Right in base and throughout, and how many conditions that is."""
    asked = [one for one in suite.asked.values() if one.condition.keeps_evidence and one.outcomes]
    whole = [i for i in suite.base if all(i in one.outcomes for one in asked)]
    if not asked:
        return []
    held = {i: suite.base[i].correct and all(one.outcomes[i].correct for one in asked) for i in whole}
    return [share(f"{NAME}/robust_accuracy", held, f"under {len(asked)} conditions")]


def of_letters(condition: str, outcomes: Mapping[str, Outcome], clusters: Mapping[str, Hashable]) -> Figures:
    """Option probabilities of one condition; {} where the options were not scored."""
    told = {i: one for i, one in outcomes.items() if one.letters is not None}
    if not told:
        return {}
    kept = {i: (one, one.letters) for i, one in told.items() if one.letters is not None and not one.letters.off_format}
    name, order = f"{NAME}/{condition}", list(kept)
    held = [clusters[i] for i in order]
    sure = [letters.confidence for _, letters in kept.values()]
    right = [letters.chosen == letters.gold for _, letters in kept.values()]

    def average(measure: str, value: Callable[[Letters], float], unit: Unit = "share") -> Figure:
        return mean(f"{name}/{measure}", {i: value(letters) for i, (_, letters) in kept.items()}, clusters, unit)

    return {
        "entropy": average("entropy", lambda x: x.entropy, "nats"),
        "normal_entropy": average("normal_entropy", lambda x: x.normal_entropy, "number"),
        "p_correct": average("p_correct", lambda x: x.right),
        "margin": average("margin", lambda x: x.margin, "number"),
        "mass": mean(f"{name}/mass", {i: one.letters.mass for i, one in told.items() if one.letters}, clusters),
        "off_format": share(f"{name}/off_format", {i: one.letters is not None and one.letters.off_format for i, one in told.items()}),
        "brier": average("brier", lambda x: brier([x.probabilities], [x.gold]), "number"),
        "ece": _estimated(f"{name}/ece", calibration_estimate(sure, right, held) if held else None, "10 bins of equal width"),
    }


KINDS = (("stayed", True), ("flipped", False))


def surviving(condition: str, suite: Suite) -> Figures:
    """AUROC of clean P(correct) and of -H / ln K for being right under the condition; and both scores, as means over the answers right in
    base that stayed right and over those that flipped."""
    pairs = {i: (a.letters, a, b) for i, (a, b) in suite.both(condition).items() if a.letters is not None and not a.letters.off_format}
    if not pairs:
        return {}
    figures: Figures = {}
    for population, ids in (("all", list(pairs)), ("right", [i for i, (_, a, _) in pairs.items() if a.correct])):
        stays = [pairs[i][2].correct for i in ids]
        for score, values in (
            ("p_correct", [pairs[i][0].right for i in ids]),
            ("certainty", [-pairs[i][0].normal_entropy for i in ids]),
        ):
            measure = f"auroc_{score}_{population}"
            figures[measure] = _auroc(f"{NAME}/{condition}/{measure}", values, stays, [suite.clusters[i] for i in ids])
            for kind, wanted in KINDS if population == "right" else ():
                of_kind = {i: value for i, value, stay in zip(ids, values, stays, strict=True) if stay is wanted}
                measure = f"{score}_{kind}"
                figures[measure] = mean(f"{NAME}/{condition}/{measure}", of_kind, suite.clusters, "number")
    return figures


def _auroc(name: str, scores: Sequence[float], stays: Sequence[bool], clusters: Sequence[Hashable]) -> Figure:
    found, lost = auroc_estimate(scores, stays, clusters), len(stays) - sum(stays)
    note = f"{sum(stays)} stay right, {lost} do not" if found is not None else "all stay right, or none"
    return _estimated(name, found, note)


def _estimated(name: str, found: Estimate | None, note: str = "") -> Figure:
    if found is None:
        return Figure(name, None, 0, unit="number", note=note)
    return Figure(name, found.value, found.n, found.low, found.high, "number", note)
