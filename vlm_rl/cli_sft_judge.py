"""`vlm-rl sft` on a config with `judge:`: a model becomes a judge. Composition only."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import nn

from data.views import Draw, blank
from data.views_image import image_swapped
from eval.judge_measures import Pair, agreement, gap
from eval.runner import CLEAN, save_records
from eval.summary import BLANK
from rewards.judge_rows import Lessons, balanced
from rewards.judging import read_score
from vlm_rl import cli_parts
from vlm_rl.cli_sft import SftRun
from vlm_rl.config import JudgeTraining
from vlm_rl.memory import guarded
from vlm_rl.sft import Hooks, SftTrainer
from vlm_rl.types import Sample
from vlm_rl.value_sft import Valued, ValueTrainer, answered

_KINDS = {"text": "hf_chat", "value": "reward_model"}
_TOLD = {"spearman": "Spearman", "blank_spearman": "without the picture", "mae": "mean error", "same_tenth": "same tenth"}


@dataclass
class JudgeRun(SftRun):
    """Fine-tuning on lessons; held-out ones say how far the judge agrees with the scores, and how far without looking at the picture."""

    @property
    def settings(self) -> JudgeTraining:
        assert self.config.judge is not None
        return self.config.judge

    @cached_property
    def splits(self) -> cli_parts.Splits:
        opened, wanted = cli_parts.open_rows(self.config), self.settings
        chosen = balanced(opened.train, wanted.score, wanted.per_bucket, self.config.seed)
        prompt = wanted.prompt if wanted.form == "text" else None
        return cli_parts.Splits(*(Lessons(rows, prompt, wanted.score) for rows in (chosen, opened.held_out)))

    def go(self) -> None:
        self.begin()
        self.trainer.run(self.done)
        facts = self.finish({**self.measured(full=True), "eval/questions": len(self.held_out)})
        told = ", ".join(f"{words} {facts[f'eval/{key}']:.3f}" for key, words in _TOLD.items() if f"eval/{key}" in facts)
        kind = _KINDS[self.settings.form]
        self.console.message(f"held-out: {told} ({facts['eval/questions']} responses)\njudge of kind {kind}: {self.last_checkpoint}")

    def evaluate(self, step: int) -> dict[str, float]:
        every = self.config.eval.every
        return {} if every is None or step % every or step == self.config.train.steps else self.measured(full=False)

    def measured(self, full: bool) -> dict[str, float]:
        """Agreement of what it says with the rows' own scores, which are exact (only what is written is rounded to tenths). What is not
        defined, the rank correlation of a judge that always says the same for instance, is left out."""
        records = self.answers("evaluating", full)
        if full:
            save_records(self.run_dir / "eval" / "after.jsonl", records)
        gold = {row.id: row.meta["score"] for row in self.held_out}
        said = {name: [r for r in records if r.condition == condition] for condition, name in ((CLEAN, ""), (BLANK, "blank_"))}
        return _facts({name: [Pair(gold[r.sample_id], read_score(r.completion)) for r in ones] for name, ones in said.items()})


@dataclass
class ValueRun(JudgeRun):
    """The same with a value head, which reads a response instead of writing a score."""

    moves_from = 2  # a head of zeros gives the model no gradient

    @cached_property
    def valued(self) -> Valued:
        return Valued(self.policy, self.path, self.settings.likelihood)

    @property
    def optimised(self) -> nn.Module:
        return self.valued

    @cached_property
    def trainer(self) -> SftTrainer:
        train, hooks = self.config.train, Hooks(self.log, self.evaluate, self.save)
        own = (self.policy, self.chat, self.optimiser, hooks, self.valued, self.settings.imitation)
        return ValueTrainer(train.steps, train.token_budget, self.termination.whole(self.samples), *own)

    def write_model(self, directory: Path) -> None:
        super().write_model(directory)
        self.valued.head.save(directory)

    @guarded("evaluate")
    def measured(self, full: bool) -> dict[str, float]:
        rows = self.held_out if full else cli_parts.first(self.held_out, self.config.eval.every_questions, 0)
        pairs = {}
        for name, asked in self.shown(list(rows), full).items():
            scores = self.valued.scores(answered(self.chat, asked), self.config.train.token_budget)
            pairs[name] = [Pair(row.meta["score"], score) for row, score in zip(asked, scores, strict=True)]
        return _facts(pairs)

    def shown(self, rows: list[Sample], full: bool) -> dict[str, list[Sample]]:
        """The rows, and where wanted the same under blank pictures and under each other's, all of them or none."""
        if not full or not self.config.eval.blank_control or not all(row.media for row in rows):
            return {"": rows}
        draw = Draw(self.config.seed, others=rows)
        return {"": rows, "blank_": [blank(row) for row in rows], "swapped_": [image_swapped(row, draw) for row in rows]}


def _facts(pairs: Mapping[str, Sequence[Pair]]) -> dict[str, float]:
    """Measures by condition ("", "blank_" or "swapped_") under eval/; of the controls also how much less they agree, with its interval."""
    facts = {f"{name}{key}": value for name, ones in pairs.items() if ones for key, value in agreement(ones).items()}
    for name, ones in pairs.items():
        if name and ones and (found := gap(pairs[""], ones)):
            facts |= {f"{name}gap": found.value, f"{name}gap_low": found.low, f"{name}gap_high": found.high}
    return {f"eval/{key}": value for key, value in facts.items() if not math.isnan(value)}
