"""`vlm-rl lab run`: trains the arms of a claim, each in a process of its own, evaluates them, and writes what came out. Composition only.

Goes on where it was stopped: results of an arm under a seed are kept, trainings and evaluations resume by their own means.
"""

import logging
import shlex
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from types import FrameType

from eval.lab_findings import check_metrics
from eval.lab_report import write_lab_report
from eval.lab_results import SeedResult, costs_of, curves_of, figures_of, load, register, save
from eval.measured import open_run
from vlm_rl import cli_lab, cli_lab_plan, rundir
from vlm_rl.cli_lab_plan import Command, Experiment, Unit
from vlm_rl.console import Console, Work
from vlm_rl.errors import UserError
from vlm_rl.tracker import read_jsonl

logger = logging.getLogger(__name__)

EXPERIMENT = Work("experiment", "trainings", {}, quiet_every=1)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_SAID = 3  # last lines of a failed process that are shown


@dataclass(frozen=True)
class Options:
    quick: bool = False
    seeds: tuple[int, ...] = ()
    jobs: int = 1
    out: Path = Path("runs/lab")
    docs: Path | None = None


def numbers(text: str) -> tuple[int, ...]:
    """Seeds as they are typed: numbers("0,1") -> (0, 1). Raises UserError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if bad := [part for part in parts if not part.isdecimal()]:
        raise UserError(f"--seeds is a list of numbers such as 0,1,2; '{bad[0]}' is none")
    return tuple(map(int, parts))


def run(path: str, options: Options, environment: Mapping[str, str]) -> tuple[bool, str]:
    """Whether everything registered has run, and what came out, in a sentence. Raises UserError."""
    experiment = cli_lab_plan.plan(path, options.quick, options.out)
    wanted = cli_lab_plan.only(experiment, options.seeds) if options.seeds else experiment
    directory = options.out / experiment.title
    hashed = register(directory, experiment.registered, experiment.claim.amendments)
    results, missing = _kept(directory, experiment, hashed)
    todo = [unit for unit in wanted.units if (unit.arm, unit.seed) in missing]
    failures: dict[str, str] = {}
    with Console(len(experiment.units), start_step=len(results), work=EXPERIMENT) as console, _stopping(), ExitStack() as stack:
        lab = Laboratory(options, {**environment, **ONE_THREAD})
        units = stack.enter_context(closing(lab.carry_out(todo)))
        for unit, error in units:
            if error is None:
                result = _measured(unit, hashed)
                check_metrics(experiment.claim, result)
                save(directory, result)
                results[unit.arm, unit.seed] = result
            else:
                failures[unit.name] = error
                console.message(f"{unit.name} failed: {error}")
            console.step(len(results), {})
    unfinished = {u.name: failures.get(u.name, "not run yet") for u in experiment.units if (u.arm, u.seed) not in results}
    facts = {**rundir.machine(), "commands": [f"vlm-rl lab run {path}{' --quick' if options.quick else ''}"]}
    said = write_lab_report(directory, experiment.title, experiment.claim, results, unfinished, facts, options.docs)
    return not unfinished, said


def _kept(directory: Path, experiment: Experiment, hashed: str) -> tuple[dict[tuple[str, int], SeedResult], set[tuple[str, int]]]:
    """The results that are there under this registration, and what is missing."""
    results = {}
    for unit in experiment.units:
        found = load(directory, unit.arm, unit.seed)
        if found is not None and found.registration == hashed:
            results[unit.arm, unit.seed] = found
    return results, {(unit.arm, unit.seed) for unit in experiment.units} - results.keys()


@contextmanager
def _stopping() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does, so that no training is left behind."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass
class Laboratory:
    """Runs units, several at once; what two of them share is run once."""

    options: Options
    environment: Mapping[str, str]
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    locks: dict[Path, Lock] = field(default_factory=dict)
    stopped: bool = False

    def carry_out(self, units: Sequence[Unit]) -> Generator[tuple[Unit, str | None], None, None]:
        """Each unit as it is done, with what went wrong, or None. Processes are ended when the caller stops listening."""
        for unit in units:
            for command in (unit.training, unit.evaluation):
                if command is not None:
                    self.locks.setdefault(command.run_dir, Lock())
        pool = ThreadPoolExecutor(max_workers=self.options.jobs)
        try:
            pending: dict[Future[str | None], Unit] = {pool.submit(self.unit, unit): unit for unit in units}
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield pending.pop(future), future.result()
        finally:
            self.stopped = True
            for process in list(self.running):
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)

    def unit(self, unit: Unit) -> str | None:
        """Train and evaluate; what went wrong, in the words of the process."""
        if unit.training is not None and (error := self.command(unit.training)):
            return f"training: {error}"
        extra = [] if unit.training is None else [f"model={checkpoint(unit.training.run_dir)}"]
        return f"evaluation: {error}" if (error := self.command(unit.evaluation, extra)) else None

    def command(self, command: Command, extra: Sequence[str] = ()) -> str | None:
        with self.locks[command.run_dir], ExitStack() as stack:
            if self.stopped or rundir.is_finished(command.run_dir):
                return "stopped" if self.stopped else None
            words = [*command.words, *extra]
            if command.judge is not None:
                judge = command.judge
                server = stack.enter_context(cli_lab.serving(judge.kind, judge.noise, judge.hack))
                words.append(f"judges.{judge.name}.url={server.url}")
            return self.process(words, command.run_dir)

    def process(self, words: Sequence[str], run_dir: Path) -> str | None:
        """`vlm-rl WORDS` in a process of its own, its output in RUN_DIR.log."""
        log = run_dir.with_name(f"{run_dir.name}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            output.write(f"$ vlm-rl {shlex.join(words)}\n".encode())
            output.flush()
            process = subprocess.Popen(
                [sys.executable, "-m", "vlm_rl", *words], env=dict(self.environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            self.running.add(process)
            try:
                status = process.wait()
            finally:
                self.running.discard(process)
        if status == 0 and rundir.is_finished(run_dir):
            return None
        last = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()][-_SAID:]
        return f"exit status {status}, {' / '.join(last)}; all of it in {log}"


def checkpoint(run_dir: Path) -> Path:
    """The last one of a finished training. Raises UserError."""
    found = [path for path in (run_dir / "checkpoints").glob("step_*") if path.name.removeprefix("step_").isdigit()]
    if not found:
        raise UserError(f"{run_dir} is finished and holds no checkpoint: remove it, and the same command trains again")
    return max(found, key=lambda path: int(path.name.removeprefix("step_")))


def _measured(unit: Unit, hashed: str) -> SeedResult:
    """What a finished unit measured, read from its directories."""
    figures, clusters, facts = _evaluated(unit.evaluation.run_dir)
    curves: dict[str, list[list[float]]] = {}
    facts = {**facts, "evaluation": str(unit.evaluation.run_dir), "commands": [shlex.join(["vlm-rl", *unit.evaluation.words])]}
    if unit.training is not None:
        run_dir = unit.training.run_dir
        steps = read_jsonl(run_dir / "metrics.jsonl")
        watched = run_dir / "eval" / "watched.jsonl"
        curves = curves_of(steps, read_jsonl(watched) if watched.exists() else [])
        figures = {**figures, **costs_of(steps)}
        facts |= {"training": str(run_dir), "time/training": rundir.read_summary(run_dir).get("time/total"), "steps": len(steps)}
        model = f"model={checkpoint(run_dir)}"
        facts["commands"] = [shlex.join(["vlm-rl", *unit.training.words]), shlex.join(["vlm-rl", *unit.evaluation.words, model])]
    return SeedResult(hashed, unit.arm, unit.seed, figures, clusters, curves, facts)


@cache
def _evaluated(run_dir: Path) -> tuple[dict[str, dict[str, object]], dict[str, str], dict[str, object]]:
    """Figures, the cluster of each question that has others in its cluster, and facts; read once for the arms that share it."""
    stored = open_run(run_dir)
    groups: dict[object, list[str]] = {}
    for i, held in stored.study.clusters().items():
        groups.setdefault(held, []).append(i)
    clusters = {i: ids[0] for ids in groups.values() if len(ids) > 1 for i in ids}
    summary = rundir.read_summary(run_dir)
    facts: dict[str, object] = {key: value for key, value in summary.items() if key.startswith("system/") and "memory" not in key}
    return figures_of(stored.sections()), clusters, {**facts, "time/evaluation": summary.get("time/total"), "not_run": stored.reasons}
