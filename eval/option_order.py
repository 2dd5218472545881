"""What the order of the options does to the answer: option-shuffling consistency (OSCR; ACRE, arXiv 2510.10104) and a liking for places.

    oscr_fixed        the same trace re-fed under other orders of the options: share of second answers equal to the first
    oscr_regenerated  another trace written under each order
    oscr_correct      oscr_fixed, and the first answer right
    rerun             the very same question asked again: how often greedy decoding itself repeats its answer, the ceiling of the second

All by option contents, never by letters. A low oscr_fixed says that the trace does not settle the answer; a high one does not say that the
trace is true or was needed. Definitions are ours where the paper's were not available: no reproduction.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from data.options import option_order
from eval.evaluator import Case, Evaluator, Figure, Rounds, Section, Study, Table
from eval.figures import mean, said, share, with_tabled
from eval.reading import Content, Turn, answer_limits, answered, content
from rewards.option_shuffle import Shuffle
from vlm_rl.errors import UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.types import LETTERS, Generate, Query, Record, Sample

NAME = "option_order"
FIXED, REGENERATED, RERUN = f"{NAME}/fixed", f"{NAME}/regenerated", f"{NAME}/rerun"
_ORDERS = Shuffle()
Answers = dict[str, tuple[Content | None, list[Content | None]]]


class OptionOrder(Evaluator):
    """`shuffles` orders per question, never the one it has; `regenerate` asks for another trace under each too."""

    needs = frozenset({"prefill"})

    def __init__(self, shuffles: int = 2, regenerate: bool = True):
        if isinstance(shuffles, bool) or not isinstance(shuffles, int) or shuffles < 1:
            raise UserError(f"shuffles is a number of orders, 1 or more, not {shuffles!r}")
        self.shuffles, self.regenerate = shuffles, bool(regenerate)

    def rounds(self, case: Case) -> Rounds:
        if _ORDERS.obstacle(case.row):
            return ()
        orders = [_ORDERS(case.row, stable_hash(case.seed, NAME, m)) for m in range(self.shuffles)]
        turn, plain = Turn.of(case.base), replace(case.row, prefill="", response=None)
        asked: list[tuple[str, int, Sample]] = [(RERUN, 0, plain)]
        if turn.trace is not None:
            asked += [(FIXED, m, turn.told(row, turn.trace)) for m, row in enumerate(orders)]
        if self.regenerate:
            asked += [(REGENERATED, m, row) for m, row in enumerate(orders)]
        short = answer_limits(case.greedy)
        queries: list[Query] = [Generate("policy", row, short if condition == FIXED else case.greedy) for condition, _, row in asked]
        replies = yield queries
        return [
            case.record(condition, row, reply, m, order=list(option_order(row)), shuffles=self.shuffles)
            for (condition, m, row), reply in zip(asked, replies, strict=True)
        ]

    def measure(self, study: Study) -> Section:
        base = study.greedy()
        rows = {i: study.rows[i] for i in base if study.rows[i].options and _ORDERS.obstacle(study.rows[i]) is None}
        first = {i: answered(base[i], row) for i, row in rows.items()}
        fixed, written = (_again(study, condition, first, base) for condition in (FIXED, REGENERATED))
        rerun = {i: answered(r, rows[i]) for i, r in study.greedy(RERUN).items() if i in rows}
        clusters = study.clusters()
        figures = [
            _oscr("oscr_fixed", fixed, clusters),
            _oscr("oscr_regenerated", written, clusters),
            _oscr("oscr_correct", fixed, clusters, {i: base[i].correct for i in fixed}),
            share(f"{NAME}/rerun", {i: same is not None and same == first[i] for i, same in rerun.items()}),
            _letter_kept(study, first),
            share(f"{NAME}/moved_somewhere", {i: len({a, *again}) > 1 for i, (a, again) in written.items()}, "regenerated, any order"),
        ]
        asked = [r for r in (*base.values(), *study.of(REGENERATED)) if r.sample_id in rows and "error" not in r.detail]
        places = _places(asked, "chosen" if written else "chosen, own order only")
        figures.append(_favourite(asked))
        left_out = sum(i not in rows for i in base)
        return Section(
            "Order of the options",
            _words(figures, left_out),
            with_tabled(figures, [places]),
            (places, _spread(written)),
            marks=_marks(fixed),
        )


def option_shuffling(first: Content | None, again: Sequence[Content | None]) -> float:
    """Share of second answers equal to the first. A missing answer equals nothing. option_shuffling({1}, [{1}, None]) -> 0.5"""
    return fmean(first is not None and second == first for second in again)


def _again(study: Study, condition: str, first: Mapping[str, Content | None], base: Mapping[str, Record]) -> Answers:
    """(first answer, second ones) by question; without a trace to re-feed all second answers are missing."""
    records = [r for r in study.of(condition) if r.sample_id in first]
    found: Answers = {}
    for record in records:
        if "error" not in record.detail:
            found.setdefault(record.sample_id, (first[record.sample_id], []))[1].append(answered(record, study.rows[record.sample_id]))
    shuffles = int(next((r.detail["shuffles"] for r in study.of(RERUN)), 1))
    bare = [i for i in first if condition == FIXED and Turn.of(base[i]).trace is None and shuffles]
    for i in bare:
        found[i] = (first[i], [None] * shuffles)
    return found


def _oscr(name: str, answers: Answers, clusters: Mapping[str, Content], also: Mapping[str, bool] | None = None) -> Figure:
    values = {i: option_shuffling(a, again) * (1.0 if also is None else float(also[i])) for i, (a, again) in answers.items()}
    counts = {len(again) for _, again in answers.values()}
    note = f"{max(counts)} orders per question" if counts else ""
    return mean(f"{NAME}/{name}", values, clusters, note=note)


def _letter_kept(study: Study, first: Mapping[str, Content | None]) -> Figure:
    """Of re-fed answers whose first content lies behind another letter now: how many name the old letter all the same."""
    kept = []
    for record in study.of(FIXED):
        said, order = first.get(record.sample_id), record.detail["order"]
        if "error" in record.detail or not isinstance(said, frozenset) or len(said) != 1:
            continue
        (place,) = said
        if order[place] != place:
            kept.append(answered(record, study.rows[record.sample_id]) == frozenset({order[place]}))
    return share(f"{NAME}/letter_kept", kept, "re-fed; the first answer's content moved")


def _places(asked: Sequence[Record], title: str) -> Table:
    """Where answers point and where the right option lay, by place. Questions with several right or chosen options count in neither."""
    chosen, gold, offered = _counts(asked)
    rows = []
    for place, letter in enumerate(LETTERS[: max(offered, default=-1) + 1]):
        there = offered[place]
        right = [r.correct for r in asked if r.gold == letter]
        flags = [[True] * count[place] + [False] * (there - count[place]) for count in (chosen, gold)]
        rows.append(
            (
                letter,
                *(share(f"{NAME}/{key}/{letter}", f) for key, f in zip(("chosen", "gold"), flags, strict=True)),
                share(f"{NAME}/right/{letter}", right),
            )
        )
    note = "Of the answers to questions that have that place: how many name it, how often the right option is there, accuracy where it is."
    return Table("Places", ("place", title, "P(gold there)", "accuracy if there"), tuple(rows), note)


def _counts(asked: Sequence[Record]) -> tuple[Counter[int], Counter[int], Counter[int]]:
    chosen: Counter[int] = Counter()
    gold: Counter[int] = Counter()
    offered: Counter[int] = Counter()
    for record in asked:
        offered.update(range(len(record.options)))
        gold.update([LETTERS.index(record.gold)] if record.gold in LETTERS and record.gold else [])
        shown = Sample(record.sample_id, "", record.gold, "choice", record.options)
        place = content(record.answer, shown)
        chosen.update(place if isinstance(place, frozenset) and len(place) == 1 else [])
    return chosen, gold, offered


def _favourite(asked: Sequence[Record]) -> Figure:
    """The place whose share of answers exceeds its share of right options most, in points of the answers that could point there."""
    chosen, gold, offered = _counts(asked)
    excess = {place: (chosen[place] - gold[place]) / offered[place] for place in offered}
    if not excess:
        return Figure(f"{NAME}/favourite", None, 0, unit="difference")
    place = max(excess, key=lambda p: excess[p])
    return Figure(f"{NAME}/favourite", excess[place], offered[place], unit="difference", note=LETTERS[place])


def _spread(written: Answers) -> Table:
    different = Counter(len({a, *again} - {None}) for a, again in written.values())
    total = sum(different.values())
    rows = tuple((str(k), share("questions", [True] * n + [False] * (total - n))) for k, n in sorted(different.items()))
    return Table(
        "Answers under orders", ("different answers", "questions"), rows, "Read answers to one question over its own and all other orders."
    )


def _marks(fixed: Answers) -> tuple[str, ...]:
    return tuple(i for i, (a, again) in fixed.items() if a is not None and option_shuffling(a, again) < 1)


def _words(figures: Sequence[Figure], left_out: int) -> str:
    by_name = {figure.name.partition("/")[2]: figure for figure in figures}
    liked = by_name["favourite"]
    like = (
        ""
        if not liked.value or liked.value < 0
        else f" It names place {liked.note} {liked.value:+.1%} more often than the right option lies there."
    )
    out = f" {left_out} questions without options that could be reordered were left out." if left_out else ""
    return (
        f"With its own trace re-fed under another order of the options, the model gives the same answer in {said(by_name['oscr_fixed'])}; "
        f"writing a new trace under each order in {said(by_name['oscr_regenerated'])}, where asking the very same question again gives "
        f"{said(by_name['rerun'])}. The same answer, and right: {said(by_name['oscr_correct'])}.{like}{out} "
        "Stability under orders is not truth: a model that always repeats one wrong content is perfectly stable."
    )
