"""Inference scaling: what more samples and a vote do to accuracy and to the traces behind the winning answer (arXiv 2601.06423).

All numbers of samples k come from one sweep, its first k samples in their order, so that the curve is consistent with itself.

    vote(k)         the most frequent readable answer among k samples; a tie goes to the one seen first; none readable is wrong
    consistency(k)  over the samples that agree with the vote: how many conclude it in their trace (rule of `rewards.conclusion`)
    early(k)        over the same: the share of cuts of the trace that change the answer (`inference_scaling_early` only; it asks)
    solved_hard     of questions wrong at k = 1 the share right at the most samples;  broke_easy: the reverse of right ones

Samples drawn at a temperature are not the greedy answer: k = 1 is the first sample. A gain in accuracy by voting is no gain in reasoning.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from eval.dependence import TENTHS
from eval.drawings import curve_chart
from eval.early_answering import kept
from eval.evaluator import Case, Evaluator, Figure, Rounds, Section, Study, Table
from eval.figures import mean, said, share, with_tabled
from eval.metrics import mcnemar_exact
from eval.reading import Content, Turn, answer_limits, answered, same, steps, trace_text, voted
from eval.runner import CLEAN
from rewards.conclusion import agrees
from vlm_rl.types import Generate, Record, Sample

NAME = "inference_scaling"
Measure = Callable[[Record], float | None]


@dataclass(frozen=True)
class Sweep:
    """The samples of one question in their order, with their contents."""

    row: Sample
    samples: tuple[Record, ...]
    contents: tuple[Content | None, ...]

    def vote(self, k: int) -> Content | None:
        return voted(self.contents[:k], self.row)

    def agreeing(self, k: int) -> list[Record]:
        winner = self.vote(k)
        return [r for r, said in zip(self.samples[:k], self.contents, strict=False) if same(said, winner, self.row)]

    def right(self, k: int) -> bool:
        """As the first sample with the winning answer was graded."""
        agreeing = self.agreeing(k)
        return bool(agreeing) and agreeing[0].correct


class InferenceScaling(Evaluator):
    """Reads the samples of the run (its `samples`); asks nothing."""

    title = "Inference scaling"

    def _early(self, study: Study) -> dict[tuple[str, int], float]:
        return {}

    def measure(self, study: Study) -> Section:
        found = sweeps(study)
        most = min((len(sweep.samples) for sweep in found.values()), default=0)
        if most < 2:
            words = "Every question needs two samples or more (samples: 8 in the config); there is no curve over fewer."
            return Section(self.title, words, (Figure(f"{NAME}/samples", float(most), len(found), unit="count"),))
        ks = numbers(most)
        early = self._early(study)
        measures: dict[str, Measure] = {
            "consistency": lambda record: float(agrees(trace_text(record), record.answer, study.rows[record.sample_id]))
        }
        measures |= {"early": lambda record: early.get((record.sample_id, record.index))} if early else {}
        clusters = study.clusters()
        curves = {"accuracy": {k: share(f"{NAME}/accuracy/{k}", {i: s.right(k) for i, s in found.items()}) for k in ks}}
        for name, measure in measures.items():
            curves[name] = {k: mean(f"{NAME}/{name}/{k}", _over_agreeing(found, k, measure), clusters) for k in ks}
        figures = [curve[k] for curve in curves.values() for k in (ks[0], ks[-1])] + _changes(found, most, study)
        rows = tuple((k, *(curve[k] for curve in curves.values())) for k in ks)
        table = Table(
            "By number of samples", ("samples", *curves), rows, "consistency and early: over the samples that agree with the vote."
        )
        drawn = {name: {float(k): figure for k, figure in curve.items()} for name, curve in curves.items()}
        chart = curve_chart("Voting over more samples", drawn, "samples", {k: str(k) for k in ks})
        marks = tuple(i for i, s in found.items() if s.right(1) and not s.right(most))
        return Section(self.title, _words(curves, figures, most), with_tabled(figures, [table]), (table,), (chart,), marks)


class InferenceScalingEarly(InferenceScaling):
    """The same with early answering of every sample: its trace is cut at 0.2, 0.4, 0.6 and 0.8 and the answer asked for at once."""

    title = "Inference scaling, with early answering"
    needs = frozenset({"prefill"})

    def _early(self, study: Study) -> dict[tuple[str, int], float]:
        return _early_scores(study)

    def rounds(self, case: Case) -> Rounds:
        asked: list[tuple[str, int, Sample]] = []
        for record in case.records:
            turn = Turn.of(record)
            if record.mode == "sample" and turn.trace is not None and turn.trace.strip():
                pieces, joint = steps(turn.trace)
                cuts = {t: turn.told(case.row, joint.join(pieces[: kept(len(pieces), t)])) for t in TENTHS}
                asked += [(f"{NAME}/early/{t / 10:g}", record.index, row) for t, row in cuts.items()]
        replies = yield [Generate("policy", row, answer_limits(case.greedy)) for _, _, row in asked]
        return [case.record(name, row, reply, index) for (name, index, row), reply in zip(asked, replies, strict=True)]


def numbers(most: int) -> list[int]:
    """1, 2, 4, ... and the most: numbers(6) -> [1, 2, 4, 6]"""
    return sorted({*(2**n for n in range(most.bit_length()) if 2**n <= most), most})


def sweeps(study: Study) -> dict[str, Sweep]:
    """By question, of the readable samples of the clean condition."""
    drawn: dict[str, list[Record]] = {}
    for record in study.of(CLEAN):
        if record.mode == "sample" and "error" not in record.detail:
            drawn.setdefault(record.sample_id, []).append(record)
    ordered = {i: sorted(records, key=lambda r: r.index) for i, records in drawn.items()}
    return {i: Sweep(study.rows[i], tuple(rs), tuple(answered(r, study.rows[i]) for r in rs)) for i, rs in ordered.items()}


def _over_agreeing(found: Mapping[str, Sweep], k: int, measure: Measure) -> dict[str, float]:
    """By question; those without a vote, or whose samples were not measured, are left out."""
    values = {i: [v for r in sweep.agreeing(k) if (v := measure(r)) is not None] for i, sweep in found.items()}
    return {i: fmean(known) for i, known in values.items() if known}


def _early_scores(study: Study) -> dict[tuple[str, int], float]:
    """Per sample: the share of cuts after which the answer is another one."""
    own = {(r.sample_id, r.index): r for r in study.of(CLEAN) if r.mode == "sample"}
    changed: dict[tuple[str, int], list[float]] = {}
    for tenth in TENTHS:
        for record in study.of(f"{NAME}/early/{tenth / 10:g}"):
            key, row = (record.sample_id, record.index), study.rows[record.sample_id]
            if key in own and "error" not in record.detail:
                changed.setdefault(key, []).append(float(not same(answered(record, row), answered(own[key], row), row)))
    return {key: fmean(values) for key, values in changed.items()}


def _changes(found: Mapping[str, Sweep], most: int, study: Study) -> list[Figure]:
    first, last = {i: s.right(1) for i, s in found.items()}, {i: s.right(most) for i, s in found.items()}
    p = mcnemar_exact(list(first.values()), list(last.values()))
    gain = {i: float(last[i]) - float(first[i]) for i in found}
    return [
        mean(f"{NAME}/gain", gain, study.clusters(), "difference", f"{most} samples against 1, McNemar p = {p:.3g}"),
        share(f"{NAME}/solved_hard", {i: last[i] for i in found if not first[i]}),
        share(f"{NAME}/broke_easy", {i: not last[i] for i in found if first[i]}),
    ]


def _words(curves: Mapping[str, Mapping[int, Figure]], figures: Sequence[Figure], most: int) -> str:
    named = {figure.name.partition("/")[2]: figure for figure in figures}
    told = "; ".join(f"{name} {said(curve[1])} with one sample and {said(curve[most])} with {most}" for name, curve in curves.items())
    return (
        f"Voting over samples: {told}. Of the questions wrong at first {said(named['solved_hard'])} are solved, of those right at first "
        f"{said(named['broke_easy'])} are lost. Accuracy and the traces behind it need not move together, and voting mends no reasoning."
    )
