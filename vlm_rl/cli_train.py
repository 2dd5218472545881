"""`vlm-rl train`: puts data, rewards, engine, trainer and evaluation together; computes nothing itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from data.augment import Augmentation, condition_of, refused
from eval.evaluator import Evaluator
from eval.report import write_report
from eval.runner import CLEAN, load_records, save_records
from eval.summary import compare, in_words
from rewards import grading
from rewards.mixture import Mixture
from vlm_rl import checkpoint, cli_parts, models, replay_file, update
from vlm_rl.alarms import Alarms, check_alarms
from vlm_rl.asking import Asker
from vlm_rl.cli_judges import make_judges
from vlm_rl.cli_padding import padding_of
from vlm_rl.cli_ranks import SharedRun
from vlm_rl.cli_run import carry_out
from vlm_rl.cli_watch import Watch, watchers
from vlm_rl.config import TrainConfig
from vlm_rl.engine.base import Engine, Judge
from vlm_rl.engine.hf import HFEngine
from vlm_rl.errors import RowError, UserError
from vlm_rl.lora import AdaptersOff, AdaptersOffEngine
from vlm_rl.memory import guarded
from vlm_rl.policy import Policy
from vlm_rl.ranks import ALONE, Ranks
from vlm_rl.refill import Refill
from vlm_rl.replay import Replay
from vlm_rl.sharing import LentEngine, Shared
from vlm_rl.tracker import read_jsonl
from vlm_rl.trainer import Hooks, Plan, Trainer, group_seeds
from vlm_rl.types import Prompt, Record, Sample, Sampling, ScoredGroup
from vlm_rl.weights import AdapterEngine, Followed, SleepingEngine

PICTURED_GROUPS = 32  # of a step, in the report


def train(config: TrainConfig, environment: Mapping[str, str] | None = None) -> Path:
    """Run or resume a training. Returns the run directory. `environment` holds the keys of judges by the names that the config gives."""
    return carry_out(config, prepared(config, environment or {}))


def prepared(config: TrainConfig, environment: Mapping[str, str]) -> Callable[..., "TrainRun"]:
    """What makes a run of the config, for `carry_out`. Everything that can be checked by name is checked before anything loads."""
    update.check_names(config.algo)
    mixture = Mixture(config.rewards, config.guards.unscored_limit)
    augment = Augmentation(config.augment, config.seed)
    check_alarms(config.guards.alarms, config.guards.stop_on)
    evaluators = watchers(config)
    judges = make_judges(config, environment)
    mixture.check_targets({"policy": "model", "start": "model"} | {name: judge.kind for name, judge in config.judges.items()})
    return partial(TrainRun, mixture=mixture, judges=judges, augment=augment, evaluators=evaluators)


@dataclass
class TrainRun(SharedRun):
    """Training with an evaluation on both sides and a report at the end."""

    config: TrainConfig
    mixture: Mixture = field(kw_only=True)
    judges: Mapping[str, Judge] = field(kw_only=True)
    augment: Augmentation = field(kw_only=True)
    evaluators: Mapping[str, Evaluator] = field(kw_only=True)

    def go(self) -> None:
        for judge in self.judges.values():
            judge.probe()
        for warning in self.mixture.warnings(self.config.algo, self.config.rollout.group_size):
            self.console.message(f"warning: {warning}")
        self.begin()
        before = self.evaluation("before")
        self.watched(0, before)
        if self.alarms.stop:  # before this process went on
            self.ended = self.done
        else:
            self.trainer.run(self.done)
        steps, after = self.ended or self.config.train.steps, self.evaluation("after")
        told = {"run/steps": steps, "run/reproducible": not self.updater.halvings}
        facts = self.finish({**compare(before, after), **self.watched(steps, after), **told})
        if not self.ranks.first:
            return
        written = write_report(self.run_dir)
        self.console.message(in_words(facts))
        self.console.message(f"report: {written}\nmodel:  {self.last_checkpoint}")

    @cached_property
    @guarded("load")
    def start(self) -> Policy:
        """The starting model, frozen: a second copy in memory, made only when a KL term or a reward asks for it."""
        return self.load_start()

    @property
    def start_engine(self) -> Engine:
        """Its own copy, or the policy with its adapters off, in vLLM where that has them apart."""
        adapted = self.config.model.lora is not None
        policy = self.policy if adapted else self.start
        own = HFEngine(policy, self.chat, self.config.rollout.batch_size, self.config.train.token_budget)
        engine = self.engine.without_adapter() if isinstance(self.engine, AdapterEngine) else own
        return AdaptersOffEngine(engine, policy) if adapted else engine

    def load_start(self) -> Policy:
        model = models.load_model(self.config.model, self.chat, seed=self.config.seed).requires_grad_(False)
        return Policy(model, self.chat.visual_ids, self.config.model.attention)

    @cached_property
    def engines(self) -> Mapping[str, Engine]:
        """Whom rewards can ask: the policy as it is, and the model it started from where one of them does."""
        own: dict[str, Engine] = {"policy": self.engine}
        return own | {"start": self.start_engine} if "start" in self.mixture.targets else own

    @cached_property
    def trainer(self) -> Trainer:
        config, rollout, guards = self.config, self.config.rollout, self.config.guards
        sampling = Sampling(rollout.max_new_tokens, rollout.temperature, rollout.stop)
        plan = Plan(config.seed, config.train.steps, rollout.group_size, sampling, guards.parity_every, guards.parity_limit)
        ask = guarded("generate")(self.shared(Asker(self.engines, self.chat, judges=self.judges)))
        hooks = Hooks(self.log, self.evaluate, self.save, lambda: self.ended is not None)
        dynamic = Refill(**dict(config.algo.dynamic_sampling)) if config.algo.dynamic_sampling else None
        update = self.updater
        step = Followed(update, self.policy, self.engine, self.weights) if isinstance(self.engine, SleepingEngine) else update
        writer = LentEngine(self.engine, self.lender.lent) if self.lender and rollout.engine == "hf" else self.engine
        return Trainer(plan, self.prompts, writer, ask, self.mixture, self.termination.whole(step), hooks, dynamic, self.ranks)

    @cached_property
    def updater(self) -> update.Updater:
        train, rollout, algo = self.config.train, self.config.rollout, self.config.algo
        sizes = (train.token_budget, rollout.max_new_tokens, train.updates_per_rollout, train.mini_batches)
        replay = Replay(algo.replay, rollout.prompts_per_step) if algo.replay else None
        limits, shared = update.Limits(rollout.temperature, *sizes), Shared(self.ranks, padding_of(self.chat), self.weights)
        updater = update.Updater(self.policy, self.optimiser, algo, limits, self.reference, replay, shared)
        if self.path is not None:
            state = checkpoint.load_state(self.path)
            if "algo" not in state:
                raise UserError(f"{self.path} was written by an older version, without the algorithm's own state; write run_dir=OTHER")
            updater.load_state_dict(state["algo"])
            if replay:
                replay.kept = replay_file.load(self.path, self.prompts_again)
        return updater

    def prompts_again(self, step: int, seeds: set[int]) -> dict[int, Prompt]:
        """The prompts of an earlier step whose groups had these seeds, as they were."""
        found: dict[int, Prompt] = {}
        for attempt in range(self.tries):
            if not seeds <= found.keys():
                prompts = list(self.prompts(step, attempt, ALONE).values())
                ids = [prompt.sample.id for prompt in prompts]
                found |= zip(group_seeds(self.config.seed, ids, step, attempt), prompts, strict=True)
        return found

    @property
    def first_row_step(self) -> int:
        replay = self.config.algo.replay
        return max(self.done - replay.max_age, 0) if replay else self.done

    def write_model(self, directory: Path) -> None:
        super().write_model(directory)
        if self.updater.replay:
            replay_file.save(directory, self.updater.replay.kept)

    def own_state(self) -> dict[str, Any]:
        return {"algo": self.updater.state_dict()}

    @property
    def reference(self) -> Policy | AdaptersOff | None:
        """Of the KL term: the starting model itself, or a copy of its own where it will move."""
        if not self.config.algo.kl_weight:
            return None
        if self.config.model.lora is not None:
            return AdaptersOff(self.policy)
        return self.start if self.config.algo.reference.kind == "fixed" else self.load_start()

    def prompts(self, step: int, attempt: int = 0, ranks: Ranks | None = None) -> dict[int, Prompt]:
        """By place, this process's share of the rows of a step (from 1), or of its second and later draws, each under its view, rendered;
        what cannot be rendered is left out where the config says so."""
        prompts: dict[int, Prompt] = {}
        failed: dict[int, tuple[str, str]] = {}
        ranks, samples = ranks or self.ranks, self.samples(step + attempt * self.config.train.steps)
        for place, sample in ranks.share(samples):
            try:
                prompts[place] = self.rendered(sample, self.augment(sample, step, samples))
            except RowError as error:
                failed[place] = (error.row_id, error.reason)
        failed = ranks.merge("rows that cannot be rendered", failed)
        for told in failed.values():
            self.skip(RowError(*told))
        if len(failed) == len(samples):
            raise UserError(f"step {step}: no row of the step can be rendered")
        return prompts

    def rendered(self, sample: Sample, changed: Sample) -> Prompt:
        """The row as changed by its view, or, where no prompt can be made of that (too long, say), as it is. Raises RowError."""
        try:
            return self.chat.prompt(changed)
        except RowError:  # raised once more where the row itself is what cannot be rendered
            return self.chat.prompt(refused(sample, condition_of(changed)))

    @cached_property
    def watch(self) -> Watch:
        return Watch(self.config, self.evaluators, self.few, self.run_dir, self.done, self.ranks.first)

    @guarded("evaluate")
    def watched(self, step: int, records: Sequence[Record]) -> dict[str, float]:
        """Figures of the config's evaluators as the policy is now; 0 is before training, which a resumed run has measured."""
        if not self.evaluators or (step == 0 and self.done):
            return {}
        ask = self.shared(Asker(self.engines, self.chat, partial(self.console.phase, "measuring"), self.judges))
        figures, warnings = self.watch(step, records, ask)
        for warning in warnings:
            self.console.message(f"warning: step {step}: {warning}")
        return figures

    @cached_property
    def alarms(self) -> Alarms:
        alarms = Alarms(self.config.guards.alarms, self.config.guards.stop_on)
        for line in read_jsonl(self.run_dir / "metrics.jsonl") if self.done else []:
            alarms(line)
        return alarms

    def evaluation(self, when: str) -> list[Record]:
        """The full evaluation before or after training, kept on disk so that a resumed run does not repeat it."""
        path = self.run_dir / "eval" / f"{when}.jsonl"
        stored = self.ranks.first_says("stored answers", lambda: load_records(path) if path.exists() else [])
        other = _first_difference(stored, self.held_out)
        if other is None:
            return stored
        if when == "before" and self.done:
            problem = f"held-out row {other} is not the one of {path}" if stored else f"{path} is missing"
            raise UserError(
                f"{problem} although {self.done} steps are done, and the start can no longer be measured; put back what was there, or "
                "write run_dir=OTHER"
            )
        records = self.answers(f"evaluating {when} training", full=True)
        if not self.ranks.first:
            return records
        save_records(path, records)
        greedy = cli_parts.shares(records)
        self.console.message(
            f"{when} training: held-out accuracy {greedy['eval/accuracy']:.3f}, well-formed {greedy['eval/wellformed']:.3f} "
            f"({len(self.held_out)} questions, greedy)"
        )
        cli_parts.keep_pictures(self.tracker, self.held_out)
        return records

    def log(self, step: int, metrics: Mapping[str, float], scored: Sequence[ScoredGroup]) -> None:
        pictured = sum(bool(group.group.sample.media) for group in scored) / len(scored)
        self.movement.after_step(step, "loss/grad_norm" in metrics, pictured)
        ringing, warnings = self.alarms(metrics)
        self.ended = step if self.alarms.stop else None
        if not self.ranks.first:
            return
        self.tracker.log(step, {**metrics, **self.augment.metrics(scored), **ringing, **cli_parts.peak_memory()})
        for warning in warnings:
            self.console.message(f"warning: step {step}: {warning}")
        if self.alarms.stop:
            self.console.message(f"step {step}: {self.alarms.stop}")
        rows = [row for group in scored for row in self.rollout_rows(group)]
        self.tracker.log_rollouts(step, rows)
        cli_parts.keep_pictures(self.tracker, [group.group.sample for group in scored[:PICTURED_GROUPS]])
        self.console.step(step, metrics)
        if step % self.config.tracker.show_rollout_every == 0:
            fields = {name: str(rows[0][name]) for name in ("prompt", "completion", "gold", "total")}
            self.console.sample(f"step {step}, {rows[0]['sample_id']}", fields)

    def rollout_rows(self, scored: ScoredGroup) -> list[dict[str, Any]]:
        """The lines of rollouts.jsonl about one group."""
        sample, prompt = scored.group.sample, scored.group.prompt
        about = {
            "sample_id": sample.id,
            "prompt": prompt.text,
            "question": sample.question,
            "kind": sample.kind,
            "options": list(sample.options),
            "gold": sample.answer,
            "media_ids": [media.id for media in sample.media],
            "condition": condition_of(sample),
        }
        rows = []
        for i, rollout in enumerate(scored.group.rollouts):
            parts = {
                label: {name: getattr(part[i], name) for name in ("raw", "value", "gate", "weight", "contribution")}
                for label, part in scored.parts.items()
            }
            said = {"completion": rollout.text, "finish": rollout.completion.finish, **self.mixture.describe(rollout, prompt.prefill)}
            correct = grading.is_correct(sample, said["answer"])
            rows.append({**about, "rollout": i, **said, "correct": correct, "total": scored.totals[i], "parts": parts})
        return rows


def _first_difference(records: Sequence[Record], rows: Sequence[Sample]) -> str | None:
    """The id of the first row that clean greedy records are not about as it is now (or of the first record too many), None if they fit."""
    asked = [(r.sample_id, r.gold, r.options, r.media_ids) for r in records if r.condition == CLEAN and r.mode == "greedy"]
    now = [(row.id, row.answer, row.options, tuple(media.id for media in row.media)) for row in rows]
    return next((there[0] for a, b in zip_longest(asked, now) if a != b and (there := b or a)), None)
