"""Training prompts under views: a share of them per condition, such as 10% with a wrong caption before the question. It renders nothing.

arXiv 2602.12506 trains with right and wrong captions and beginnings of traces, 10% each, so that plain inversion does not pay. The view is
drawn for the row, so all rollouts of a group share it; what it begins of a trace belongs to the prompt and is never trained on.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from data.views import Draw, NotApplicable, find
from vlm_rl.errors import UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Sample, ScoredGroup

CLEAN = "clean"
CONDITION, REFUSED = "condition", "condition_refused"


class Augmentation:
    """`shares` by name of a view, the rest of 1 being clean. Raises UserError for an unknown view (with the nearest) and impossible shares.

    Called with a row, the step (from 1) and the step's rows. Condition and change are functions of (seed, step, row id) alone. The row's
    `meta["condition"]` says which condition it is; a row that its view has nothing to change in stays clean and says so.
    """

    def __init__(self, shares: Mapping[str, float], seed: int):
        self.shares, self.seed = dict(shares), seed
        self.views = {name: find(name, "augment") for name in shares}
        if any(not 0 <= share <= 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
            raise UserError(f"augment: shares are numbers from 0 to 1 that sum to 1 at most, not {', '.join(map(str, shares.values()))}")

    def __call__(self, sample: Sample, step: int, others: Sequence[Sample] = ()) -> Sample:
        if not self.shares:
            return sample
        name = self.condition(sample.id, step)
        if name == CLEAN:
            return _marked(sample, CLEAN)
        try:
            return _marked(self.views[name](sample, Draw(stable_hash(self.seed, step), others=others)), name)
        except NotApplicable:
            return refused(sample, name)

    def condition(self, row_id: str, step: int) -> str:
        drawn = random.Random(stable_hash("augment", self.seed, step, row_id)).random()
        for name, share in self.shares.items():
            drawn -= share
            if drawn < 0:
                return name
        return CLEAN

    def metrics(self, scored: Sequence[ScoredGroup]) -> dict[str, float]:
        """Of a step, under augment/CONDITION/: `share` of prompts, `reward` (mean total), and `not_applicable`, how many stayed clean."""
        numbers: dict[str, float] = {}
        for name in (CLEAN, *self.shares) if self.shares else ():
            totals = [total for s in scored if condition_of(s.group.sample) == name for total in s.totals]
            numbers[f"augment/{name}/share"] = fmean(condition_of(s.group.sample) == name for s in scored)
            if totals:
                numbers[f"augment/{name}/reward"] = fmean(totals)
            if name != CLEAN:
                numbers[f"augment/{name}/not_applicable"] = float(sum(s.group.sample.meta.get(REFUSED) == name for s in scored))
        return numbers


def condition_of(sample: Sample) -> str:
    """The name of the view that the row is under, "clean" without one."""
    return str(sample.meta.get(CONDITION, CLEAN))


def refused(sample: Sample, name: str) -> Sample:
    """The clean row, which remembers that this view did not fit it."""
    return replace(sample, meta={**sample.meta, CONDITION: CLEAN, REFUSED: name})


def _marked(sample: Sample, name: str) -> Sample:
    return replace(sample, meta={**sample.meta, CONDITION: name})
