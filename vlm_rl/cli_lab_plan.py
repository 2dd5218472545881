"""`vlm-rl lab run`, its plan: which trainings and evaluations a claim needs, and what is registered. Starts nothing, writes nothing.

Trainings and evaluations lie beside each other, named by a digest of their settings, so that experiments share them: the plain GRPO that
most of them are held against is trained once per seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.lab_judge import LabJudge
from eval.lab_results import digest
from vlm_rl.config import TrainConfig
from vlm_rl.config_claim import ArmConfig, ClaimConfig, LabJudgeConfig
from vlm_rl.errors import UserError, unknown
from vlm_rl.loading import load, load_eval


@dataclass(frozen=True)
class Command:
    """`vlm-rl VERB CONFIG OVERRIDES`, writing into `run_dir`; `judge` is served meanwhile."""

    verb: str
    config: str
    overrides: tuple[str, ...]
    run_dir: Path
    judge: LabJudgeConfig | None = None

    @property
    def words(self) -> list[str]:
        return [self.verb, self.config, *self.overrides, f"run_dir={self.run_dir}"]


@dataclass(frozen=True)
class Unit:
    """One arm under one seed: a training, or None for the policy as it is, and the evaluation of what came of it."""

    arm: str
    seed: int
    training: Command | None
    evaluation: Command

    @property
    def name(self) -> str:
        return f"{self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class Experiment:
    """A claim in one of its forms. `claim` has the seeds and settings of that form; `units` go seed by seed."""

    name: str
    form: str
    claim: ClaimConfig
    units: tuple[Unit, ...]
    registered: Mapping[str, Any]

    @property
    def title(self) -> str:
        return self.name if self.form == "full" else f"{self.name}-{self.form}"


def plan(path: str, quick: bool, out: Path) -> Experiment:
    """The experiment of a claim; every config that it will run is checked. Raises UserError."""
    claim = load(ClaimConfig, path)
    form, claim = ("quick", claim.quickly()) if quick else ("full", claim)
    _check_labels(claim)
    units = [_unit(claim, arm, seed, out) for seed in claim.seeds for arm in claim.arms]
    return Experiment(Path(path).stem, form, claim, tuple(units), _registered(claim, form))


def _check_labels(claim: ClaimConfig) -> None:
    """A metric's label must be measured; whether there is such a figure under it shows with the first evaluation. Raises UserError."""
    labels = {"accuracy", "cost", *load_eval(claim.evaluation.config, claim.evaluation.overrides).evaluators}
    for metric in [name for test in claim.tests for name in (test.metric, test.against_metric or test.metric)]:
        if metric.partition("/")[0] not in labels:
            raise unknown("label of a metric", metric.partition("/")[0], labels, f"'{metric}'; {claim.evaluation.config} measures")


def only(experiment: Experiment, seeds: Sequence[int]) -> Experiment:
    """The same with some of its seeds; the others stay registered. Raises UserError for a seed that is not."""
    if strange := [seed for seed in seeds if seed not in experiment.claim.seeds]:
        known = ", ".join(map(str, experiment.claim.seeds))
        raise UserError(
            f"--seeds {strange[0]} is not registered for {experiment.title} (seeds: {known}); add it to the claim's seeds: first"
        )
    return Experiment(
        experiment.name, experiment.form, experiment.claim, tuple(u for u in experiment.units if u.seed in seeds), experiment.registered
    )


def _unit(claim: ClaimConfig, name: str, seed: int, out: Path) -> Unit:
    arm = claim.arms[name]
    training = _training(claim, arm, seed, out) if arm.config is not None else None
    return Unit(name, seed, training, _evaluation(claim, training, out))


def _training(claim: ClaimConfig, arm: ArmConfig, seed: int, out: Path) -> Command:
    assert arm.config is not None
    overrides = (f"model.path={claim.policy}", *claim.train, *arm.overrides, *_judged(arm.judge), f"seed={seed}")
    tree = _tree(load(TrainConfig, arm.config, overrides), "run_dir", "tracker", "checkpoint")
    return Command("train", arm.config, overrides, out / "trainings" / f"{Path(arm.config).stem}-{digest(tree)}-s{seed}", arm.judge)


def _evaluation(claim: ClaimConfig, training: Command | None, out: Path) -> Command:
    asked = claim.evaluation
    overrides = (*asked.overrides, *_judged(asked.judge))
    tree = _tree(load_eval(asked.config, [*overrides, f"model={claim.policy}"]), "run_dir", "model.path", "chunk")
    who = f"policy-{digest(claim.policy)}" if training is None else training.run_dir.name
    model = (f"model={claim.policy}",) if training is None else ()
    return Command("eval", asked.config, (*overrides, *model), out / "evaluations" / f"{who}--{digest(tree)}", asked.judge)


def _judged(judge: LabJudgeConfig | None) -> tuple[str, ...]:
    """The name under which a judge answers, which differs between judges of different opinions."""
    return () if judge is None else (f"judges.{judge.name}.model={LabJudge(judge.kind, judge.noise, judge.hack).name}",)


def _tree(config: Any, *without: str) -> dict[str, Any]:
    """What a config sets, without what changes no result. Defaults are not in it: a new key of the schema makes no other digest."""
    tree = config.model_dump(mode="json", exclude_unset=True)
    for key in without:
        *parents, last = key.split(".")
        node = tree
        for part in parents:
            node = node.get(part, {})
        node.pop(last, None)
    for judge in tree.get("judges", {}).values():
        judge.pop("url", None)
    return tree


def _registered(claim: ClaimConfig, form: str) -> dict[str, Any]:
    """Everything that decides what is measured and how it is judged; with what the configs named set, so that an edit of one shows."""
    tree = claim.model_dump(mode="json", exclude={"quick", "amendments"})
    trained = {name: _training(claim, arm, claim.seeds[0], Path()).run_dir.name for name, arm in claim.arms.items() if arm.config}
    return {**tree, "form": form, "trainings": trained, "evaluations": _evaluation(claim, None, Path()).run_dir.name}
