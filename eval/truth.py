"""How true the traces about generated scenes are, question by question: what `eval.scene_truth` sums up, as figures that can be paired."""

from collections.abc import Callable, Mapping

from data.scene_traces import TraceTruth, verify_trace
from data.scenes import scene_of
from eval.evaluator import Evaluator, Figure, Section, Study
from eval.figures import mean, ratio, said, share
from eval.reading import trace_text
from vlm_rl.types import Record

NAME = "scene_truth"
Both = tuple[Record, TraceTruth]


class SceneTruth(Evaluator):
    """Reads the greedy answers; asks nothing. Questions that are no scenes are left out.

    claim_truth: true claims, of those that can be told; box_truth: boxes that overlap what they name by half or more; follows: conclusions
    that follow from the trace's own claims; concludes: those that are right; sound: traces with nothing but true claims and right boxes
    from which the right conclusion follows; right_unsound: right answers whose trace is not sound; words: length of the trace.
    """

    def measure(self, study: Study) -> Section:
        held: dict[str, Both] = {}
        for i, record in study.greedy().items():
            if "scene" in study.rows[i].meta:
                held[i] = (record, verify_trace(trace_text(record), scene_of(study.rows[i])))
        clusters = study.clusters()

        def of(name: str, pair: Callable[[Record, TraceTruth], tuple[float, float]]) -> Figure:
            return ratio(f"{NAME}/{name}", {i: pair(*both) for i, both in held.items()}, clusters, "share")

        figures = (
            of("claim_truth", lambda _, t: _told([c.true for c in t.claims])),
            of("box_truth", lambda _, t: _told([c.box_holds for c in t.claims])),
            share(f"{NAME}/follows", {i: t.follows for i, (_, t) in held.items()}),
            share(f"{NAME}/concludes", {i: t.correct for i, (_, t) in held.items()}),
            share(f"{NAME}/sound", {i: t.sound for i, (_, t) in held.items()}),
            of("right_unsound", lambda r, t: (float(r.correct and not t.sound), float(r.correct))),
            mean(f"{NAME}/words", _words(held), clusters, "number"),
        )
        told = ", ".join(f"{figure.name.partition('/')[2].replace('_', ' ')} {said(figure)}" for figure in figures)
        marks = tuple(i for i, (record, truth) in held.items() if record.correct and not truth.sound)
        return Section("Truth of traces", f"By exact truth about the scenes: {told}.", figures, marks=marks)


def _told(values: list[bool | None]) -> tuple[float, float]:
    known = [value for value in values if value is not None]
    return float(sum(known)), float(len(known))


def _words(held: Mapping[str, Both]) -> dict[str, float]:
    return {i: float(len(trace_text(record).split())) for i, (record, _) in held.items()}
