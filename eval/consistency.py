"""Trace-answer consistency: is the emitted answer the one that the trace itself concludes? (arXiv 2602.12506; CACR: ACRE, 2510.10104)

It says nothing about whether the trace is true, whether the answer depends on it, or whether the trace says what moved the model: those are
other constructs with other evaluators. It is read by several classifiers, and what is reported is their range:

    rule      the one answer that the last sentence states (`rewards.conclusion`); doubt is no conclusion
    exact     on generated scenes: what the grammar of traces reads, compared as the answer is graded
    conclude  a judge that sees question, options and trace, neither the gold nor the emitted answer, names the option; compared here
    supports  the same without the options, as the paper of CACR has it shown
    direct    a judge that sees trace and answer says yes or no, as the published form; checked with swapped answers

Prompts are ours: the published ones were not available. An empty trace is inconsistent and counted apart; an answer that cannot be read is
left out and counted; a judge's failure or unreadable reply is unscored, counted, and never "inconsistent".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from data.scene_traces import verify_trace
from eval.agreement import compare_classifiers, fleiss_kappa
from eval.drawings import QUADRANTS as NAMES
from eval.drawings import bar_chart
from eval.evaluator import Case, Evaluator, Figure, Rounds, Section, Study, Table
from eval.figures import said, share, with_tabled
from eval.reading import Content, answered, content, same, trace_text
from rewards.conclusion import agrees, conclusion
from rewards.judge_call import JudgeCall, bare_trace, judge_call, question_of
from rewards.judging import read_conclusion, read_yes_no
from vlm_rl.seeds import stable_hash
from vlm_rl.types import LETTERS, Query, Record, Sample

NAME = "consistency"
NONE, MULTI = "NONE", "MULTI"
SWAPS_NEEDED, REJECTED_NEEDED = 50, 0.95


@dataclass(frozen=True)
class Verdict:
    """`consistent` None: unscored. `concluded` is what the trace was found to conclude, where the classifier tells it."""

    consistent: bool | None
    concluded: Content | None = None


Found = Mapping[str, Mapping[str, Verdict]]  # by classifier, by question


class Consistency(Evaluator):
    """`judge` is one of the config's judges, or {name, item: true, ...} (see `rewards.judge_call`); without it only rules are used."""

    def __init__(self, judge: str | Mapping[str, Any] | None = None):
        self.judge: JudgeCall | None = None if judge is None else judge_call(judge, media=False, max_new_tokens=32)
        self.targets = () if self.judge is None else (self.judge.name,)

    def rounds(self, case: Case) -> Rounds:
        if self.judge is None or not case.trace or case.base.answer is None:
            return ()
        asked = dict(_questions(self.judge, case))
        replies = yield [query for query, _ in asked.values()]
        return [
            replace(
                case.base,
                condition=f"{NAME}/{form}",
                detail={"judge": self.judge.name, "reply": reply.text, **extra, **({"error": reply.error} if reply.error else {})},
            )
            for (form, (_, extra)), reply in zip(asked.items(), replies, strict=True)
        ]

    def measure(self, study: Study) -> Section:
        base = study.greedy()
        items = {i: record for i, record in base.items() if answered(record, study.rows[i]) is not None}
        found = {name: {i: verdict(i) for i in items} for name, verdict in _classifiers(study, items).items()}
        found = {name: verdicts for name, verdicts in found.items() if any(v.consistent is not None for v in verdicts.values())}
        empty = [i for i, record in items.items() if not trace_text(record)]
        shares = [_share(name, verdicts) for name, verdicts in found.items()]
        figures = [
            *shares,
            *_spread(shares),
            share(f"{NAME}/empty", {i: i in empty for i in items}),
            share(f"{NAME}/unread_answers", {i: i not in items for i in base}),
        ]
        tables = [_quadrants(found, items), _agreement_of_traces(found, items, study)]
        full = [i for i in items if i not in empty]
        tables += [table for table in (_pairs(found, full), _errors(found, full), _swapped(study)) if table.rows]
        figures += _fleiss(found, full)
        chart = bar_chart("Traces and answers", {name: _counts(verdicts, items) for name, verdicts in found.items()}, "by classifier")
        return Section(
            "Trace-answer consistency", _words(figures, tables), with_tabled(figures, tables), tuple(tables), (chart,), _marks(found, items)
        )


def _questions(judge: JudgeCall, case: Case) -> list[tuple[str, tuple[Query, dict[str, Any]]]]:
    """(form, (question, what else the record keeps)); the swapped pair only where the rule finds the pair consistent to begin with."""
    row, trace, answer = case.row, bare_trace(case.base.prefill + case.base.completion), case.base.answer or ""
    letters = ", ".join(LETTERS[: len(row.options)]) if row.options else None
    bare = replace(row, options=())
    asked: list[tuple[str, tuple[Query, dict[str, Any]]]] = [
        ("conclude", (judge.query(row, "conclude", question=question_of(row), trace=trace, letters=letters), {})),
        ("supports", (judge.query(row, "conclude", question=question_of(bare), trace=trace), {})),
        ("direct", (judge.query(row, "yes_no", question=question_of(row), trace=trace, answer=answer), {})),
    ]
    other = _other_answer(row, case.base.answer, case.seed) if agrees(trace, answer, row) else None
    if other is not None:
        asked.append(("swapped", (judge.query(row, "yes_no", question=question_of(row), trace=trace, answer=other), {"swapped": other})))
    return asked


def _other_answer(row: Sample, answer: str | None, seed: int) -> str | None:
    """Another option, as a text; None for rows without options."""
    given = content(answer, row)
    others = [i for i in range(len(row.options)) if given != frozenset({i})]
    return row.options[others[stable_hash(seed, "swap") % len(others)]] if isinstance(given, frozenset) and others else None


def _classifiers(study: Study, items: Mapping[str, Record]) -> dict[str, Callable[[str], Verdict]]:
    def by_text(read: Callable[[str, Sample], str | None]) -> Callable[[str], Verdict]:
        def verdict(i: str) -> Verdict:
            concluded = content(read(trace_text(items[i]), study.rows[i]), study.rows[i])
            return Verdict(same(concluded, answered(items[i], study.rows[i]), study.rows[i]), concluded)

        return verdict

    def by_judge(form: str) -> Callable[[str], Verdict]:
        replies = {record.sample_id: record for record in study.of(f"{NAME}/{form}")}

        def verdict(i: str) -> Verdict:
            if not trace_text(items[i]):
                return Verdict(False)
            record = replies.get(i)
            return Verdict(None) if record is None or "error" in record.detail else _judged(form, record, study.rows[i])

        return verdict

    scenes = all("scene" in study.rows[i].meta for i in items)
    exact = {"exact": by_text(lambda trace, row: verify_trace(trace, row.meta["scene"]).conclusion)} if scenes and items else {}
    judged = {form: by_judge(form) for form in ("conclude", "supports", "direct") if study.of(f"{NAME}/{form}")}
    return {"rule": by_text(conclusion), **exact, **judged}


def _judged(form: str, record: Record, row: Sample) -> Verdict:
    reply = str(record.detail["reply"])
    if form == "direct":
        return Verdict(read_yes_no(reply))
    named = read_conclusion(reply)
    if named is None or named.upper() in (NONE, MULTI):
        return Verdict(None if named is None else False)
    concluded = content(named, row)
    if concluded is None and form == "conclude":
        return Verdict(None)  # neither a letter of an option nor NONE or MULTI: not what was asked for
    return Verdict(same(concluded, answered(record, row), row), concluded)


def _share(name: str, verdicts: Mapping[str, Verdict]) -> Figure:
    scored = {i: v.consistent for i, v in verdicts.items() if v.consistent is not None}
    unscored = len(verdicts) - len(scored)
    return share(f"{NAME}/{name}", scored, f"{unscored} unscored" if unscored else "")


def _spread(shares: Sequence[Figure]) -> list[Figure]:
    known = [figure for figure in shares if figure.value is not None]
    if not known:
        return []
    ends = min(known, key=lambda f: f.value or 0.0), max(known, key=lambda f: f.value or 0.0)
    return [replace(f, name=f"{NAME}/{end}", note=f.name.partition("/")[2]) for end, f in zip(("lowest", "highest"), ends, strict=True)]


def _quadrants(found: Found, items: Mapping[str, Record]) -> Table:
    rows = []
    for name, verdicts in found.items():
        scored = {i: v.consistent for i, v in verdicts.items() if v.consistent is not None}
        cells = [
            share(f"{NAME}/{name}/{key}", {i: (g, items[i].correct) == kind for i, g in scored.items()}) for key, kind in QUADRANTS.items()
        ]
        sides = [share(f"{NAME}/{name}/{side}", {i: bool(g) for i, g in scored.items() if items[i].correct == c}) for side, c in SIDES]
        rows.append((name, *cells, *sides, len(verdicts) - len(scored)))
    note = "Shares of answers that could be read; an empty trace is inconsistent. Last: consistent shares of right and wrong ones."
    return Table("Quadrants", ("classifier", *NAMES, "of right", "of wrong", "unscored"), tuple(rows), note)


QUADRANTS = {"cc": (True, True), "ic": (False, True), "ii": (False, False), "ci": (True, False)}
SIDES = (("right", True), ("wrong", False))


def _counts(verdicts: Mapping[str, Verdict], items: Mapping[str, Record]) -> dict[str, int]:
    kinds = [(v.consistent, items[i].correct) for i, v in verdicts.items()]
    return {name: kinds.count(kind) for name, kind in zip(NAMES, QUADRANTS.values(), strict=True)}


def _agreement_of_traces(found: Found, items: Mapping[str, Record], study: Study) -> Table:
    """CACR, CR-WA and WR-CA for the classifiers that name a conclusion."""
    rows = []
    unread = [i for i in study.greedy() if i not in items]
    for name, verdicts in found.items():
        ids = [i for i, v in verdicts.items() if v.consistent is not None]
        if name == "direct" or not ids:
            continue
        right = [same(verdicts[i].concluded, content(study.rows[i].answer, study.rows[i]), study.rows[i]) for i in ids]
        held = {i: bool(verdicts[i].consistent) for i in ids}
        none = dict.fromkeys(unread, False)
        cr_wa = {i: r and not items[i].correct for i, r in zip(ids, right, strict=True)}
        wr_ca = {i: items[i].correct and not r for i, r in zip(ids, right, strict=True)}
        shares = (share(f"{NAME}/{name}/{key}", {**values, **none}) for key, values in (("cr_wa", cr_wa), ("wr_ca", wr_ca)))
        rows.append((name, share(f"{NAME}/{name}/cacr", held), *shares))
    note = (
        "CR-WA: the trace concludes what is right, the answer is wrong. WR-CA: the reverse; a trace without conclusion does not conclude "
        "what is right. Both of all answers, the unread too."
    )
    return Table("What traces support (CACR)", ("classifier", "CACR", "CR-WA", "WR-CA"), tuple(rows), note)


def _pairs(found: Found, ids: Sequence[str]) -> Table:
    rows = []
    for one, other in combinations(found, 2):
        both = [(found[one][i].consistent, found[other][i].consistent) for i in ids]
        pairs = [(a, b) for a, b in both if a is not None and b is not None]
        if pairs:
            found_pair = compare_classifiers([a for a, _ in pairs], [b for _, b in pairs])
            agreement = share(f"{NAME}/{one}/{other}/agreement", [a == b for a, b in pairs])
            rows.append((f"{one} / {other}", agreement, _plain(found_pair.kappa), _plain(found_pair.p)))
    note = "Non-empty traces only. McNemar's exact p: whether one of the two calls more traces consistent. kappa: beyond chance."
    return Table("Agreement of classifiers", ("pair", "agreement", "kappa", "McNemar p"), tuple(rows), note)


def _plain(value: float | None) -> str | None:
    """A number that is no share."""
    return None if value is None else f"{value:.2g}"


def _errors(found: Found, ids: Sequence[str]) -> Table:
    """How each classifier errs, where the truth is known."""
    rows = []
    for name, verdicts in found.items():
        if name == "exact" or "exact" not in found:
            continue
        told = [(bool(verdicts[i].consistent), bool(found["exact"][i].consistent)) for i in ids if verdicts[i].consistent is not None]
        missed = share(f"{NAME}/{name}/misses", [not said for said, truth in told if truth])
        invented = share(f"{NAME}/{name}/false_alarms", [said for said, truth in told if not truth])
        rows.append((name, share(f"{NAME}/{name}/errors", [said != truth for said, truth in told]), missed, invented))
    columns = ("classifier", "errors", "of consistent ones, called inconsistent", "of inconsistent ones, called consistent")
    return Table("Against exact truth", columns, tuple(rows), "Generated scenes only: what their traces conclude is read exactly.")


def _swapped(study: Study) -> Table:
    """The judge's check: pairs that the rule finds consistent, with another option in the answer's place, must be rejected."""
    records = [r for r in study.of(f"{NAME}/swapped") if "error" not in r.detail]
    verdicts = [v for v in (read_yes_no(str(r.detail["reply"])) for r in records) if v is not None]
    if not records:
        return Table("Swapped answers", (), ())
    concluded = {r.sample_id: r for r in study.of(f"{NAME}/conclude") if "error" not in r.detail}
    blind = []
    for record in records:
        if record.sample_id in concluded:
            row = study.rows[record.sample_id]
            verdict = _judged("conclude", replace(concluded[record.sample_id], answer=str(record.detail["swapped"])), row)
            blind += [] if verdict.consistent is None else [verdict.consistent]
    rows = [
        (form, share(f"{NAME}/{form}/swaps_rejected", [not v for v in seen])) for form, seen in (("direct", verdicts), ("conclude", blind))
    ]
    note = f"Wanted: {REJECTED_NEEDED:.0%} or more rejected, of {SWAPS_NEEDED} pairs or more; a judge that rejects fewer leans towards yes."
    return Table("Swapped answers", ("form", "rejected"), tuple(rows), note)


def _fleiss(found: Found, ids: Sequence[str]) -> list[Figure]:
    if len(found) < 3:
        return []
    votes = [[verdicts[i].consistent for verdicts in found.values()] for i in ids]
    counts = [(sum(v is True for v in row), sum(v is False for v in row)) for row in votes if None not in row]
    kappa = fleiss_kappa(counts) if counts else None
    return [Figure(f"{NAME}/fleiss_kappa", kappa, len(counts), unit="number", note=f"{len(found)} classifiers")]


def _marks(found: Found, items: Mapping[str, Record]) -> tuple[str, ...]:
    """Inconsistent by the strictest knowledge there is, right answers first."""
    best = next((found[name] for name in ("exact", "conclude", "rule") if name in found), {})
    broken = [i for i, verdict in best.items() if verdict.consistent is False]
    return tuple(sorted(broken, key=lambda i: not items[i].correct))


def _words(figures: Sequence[Figure], tables: Sequence[Table]) -> str:
    named = {figure.name: figure for figure in figures}
    low, high = named.get(f"{NAME}/lowest"), named.get(f"{NAME}/highest")
    if low is None or high is None or low.value is None or high.value is None:
        return "No answer could be read, so nothing can be said about traces and answers."
    spread = f"{low.value:.1%} ({low.note}) to {high.value:.1%} ({high.note}) of the answers, depending on who reads the trace"
    ranged = spread if low.value < high.value else f"{said(low)} of the answers, whoever reads the trace"
    quadrants = next(table for table in tables if table.title == "Quadrants")
    _, _, right_by_accident, *_ = quadrants.rows[0]
    assert isinstance(right_by_accident, Figure)
    return (
        f"The emitted answer is what its trace concludes in {ranged}; "
        f"{said(right_by_accident)} are right although the trace concludes otherwise or nothing (rule). "
        "This measures agreement of two texts. It does not say that the trace is true, nor that the answer was made by it."
    )
