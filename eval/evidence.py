"""Are the boxes in a trace evidence? Answers from them alone, without them, and from the known evidence beside (arXiv 2510.23482).

    own_alone    only what lies in the boxes of the model's own trace: right answers are *sufficiency*, the model's own answer again is
                 *reliability* (do the crops support what was answered)
    own_removed  the picture with these boxes painted grey: what is lost is what they carried
    gold_alone, gold_removed   the same with the row's known evidence (`meta["boxes"]`)
    unseen       no picture
    whole        the picture as it is: the clean answer itself, unless all are asked to answer at once (`direct`)

The model reasons anew about what it is shown, never from its first trace. With `direct` it answers at once, as the reward `sccm` asks it; a
model whose answers come out of its reasoning then shows little under any condition.

By exact truth on scenes: the share of boxes that hold what they are said to hold. A judge that sees pictures may be asked whether the crops
support the answer given. Boxes that suffice say that the model points at the right place, not that it looked there. Sufficiency of crops
that fill the picture means nothing: their area is told. Not a reproduction: the paper's prompts and scales were not available.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from data.boxes import union_area
from data.media import image_size
from data.scene_traces import verify_trace
from data.views import Draw, NotApplicable, apply
from data.views_text import STOP_THINK
from eval.evaluator import Case, Evaluator, Figure, Rounds, Section, Study, Table
from eval.figures import mean, said, share, with_tabled
from eval.reading import answer_limits, answered, same, trace_text
from rewards.boxes import CONVENTIONS, Convention, Picture, read_boxes
from rewards.judge_call import JudgeCall, judge_call, question_of
from rewards.judging import read_yes_no
from rewards.sccm import Sccm
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Box, Generate, Query, Record, Sample

NAME = "evidence"
SHOWN = ("whole", "own_alone", "own_removed", "gold_alone", "gold_removed", "unseen")
SUPPORTS = f"{NAME}/supports"


class Evidence(Evaluator):
    """`convention` is how the model writes boxes (`rewards.boxes.CONVENTIONS`, abs_resized excepted: the size at which the model saw the
    picture is not known here). `judge` sees pictures and is asked whether the crops support the answer.
    """

    needs = frozenset({"prefill"})

    def __init__(self, convention: str, direct: bool = False, judge: str | Mapping[str, Any] | None = None):
        if convention not in CONVENTIONS:
            raise unknown("convention", str(convention), CONVENTIONS)
        if convention == "abs_resized":
            raise UserError(
                "convention: abs_resized needs the size at which the model saw each picture, which an evaluator is not told; "
                "where pictures are not resized write abs_original"
            )
        self.convention: Convention = cast(Convention, convention)
        self.shower, self.direct = Sccm(convention, "policy"), bool(direct)
        self.judge: JudgeCall | None = None if judge is None else judge_call(judge, media=True, max_new_tokens=16)
        self.targets = () if self.judge is None else (self.judge.name,)

    def rounds(self, case: Case) -> Rounds:
        row = case.row
        if [medium.kind for medium in row.media] != ["image"]:
            return ()
        width, height = image_size(row.media[0], row.id)
        own = read_boxes(trace_text(case.base), self.convention, Picture(width, height)).boxes
        gold = tuple(row.meta.get("boxes") or ())
        shown = {name: sample for name, sample in self._shown(row, own, gold).items() if sample is not None}
        limits = answer_limits(case.greedy) if self.direct else case.greedy
        asked: list[Query] = [Generate("policy", sample, limits) for sample in shown.values()]
        supported = self.judge is not None and bool(own) and case.base.answer is not None
        if supported:
            asked.append(self._supports(case, own))
        replies = yield asked
        detail = {"boxes": [list(box) for box in own], "area": union_area(own) / (width * height) if own else None}
        records = [
            case.record(f"{NAME}/{name}", sample, reply, **detail) for (name, sample), reply in zip(shown.items(), replies, strict=False)
        ]
        if supported:
            error = {"error": replies[-1].error} if replies[-1].error else {}
            records.append(replace(case.base, condition=SUPPORTS, detail={**detail, "reply": replies[-1].text, **error}))
        return records

    def _shown(self, row: Sample, own: Sequence[Box], gold: Sequence[Box]) -> dict[str, Sample | None]:
        bare = replace(row, prefill="")
        shown = {
            "whole": bare if self.direct else None,
            "own_alone": self.shower.question(bare, tuple(own)) if own else None,
            "own_removed": _covered(bare, own),
            "gold_alone": self.shower.question(bare, tuple(gold)) if gold else None,
            "gold_removed": _covered(bare, gold),
            "unseen": self.shower.question(bare, ()),
        }
        begun = STOP_THINK if self.direct else row.prefill
        return {name: None if sample is None else replace(sample, prefill=begun) for name, sample in shown.items()}

    def _supports(self, case: Case, own: Sequence[Box]) -> Query:
        assert self.judge is not None
        crops = apply(["boxes_cropped"], replace(case.row, question=question_of(case.row), options=()), Draw(0, boxes=tuple(own)))
        return self.judge.query(crops, "supported", question=question_of(case.row), answer=case.base.answer or "")

    def measure(self, study: Study) -> Section:
        found, base = {name: study.greedy(f"{NAME}/{name}") for name in SHOWN}, study.greedy()
        asked = {i: r for i, r in found["unseen"].items() if i in base}
        found["whole"] = found["whole"] or {i: base[i] for i in asked}
        own = found["own_alone"]
        again = {i: r for i, r in own.items() if answered(base[i], study.rows[i]) is not None}
        clusters = study.clusters()
        figures = [
            share(f"{NAME}/boxed", {i: bool(r.detail["boxes"]) for i, r in asked.items()}, "traces with a box that can be used"),
            share(f"{NAME}/sufficiency", {i: r.correct for i, r in own.items()}, "right from the crops alone"),
            share(
                f"{NAME}/reliability",
                {i: _same(base[i], r, study) for i, r in again.items()},
                "the model's own answer from the crops alone",
            ),
            mean(f"{NAME}/area", {i: float(r.detail["area"]) for i, r in own.items()}, clusters, note="of the picture, union of boxes"),
            *_lost(found, clusters),
            *_truth(base, asked, study),
            *_judged(study),
        ]
        rows = tuple((name, *_told(name, records, study)) for name, records in found.items() if records)
        note = "own: boxes of the model's trace; gold: the row's evidence. An answer that cannot be read is wrong."
        table = Table("Answered from what is shown", ("shown", "right", "unread"), rows, note)
        marks = tuple(i for i, r in own.items() if base[i].correct and not r.correct)
        return Section("Boxes as evidence", _words(figures), with_tabled(figures, [table]), (table,), marks=marks)


def _told(name: str, records: Mapping[str, Record], study: Study) -> tuple[Figure, Figure]:
    unread = {i: answered(r, study.rows[i]) is None for i, r in records.items()}
    return share(f"{NAME}/accuracy/{name}", {i: r.correct for i, r in records.items()}), share(f"{NAME}/unread/{name}", unread)


def _covered(row: Sample, boxes: Sequence[Box]) -> Sample | None:
    if not boxes:
        return None
    try:
        return apply(["boxes_covered"], row, Draw(0, boxes=tuple(boxes)))
    except NotApplicable:
        return None


def _same(one: Record, other: Record, study: Study) -> bool:
    row = study.rows[one.sample_id]
    return same(answered(one, row), answered(other, row), row)


def _lost(found: Mapping[str, Mapping[str, Record]], clusters: Mapping[str, Any]) -> list[Figure]:
    """Accuracy lost when the boxes are taken away, of the model's trace and of the known evidence."""
    figures = []
    for name in ("own_removed", "gold_removed"):
        drop = {i: float(found["whole"][i].correct) - float(r.correct) for i, r in found[name].items() if i in found["whole"]}
        figures.append(mean(f"{NAME}/lost_{name}", drop, clusters, "difference"))
    return figures


def _truth(base: Mapping[str, Record], asked: Mapping[str, Record], study: Study) -> list[Figure]:
    """By exact truth on scenes: per trace, the share of boxes that hold what they are said to hold."""
    held: dict[str, float] = {}
    for i in asked:
        scene = study.rows[i].meta.get("scene")
        truth = verify_trace(trace_text(base[i]), scene).box_truth if scene else None
        if truth is not None:
            held[i] = truth
    return [mean(f"{NAME}/box_truth", held, study.clusters(), note="exact: boxes that hold what they are said to hold")] if held else []


def _judged(study: Study) -> list[Figure]:
    if not study.of(SUPPORTS):
        return []
    said_so = {i: read_yes_no(str(r.detail["reply"])) for i, r in study.greedy(SUPPORTS).items()}
    unread = sum(v is None for v in said_so.values()) + study.failed(SUPPORTS)
    return [
        share(f"{NAME}/supports", {i: v for i, v in said_so.items() if v is not None}, f"judge; {unread} unscored" if unread else "judge")
    ]


def _words(figures: Sequence[Figure]) -> str:
    named = {figure.name.partition("/")[2]: figure for figure in figures}
    if named["sufficiency"].value is None:
        return "No trace holds a box that can be used, so nothing can be said about evidence."
    area = named["area"].value
    assert area is not None
    return (
        f"Shown only the boxes of its trace, which cover {area:.0%} of the picture on average, the model is right in "
        f"{said(named['sufficiency'])} and gives its own answer again in {said(named['reliability'])}; with these boxes painted over it "
        f"loses {said(named['lost_own_removed'])}. "
        "That boxes suffice does not say that the model looked there; answers that cannot be read say that it was thrown off."
    )
