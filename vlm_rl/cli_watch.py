"""Evaluators during a training: every so many steps on the same few held-out questions, with the rollout engine. Composition only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data import Rows
from eval.chunks import Questions, cases_of
from eval.evaluator import Evaluator, Study, examine
from eval.making import check_targets, make_evaluators
from eval.measured import measure_all
from eval.runner import CLEAN, Ask, Plan
from eval.tradeoff import kept, logged, warning
from vlm_rl.config import TrainConfig
from vlm_rl.errors import UserError
from vlm_rl.tracker import StepFile, read_jsonl
from vlm_rl.types import Record

WATCHED = Path("eval") / "watched.jsonl"
CHUNK = 64


def watchers(config: TrainConfig) -> dict[str, Evaluator]:
    """The evaluators of a training's config, {} where it names none. Raises UserError."""
    if not config.evaluators:
        return {}
    made = make_evaluators(config.evaluators)
    check_targets(made, config.judges)
    if config.eval.every is None:
        raise UserError("evaluators: they run every eval.every steps, and eval.every is not set; write for instance eval.every=20")
    return made


@dataclass
class Watch:
    """`rows` are the questions asked each time. Headlines are kept in eval/watched.jsonl, which a resumed run goes on with."""

    config: TrainConfig
    evaluators: Mapping[str, Evaluator]
    rows: Rows
    run_dir: Path
    done: int
    writes: bool = True  # one of several processes does
    file: StepFile | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        path = self.run_dir / WATCHED
        if self.writes:
            path.parent.mkdir(exist_ok=True)
            self.file = StepFile(path, self.done)

    def __call__(self, step: int, records: Sequence[Record], ask: Ask) -> tuple[dict[str, float], list[str]]:
        """Metrics and warnings after a step (0: before training); `records` hold the greedy clean answers to the questions."""
        rollout = self.config.rollout
        questions = Questions(Plan(0, rollout.max_new_tokens, rollout.temperature, rollout.stop, self.config.seed), self.evaluators)
        ids = {row.id for row in self.rows}
        clean = [r for r in records if r.sample_id in ids and r.condition == CLEAN and r.mode == "greedy"]
        rows, found = list(self.rows), []
        for start in range(0, len(rows), CHUNK):
            found += examine(cases_of(rows, start, rows[start : start + CHUNK], clean, questions), self.evaluators, ask)
        study = Study({row.id: row for row in rows}, [*clean, *found])
        sections = measure_all(study, self.evaluators, {})
        if self.file is None:
            return logged(sections), []
        before = self.lines()
        now = kept(sections)
        if step > self.file.kept_step:
            self.file.write([{"step": step, **now}])
        said = warning(before[0], now, study.clusters()) if before and before[0]["step"] < step else None
        return logged(sections), [said] if said else []

    def lines(self) -> list[dict[str, Any]]:
        return read_jsonl(self.run_dir / WATCHED)
