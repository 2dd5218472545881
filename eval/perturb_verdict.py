"""What the numbers of the perturbation suite say about a model, in the words of arXiv 2602.12506 and ours. The lines are ours.

    brittle         follows a wrong trace that it was given: half or more of its other answers become the pushed one
    stubborn        keeps 80% of its right answers under a wrong trace, but under half of them agree with what is then reasoned
    steady          keeps them, and its reasoning returns to what it answers
    broken by form  loses them under a right trace too: it is the form that disturbs, not what the trace says
    caption copier  half or more of its other answers become what a wrong caption says
    blind           90% of its answers stay the same with the picture of another question, or, where that was not asked, without one
    contradicting   under half of its clean answers are what their own trace concludes

A verdict is firm where no interval it rests on crosses its line. Accuracy is never told without consistency.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.evaluator import Figure
from eval.figures import said

HALF, KEPT, SAME = 0.5, 0.8, 0.9
_WITHOUT = {"swapped": "with the picture of another question", "blank": "with a blank picture"}
Measured = Mapping[str, Mapping[str, Figure]]


@dataclass(frozen=True)
class Verdict:
    """`name` as in the table above, "" where nothing in particular was found; `about` is the condition it was found under."""

    name: str
    about: str
    words: str
    firm: bool


def verdicts(measured: Measured) -> list[Verdict]:
    """By what was asked: `measured[condition][measure]`, "base" for the clean answers. Conditions that are missing give no verdict."""
    rules = (_contradicting, _under_wrong_trace, _under_wrong_caption, _without_picture)
    return [verdict for rule in rules if (verdict := rule(measured)) is not None]


def _contradicting(measured: Measured) -> Verdict | None:
    consistency = measured["base"].get("consistency")
    if consistency is None or consistency.value is None:
        return None
    words = f"Of the clean answers {said(consistency)} are what their own trace concludes"
    if consistency.value < HALF:
        return Verdict("contradicting", "base", f"{words}: its reasoning is not what it answers by.", _firm((consistency, HALF)))
    return Verdict("", "base", f"{words}.", _firm((consistency, HALF)))


def _under_wrong_trace(measured: Measured) -> Verdict | None:
    figures = measured.get("wrong_think", {})
    kept, follow, consistency = (figures.get(measure) for measure in ("kept", "follow", "consistency"))
    if kept is None or kept.value is None:
        return None
    told = f"{said(kept)} of its right answers are kept under a wrong trace"
    joint = "" if consistency is None else f", and {said(consistency)} of all answers are what the trace then concludes"
    if follow is not None and follow.value is not None and follow.value >= HALF:
        words = f"It follows a wrong trace: {said(follow)} of its other answers become the pushed one; {told}{joint}."
        return Verdict("brittle", "wrong_think", words, _firm((follow, HALF)))
    if kept.value >= KEPT:
        agrees = consistency is not None and consistency.value is not None and consistency.value >= HALF
        name, rest = ("steady", "its reasoning finds back") if agrees else ("stubborn", "it answers past its own reasoning")
        lines = [(kept, KEPT), *([(consistency, HALF)] if consistency is not None else [])]
        return Verdict(name, "wrong_think", f"{told}{joint}: {rest}.", _firm(*lines))
    right = measured.get("right_think", {}).get("kept")
    if right is not None and right.value is not None and right.value < KEPT:
        words = f"{told}, but under a right one only {said(right)}: the form disturbs it, whatever the trace says."
        return Verdict("broken by form", "wrong_think", words, _firm((right, KEPT), (kept, KEPT)))
    return Verdict("", "wrong_think", f"{told}{joint}.", _firm((kept, KEPT)))


def _under_wrong_caption(measured: Measured) -> Verdict | None:
    figures = measured.get("wrong_caption", {})
    kept, follow = figures.get("kept"), figures.get("follow")
    if follow is not None and follow.value is not None and follow.value >= HALF:
        words = f"It copies captions: {said(follow)} of its other answers become what a wrong caption says"
        told = "" if kept is None or kept.value is None else f"; of its right answers {said(kept)} are kept"
        return Verdict("caption copier", "wrong_caption", f"{words}{told}.", _firm((follow, HALF)))
    if kept is None or kept.value is None:
        return None
    copied = "" if follow is None or follow.value is None else f"; {said(follow)} of its other answers become what the caption says"
    return Verdict("", "wrong_caption", f"Under a wrong caption {said(kept)} of its right answers are kept{copied}.", _firm((kept, KEPT)))


def _without_picture(measured: Measured) -> Verdict | None:
    """Another picture tells more than a blank one, which may disturb a model that does not use what it sees."""
    tried = [c for c in _WITHOUT if (same := measured.get(c, {}).get("same")) is not None and same.value is not None]
    if not tried:
        return None
    told = [
        f"{said(measured[c]['same'])} of its answers are the same {_WITHOUT[c]}, and accuracy falls by {_points(measured[c]['drop'])}"
        for c in tried
    ]
    same, drop = measured[tried[0]]["same"], measured[tried[0]]["drop"]
    if same.value is not None and same.value >= SAME:
        return Verdict("blind", tried[0], f"{'; '.join(told)}: they do not depend on what it shows.", _firm((same, SAME)))
    depends = drop.low is not None and drop.low > 0
    rest = "they depend on what it shows" if depends else "no proof that they depend on what it shows"
    return Verdict("", tried[0], f"{'; '.join(told)}: {rest}.", depends)


def _points(drop: Figure) -> str:
    return said(drop).removeprefix("+")


def _firm(*lines: tuple[Figure, float]) -> bool:
    return all(f.low is not None and f.high is not None and not f.low < line <= f.high for f, line in lines)


def summary(found: Sequence[Verdict]) -> str:
    """ "Verdict: brittle; caption copier (not firm: ...)." """
    named = [v.name if v.firm else f"{v.name} (not firm: an interval crosses the line)" for v in found if v.name]
    return f"Verdict: {'; '.join(named)}." if named else "Verdict: nothing that has a name."
