"""Visual sufficiency and minimality of what a trace points at (SCCM, arXiv 2510.23482): can the question be answered from its boxes alone?

The boxes of a rollout's trace are cut out of the picture. A fresh question shows an answerer the question, its options and the crops V, and
nothing else: no picture, no trace, no labels, no coordinates. With k orders of the options, f the answerer, and n crops covering the share
rho of the picture,

    r_s = (1/k) sum_j [f(Q_j, V) is right],  0 without a box;   blind: max(0, r_s - (1/k) sum_j [f(Q_j, no picture) is right])
    r_m = r_s * clip((rho_hi - rho) / (rho_hi - rho_lo), 0, 1)   or r_s / n   or r_s * (share of crops whose loss lowers r_s)
    value = lambda_s * r_s + lambda_m * r_m

The paper's formulas, weights, answerer and gates were not available to us: these are ours, and no reproduction. Deviations: it was studied
on agents that are shown the crops they ask for; here a trace is one turn (as in GRIT, arXiv 2505.15879), and what a crop tool would have
shown is cut out afterwards, in the picture's own pixels. Gates are the mixture's (`gate: requires_correct`, `requires_format`).
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any, cast

from data.answers import strip_letters
from data.boxes import union_area
from data.claims import QUESTION
from data.media import image_size
from data.options import MARK, permute, pinned
from data.templates import direct
from data.views import Draw, apply
from rewards.base import Reward, Rounds, whole_text
from rewards.boxes import CONVENTIONS, MOST_BOXES, Convention, Picture, Reading, read_boxes
from rewards.grading import is_correct
from rewards.response import parse
from vlm_rl.config_judges import RESERVED
from vlm_rl.errors import RowError, UserError, unknown
from vlm_rl.types import Box, Generate, Group, Query, Reply, RewardResult, Sample, Sampling

KINDS = ("area", "count", "leave_one_out")
_CLOSING = "</answer>"
_LONGEST_BARE = 120  # characters of a reply that is itself the answer

Boxes = tuple[Box, ...]


@dataclass(frozen=True)
class Told:
    """What the answerer made of some crops: the share of right answers over the orders of the options, or why there is none."""

    share: float
    error: str | None = None


Known = dict[Boxes, Told]  # by the boxes shown; () is no picture at all


def narrowness(rho: float, low: float = 0.05, high: float = 0.50) -> float:
    """clip((high - rho) / (high - low), 0, 1): narrowness(0.275) -> 0.5"""
    return min(1.0, max(0.0, (high - rho) / (high - low)))


@dataclass(eq=False)
class Sccm(Reward):
    """lambda_s * r_s + lambda_m * r_m per rollout.

    `convention` is how the policy writes boxes (`boxes.CONVENTIONS`); it has no default, since a wrong one is wrong without any error.
    `answerer` is start, policy, or a judge that sees pictures. `kind` of minimality is area, count or leave_one_out; `orders` is k; `blind`
    takes off what is answered without a picture. A row's meta["rho_hi"] replaces `rho_hi`, for questions that need a wide look. `pad` grows
    each box by that share of the picture on every side, for policies trained with a tool that did. At most `most_boxes` boxes are cut out.
    """

    convention: str
    answerer: str = "start"
    lambda_s: float = 0.5
    lambda_m: float = 0.25
    kind: str = "area"
    rho_lo: float = 0.05
    rho_hi: float = 0.50
    orders: int = 1
    blind: bool = False
    pad: float = 0.0
    most_boxes: int = MOST_BOXES
    max_new_tokens: int = 32

    def __post_init__(self) -> None:
        for name, given, choices in (("convention", self.convention, CONVENTIONS), ("kind", self.kind, KINDS)):
            if given not in choices:
                raise unknown(name, str(given), choices)
        for name, count in (("orders", self.orders), ("most_boxes", self.most_boxes), ("max_new_tokens", self.max_new_tokens)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise UserError(f"{name} is a whole number, 1 or more, not {count!r}")
        if not 0 <= self.rho_lo < self.rho_hi <= 1:
            raise UserError(f"0 <= rho_lo < rho_hi <= 1 are shares of the picture, not {self.rho_lo} and {self.rho_hi}")
        if min(self.lambda_s, self.lambda_m, self.pad) < 0:
            raise UserError("lambda_s, lambda_m and pad are not negative")
        self.targets = (self.answerer,)
        self.edge = self.lambda_s + self.lambda_m

    def rounds(self, group: Group) -> Rounds:
        """detail: sufficiency, minimality, boxes, malformed and, where there are boxes, area, shown; the metrics of `docs/rewards.md`."""
        if reason := _unfit(group.sample):
            return [RewardResult(None, {"skipped": reason})] * len(group.rollouts)
        picture = _picture(group)
        readings = [self._read(whole_text(group, rollout), picture) for rollout in group.rollouts]
        shown = list(dict.fromkeys(reading.boxes for reading in readings if reading.boxes))
        known = yield from self._told(group.sample, [*shown, *([()] if self.blind and shown else [])])
        fewer = dict.fromkeys(rest for boxes in shown for rest in self._rests(boxes, known))
        known |= yield from self._told(group.sample, [boxes for boxes in fewer if boxes not in known])
        return [self._result(group.sample, reading, known, picture) for reading in readings]

    def _read(self, turn: str, picture: Picture) -> Reading:
        return read_boxes(parse(turn).trace or "", cast(Convention, self.convention), picture, self.pad, self.most_boxes)

    def _told(self, sample: Sample, sets: Sequence[Boxes]) -> Generator[Sequence[Query], Sequence[Reply], Known]:
        """Ask about every set of boxes once, however many rollouts show it."""
        asked = {boxes: [self.question(turned, boxes) for turned in rotated(sample, self.orders)] for boxes in sets}
        if not asked:
            return {}
        limits = Sampling(self.max_new_tokens, 0.0, (_CLOSING,))
        replies = iter((yield [Generate(self.answerer, question, limits) for questions in asked.values() for question in questions]))
        return {boxes: _heard(questions, [next(replies) for _ in questions]) for boxes, questions in asked.items()}

    def question(self, sample: Sample, boxes: Boxes) -> Sample:
        """What the answerer is shown: the row's own question and options, and only the crops; without boxes nothing but the words."""
        meta = {key: value for key, value in sample.meta.items() if key != "boxes"}
        plain = replace(sample, question=str(sample.meta.get(QUESTION, sample.question)), prefill="", response=None, meta=meta)
        shown = apply(["boxes_cropped"], plain, Draw(0, boxes=boxes)) if boxes else _unseen(plain)
        if self.answerer in RESERVED:
            return apply(["think_empty"], shown, Draw(0))
        return replace(shown, question=MARK.sub("", direct(shown)).strip())

    def _rests(self, boxes: Boxes, known: Known) -> list[Boxes]:
        """The crops without each one of them, where it matters what these tell."""
        if self.kind != "leave_one_out" or len(boxes) == 1 or not known[boxes].share:
            return []
        return [boxes[:i] + boxes[i + 1 :] for i in range(len(boxes))]

    def _result(self, sample: Sample, reading: Reading, known: Known, picture: Picture) -> RewardResult:
        boxes, rejected = reading.boxes, reading.rejected
        detail: dict[str, Any] = {"boxes": len(boxes), "malformed": len(rejected), "sufficiency": 0.0, "minimality": 0.0}
        if rejected:
            detail["rejected"] = [f"{box.reason}: {box.text}" for box in rejected[:MOST_BOXES]]
        if not boxes:
            return RewardResult(0.0, detail)
        told, blind = known[boxes], known.get((), Told(0.0))
        # The picture itself could be shown, so crops that cannot be (too many tokens) are the policy's own doing, unlike a judge's failure.
        judged = [told] if self.answerer not in RESERVED else []
        failed = [other.error for other in (*judged, blind, *(known[rest] for rest in self._rests(boxes, known))) if other.error]
        detail |= {"area": union_area(boxes) / (picture.width * picture.height), "shown": told.error is None}
        if failed:
            return RewardResult(None, {**detail, "error": failed[0]})
        r_s = max(0.0, told.share - blind.share)
        r_m = r_s * self._factor(sample, boxes, known, detail["area"])
        detail |= {"sufficiency": r_s, "minimality": r_m} | ({"blind": blind.share} if self.blind else {})
        return RewardResult(self.lambda_s * r_s + self.lambda_m * r_m, detail)

    def _factor(self, sample: Sample, boxes: Boxes, known: Known, rho: float) -> float:
        """What r_m is r_s times of."""
        if self.kind == "count":
            return 1 / len(boxes)
        if self.kind == "leave_one_out":
            rests = self._rests(boxes, known)
            return fmean(known[rest].share < known[boxes].share for rest in rests) if rests else 1.0
        high = sample.meta.get("rho_hi", self.rho_hi)
        if isinstance(high, bool) or not isinstance(high, (int, float)) or not self.rho_lo < high <= 1:
            raise RowError(sample.id, f"meta.rho_hi is a share of the picture above rho_lo={self.rho_lo}, not {high!r}")
        return narrowness(rho, self.rho_lo, high)


def rotated(sample: Sample, count: int) -> list[Sample]:
    """The question in up to `count` orders of its options, the row's own first, each turning them one further.

    With as many orders as options each stands once behind every letter. Options that speak of those above keep their place; where options
    name each other's letters, or there are none, the row's own order is the only one.
    """
    if count == 1 or sample.kind != "choice" or not sample.options:
        return [sample]
    bare = replace(sample, options=strip_letters(sample.options))
    try:
        pins = pinned(bare.options)
    except ValueError:
        return [sample]
    runs = [range(start + 1, end) for start, end in pairwise((-1, *pins, len(bare.options)))]
    return [bare, *(permute(bare, _turned(runs, pins, turn)) for turn in range(1, min(count, max(map(len, runs)))))]


def _turned(runs: Sequence[range], pins: Sequence[int], turn: int) -> list[int]:
    order = {place: place for place in pins} | {place: run[(i + turn) % len(run)] for run in runs for i, place in enumerate(run)}
    return [order[place] for place in sorted(order)]


def _unfit(sample: Sample) -> str | None:
    """Why there is nothing to cut out of this row."""
    kinds = [medium.kind for medium in sample.media]
    if kinds == ["image"]:
        return None
    if not kinds:
        return "it has no picture"
    return "it has a video, and boxes are read on one picture" if "video" in kinds else f"it has {len(kinds)} pictures, and boxes name none"


def _picture(group: Group) -> Picture:
    width, height = image_size(group.sample.media[0], group.sample.id)
    return Picture(width, height, seen=group.prompt.sizes[0] if group.prompt.sizes else None)


def _unseen(sample: Sample) -> Sample:
    options = tuple(MARK.sub("", option).strip() for option in sample.options)
    return replace(sample, question=MARK.sub("", sample.question).strip(), options=options, media=())


def _heard(questions: Sequence[Sample], replies: Sequence[Reply]) -> Told:
    errors = [reply.error for reply in replies if reply.error is not None]
    right = [is_correct(question, _answer(question.prefill + reply.text)) for question, reply in zip(questions, replies, strict=True)]
    return Told(0.0, errors[0]) if errors else Told(fmean(right))


def _answer(turn: str) -> str | None:
    """The marked answer; a short reply that marks none is itself the answer."""
    response = parse(turn)
    bare = turn.rpartition("</think>")[2].strip()
    return response.answer or (bare if 0 < len(bare) <= _LONGEST_BARE and "<think>" not in turn.rpartition("</think>")[2] else None)
