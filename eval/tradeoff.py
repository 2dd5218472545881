"""Accuracy, consistency and robustness of one policy while it is trained: what is kept of each evaluation, the chart, and the warning.

Each evaluation asks the same questions, so changes are paired by question. Numbers in, numbers and words out; asks no model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.charts import Chart, Line, number
from eval.comparison import REASONING
from eval.evaluator import Figure, Section
from eval.metrics import Estimate, ratio_difference
from eval.summary import interval_text, signed

# What stands for each quantity: the first of these figures that an evaluation has.
HEADLINES: dict[str, tuple[str, ...]] = {
    "accuracy": ("accuracy",),
    "consistency": tuple(name for _, name in REASONING),
    "robustness": ("perturb/robust_accuracy",),
}


def logged(sections: Mapping[str, Section]) -> dict[str, float]:
    """eval/LABEL/FIGURE of every figure that is defined; a figure whose name begins with its label has it once."""
    named = {
        f"eval/{figure.name if figure.name.startswith(f'{label}/') else f'{label}/{figure.name}'}": figure.value
        for label, section in sections.items()
        for figure in section.figures
    }
    return {name: value for name, value in named.items() if value is not None}


def kept(sections: Mapping[str, Section]) -> dict[str, Any]:
    """The headlines as JSON, with what each question adds to them."""
    figures = {figure.name: figure for section in sections.values() for figure in section.figures}
    found = {quantity: next((figures[name] for name in names if name in figures), None) for quantity, names in HEADLINES.items()}
    return {quantity: _tree(figure) for quantity, figure in found.items() if figure is not None and figure.value is not None}


def _tree(figure: Figure) -> dict[str, Any]:
    items = {i: list(pair) for i, pair in figure.items.items()}
    return {"name": figure.name, "value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n, "items": items}


def warning(first: Mapping[str, Any], now: Mapping[str, Any], clusters: Mapping[str, Any]) -> str | None:
    """That accuracy rises while consistency falls since the `first` evaluation, None otherwise.

    Consistency falls when the interval of its paired change lies below 0; accuracy rises when its change is above 0.
    """
    score, reasoning = (_change(first.get(quantity), now.get(quantity), clusters) for quantity in ("accuracy", "consistency"))
    if score is None or reasoning is None or score.value <= 0 or reasoning.high >= 0:
        return None
    told = ", ".join(
        f"{quantity} {signed(change.value)} {interval_text((change.low, change.high))}"
        for quantity, change in (("accuracy", score), ("consistency", reasoning))
    )
    return f"accuracy rises while consistency falls: {told} points since the first evaluation, on {score.n} questions"


def _change(first: Any, now: Any, clusters: Mapping[str, Any]) -> Estimate | None:
    """Of the questions that both have; of figures that are not the same one, None."""
    if not (isinstance(first, Mapping) and isinstance(now, Mapping)) or first.get("name") != now.get("name"):
        return None
    before, after = first["items"], now["items"]
    both = sorted(before.keys() & after.keys() & clusters.keys())
    if not both:
        return None
    found = ratio_difference([tuple(before[i]) for i in both], [tuple(after[i]) for i in both], [clusters[i] for i in both])
    return None if found is None else found[0]


def tradeoff_chart(lines: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The headlines over training steps, with their intervals; None before the first evaluation."""
    drawn = [_line(quantity, colour, lines) for colour, quantity in enumerate(HEADLINES)]
    found = tuple(line for line in drawn if line.points)
    note = "the same held-out questions each time; bars are 95% intervals"
    return Chart("Accuracy, consistency and robustness", found, note, share=True, whole=True) if found else None


def _line(quantity: str, colour: int, lines: Sequence[Mapping[str, Any]]) -> Line:
    points, whiskers, name = [], [], quantity
    for line in lines:
        figure = line.get(quantity)
        value = number(figure.get("value")) if isinstance(figure, Mapping) else None
        step = number(line.get("step"))
        if value is None or step is None or not isinstance(figure, Mapping):
            continue
        points.append((step, value))
        name = str(figure.get("name", quantity))
        low, high = number(figure.get("low")), number(figure.get("high"))
        if low is not None and high is not None:
            whiskers.append((step, low, high))
    label = quantity if name == quantity else f"{quantity} ({name})"
    return Line(label, tuple(points), colour, dots=True, smooth=False, whiskers=tuple(whiskers))
