"""The drawings of an experiment: curves over training with bands over seeds. Numbers in, charts out."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from eval.charts import SERIES, Chart, Line
from eval.lab_results import SeedResult

Results = Mapping[tuple[str, int], SeedResult]
_BAND = "the mean over seeds; the band goes from the lowest to the highest"
_WINDOW = 8
# Logged key -> title, share or not, averaged over neighbouring steps or not.
DRAWN: dict[str, tuple[str, bool, bool]] = {
    "watched/accuracy": ("Held-out accuracy", True, False),
    "watched/consistency": ("Answers that the trace concludes", True, False),
    "eval/scene_truth/claim_truth": ("True claims", True, False),
    "eval/scene_truth/box_truth": ("Right boxes", True, False),
    "eval/scene_truth/sound": ("Sound traces", True, False),
    "reward/accuracy/raw": ("Right rollouts in training", True, True),
    "reward/total": ("Reward", False, True),
    "rollout/length": ("Completion length, tokens", False, True),
    "rollout/entropy": ("Entropy, nats per token", False, True),
}


def curves(results: Results, arms: Sequence[str]) -> list[Chart]:
    """One chart per logged key, one line per arm that was trained."""
    found = []
    for key, (title, share, smooth) in DRAWN.items():
        lines = [line for i, arm in enumerate(arms) if (line := _line(results, arm, key, i, _WINDOW if smooth else 1)) is not None]
        if lines:
            found.append(Chart(title, tuple(lines), _BAND, share=share))
    return found


def _line(results: Results, arm: str, key: str, number: int, window: int) -> Line | None:
    runs = [
        {float(step): float(value) for step, value in result.curves[key]}
        for (name, _), result in results.items()
        if name == arm and key in result.curves
    ]
    steps = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
    if not steps:
        return None
    smoothed = [averaged([run[step] for step in steps], window) for run in runs]
    at = list(zip(steps, zip(*smoothed, strict=True), strict=True))
    points = tuple((step, fmean(values)) for step, values in at)
    band = tuple((step, min(values), max(values)) for step, values in at) if len(runs) > 1 else ()
    return Line(arm, points, number % SERIES, dashed=number >= SERIES, dots=window == 1, smooth=False, band=band)


def averaged(values: Sequence[float], window: int) -> list[float]:
    """Over the last `window` values. averaged([0, 1, 2], 2) -> [0, 0.5, 1.5]"""
    return [fmean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))]
