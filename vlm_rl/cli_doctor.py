"""`vlm-rl doctor`: the parts of a training put together for the doctor's checks, on few rows and in a directory that goes again.

Composition only: what is measured and when it is good enough stands in `doctor`, `doctor_model` and `doctor_steps`.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import cast

from rich.table import Table

from data.media import image_size
from rewards import boxes, boxes_selftest
from rewards.base import whole_text
from rewards.boxes_selftest import Finding as Fit
from vlm_rl import cli_parts, doctor_machine, doctor_model, doctor_steps, models, rundir
from vlm_rl import doctor as diagnosis
from vlm_rl.asking import Asker
from vlm_rl.cli_doctor_judges import judge_checks
from vlm_rl.cli_train import TrainRun, prepared
from vlm_rl.config import DistributedConfig, TrainConfig
from vlm_rl.console import Console
from vlm_rl.doctor import Check, Finding
from vlm_rl.engine.base import GenerateRequest
from vlm_rl.types import Group, Prompt, Sampling, ScoredGroup
from vlm_rl.weights import SleepingEngine

ROWS = 64  # of each split, whose gold answers are tried
PROMPTS, ROLLOUTS, TOKENS = 4, 4, 64  # at most, of a step that is tried


def doctor(config: TrainConfig, environment: Mapping[str, str], show: Callable[[Table], None], json_file: Path | None = None) -> int:
    """Shows what `examine` finds as a table, and writes it to `json_file`. Returns the exit status: 1 where a check failed."""
    with Console(0) as console:
        findings = examine(config, environment, console)
    if json_file is not None:
        rundir.write_json(json_file, diagnosis.tree(findings))
    show(diagnosis.table(findings))
    return int(diagnosis.sick(findings))


def examine(config: TrainConfig, environment: Mapping[str, str], console: Console) -> dict[str, Finding]:
    """All findings about a config of `vlm-rl train`, each told on the console when it is there. Raises UserError for names that are not
    there, as training would. `environment` holds the keys of judges by the names that the config gives."""
    make = prepared(config, environment)
    place = doctor_machine.existing(Path(config.run_dir))
    with tempfile.TemporaryDirectory(prefix=".vlm-rl-doctor-", dir=place) as scratch:
        checks = Examination(config, Path(scratch), partial(make, console=console)).checks()

        def begun(name: str) -> None:
            console.phase(f"checking: {name}", 0, 1)

        def told(name: str, finding: Finding) -> None:
            console.phase(f"checking: {name}", 1, 1)
            console.message(f"{finding.status}: {name} ({finding.numbers['seconds']:.1f} s)")

        return diagnosis.examine(checks, begun, told)


def shrunk(config: TrainConfig) -> TrainConfig:
    """The config with a step of few rollouts, and a checkpoint after every step."""
    rollout = config.rollout
    small = {
        "prompts_per_step": min(rollout.prompts_per_step, PROMPTS),
        "group_size": min(rollout.group_size, ROLLOUTS),
        "max_new_tokens": min(rollout.max_new_tokens, TOKENS),
    }
    return config.model_copy(
        update={
            "rollout": rollout.model_copy(update=small),
            "distributed": DistributedConfig(),  # what is examined is one process's work
            "train": config.train.model_copy(update={"mini_batches": 1, "steps": max(config.train.steps, 3)}),
            "checkpoint": config.checkpoint.model_copy(update={"every": 1, "keep": 1}),
        }
    )


@dataclass
class Examination:
    """The parts that checks look at, made when first used. `make` gives a run of a config in a directory."""

    config: TrainConfig
    scratch: Path
    make: Callable[..., TrainRun]
    runs: dict[str, TrainRun] = field(default_factory=dict)

    def checks(self) -> list[Check]:
        config, read, wrote = self.config, ("tokens",), ("log-probs",)
        return [
            Check("environment", lambda: diagnosis.environment(doctor_machine.look(config))),
            Check("gold answers", self.gold_answers),
            *judge_checks(config.judges, self.run.judges, self.run.mixture.rewards.values(), lambda: self.run.splits.train),
            Check("tokens", self.tokens, ("environment",)),
            Check("log-probs", lambda: self._measured(doctor_model.parity, self.groups, budget=True), read),
            Check("packing", lambda: self._measured(doctor_model.packing, self.groups[:2]), wrote),
            Check("box convention", self.box_convention, wrote),
            Check("weights move", lambda: doctor_steps.weights_move(self.patient, self.scored(self.groups, 1)), wrote),
            Check("resume", self.resume, ("weights move",)),
            Check("memory", self.memory, ("weights move",)),
            Check("weight sync", self.weight_sync, ("weights move",)),
            Check("stale caches", self.stale_caches, ("weight sync",)),
        ]

    @property
    def run(self) -> TrainRun:
        if "first" not in self.runs:
            self.runs["first"] = self.make(shrunk(self.config), self.scratch, None, 0)
        return self.runs["first"]

    @property
    def patient(self) -> doctor_steps.Patient:
        return _patient(self.run)

    @property
    def tolerance(self) -> doctor_model.Tolerance:
        return doctor_model.TOLERANCES[self.config.model.dtype]

    @cached_property
    def prompts(self) -> list[list[Prompt]]:
        """Those of three steps."""
        return [list(self.run.trainer.prompts(step).values()) for step in (1, 2, 3)]

    @cached_property
    def groups(self) -> list[Group]:
        return self.run.trainer.rollout(dict(enumerate(self.prompts[0])), 1)

    def scored(self, groups: Sequence[Group], every: int) -> list[ScoredGroup]:
        return doctor_model.with_spread(groups, list(self.config.rewards), every)

    def _measured(self, check: Callable[..., Finding], groups: Sequence[Group], budget: bool = False) -> Finding:
        sizes = (self.config.train.token_budget,) if budget else ()
        return check(self.run.policy, groups, self.config.rollout.temperature, *sizes, self.tolerance)

    def gold_answers(self) -> Finding:
        splits, seed = self.run.splits, self.config.seed
        samples = [cli_parts.first(rows, ROWS, seed) for rows in (splits.train, splits.held_out)]
        bad = [error for rows in samples for error in self.run.try_rows(rows)]
        return diagnosis.gold_answers(sum(map(len, samples)), bad)

    def tokens(self) -> Finding:
        """What the processor itself makes of text and pictures, and what the engine reads: one that reads other ids says so."""
        prompts = self.prompts[0]
        found = doctor_model.token_identity(self.run.chat, prompts, partial(doctor_machine.processor_ids, self.run.chat))
        if found.status == "pass":
            self.run.engine.generate([GenerateRequest(prompt, Sampling(1), (0,)) for prompt in prompts])
        return found

    def box_convention(self) -> Finding:
        """Told by squares; by true boxes of the rows where the policy says nothing usable about squares."""
        named = {label: str(vars(reward)["convention"]) for label, reward in self.run.mixture.rewards.items() if _reads_boxes(reward)}
        if not named:
            return diagnosis.box_convention({}, {}, "", lambda convention: None)
        ask = Asker({"policy": self.run.engine}, self.run.chat)
        queries = boxes_selftest.ask()
        sizes = [self.run.chat.prompt(query.sample).sizes[0] for query in queries]
        fit, where = boxes_selftest.read(queries, ask(queries), sizes), "synthetic squares"
        if fit.best is None and (own := _fit_on_rows(self.groups)):
            fit, where = own, "the rows' own pictures"
        overlap = {str(name): value for name, value in fit.overlap.items()}
        return diagnosis.box_convention(named, overlap, where, lambda name: fit.problem(cast(boxes.Convention, name)))

    def resume(self) -> Finding:
        """Checkpoint, one more step; and the same step by a run that begins from the checkpoint."""
        self.run.save(1)
        scored = self.scored(self.groups, 2)
        want = doctor_steps.step(self.patient, scored)
        path, done = cli_parts.resume_point(self.scratch)
        alone = self.run.config.model_copy(update={"rollout": self.run.config.rollout.model_copy(update={"engine": "hf"})})
        got = doctor_steps.step(_patient(self.make(alone, self.scratch, path, done)), scored)
        return doctor_steps.same_step(want, got, self.config.model.dtype)

    def memory(self) -> Finding:
        rollout, budget = self.config.rollout, self.config.train.token_budget
        step = [prompt for prompts in self.prompts for prompt in prompts]
        whole = [step[i % len(step)] for i in range(rollout.prompts_per_step)]
        batch = doctor_model.largest_batch(whole, rollout.group_size, rollout.max_new_tokens, budget)
        total = doctor_machine.memory_total(models.device_of(self.config.model))
        return doctor_model.memory(self.run.policy, batch, rollout.temperature, total, doctor_machine.memory_peak)

    @cached_property
    def synced(self) -> doctor_model.SyncGaps:
        """It spoils the policy's weights: nothing may be asked of them afterwards."""
        engine, trainer = self.run.engine, self.run.trainer
        assert isinstance(engine, SleepingEngine)
        asked = doctor_model.Asked(self.prompts[0], self.prompts[2], trainer.plan.sampling, self.config.train.token_budget)
        return doctor_model.measure_sync(self.run.policy, engine, asked)

    def weight_sync(self) -> Finding:
        if not isinstance(self.run.engine, SleepingEngine):
            return diagnosis.spared("rollout.engine=hf samples with the trainer's own weights")
        return doctor_model.weights_arrive(self.synced, self.tolerance)

    def stale_caches(self) -> Finding:
        if not isinstance(self.run.engine, SleepingEngine):
            return diagnosis.spared("rollout.engine=hf keeps nothing between calls")
        return doctor_model.caches_dropped(self.synced, self.tolerance)


def _patient(run: TrainRun) -> doctor_steps.Patient:
    return doctor_steps.Patient(run.policy, run.optimiser, run.updater)


def _reads_boxes(reward: object) -> bool:
    return vars(reward).get("convention") in boxes.CONVENTIONS


def _fit_on_rows(groups: Sequence[Group]) -> Fit | None:
    """The policy's own boxes against the true ones of rows that have them (meta["boxes"], in pixels of one picture); None without any."""
    overlaps: dict[boxes.Convention, list[float]] = {convention: [] for convention in boxes.CONVENTIONS}
    for group in groups:
        true = group.sample.meta.get("boxes")
        if not true or len(group.sample.media) != 1 or group.sample.media[0].kind != "image":
            continue
        picture = boxes.Picture(*image_size(group.sample.media[0], group.sample.id), seen=group.prompt.sizes[0])
        for said in (said for rollout in group.rollouts for said in boxes.spoken(whole_text(group, rollout))):
            if isinstance(said.numbers, str):
                continue
            for convention, values in overlaps.items():
                values.append(max(boxes_selftest.iou(boxes.to_pixels(said.numbers, convention, picture), tuple(box)) for box in true))
    found = len(next(iter(overlaps.values())))
    return Fit({name: sum(values) / found for name, values in overlaps.items()}, found, found) if found else None
