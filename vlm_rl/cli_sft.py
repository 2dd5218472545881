"""`vlm-rl sft`: the composition root of supervised fine-tuning."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from data import Rows, Subset, load_rows
from data.sampler import Sampler, make_sampler
from data.templates import render
from eval.metrics import wilson
from eval.runner import save_records
from vlm_rl import cli_parts
from vlm_rl.chat import Chat
from vlm_rl.cli_run import Run, carry_out
from vlm_rl.config import SftConfig
from vlm_rl.sft import Hooks, SftTrainer
from vlm_rl.types import Sample

TOKENIZER_TEXTS = 4000


def sft(config: SftConfig) -> Path:
    """Run or resume a fine-tuning. Returns the run directory; the model is its last checkpoint."""
    if config.judge is not None:
        from vlm_rl.cli_sft_judge import JudgeRun, ValueRun

        return carry_out(config, JudgeRun if config.judge.form == "text" else ValueRun)
    return carry_out(config, SftRun)


@dataclass
class SftRun(Run):
    """Fine-tuning, then an evaluation on held-out rows."""

    config: SftConfig
    moves_from = 1  # the step that reaches all that trains

    def go(self) -> None:
        self.begin()
        self.trainer.run(self.done)
        records = self.answers("evaluating", full=True)
        save_records(self.run_dir / "eval" / "after.jsonl", records)
        shares, asked = cli_parts.shares(records), len(self.held_out)
        sure = {"eval/accuracy_ci95": list(wilson(round(shares["eval/accuracy"] * asked), asked))}
        facts = self.finish({**shares, **sure, "eval/questions": asked})
        self.console.message(
            f"held-out: accuracy {facts['eval/accuracy']:.3f}, well-formed {facts['eval/wellformed']:.3f} "
            f"({facts['eval/questions']} questions, greedy)\nmodel: {self.last_checkpoint}"
        )

    @cached_property
    def phases(self) -> list[tuple[int, Rows, Sampler]]:
        """(last step, rows, sampler) of each phase before the config's own data."""
        ends = accumulate(phase.steps for phase in self.config.phases)
        opened = [(phase, load_rows(phase.data)) for phase in self.config.phases]
        return [
            (end, rows, make_sampler(rows, phase.data, self.per_step, self.config.seed))
            for end, (phase, rows) in zip(ends, opened, strict=True)
        ]

    @property
    def streams(self) -> list[tuple[Rows, Sampler]]:
        return [*((rows, sampler) for _, rows, sampler in self.phases), *super().streams]

    def check_rows(self) -> None:
        """Phases are held to what `data` is held to: rows that can be used, and no held-out picture among them."""
        super().check_rows()
        for (end, rows, sampler), phase in zip(self.phases, self.config.phases, strict=True):
            used = {i for step in range(self.done, end) for i in sampler.batch(step)}
            self.bad |= self.check(rows, used, phase.data)
            cli_parts.refuse_overlap(rows, self.held_out)

    def samples(self, step: int) -> list[Sample]:
        for end, rows, sampler in self.phases:
            if step <= end:
                return self.usable(step, rows, sampler.batch(step - 1))
        return super().samples(step)

    @cached_property
    def chat(self) -> Chat:
        return cli_parts.make_chat(self.config, self.tokenizer_texts(self.splits.train), self.path)

    def tokenizer_texts(self, rows: Rows) -> list[str]:
        """For a scratch model: an even spread of prompts and responses to train its tokenizer on."""
        if self.config.model.scratch is None or self.path is not None:
            return []
        spread = Subset(rows, range(0, len(rows), max(1, len(rows) // TOKENIZER_TEXTS)))
        write = render(self.config.data.template)
        return [f"user\n{write(sample)}\nassistant\n{sample.prefill}{sample.response or ''}" for sample in spread]

    @cached_property
    def trainer(self) -> SftTrainer:
        hooks = Hooks(self.log, self.evaluate, self.save)
        train, rows = self.config.train, self.termination.whole(self.samples)
        return SftTrainer(train.steps, train.token_budget, rows, self.policy, self.chat, self.optimiser, hooks)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.movement.after_step(step, step >= self.moves_from, self.pictured)
        self.tracker.log(step, {**metrics, **cli_parts.peak_memory()})
        self.console.step(step, metrics)
