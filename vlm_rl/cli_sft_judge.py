"""`vlm-rl sft` on a config with `judge:`: a model becomes a judge. Composition only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from eval.judge_measures import Pair, agreement
from eval.runner import CLEAN, save_records
from eval.summary import BLANK
from rewards.judge_rows import Lessons, balanced
from rewards.judging import read_score
from vlm_rl import cli_parts
from vlm_rl.cli_sft import SftRun
from vlm_rl.config import JudgeTraining
from vlm_rl.types import Record

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
        return cli_parts.Splits(*(Lessons(rows, wanted.prompt, wanted.score) for rows in (chosen, opened.held_out)))

    def go(self) -> None:
        self.begin()
        self.trainer.run(self.done)
        records = self.answers("evaluating", full=True)
        save_records(self.run_dir / "eval" / "after.jsonl", records)
        facts = self.finish({**self.measured(records), "eval/questions": len(self.held_out)})
        told = ", ".join(f"{words} {facts[f'eval/{key}']:.3f}" for key, words in _TOLD.items() if f"eval/{key}" in facts)
        self.console.message(f"held-out: {told} ({facts['eval/questions']} responses)\njudge of kind hf_chat: {self.last_checkpoint}")

    def evaluate(self, step: int) -> dict[str, float]:
        every = self.config.eval.every
        if every is None or step % every or step == self.config.train.steps:
            return {}
        return self.measured(self.answers("evaluating", full=False))

    def measured(self, records: Sequence[Record]) -> dict[str, float]:
        """Agreement of the scores written with the rows' own, which are exact (only what is written is rounded to tenths). What is not
        defined, the rank correlation of a judge that always says the same for instance, is left out."""
        gold = {row.id: row.meta["score"] for row in self.held_out}
        shares: dict[str, float] = {}
        for condition, name in ((CLEAN, ""), (BLANK, "blank_")):
            pairs = [Pair(gold[r.sample_id], read_score(r.completion)) for r in records if r.condition == condition]
            found = agreement(pairs) if pairs else {}
            shares |= {f"eval/{name}{key}": value for key, value in found.items() if not math.isnan(value)}
        return shares
