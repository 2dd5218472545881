"""How often the answers are right: the benchmark's own metric, greedy answers, samples (pass@k, majority@k), and the blank control.

Two readings stand side by side: "lenient" takes an answer wherever the grammar of responses finds one, "strict" only from a well-formed
response. An answer that cannot be read is wrong in both and counted apart; a reply that never came is in neither.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

from eval.benchmarks import BENCHMARKS, find_benchmark
from eval.evaluator import Evaluator, Figure, Section, Study, Table
from eval.figures import mean, said, share
from eval.graded import OfficialResult, graded_records
from eval.metrics import mcnemar_exact, paired_bootstrap, pass_at_k, statistic_bootstrap
from eval.runner import CLEAN
from eval.summary import BLANK, points
from rewards import grading
from vlm_rl.types import Record, Sample

MARKS = 8
_OFFICIAL_WORK = 400_000  # answers scored anew for the interval of an official metric


class Accuracy(Evaluator):
    """Asks nothing beside the clean answers, the samples and the blank control that every evaluation has."""

    def __init__(self, benchmark: str | None = None):
        self.benchmark = None if benchmark is None else find_benchmark(benchmark).name

    def measure(self, study: Study) -> Section:
        greedy = study.greedy()
        if not greedy:
            return Section("Accuracy", "No question was answered.", (Figure("accuracy", None, 0, note="no question was answered"),))
        clusters = study.clusters()
        figures = [*self._official(study, greedy), *_greedy(study, greedy, clusters), *_sampled(study, clusters)]
        blind = _blind(study, greedy, clusters)
        wrong = [i for i, record in greedy.items() if not record.correct]
        right = [i for i, record in greedy.items() if record.correct]
        tables = [_table(figures + blind), *([parts] if (parts := self._parts(study, greedy)) else [])]
        marks = (*wrong[: MARKS // 2], *right[: MARKS - min(len(wrong), MARKS // 2)])
        words = _words({figure.name: figure for figure in figures + blind}, study)
        return Section("Accuracy", words, tuple(figures + blind), tuple(tables), marks=marks)

    def _official(self, study: Study, greedy: Mapping[str, Record]) -> list[Figure]:
        if self.benchmark is None:
            return []
        return [_official(self.benchmark, study, greedy)]

    def _parts(self, study: Study, greedy: Mapping[str, Record]) -> Table | None:
        if self.benchmark is None:
            return None
        parts = _score(self.benchmark, study, greedy).parts
        rows = tuple((name, value, _whole(parts.get(f"{name}/n"))) for name, value in parts.items() if not name.endswith("/n"))
        note = "As the benchmark reports them; the columns without n are over all questions."
        return Table(f"{self.benchmark}: parts", ("part", "score", "n"), rows, note) if rows else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _score(name: str, study: Study, greedy: Mapping[str, Record]) -> OfficialResult:
    """Over the questions that were answered: one whose reply failed is no wrong answer."""
    return BENCHMARKS[name].score_records([study.rows[i] for i in greedy], list(greedy.values()))


def _official(name: str, study: Study, greedy: Mapping[str, Record]) -> Figure:
    """The headline with a bootstrap of the whole metric over pictures, with fewer draws where there are many answers.

    A metric that is a mean over groups of questions has its groups drawn instead: a question drawn twice would make no second group.
    """
    result = _score(name, study, greedy)
    if result.units:
        over = paired_bootstrap(result.units)
        return Figure("official", result.headline, result.n, over.low, over.high, note=f"interval over {len(result.units)} groups")
    graded = graded_records([study.rows[i] for i in greedy], list(greedy.values()))
    clusters = study.clusters()
    draws = max(100, min(1000, _OFFICIAL_WORK // len(graded)))

    def headline(positions: Sequence[int]) -> float:
        return BENCHMARKS[name].score([graded[position] for position in positions]).headline

    found = statistic_bootstrap(headline, [clusters[i] for i in greedy], resamples=draws)
    low, high = (None, None) if found is None else (found.low, found.high)
    return Figure("official", result.headline, result.n, low, high)


def _greedy(study: Study, greedy: Mapping[str, Record], clusters: Mapping[str, Hashable]) -> list[Figure]:
    def those(name: str, holds: Callable[[str, Record], bool]) -> Figure:
        return _share(name, {i: holds(i, record) for i, record in greedy.items()}, clusters)

    return [
        those("accuracy", lambda _, r: r.correct),
        those("accuracy_strict", lambda _, r: r.correct and r.wellformed),
        those("wellformed", lambda _, r: r.wellformed),
        those("unparsed", lambda i, r: not _readable(study.rows[i], r)),
        those("truncated", lambda _, r: r.finish == "length"),
        Figure("failed", float(study.failed(CLEAN)), len(study.of(CLEAN)), unit="count"),
    ]


def _readable(row: Sample, record: Record) -> bool:
    """By the kind and options that were shown."""
    return grading.readable(replace(row, kind=record.kind, options=record.options), record.answer)


def _sampled(study: Study, clusters: Mapping[str, Hashable]) -> list[Figure]:
    """Mean accuracy of the samples, pass@k for powers of two and majority@k over all, where every question has equally many."""
    drawn: dict[str, list[Record]] = {}
    for record in study.of(CLEAN):
        if record.mode == "sample" and "error" not in record.detail and record.sample_id in clusters:
            drawn.setdefault(record.sample_id, []).append(record)
    if not drawn:
        return []
    k = max(len(records) for records in drawn.values())
    whole = {i: records for i, records in drawn.items() if len(records) == k}
    right = {i: sum(r.correct for r in records) for i, records in whole.items()}
    figures = [mean("sampled", {i: c / k for i, c in right.items()}, clusters)]
    for n in (*(2**p for p in range(1, 10) if 2**p < k), *((k,) if k > 1 else ())):
        figures.append(mean(f"pass@{n}", {i: pass_at_k(k, c, n) for i, c in right.items()}, clusters))
    if k > 1:
        figures.append(mean(f"majority@{k}", {i: majority(records) for i, records in whole.items()}, clusters))
    return figures


def majority(records: Sequence[Record]) -> float:
    """Chance that the answer given most often is right, ties broken by lot; answers that cannot be read have no vote. 0 without votes.

    Right answers are one answer, however they are spelled; wrong ones are told apart by their option or their text.
    """
    votes: dict[Hashable, int] = {}
    for record in records:
        if record.answer is not None and record.answer.strip():
            content = True if record.correct else _content(record)
            votes[content] = votes.get(content, 0) + 1
    most = max(votes.values(), default=0)
    winners = [content for content, count in votes.items() if count == most]
    return float(True in winners) / len(winners) if winners else 0.0


def _content(record: Record) -> Hashable:
    options = grading.choice_letters(record.answer or "", record.options) if record.options else None
    return options if options is not None else " ".join((record.answer or "").split()).casefold()


def _blind(study: Study, greedy: Mapping[str, Record], clusters: Mapping[str, Hashable]) -> list[Figure]:
    blank = {i: record for i, record in study.greedy(BLANK).items() if i in greedy}
    if not blank:
        return []
    gain = {i: float(greedy[i].correct) - float(record.correct) for i, record in blank.items()}
    p = mcnemar_exact([r.correct for r in blank.values()], [greedy[i].correct for i in blank])
    return [
        _share("blank", {i: record.correct for i, record in blank.items()}, clusters),
        mean("gain_over_blank", gain, clusters, "difference", f"McNemar p = {p:.3g}"),
    ]


def _share(name: str, holds: Mapping[str, bool], clusters: Mapping[str, Hashable]) -> Figure:
    """Wilson's interval, or where questions share pictures a bootstrap over pictures."""
    shared = len({clusters[i] for i in holds}) < len(holds) and 0 < sum(holds.values()) < len(holds)
    return mean(name, {i: float(value) for i, value in holds.items()}, clusters) if shared else share(name, holds)


_NAMED = {
    "official": "Official metric",
    "accuracy": "Accuracy, greedy, lenient reading",
    "accuracy_strict": "Accuracy, greedy, strict reading",
    "wellformed": "Well-formed",
    "unparsed": "Answer cannot be read (wrong)",
    "truncated": "Cut off",
    "failed": "No reply (left out)",
    "sampled": "Accuracy, mean of samples",
    "blank": "Accuracy with a blank picture",
    "gain_over_blank": "Gain over a blank picture",
}


def _table(figures: Sequence[Figure]) -> Table:
    rows = tuple((_NAMED.get(figure.name, figure.name), figure) for figure in figures)
    return Table("Accuracy", ("", "value"), rows)


def _words(figures: Mapping[str, Figure], study: Study) -> str:
    text = [f"{said(figures['accuracy'])} are answered right."]
    if "official" in figures:
        text.insert(0, f"The benchmark's own metric is {said(figures['official'])}.")
    unread = figures["unparsed"].value or 0.0
    if unread:
        text.append(f"{points(unread)}% of the answers cannot be read, and count as wrong.")
    gain = figures.get("gain_over_blank")
    if gain is not None and gain.low is not None:
        verdict = "the model uses the picture" if gain.low > 0 else "no proof that the model uses the picture"
        text.append(f"With a blank picture {said(figures['blank'])} are right: a gain of {said(gain)} from looking, {verdict}.")
    if failed := study.failed(CLEAN):
        text.append(f"{failed} answers never came; they are left out.")
    return " ".join(text)
