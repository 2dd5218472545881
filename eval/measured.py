"""The records of a run as sections of its report and as numbers of its summary: measuring again needs no model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.evaluator import Evaluator, Figure, Section, Study
from eval.making import make_evaluators
from eval.store import load_study
from vlm_rl.config_eval import EvalConfig
from vlm_rl.errors import UserError
from vlm_rl.loading import load
from vlm_rl.rundir import read_summary

Reasons = Mapping[str, str]


def measure_all(study: Study, evaluators: Mapping[str, Evaluator], reasons: Reasons) -> dict[str, Section]:
    """One section per label, in the config's order, of what could run; `reasons` say by label why the others could not."""
    return {label: evaluator.measure(study) for label, evaluator in evaluators.items() if label not in reasons}


@dataclass(frozen=True)
class StoredRun:
    """An evaluation read from its directory. `reasons` say by label what could not run."""

    config: EvalConfig
    evaluators: Mapping[str, Evaluator]
    study: Study
    reasons: Reasons

    def sections(self) -> dict[str, Section]:
        return measure_all(self.study, self.evaluators, self.reasons)


def open_run(run_dir: Path) -> StoredRun:
    """A run of `vlm-rl eval` or `vlm-rl stress`, finished or not. Raises UserError for another directory."""
    if not (run_dir / "config.yaml").exists():
        raise UserError(f"{run_dir} is not a run directory: it holds no config.yaml")
    study = load_study(run_dir)
    config = load(EvalConfig, run_dir / "config.yaml", [f"run_dir={run_dir}"])
    evaluators = make_evaluators(config.evaluators, config.benchmark.name if config.benchmark else None)
    reasons = read_summary(run_dir).get("not_run", {})
    return StoredRun(config, evaluators, study, {label: str(reason) for label, reason in reasons.items() if label in evaluators})


def summary_of(sections: Mapping[str, Section], reasons: Reasons) -> dict[str, Any]:
    """{label: {figure: {"value", "low", "high", "n"}}} of what ran, and {"not_run": {label: reason}}."""
    ran = {label: {figure.name: _tree(figure) for figure in section.figures} for label, section in sections.items()}
    return {**ran, "not_run": dict(reasons)}


def _tree(figure: Figure) -> dict[str, Any]:
    bare = {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n, "unit": figure.unit}
    return bare | ({"note": figure.note} if figure.note else {})
