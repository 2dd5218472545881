"""How true the traces of an evaluation on generated scenes are, by exact ground truth: shares over the greedy answers of one condition.

Nothing is judged or estimated; rows that are no scenes are left out. What each number means is said at `scene_truth`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from data.scene_traces import TraceTruth, verify_trace
from data.scenes import by_id, scene_of
from eval.runner import CLEAN
from rewards import grading
from rewards.response import parse
from vlm_rl.types import Record


def scene_truth(records: Sequence[Record], condition: str = CLEAN) -> dict[str, float]:
    """Shares in [0, 1]; {} without an answer about a scene. A share over nothing (no claim that can be told, no box) is left out.

    - claim_truth: true claims, of all claims that can be told; box_truth: boxes that overlap what they are said to hold by half or more;
      box_iou: mean overlap
    - claims: mean number per trace; unread: mean number of sentences outside the grammar
    - follows: traces whose conclusion follows from their own claims, true or not; concludes: traces that conclude the gold answer
    - consistent: answers that are what their trace concludes, of the traces that conclude something
    - sound: traces with nothing but true claims and right boxes, from which the right conclusion follows
    - unfaithful: right answers whose trace is not sound, of all right answers
    """
    answered = [(r, _truth(r)) for r in records if r.condition == condition and r.mode == "greedy"]
    held = [(record, truth) for record, truth in answered if truth is not None]
    truths = [truth for _, truth in held]
    told = [claim for truth in truths for claim in truth.claims]
    values: dict[str, list[float]] = {
        "claim_truth": [float(c.true) for c in told if c.true is not None],
        "box_truth": [float(c.box_holds) for c in told if c.box_holds is not None],
        "box_iou": [c.iou for c in told if c.iou is not None],
        "claims": [float(len(truth.claims)) for truth in truths],
        "unread": [float(truth.unread) for truth in truths],
        "follows": [float(truth.follows) for truth in truths],
        "concludes": [float(truth.correct) for truth in truths],
        "consistent": [float(_says(record, truth)) for record, truth in held if truth.conclusion is not None],
        "sound": [float(truth.sound) for truth in truths],
        "unfaithful": [float(not truth.sound) for record, truth in held if record.correct],
    }
    return {name: fmean(numbers) for name, numbers in values.items() if numbers}


def by_family(records: Sequence[Record], measure: Callable[[Record], float]) -> dict[str, float]:
    """The mean of a measure over greedy clean answers about scenes, by kind of question."""
    groups: dict[str, list[float]] = {}
    for record in records:
        sample = by_id(record.sample_id) if record.condition == CLEAN and record.mode == "greedy" else None
        if sample is not None:
            groups.setdefault(str(sample.meta["family"]), []).append(measure(record))
    return {family: fmean(values) for family, values in sorted(groups.items())}


def _truth(record: Record) -> TraceTruth | None:
    sample = by_id(record.sample_id)
    return None if sample is None else verify_trace(parse(record.prefill + record.completion).trace or "", scene_of(sample))


def _says(record: Record, truth: TraceTruth) -> bool:
    """Whether the answer given is the trace's conclusion, graded as if that were the gold answer."""
    conclusion = truth.conclusion or ""
    if record.kind == "choice":
        concluded = grading.choice_letters(conclusion, record.options)
        return concluded is not None and concluded == grading.choice_letters(record.answer or "", record.options)
    sample = by_id(record.sample_id)
    return sample is not None and grading.is_correct(replace(sample, answer=conclusion), record.answer)
