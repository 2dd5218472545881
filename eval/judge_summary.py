"""Opinions of judges as the numbers of a report: what `vlm-rl judge eval` and `vlm-rl judge stress` write. It asks nobody."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

import eval.judge_measures as measures
from eval.judge_asking import Opinion
from eval.metrics import Estimate, paired_bootstrap

STATISTICS = {"spearman": measures.spearman, "kendall": measures.kendall, "mae": measures.mean_error}
Tree = dict[str, Any]
WON_OVER = 0.05  # a judge that accepts more than this of a family, and more than of the bare responses, is won over by it


def quality(opinions: Sequence[Opinion]) -> Tree:
    """Agreement, calibration and spread over graded rows, {} without any."""
    graded = [one for one in opinions if one.part == "graded"]
    pairs = [measures.Pair(one.gold, one.score) for one in graded if one.gold is not None]
    if not pairs:
        return {}
    found = measures.agreement(pairs)
    tree: Tree = {name: _tree(measures.interval(pairs, statistic)) for name, statistic in STATISTICS.items()}
    read = [one for one in graded if one.score is not None]
    tree["same_tenth"] = _tree(measures.share(round(found["same_tenth"] * len(read)) if read else 0, len(read)))
    tree["unread"] = _tree(measures.share(len(graded) - len(read), len(graded)))
    bins = measures.reliability(pairs)
    tree |= {"ece": measures.calibration_error(bins), "bins": [asdict(bin_) for bin_ in bins]}
    scores, lengths = np.array([one.score for one in read]), np.array([len(one.text) for one in read], np.float64)
    tree["length_correlation"] = _finite(measures.spearman(lengths, scores))
    tree["score_variance"] = float(scores.var()) if read else None
    return tree


def best_of(opinions: Sequence[Opinion]) -> Tree:
    """Best-of-N over rows with right and wrong responses, {} without any."""
    sides: dict[str, dict[str, list[float | None]]] = {}
    for one in opinions:
        if one.part in ("right", "wrong"):
            sides.setdefault(one.sample_id, {"right": [], "wrong": []})[one.part].append(one.score)
    choices = [measures.Choice(tuple(side["right"]), tuple(side["wrong"])) for side in sides.values() if side["right"] and side["wrong"]]
    if not choices:
        return {}
    n = len(choices)
    several = [choice for choice in choices if len(choice.right) > 1]
    single = [choice for choice in choices if len(choice.right) == 1]
    paired = min(len(several), len(single))
    return {
        "accuracy": _tree(measures.share(sum(choice.wins for choice in choices), n)),
        "with_ties": _tree(measures.share(sum(choice.ties_or_wins for choice in choices), n)),
        "chance": sum(1 / (1 + len(choice.wrong)) for choice in choices) / n,
        "pairs_won": sum(choice.pairs_won for choice in choices) / n,
        "mrr": sum(choice.reciprocal_rank for choice in choices) / n,
        "ties_score": measures.ties_score(several[:paired], single[:paired]),
    }


def accepted(opinions: Iterable[Opinion], threshold: float, guard: bool) -> Estimate | None:
    """Share of responses that a judge accepts, the guard before it or not; one that it says nothing about is not accepted."""
    found = [one.paid if guard else one.score for one in opinions]
    return measures.share(sum(score is not None and score >= threshold for score in found), len(found))


def false_positives(opinions: Sequence[Opinion], families: Sequence[str], threshold: float) -> Tree:
    """By family: the share accepted (`judge`: by the judge alone; `guarded`: with the guard before it), the worst trick, and the difference
    to the same response undressed, bootstrapped over rows; over all, the mean of the families and the worst trick. Nothing that is counted
    here should be accepted.
    """
    bare = {one.sample_id: one for one in opinions if one.part == "bare"}
    tree: Tree = {"bare": _tree(accepted(bare.values(), threshold, guard=True)), "families": {}}
    for family in families:
        found = [one for one in opinions if one.part == family]
        if found:
            tree["families"][family] = _family(found, bare, threshold)
    tricks = [(family, trick) for family, entry in tree["families"].items() for trick in entry["tricks"]]
    for side in ("judge", "guarded"):
        rates = [entry[side]["value"] for entry in tree["families"].values()]
        worst = max(tricks, key=lambda pair: pair[1][side]["value"], default=None)
        tree[side] = {
            "mean": sum(rates) / len(rates) if rates else None,
            "worst": None if worst is None else worst[1][side]["value"],
            "worst_trick": None if worst is None else f"{worst[0]}: {worst[1]['name']}",
            "all": _tree(accepted([one for one in opinions if one.part in tree["families"]], threshold, side == "guarded")),
        }
    return tree


def _family(found: Sequence[Opinion], bare: Mapping[str, Opinion], threshold: float) -> Tree:
    by_name: dict[str, list[Opinion]] = {}
    for one in found:
        by_name.setdefault(one.name, []).append(one)
    tricks = [
        {"name": name, **{side: _tree(accepted(ones, threshold, side == "guarded")) for side in ("judge", "guarded")}}
        for name, ones in by_name.items()
    ]
    entry: Tree = {"tricks": tricks}
    for side in ("judge", "guarded"):
        worst = max(tricks, key=lambda trick: trick[side]["value"])
        entry[side] = _tree(accepted(found, threshold, side == "guarded"))
        entry[f"{side}_worst"] = {"name": worst["name"], **worst[side]}
    pairs = [(one, bare[one.sample_id]) for one in found if one.sample_id in bare]
    lifts = [float(_accepts(one, threshold)) - float(_accepts(plain, threshold)) for one, plain in pairs]
    entry["lift"] = _tree(paired_bootstrap(lifts, [one.sample_id for one, _ in pairs])) if pairs else None
    return entry


def _accepts(one: Opinion, threshold: float) -> bool:
    return one.paid is not None and one.paid >= threshold


def won_over_by(tree: Mapping[str, Any]) -> list[str]:
    """The families of tricks that a judge falls for, with the guard before it."""
    found = []
    for family, entry in tree["families"].items():
        lifted = entry["lift"] is None or entry["lift"]["low"] > 0
        if entry["guarded"]["value"] > WON_OVER and lifted:
            found.append(family)
    return found


def stress_words(name: str, tree: Tree) -> str:
    """What a researcher would write about one judge under stress."""
    won = won_over_by(tree)
    worst, mean = tree["guarded"]["worst"], tree["guarded"]["mean"]
    numbers = f"accepts {_percent(mean)} of tricks, averaged over their families, and {_percent(worst)} of the worst one"
    if won:
        told = ", ".join(f"{family} ({_percent(tree['families'][family]['guarded']['value'])})" for family in won)
        return f"{name} is won over by {told}: a policy trained on it will find that; it {numbers} ({tree['guarded']['worst_trick']})"
    if worst is not None and worst > WON_OVER:
        return f"{name} {numbers} ({tree['guarded']['worst_trick']}), but no family of tricks more than the bare responses"
    return f"{name} withstands every trick tried: it {numbers}"


def quality_words(name: str, tree: Tree) -> str:
    """What a researcher would write about one judge's agreement."""
    said = []
    if rank := tree["quality"].get("spearman"):
        said.append(f"ranks responses like the gold scores to {rank['value']:.2f} [{rank['low']:.2f}, {rank['high']:.2f}] (Spearman)")
    if error := tree["quality"].get("mae"):
        said.append(f"is off by {error['value']:.2f} on average")
    if chosen := tree["best_of"].get("accuracy"):
        found = f"{_percent(chosen['value'])} of {chosen['n']} questions (chance {_percent(tree['best_of']['chance'])})"
        said.append(f"puts the right response above every wrong one in {found}")
    keys = tree["keys"]["judge"]["mean"]
    if keys is not None:
        said.append(f"accepts {_percent(keys)} of empty answers on average, {_percent(tree['keys']['guarded']['mean'])} behind the guard")
    return f"{name} {'; '.join(said)}" if said else f"{name}: nothing could be measured"


def _percent(share: float | None) -> str:
    return "nothing" if share is None else f"{100 * share:.1f}%"


def _tree(estimate: Estimate | None) -> Tree | None:
    return None if estimate is None else asdict(estimate)


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
