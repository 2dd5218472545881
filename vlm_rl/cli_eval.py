"""`vlm-rl eval`, `vlm-rl stress` and `vlm-rl regrade`: puts rows, a model, evaluators and a report together; computes nothing itself."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from data import Rows, load_rows
from data.benchmark_source import benchmark_rows
from data.check import check_rows
from eval.chunks import Questions, examine_chunk, regraded, unasked_case
from eval.evaluator import Evaluator, Section
from eval.examples import shown_marks
from eval.making import check_targets, make_evaluators, not_run
from eval.measured import measure_all, open_run, summary_of
from eval.runner import CLEAN, Plan
from eval.section_report import write_eval_report
from eval.store import RecordStore, keep_rows, load_study, replace_records
from rewards import grading
from vlm_rl import cli_parts, rundir
from vlm_rl.cli_judges import judges_of
from vlm_rl.cli_targets import Target, open_target, with_model
from vlm_rl.config_eval import EvalConfig
from vlm_rl.console import EVALUATING, Console
from vlm_rl.engine.base import Judge
from vlm_rl.errors import RowError, UserError, unknown
from vlm_rl.memory import guarded
from vlm_rl.tracker import MediaFolder
from vlm_rl.types import Record


def evaluate(config: EvalConfig, environment: Mapping[str, str]) -> Path:
    """Run an evaluation or go on with it; returns its directory. What can be checked by name is checked before anything loads."""
    config = with_model(config)
    evaluators = make_evaluators(config.evaluators, config.benchmark.name if config.benchmark else None)
    check_targets(evaluators, config.judges)
    grader = config.benchmark.judge if config.benchmark else None
    if grader is not None and grader not in config.judges:
        raise unknown("judge", grader, config.judges, "benchmark.judge")
    judges = judges_of(config.judges, config.model, environment)
    with rundir.claimed(config) as run_dir:
        if rundir.is_finished(run_dir):
            with Console(0) as console:
                console.message(f"{run_dir} is finished: report at {run_dir / 'report.html'}; to evaluate anew write run_dir=OTHER")
            return run_dir
        EvalRun(config, run_dir, evaluators, judges, environment).go()
    return run_dir


@dataclass
class EvalRun:
    """One process of one evaluation, from the first chunk that is not stored to the report."""

    config: EvalConfig
    run_dir: Path
    evaluators: Mapping[str, Evaluator]
    judges: Mapping[str, Judge]
    environment: Mapping[str, str]

    def go(self) -> None:
        with Console(0) as console:
            for judge in self.judges.values():
                judge.probe()
            target = open_target(self.config, self.judges, self.environment)
            reasons = not_run(self.evaluators, target.capabilities, target.who)
            for label, reason in reasons.items():
                console.message(f"{label}: not run: {reason}")
            rows = self.usable_rows(target, console)
        keep_rows(self.run_dir, rows)
        store = RecordStore(self.run_dir)
        running = {label: evaluator for label, evaluator in self.evaluators.items() if label not in reasons}
        with Console(len(rows), start_step=store.done, work=EVALUATING) as console:
            self.ask(rows, target, store, running, console)
            self.finish(rows, reasons, store.seconds, console)

    def usable_rows(self, target: Target, console: Console) -> Rows:
        """All rows but the bad ones; those stop the run here unless the config says skip."""
        config = self.config
        rows = benchmark_rows(config.data, config.benchmark) if config.benchmark else load_rows(config.data)

        def try_rows(chosen: Rows) -> list[RowError]:
            phase = partial(console.phase, "checking rows")
            return check_rows(chosen, grading.gold_problem, phase, budget=target.budget, prompt_problem=target.problem)

        bad = cli_parts.check_used(rows, range(len(rows)), config.data, try_rows)
        if bad:
            console.message(f"{len(bad)} bad rows are left out, the first: {next(iter(bad.values()))}")
        usable = cli_parts.without(rows, bad)
        if not usable:
            raise UserError("no row is usable; vlm-rl data check CONFIG lists what is wrong")
        return usable

    def ask(self, rows: Rows, target: Target, store: RecordStore, running: Mapping[str, Evaluator], console: Console) -> None:
        config, plan = self.config, plan_of(self.config)
        grader = config.benchmark.judge if config.benchmark else None
        questions = Questions(plan, running, config.blank_control, grader, config.failure_limit, target.capabilities)
        ask = guarded("evaluate")(target.asker(partial(console.phase, "asking")))
        while store.done < len(rows):
            started, end = time.perf_counter(), min(store.done + config.chunk, len(rows))
            records = examine_chunk(rows, store.done, end, questions, ask)
            store.append(records, end - store.done, time.perf_counter() - started)
            console.step(store.done, {"accuracy": _accuracy(records)})

    def finish(self, rows: Rows, reasons: Mapping[str, str], seconds: float, console: Console) -> None:
        sections = measure_all(load_study(self.run_dir), self.evaluators, reasons)
        keep_marked(self.run_dir, rows, sections, self.evaluators, plan_of(self.config))
        facts = {**rundir.machine(), **cli_parts.peak_memory(), "time/total": seconds, "run/questions": len(rows), "run/finished": True}
        write_results(self.run_dir, sections, reasons, facts)
        for section in sections.values():
            console.message(f"{section.title}: {section.words}")
        console.message(f"report: {self.run_dir / 'report.html'}")


def plan_of(config: EvalConfig) -> Plan:
    rollout = config.rollout
    return Plan(config.samples, rollout.max_new_tokens, rollout.temperature, rollout.stop, config.seed)


def _accuracy(records: Iterable[Record]) -> float:
    right = [r.correct for r in records if r.condition == CLEAN and r.mode == "greedy" and "error" not in r.detail]
    return sum(right) / max(len(right), 1)


def write_results(run_dir: Path, sections: Mapping[str, Section], reasons: Mapping[str, str], facts: Mapping[str, object]) -> None:
    """report.html, then summary.json, by which a run is known to be finished."""
    write_eval_report(run_dir, sections, reasons)
    rundir.write_json(run_dir / "summary.json", {**summary_of(sections, reasons), **facts})


def keep_marked(run_dir: Path, rows: Rows, sections: Mapping[str, Section], evaluators: Mapping[str, Evaluator], plan: Plan) -> None:
    """Thumbnails of the questions that the report shows, as they are and as conditions change their pictures or frames."""
    folder, wanted = MediaFolder(run_dir), {label: shown_marks(section) for label, section in sections.items()}
    marked = {mark for marks in wanted.values() for mark in marks}
    places = {row.id: index for index, row in enumerate(rows) if row.id in marked} if marked else {}
    for label, marks in wanted.items():
        for index in (places[mark] for mark in marks if mark in places):
            case = unasked_case(rows, index, plan)
            cli_parts.keep_pictures(folder, [case.row, *evaluators[label].shown(case).values()])


def regrade(run_dir: Path) -> list[str]:
    """Grade and measure the stored answers again, with no model; returns what the sections say. Raises UserError for no such run."""
    stored = open_run(run_dir)
    with rundir.claimed(stored.config):
        records = [regraded(record, stored.study.rows.get(record.sample_id)) for record in stored.study.records]
        changed = sum(a != b for a, b in zip(records, stored.study.records, strict=True))
        if changed:
            replace_records(run_dir, records)
        sections = measure_all(replace(stored.study, records=records), stored.evaluators, stored.reasons)
        facts = {key: value for key, value in rundir.read_summary(run_dir).items() if "/" in key}
        write_results(run_dir, sections, stored.reasons, facts)
    said = [f"{section.title}: {section.words}" for section in sections.values()]
    return [*said, f"{changed} of {len(records)} records are read or graded differently now; report: {run_dir / 'report.html'}"]
