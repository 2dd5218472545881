"""`vlm-rl sft`: the composition root of supervised fine-tuning."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data import Rows, Subset
from data.sampler import Sampler, make_sampler
from data.templates import render
from eval.runner import save_records
from vlm_rl import checkpoint, cli_parts, models, rundir
from vlm_rl.asking import Asker
from vlm_rl.config import SftConfig
from vlm_rl.console import Console
from vlm_rl.engine.hf import HFEngine
from vlm_rl.optim import Optimiser
from vlm_rl.policy import Policy
from vlm_rl.sft import Hooks, SftTrainer
from vlm_rl.tracker import Tracker
from vlm_rl.types import Sample

TOKENIZER_TEXTS = 4000


def sft(config: SftConfig) -> Path:
    """Run or resume a fine-tuning. Returns the run directory; the model is its last checkpoint."""
    run_dir = rundir.claim(config)
    path, done = cli_parts.resume_point(run_dir)
    with Console(config.train.steps, start_step=done) as console:
        if rundir.read_summary(run_dir).get("run/finished"):
            console.message(f"{run_dir} is finished: {path}; to train anew write run_dir=OTHER")
            return run_dir
        Run(config, run_dir, path, done, console).go()
    return run_dir


@dataclass
class Run:
    """One process of one run: from step `done` (checkpoint `path`) to the end, then an evaluation on held-out rows."""

    config: SftConfig
    run_dir: Path
    path: Path | None
    done: int
    console: Console

    def go(self) -> None:
        started = time.perf_counter()
        used = {i for step in range(self.done, self.config.train.steps) for i in self.sampler.batch(step)}
        cli_parts.check_used(self.splits.train, used, self.config.data, self.console, self.config.model.video_backend)
        self.trainer.run(self.done)
        records = cli_parts.evaluate(self.splits.held_out, self.ask, self.config.eval, self.config.rollout, full=True)
        save_records(self.run_dir / "eval" / "after.jsonl", records)
        self.tracker.close()
        blank = [r.correct for r in records if r.condition == "blank"]
        control = {"eval/blank": sum(blank) / len(blank)} if blank else {}
        facts = cli_parts.shares(records) | control | rundir.machine()
        facts |= {"eval/questions": len(self.splits.held_out), "time/total": time.perf_counter() - started, "run/finished": True}
        rundir.write_json(self.run_dir / "summary.json", facts)
        self.console.message(
            f"held-out: accuracy {facts['eval/accuracy']:.3f}, well-formed {facts['eval/wellformed']:.3f} "
            f"({facts['eval/questions']} questions, greedy)\nmodel: {self.run_dir / 'checkpoints' / f'step_{self.config.train.steps}'}"
        )

    @cached_property
    def splits(self) -> cli_parts.Splits:
        return cli_parts.open_rows(self.config)

    @cached_property
    def sampler(self) -> Sampler:
        return make_sampler(self.splits.train, self.config.data, self.config.train.batch_size, self.config.seed)

    @cached_property
    def chat(self) -> Any:
        return cli_parts.make_chat(self.config, self.tokenizer_texts(self.splits.train), self.path)

    def tokenizer_texts(self, rows: Rows) -> list[str]:
        """For a scratch model: an even spread of prompts and responses to train its tokenizer on."""
        if self.config.model.scratch is None or self.path is not None:
            return []
        spread = Subset(rows, range(0, len(rows), max(1, len(rows) // TOKENIZER_TEXTS)))
        write = render(self.config.data.template)
        return [f"user\n{write(sample)}\nassistant\n{sample.response or ''}" for sample in spread]

    @cached_property
    def policy(self) -> Policy:
        settings = self.config.model
        model = models.load_model(settings, self.chat, self.path, self.config.seed)
        return Policy(model, self.chat.visual_ids, settings.attention, settings.gradient_checkpointing)

    @cached_property
    def optimiser(self) -> Optimiser:
        optimiser = Optimiser(self.policy, self.config.optim, self.config.train.steps)
        if self.path is not None:
            optimiser.load_state_dict(checkpoint.load_state(self.path)["optimizer"])
        return optimiser

    @cached_property
    def tracker(self) -> Tracker:
        return Tracker(self.run_dir, self.config.tracker.tensorboard, self.config.tracker.wandb, self.done)

    @cached_property
    def ask(self) -> Asker:
        engine = HFEngine(self.policy, self.chat, self.config.rollout.batch_size, self.config.train.token_budget)
        return Asker({"policy": engine}, self.chat, lambda done, total: self.console.phase("evaluating", done, total))

    @cached_property
    def trainer(self) -> SftTrainer:
        hooks = Hooks(self.log, self.evaluate, self.save)
        budget = self.config.train.token_budget
        return SftTrainer(self.config.train.steps, budget, self.rows, self.policy, self.chat, self.optimiser, hooks)

    def rows(self, step: int) -> list[Sample]:
        return [self.splits.train[index] for index in self.sampler.batch(step - 1)]

    def evaluate(self, step: int) -> dict[str, float]:
        every = self.config.eval.every
        if every is None or step % every or step == self.config.train.steps:
            return {}
        rows = cli_parts.first(self.splits.held_out, self.config.eval.every_questions, 0)
        return cli_parts.shares(cli_parts.evaluate(rows, self.ask, self.config.eval, self.config.rollout, full=False))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.tracker.log(step, {**metrics, **cli_parts.peak_memory()})
        self.console.step(step, metrics)

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
