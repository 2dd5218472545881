"""What changed between two evaluations of the same questions: the numbers of `summary.json`, and the sentence that says them.

Reads Records only; asks no model. Differences are paired by question, intervals resample whole pictures (questions about one picture stand
or fall together). Shares are fractions in the summary and percentages in the sentence.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eval.metrics import Estimate, discordant, mcnemar_exact, minimum_detectable_effect, paired_bootstrap, wilson
from eval.runner import CLEAN
from eval.scene_truth import scene_truth
from vlm_rl.errors import UserError
from vlm_rl.types import Record

BLANK = "blank"
Scores = dict[str, float]
Tone = Literal["good", "bad", "open"]


@dataclass(frozen=True)
class Side:
    """One evaluation: greedy records by condition and question id, and the sampled ones of the clean condition."""

    greedy: Mapping[str, Mapping[str, Record]]
    sampled: Mapping[str, Sequence[Record]]

    def right(self, condition: str) -> Scores:
        return {i: float(record.correct) for i, record in self.greedy.get(condition, {}).items()}

    def sampled_right(self) -> Scores:
        return {i: sum(r.correct for r in records) / len(records) for i, records in self.sampled.items()}


def split(records: Sequence[Record], name: str = "") -> Side:
    """Sort an evaluation's records. Raises UserError when a question was answered greedily twice under one condition."""
    greedy: dict[str, dict[str, Record]] = defaultdict(dict)
    sampled: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.mode == "sample" and record.condition == CLEAN:
            sampled[record.sample_id].append(record)
        elif record.mode == "greedy" and record.sample_id in greedy[record.condition]:
            raise UserError(f"evaluation {name}: question '{record.sample_id}' has two greedy answers in condition '{record.condition}'")
        elif record.mode == "greedy":
            greedy[record.condition][record.sample_id] = record
    return Side(dict(greedy), dict(sampled))


def compare(before: Sequence[Record], after: Sequence[Record]) -> dict[str, Any]:
    """The `eval/*` keys of summary.json. A condition or decoding mode that either side lacks leaves its keys out.

    Raises UserError when the two sides answered different questions, or the same ones with different gold answers.
    """
    old, new = split(before, "before"), split(after, "after")
    summary: dict[str, Any] = {}
    if old.greedy.get(CLEAN) and new.greedy.get(CLEAN):
        clusters = _pictures(old.greedy[CLEAN])
        _require_same(old.greedy[CLEAN], new.greedy[CLEAN])
        summary |= _accuracy(old.right(CLEAN), new.right(CLEAN), clusters)
        summary |= _shares("before", list(old.greedy[CLEAN].values())) | _shares("after", list(new.greedy[CLEAN].values()))
        summary |= _over_blank(old, new, clusters)
    summary |= {f"eval/truth/{name}_before": share for name, share in scene_truth(before).items()}
    summary |= {f"eval/truth/{name}_after": share for name, share in scene_truth(after).items()}
    if old.sampled and new.sampled:
        clusters = _pictures({i: records[0] for i, records in old.sampled.items()})
        earlier, later = old.sampled_right(), new.sampled_right()
        estimate = _difference(earlier, later, clusters)
        summary |= {"eval/sampled_before": _mean(earlier), "eval/sampled_after": _mean(later)}
        summary |= {"eval/sampled_difference": estimate.value, "eval/sampled_difference_ci95": [estimate.low, estimate.high]}
    return summary


def _accuracy(before: Scores, after: Scores, clusters: Mapping[str, Hashable]) -> dict[str, Any]:
    estimate = _difference(before, after, clusters)
    n = estimate.n
    pairs = [before[i] > 0 for i in before], [after[i] > 0 for i in before]
    detectable = minimum_detectable_effect(n, sum(discordant(*pairs)) / n)
    return {
        **({} if detectable is None else {"eval/detectable_difference": detectable}),
        "eval/questions": n,
        "eval/pictures": len(set(clusters.values())),
        "eval/accuracy_before": _mean(before),
        "eval/accuracy_after": _mean(after),
        "eval/accuracy_ci95_before": _wilson(before),
        "eval/accuracy_ci95_after": _wilson(after),
        "eval/difference": estimate.value,
        "eval/difference_ci95": [estimate.low, estimate.high],
        "eval/mcnemar_p": mcnemar_exact(*pairs),
    }


def _shares(side: str, records: Sequence[Record]) -> dict[str, float]:
    n = len(records)
    return {
        f"eval/wellformed_{side}": sum(r.wellformed for r in records) / n,
        f"eval/unparsed_{side}": sum(r.answer is None for r in records) / n,
        f"eval/truncated_{side}": sum(r.finish == "length" for r in records) / n,
    }


def _over_blank(old: Side, new: Side, clusters: Mapping[str, Hashable]) -> dict[str, Any]:
    earlier, later = old.right(BLANK), new.right(BLANK)
    if not earlier or not later:
        return {}
    old_margin, new_margin = _less(old.right(CLEAN), earlier), _less(new.right(CLEAN), later)
    estimate = _difference(old_margin, new_margin, clusters)
    blank = _difference(earlier, later, clusters)
    return {
        "eval/blank_before": _mean(earlier),
        "eval/blank_after": _mean(later),
        "eval/blank_ci95_before": _wilson(earlier),
        "eval/blank_ci95_after": _wilson(later),
        "eval/blank_difference": blank.value,
        "eval/blank_difference_ci95": [blank.low, blank.high],
        "eval/gain_over_blank": estimate.value,
        "eval/gain_over_blank_ci95": [estimate.low, estimate.high],
    }


def _mean(scores: Scores) -> float:
    return sum(scores.values()) / len(scores)


def _wilson(right: Scores) -> list[float]:
    return list(wilson(round(sum(right.values())), len(right)))


def _less(scores: Scores, control: Scores) -> Scores:
    _require_same(scores, control)
    return {i: score - control[i] for i, score in scores.items()}


def _difference(before: Scores, after: Scores, clusters: Mapping[str, Hashable]) -> Estimate:
    change = _less(after, before)
    ids = sorted(change)  # the draws of a bootstrap go by position: without an order of its own, that of the file would show in the bounds
    return paired_bootstrap([change[i] for i in ids], [clusters[i] for i in ids])


def _require_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    if odd := sorted(set(one) ^ set(other)):
        shown = ", ".join(odd[:3]) + (", ..." if len(odd) > 3 else "")
        raise UserError(f"{len(odd)} questions were answered on one side only ({shown}); compare evaluations of the same questions")
    changed = [i for i, r in one.items() if isinstance(r, Record) and (r.gold, r.options) != (other[i].gold, other[i].options)]
    if changed:
        raise UserError(
            f"question '{changed[0]}' has another gold answer or other options before than after; evaluate both on the same data"
        )


def _pictures(records: Mapping[str, Record]) -> dict[str, Hashable]:
    """The cluster of each question: its pictures, or the question itself where it has none."""
    return {i: record.media_ids or i for i, record in records.items()}


def in_words(summary: Mapping[str, Any]) -> str:
    """The sentence a researcher would write about a summary: the numbers, and what they allow to say."""
    numbers = evidence(summary)
    joint = ": " if "eval/gain_over_blank" in summary else "; "
    return (f"{numbers}{joint}{verdict(summary)[1]}" if numbers else verdict(summary)[1]) + traces(summary)


_SAID = {"claim_truth": "claims true", "box_truth": "boxes right", "follows": "conclusion follows", "consistent": "answer as concluded"}


def traces(summary: Mapping[str, Any]) -> str:
    """How true the traces about scenes are, before and after, in percent; empty for other data."""
    pairs = [(words, summary.get(f"eval/truth/{name}_before"), summary.get(f"eval/truth/{name}_after")) for name, words in _SAID.items()]
    known = [f"{words} {points(before)} -> {points(after)}" for words, before, after in pairs if before is not None and after is not None]
    return f"; traces by exact truth: {', '.join(known)}" if known else ""


def evidence(summary: Mapping[str, Any]) -> str:
    """The numbers of the sentence, with their intervals; empty where nothing was compared."""
    if "eval/difference" not in summary:
        return ""
    before, after = points(summary["eval/accuracy_before"]), points(summary["eval/accuracy_after"])
    change = f"{signed(summary['eval/difference'])} points {interval_text(summary['eval/difference_ci95'])}"
    text = f"accuracy {before} -> {after}: {change}, n = {summary['eval/questions']}, paired"
    if "eval/gain_over_blank" not in summary:
        return text
    text += f"; the same questions with a blank picture: {points(summary['eval/blank_before'])} -> {points(summary['eval/blank_after'])}"
    over = interval_text(summary["eval/gain_over_blank_ci95"])
    return f"{text}; gain over the blank control {signed(summary['eval/gain_over_blank'])} {over}"


def verdict(summary: Mapping[str, Any]) -> tuple[Tone, str]:
    """What the intervals allow to say, in a few words, with its tone: ("good", "the model uses the picture")"""
    if "eval/difference_ci95" not in summary:
        return "open", "no evaluation before and after to compare"
    low, high = summary["eval/difference_ci95"]
    if high < 0:
        return "bad", "the model got worse"
    if low <= 0:
        return "open", "no change that chance alone would not make"
    if "eval/gain_over_blank_ci95" not in summary:
        return "open", "without a blank-picture control this does not show that the model uses the picture"
    if summary["eval/gain_over_blank_ci95"][0] > 0:
        return "good", "the model uses the picture"
    return "bad", "a blind model gains as much: this is not visual reasoning"


def points(share: float) -> str:
    """A share in percent with one digit: 0.5241 -> "52.4"."""
    return f"{round(100 * share, 1) + 0.0:.1f}"


def signed(share: float) -> str:
    """A difference of shares in points with its sign: 0.377 -> "+37.7"."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def interval_text(bounds: Sequence[float]) -> str:
    """An interval in points: [0.33, 0.421] -> "[33.0, 42.1]"."""
    return f"[{points(bounds[0])}, {points(bounds[1])}]"
