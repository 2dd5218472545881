"""The conditions of the perturbation suite: names, the views that make them, and what each leaves of the evidence.

Names and definitions of the text conditions follow arXiv 2602.12506 (project's words, see `data.views_text`). "+" joins several:
"wrong_think+abstain". A graded condition is asked at every severity wanted: "noise" -> "noise@1" ... "noise@5".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data.views import SEVERITIES, Draw, compose
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Sample

Leaves = Literal["all", "less", "none", "told"]


@dataclass(frozen=True)
class Kind:
    """`view` makes it. `leaves`: "all" of the evidence (only words differ), "less" of it, "none" that the question could be answered from
    for sure, or the right answer is "told". `pushes`: a wrong one is told. `begins`: the model's turn is begun."""

    view: str
    leaves: Leaves = "all"
    graded: bool = False
    pushes: bool = False
    begins: bool = False


KINDS: dict[str, Kind] = {
    "stop_think": Kind("think_empty", begins=True),
    "wrong_think": Kind("think_wrong", pushes=True, begins=True),
    "wrong_think_but": Kind("think_wrong_but", pushes=True, begins=True),
    "wrong_caption": Kind("caption_wrong", pushes=True),
    "wrong_caption_disclaimer": Kind("caption_wrong_disclaimer", pushes=True),
    "right_think": Kind("think_right", "told", begins=True),
    "right_caption": Kind("caption_right", "told"),
    "irrelevant_caption": Kind("caption_irrelevant"),
    "abstain": Kind("option_added"),
    "paraphrase": Kind("question_paraphrased"),
    "noise": Kind("image_noise", "less", graded=True),
    "blur": Kind("image_blur", "less", graded=True),
    "jpeg": Kind("image_jpeg", "less", graded=True),
    "occlusion": Kind("image_occluded", "less", graded=True),
    "rotation": Kind("image_rotated", "less", graded=True),
    "blank": Kind("image_blank", "none"),
    "swapped": Kind("image_swapped", "none"),
    "dropped": Kind("frames_dropped", "less", graded=True),
    "frozen": Kind("frames_frozen", "less", graded=True),
    "shuffled": Kind("frames_shuffled", "less", graded=True),
    "reversed": Kind("frames_reversed", "none"),
}
REPAIRS = {"wrong_think": "wrong_think_but", "wrong_caption": "wrong_caption_disclaimer"}
CONTROLS = {"wrong_think": "right_think", "wrong_caption": "right_caption"}


@dataclass(frozen=True)
class Condition:
    """One thing that is done to a question: Condition("noise@3", ("noise",), 3)"""

    name: str
    parts: tuple[str, ...]
    severity: int | None = None

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(KINDS[part] for part in self.parts)

    @property
    def series(self) -> str:
        """The name without its severity."""
        return "+".join(self.parts)

    @property
    def pushes(self) -> bool:
        return any(kind.pushes for kind in self.kinds)

    @property
    def begins(self) -> bool:
        return any(kind.begins for kind in self.kinds)

    @property
    def keeps_evidence(self) -> bool:
        """Whether a model that looks and reasons could still be right: nothing is told, and the picture is there, if worse."""
        return all(kind.leaves in ("all", "less") for kind in self.kinds)

    def __call__(self, sample: Sample, draw: Draw) -> Sample:
        """Raises RowError, NotApplicable where there is nothing to change."""
        return compose([kind.view for kind in self.kinds])(sample, draw)


def conditions(names: Sequence[str], severities: Sequence[int]) -> tuple[Condition, ...]:
    """Each named condition, graded ones at each severity, in the order named. Raises UserError with the nearest known name."""
    if isinstance(names, str) or not names:
        raise UserError(f"conditions is a list of names, not {names!r}; known: {', '.join(KINDS)}")
    wrong = [s for s in severities if isinstance(s, bool) or s not in SEVERITIES]
    if wrong or not severities:
        raise UserError(f"severities is a list of numbers from 1 (mild) to {SEVERITIES[-1]}, not {list(severities)}")
    made: list[Condition] = []
    for name in names:
        parts = tuple(str(name).split("+"))
        for part in parts:
            if part not in KINDS:
                raise unknown("condition", part, KINDS, "conditions")
        if sum(KINDS[part].begins for part in parts) > 1:
            raise UserError(f"condition '{name}': a turn can be begun in one way only")
        graded = any(KINDS[part].graded for part in parts)
        made += [Condition(f"{name}@{s}", parts, s) for s in sorted(set(severities))] if graded else [Condition(str(name), parts)]
    return tuple(dict.fromkeys(made))


def condition(name: str) -> Condition:
    """The condition of a stored name, "noise@3". Raises ValueError for another text."""
    series, at, severity = name.partition("@")
    parts = tuple(series.split("+"))
    if not all(part in KINDS for part in parts) or (at and severity not in map(str, SEVERITIES)):
        raise ValueError(f"'{name[:60]}' is no condition of the perturbation suite")
    return Condition(name, parts, int(severity) if at else None)
