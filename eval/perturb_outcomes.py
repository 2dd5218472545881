"""What became of each question under each condition: records read into what can be counted. It counts nothing itself.

Consistency is trace-answer consistency by rule: the answer is what the whole trace (what was prefilled and what was written) concludes at
its end; on generated scenes by the grammar of their traces, which is exact. A trace that states no conclusion is not consistent.
"""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from data.options import CANNOT_TELL
from data.scene_reading import read_trace
from eval.evaluator import Study
from eval.option_letters import Letters, letters_of
from eval.perturb_conditions import Condition
from eval.reading import Content, answered, content, same, trace_text
from eval.runner import CLEAN
from eval.summary import BLANK
from rewards.conclusion import conclusion
from vlm_rl.types import Record, Sample

NAME = "perturb"
BASE = f"{NAME}/base"
NOT_ASKED = "not_asked"
SHORT = 5
_PIECE = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, eq=False)
class Outcome:
    """One answer. `consistent` is None where the answer cannot be read; `letters` where the options were not scored."""

    record: Record
    row: Sample
    letters: Letters | None = None

    @property
    def correct(self) -> bool:
        return self.record.correct

    @cached_property
    def content(self) -> Content | None:
        return answered(self.record, self.row)

    @cached_property
    def concluded(self) -> Content | None:
        """What the trace says at its end, None where it states no conclusion."""
        trace = trace_text(self.record)
        shown = replace(self.row, options=self.record.options)
        stated = read_trace(trace).conclusion if "scene" in self.row.meta else conclusion(trace, shown)
        return content(stated, self.row, self.record.options)

    @cached_property
    def consistent(self) -> bool | None:
        return None if self.content is None else same(self.concluded, self.content, self.row)

    @cached_property
    def abstains(self) -> bool:
        options = self.record.options
        chosen = self.content if isinstance(self.content, frozenset) else frozenset()
        return any(options[i] == CANNOT_TELL for i in chosen if i < len(options))

    @cached_property
    def short(self) -> bool:
        """Under SHORT words and marks of reasoning of its own. Deviation: the paper counts tokens, which records do not tell apart."""
        return len(_PIECE.findall(_own_trace(self.record)[:4000])) < SHORT

    def gives(self, target: int | str) -> bool:
        """Whether it is the answer that was pushed."""
        pushed = frozenset({target}) if isinstance(target, int) else content(target, self.row)
        return same(pushed, self.content, self.row)

    def says_as(self, other: "Outcome") -> bool:
        """Whether both say the same; neither being readable is the same too."""
        if self.content is None or other.content is None:
            return self.content is other.content
        return same(self.content, other.content, self.row)


@dataclass(frozen=True, eq=False)
class Asked:
    """A condition and its answers by question; `not_asked` (it fits them not, or the engine cannot) and `failed` count those without."""

    condition: Condition
    outcomes: Mapping[str, Outcome]
    targets: Mapping[str, int | str]
    not_asked: int = 0
    failed: int = 0
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Suite:
    """All that was asked: clean answers, those of each condition, what the questions stand or fall with."""

    base: Mapping[str, Outcome]
    asked: Mapping[str, Asked]
    clusters: Mapping[str, Hashable]
    no_options: str = ""

    def both(self, name: str) -> dict[str, tuple[Outcome, Outcome]]:
        """Clean and perturbed answer of each question that has both."""
        found = self.asked[name].outcomes if name in self.asked else {}
        return {i: (self.base[i], other) for i, other in found.items() if i in self.base}


def suite(study: Study, asked: tuple[Condition, ...]) -> Suite:
    """The records of a run, read. The blank control of the evaluation itself stands in where no blank condition was asked."""
    scored = {r.sample_id: letters_of(r) for r in study.of(BASE)}
    base = {i: Outcome(r, study.rows[i], scored.get(i)) for i, r in study.greedy(CLEAN).items()}
    found = {c.name: _asked(study, c, f"{NAME}/{c.name}") for c in asked}
    if "blank" not in found and study.of(BLANK):
        found["blank"] = _asked(study, Condition("blank", ("blank",)), BLANK)
    whys = [str(r.detail["no_options"]) for r in study.records if r.condition.startswith(f"{NAME}/") and "no_options" in r.detail]
    return Suite(base, found, study.clusters(), whys[0] if whys and not any(one is not None for one in scored.values()) else "")


def _asked(study: Study, condition: Condition, name: str) -> Asked:
    records = study.of(name)
    greedy = study.greedy(name)
    outcomes = {i: Outcome(record, study.rows[i], letters_of(record)) for i, record in greedy.items()}
    targets: dict[str, Any] = {i: record.detail["target"] for i, record in greedy.items() if "target" in record.detail}
    failed = [str(r.detail["error"]) for r in records if "error" in r.detail]
    told = [r.detail.get(NOT_ASKED, {}) for r in study.of(BASE)]
    not_asked = [str(whys[condition.name]) for whys in told if isinstance(whys, dict) and condition.name in whys]
    reasons = not_asked + failed
    reason = max(dict.fromkeys(reasons), key=reasons.count) if reasons else ""
    return Asked(condition, outcomes, targets, len(not_asked), len(failed), reason)


def _own_trace(record: Record) -> str:
    """The reasoning that the model wrote itself, without what was prefilled."""
    begun = record.prefill.rfind("<think>") > record.prefill.rfind("</think>")
    before, closed, _ = record.completion.rpartition("</think>")
    if closed:
        return before.partition("<think>")[2] if "<think>" in before else before
    return record.completion.partition("<answer>")[0] if begun or "<think>" in record.completion else ""
