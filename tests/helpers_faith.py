"""Scripted policies about scenes, and driving evaluators with them, for the tests of evaluators of reasoning."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from data.options import PUSHED
from data.scenes import make
from eval.evaluator import Case, Evaluator, Section, Study, examine
from eval.lab_judge import LabJudge
from eval.runner import Plan, evaluate, record_from, unchanged
from rewards.conclusion import conclusion
from vlm_rl.seeds import stable_hash
from vlm_rl.types import LETTERS, Generate, Query, Record, Reply, Sample, Sampling

ROWS = [make(world, "test", 0, i) for world in ("pictures", "charts") for i in range(14)]
CHOICES = [row for row in ROWS if row.options]
LIMITS = Sampling(200, 0.0, ("</answer>",))
Write = Callable[[Sample], str]
JUDGE = {"name": "judge", "item": True}


def _words(row: Sample, answer: str) -> str:
    return row.options[LETTERS.index(answer)] if row.options else answer


def _turn(row: Sample, trace: str, answer: str) -> str:
    """The rest of a turn that may be begun already: inside its trace, or up to the answer."""
    if row.prefill.endswith("<answer>"):
        return f"{answer}</answer>"
    if "</think>" in row.prefill:
        return f"<answer>{answer}</answer>"
    begun = row.prefill.startswith("<think>")
    said = f" So the answer is {_words(row, answer)}." if begun else f"<think>{trace}"
    return f"{said}</think><answer>{answer}</answer>"


def oracle(row: Sample) -> str:
    """Sees the picture, says what it sees and answers rightly, whatever is put before it or in its mouth."""
    return _turn(row, row.meta["trace"], row.answer)


def follower(row: Sample) -> str:
    """Right by itself; once its reasoning is begun, it answers what that leads to, and guesses where that leads nowhere."""
    if not row.prefill:
        return oracle(row)
    trace = row.prefill.removeprefix("<think>").partition("</think>")[0]
    if "</think>" in row.prefill:
        return _turn(row, "", conclusion(trace, row) or "nothing")
    stated = conclusion(trace, row)
    wrong = row.meta.get("wrong_answer")
    led = stated or (wrong if wrong is not None and row.meta["wrong_trace"].startswith(trace) else row.answer)
    return _turn(row, "", led)


def always_a(row: Sample) -> str:
    return _turn(row, row.meta["trace"], "A" if row.options else "2")


def contradictor(row: Sample) -> str:
    """Reasons rightly and answers something else."""
    if row.options:
        return _turn(row, row.meta["trace"], LETTERS[(LETTERS.index(row.answer) + 1) % len(row.options)])
    return _turn(row, row.meta["trace"], str(int(row.answer) + 1) if row.kind == "number" else f"not {row.answer}")


def blind(row: Sample) -> str:
    """Never looks: the same trace and the same guess, by the length of the question."""
    answer = LETTERS[len(row.question) % len(row.options)] if row.options else "1"
    return _turn(row, f"I think the answer is {_words(row, answer)}.", answer)


def caption_copier(row: Sample) -> str:
    """Believes whatever stands before the question, and says so only in its answer."""
    pushed = row.meta.get(PUSHED)
    return oracle(row) if pushed is None or row.prefill else _turn(row, "I look at the picture.", str(pushed))


def asker(write: Write, judge: LabJudge | None = None) -> Callable[[Sequence[Query]], list[Reply]]:
    def ask(queries: Sequence[Query]) -> list[Reply]:
        said = []
        for query in queries:
            assert isinstance(query, Generate)
            if query.target == "judge":
                assert judge is not None
                said.append(Reply(judge.reply(query.sample.question).text))
            else:
                said.append(Reply(write(query.sample)))
        return said

    return ask


def cases(rows: Sequence[Sample], write: Write, samples: int = 0) -> list[Case]:
    records = evaluate(rows, {"clean": unchanged}, Plan(samples, 200), asker(write))
    own = {row.id: tuple(r for r in records if r.sample_id == row.id) for row in rows}
    return [Case(row, own[row.id], stable_hash(0, row.id), LIMITS, [r for r in rows if r.id != row.id]) for row in rows]


def study(
    rows: Sequence[Sample], write: Write, evaluators: Mapping[str, Evaluator], judge: LabJudge | None = None, samples: int = 0
) -> Study:
    """Everything asked and stored, through JSON as a run would have it."""
    asked = cases(rows, write, samples)
    records = [r for case in asked for r in case.records] + examine(asked, evaluators, asker(write, judge))
    keys = [(r.sample_id, r.condition, r.mode, r.index) for r in records]
    assert len(set(keys)) == len(keys)
    return Study({row.id: replace(row, media=()) for row in rows}, [stored(r) for r in records])


def stored(record: Record) -> Record:
    return record_from(json.loads(json.dumps(asdict(record))))


def section(rows: Sequence[Sample], write: Write, evaluator: Evaluator, judge: LabJudge | None = None, samples: int = 0) -> Section:
    return evaluator.measure(study(rows, write, {"it": evaluator}, judge, samples))


def values(section: Section) -> dict[str, float | None]:
    """Of all figures, those in tables too, by what follows the evaluator's own name."""
    figures = [*section.figures, *(cell for table in section.tables for row in table.rows for cell in row if hasattr(cell, "unit"))]
    return {figure.name.partition("/")[2] or figure.name: figure.value for figure in figures}
