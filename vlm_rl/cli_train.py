"""`vlm-rl train`: puts data, rewards, engine, trainer and evaluation together; computes nothing itself."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data.sampler import Sampler
from eval.report import write_report
from eval.runner import load_records, save_records
from eval.summary import compare, in_words
from rewards.mixture import Mixture
from vlm_rl import checkpoint, cli_parts, models, rundir, update
from vlm_rl.asking import Asker
from vlm_rl.config import TrainConfig
from vlm_rl.console import Console
from vlm_rl.engine.hf import HFEngine
from vlm_rl.errors import RowError, UserError
from vlm_rl.optim import Optimiser
from vlm_rl.policy import Policy
from vlm_rl.tracker import Tracker
from vlm_rl.trainer import Hooks, Plan, Trainer
from vlm_rl.types import Prompt, Record, Sampling, ScoredGroup


def train(config: TrainConfig) -> Path:
    """Run or resume a training. Returns the run directory. Everything that can be checked by name is checked before anything loads."""
    update.check_names(config.algo)
    mixture = Mixture(config.rewards, config.guards.unscored_limit)
    run_dir = rundir.claim(config)
    path, done = cli_parts.resume_point(run_dir)
    with Console(config.train.steps, start_step=done) as console:
        if rundir.read_summary(run_dir).get("run/finished"):
            console.message(f"{run_dir} is finished: report at {run_dir / 'report.html'}; to train anew write run_dir=OTHER")
            return run_dir
        if warning := mixture.ordering_warning():
            console.message(f"warning: {warning}")
        Run(config, mixture, run_dir, path, done, console).go()
    return run_dir


@dataclass
class Run:
    """One process of one run: from step `done` (checkpoint `path`) to the end, with evaluations on both sides."""

    config: TrainConfig
    mixture: Mixture
    run_dir: Path
    path: Path | None
    done: int
    console: Console

    def go(self) -> None:
        started = time.perf_counter()
        self.check_rows()
        before = self.evaluation("before")
        self.trainer.run(self.done)
        after = self.evaluation("after")
        self.tracker.close()
        seconds = {"time/total": time.perf_counter() - started + rundir.read_summary(self.run_dir).get("time/total", 0.0)}
        facts = compare(before, after) | rundir.machine() | seconds | {"run/finished": True, "run/steps": self.config.train.steps}
        rundir.write_json(self.run_dir / "summary.json", facts)
        written = write_report(self.run_dir)
        self.console.message(in_words(facts))
        self.console.message(f"report: {written}\nmodel:  {self.run_dir / 'checkpoints' / f'step_{self.config.train.steps}'}")

    @cached_property
    def splits(self) -> cli_parts.Splits:
        return cli_parts.open_rows(self.config)

    @cached_property
    def sampler(self) -> Sampler:
        return Sampler(len(self.splits.train), self.config.rollout.prompts_per_step, self.config.seed)

    @cached_property
    def chat(self) -> Any:
        return cli_parts.make_chat(self.config)

    @cached_property
    def policy(self) -> Policy:
        settings = self.config.model
        model = models.load_model(settings, self.chat, self.path, self.config.seed)
        return Policy(model, self.chat.visual_ids, settings.attention, settings.gradient_checkpointing)

    @cached_property
    def reference(self) -> Policy | None:
        """The frozen starting model, only when a KL term asks for it."""
        if self.config.algo.kl_weight == 0:
            return None
        model = models.load_model(self.config.model, self.chat, seed=self.config.seed).requires_grad_(False)
        return Policy(model, self.chat.visual_ids, self.config.model.attention)

    @cached_property
    def optimiser(self) -> Optimiser:
        steps = self.config.train.steps * self.config.train.updates_per_rollout
        optimiser = Optimiser(self.policy, self.config.optim, steps)
        if self.path is not None:
            optimiser.load_state_dict(checkpoint.load_state(self.path)["optimizer"])
        return optimiser

    @cached_property
    def engine(self) -> HFEngine:
        return HFEngine(self.policy, self.chat, self.config.rollout.batch_size, self.config.train.token_budget)

    @cached_property
    def tracker(self) -> Tracker:
        return Tracker(self.run_dir, self.config.tracker.tensorboard, self.config.tracker.wandb, self.done)

    @cached_property
    def trainer(self) -> Trainer:
        config = self.config
        sampling = Sampling(config.rollout.max_new_tokens, config.rollout.temperature, config.rollout.stop)
        limits = update.Limits(sampling.temperature, config.train.token_budget, sampling.max_new_tokens, config.train.updates_per_rollout)
        plan = Plan(
            config.seed, config.train.steps, config.rollout.group_size, sampling, config.guards.parity_every, config.guards.parity_limit
        )
        updater = update.Updater(self.policy, self.optimiser, config.algo, limits, self.reference)
        ask = Asker({"policy": self.engine}, self.chat)
        return Trainer(plan, self.prompts, self.engine, ask, self.mixture, updater, Hooks(self.log, self.evaluate, self.save))

    def check_rows(self) -> None:
        used = {i for step in range(self.done, self.config.train.steps) for i in self.sampler.batch(step)}
        cli_parts.check_used(self.splits.train, used, self.config.data, self.console)
        held_out = self.splits.held_out
        cli_parts.check_used(held_out, range(len(held_out)), self.config.eval_data or self.config.data, self.console)

    def prompts(self, step: int) -> list[Prompt]:
        """The rows of a step (from 1), rendered; bad ones left out where the config says so."""
        prompts = []
        for index in self.sampler.batch(step - 1):
            try:
                prompts.append(self.chat.prompt(self.splits.train[index]))
            except RowError as error:
                if self.config.data.on_bad_row == "error":
                    raise
                self.skip(error)
        if not prompts:
            raise UserError(f"step {step}: every row of the step is bad")
        return prompts

    @cached_property
    def skip(self) -> Any:
        return cli_parts.bounded_skips(self.config.guards.bad_row_limit)

    def evaluation(self, when: str) -> list[Record]:
        """The full evaluation before or after training, kept on disk so that a resumed run does not repeat it."""
        path = self.run_dir / "eval" / f"{when}.jsonl"
        if path.exists():
            return load_records(path)
        if when == "before" and self.done:
            raise UserError(
                f"{path} is missing although {self.done} steps are done; the start can no longer be measured: write run_dir=OTHER"
            )
        ask = Asker({"policy": self.engine}, self.chat, lambda done, total: self.console.phase(f"evaluating {when} training", done, total))
        records = cli_parts.evaluate(self.splits.held_out, ask, self.config.eval, self.config.rollout, full=True)
        save_records(path, records)
        greedy = cli_parts.shares(records)
        self.console.message(
            f"{when} training: held-out accuracy {greedy['eval/accuracy']:.3f}, well-formed {greedy['eval/wellformed']:.3f} "
            f"({len(self.splits.held_out)} questions, greedy)"
        )
        cli_parts.keep_pictures(self.tracker, self.splits.held_out)
        return records

    def evaluate(self, step: int) -> dict[str, float]:
        every = self.config.eval.every
        if every is None or step % every or step == self.config.train.steps:
            return {}
        rows = cli_parts.first(self.splits.held_out, self.config.eval.every_questions, 0)
        ask = Asker({"policy": self.engine}, self.chat)
        return cli_parts.shares(cli_parts.evaluate(rows, ask, self.config.eval, self.config.rollout, full=False))

    def log(self, step: int, metrics: Mapping[str, float], scored: Sequence[ScoredGroup]) -> None:
        self.tracker.log(step, {**metrics, **cli_parts.peak_memory()})
        self.tracker.log_rollouts(step, [row for group in scored for row in self.rollout_rows(group)])
        cli_parts.keep_pictures(self.tracker, [scored[0].group.sample])
        self.console.step(step, metrics)
        if step % self.config.tracker.show_rollout_every == 0:
            shown = self.rollout_rows(scored[0])[0]
            fields = {name: str(shown[name]) for name in ("prompt", "completion", "gold", "total")}
            self.console.sample(f"step {step}, {shown['sample_id']}", fields)

    def rollout_rows(self, scored: ScoredGroup) -> list[dict[str, Any]]:
        """The lines of rollouts.jsonl about one group."""
        sample = scored.group.sample
        about = {
            "sample_id": sample.id,
            "prompt": scored.group.prompt.text,
            "question": sample.question,
            "options": list(sample.options),
            "gold": sample.answer,
            "media_ids": [media.id for media in sample.media],
        }
        rows = []
        for i, rollout in enumerate(scored.group.rollouts):
            parts = {
                label: {"raw": part[i].raw, "weight": part[i].weight, "contribution": part[i].contribution}
                for label, part in scored.parts.items()
            }
            said = {"completion": rollout.text, "finish": rollout.completion.finish, **self.mixture.describe(rollout)}
            rows.append({**about, "rollout": i, **said, "total": scored.totals[i], "parts": parts})
        return rows

    def save(self, step: int) -> None:
        settings = self.config.checkpoint
        if step % settings.every and step != self.config.train.steps:
            return
        checkpoint.save(
            self.run_dir / "checkpoints",
            step,
            lambda directory: models.save_model(directory, self.policy.model, self.chat),
            {"step": step, "optimizer": self.optimiser.state_dict()},
            settings.keep,
        )
