"""`vlm-rl report`: one run's report written again, or a comparison of several. Puts the parts together and computes nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.scenes import by_id
from eval.accuracy import Accuracy
from eval.comparison import Measured
from eval.comparison_report import write_comparison
from eval.consistency import Consistency
from eval.evaluator import Section, Study
from eval.measured import open_run
from eval.report import write_report
from eval.runner import load_records
from eval.section_report import write_eval_report
from eval.store import RECORDS
from vlm_rl.errors import UserError
from vlm_rl.types import Record, Sample

AFTER = Path("eval") / "after.jsonl"


def report(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write the report of one run into it, or the comparison of several into `out`; returns the page's path.

    Raises UserError for a directory that holds no run, or where runs cannot be compared.
    """
    if len(run_dirs) > 1:
        measured = [_measured(run_dir) for run_dir in run_dirs]
        names = _distinct([run.name for run in measured], run_dirs)
        return write_comparison(out, [(path, replace(run, name=name)) for path, run, name in zip(run_dirs, measured, names, strict=True)])
    run_dir = run_dirs[0]
    if (run_dir / RECORDS).exists():
        stored = open_run(run_dir)
        return write_eval_report(run_dir, stored.sections(), stored.reasons)
    if not (run_dir / "config.yaml").exists():
        raise UserError(f"{run_dir} is not a run directory: it holds no config.yaml")
    return write_report(run_dir)


def _distinct(names: Sequence[str], run_dirs: Sequence[Path]) -> list[str]:
    """The names of the directories, or their paths where two are called the same."""
    if len({path.resolve() for path in run_dirs}) < len(run_dirs):
        raise UserError("a run is compared with itself; give the directories of different runs")
    return list(names) if len(set(names)) == len(names) else [str(path) for path in run_dirs]


def _measured(run_dir: Path) -> Measured:
    """An evaluation as it was measured, or what a training run answered at its end, with the consistency that rules can read."""
    name = run_dir.resolve().name
    if (run_dir / RECORDS).exists():
        stored = open_run(run_dir)
        return Measured(name, stored.study, _with_consistency(stored.sections(), stored.study), stored.reasons)
    if not (run_dir / AFTER).exists():
        raise UserError(f"{run_dir} holds neither {RECORDS} nor {AFTER}: it is no finished evaluation or training run")
    records = load_records(run_dir / AFTER)
    study = Study({record.sample_id: _row(record) for record in records}, records)
    return Measured(name, study, _with_consistency({"accuracy": Accuracy().measure(study)}, study), {})


def _with_consistency(sections: dict[str, Section], study: Study) -> dict[str, Section]:
    return sections if "consistency" in sections else {**sections, "consistency": Consistency().measure(study)}


def _row(record: Record) -> Sample:
    """The question of a record: a scene with its truth, others as far as the record tells."""
    return by_id(record.sample_id) or Sample(record.sample_id, record.question, record.gold, record.kind, record.options)
