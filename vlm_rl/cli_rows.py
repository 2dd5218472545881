"""The rows of a run: which are met, tried before the long work, left out where they are bad, the same after a resume."""

from abc import ABC
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from data import Rows, Subset
from data.check import check_rows
from data.sampler import Sampler, make_sampler
from rewards import grading
from vlm_rl import checkpoint, cli_parts
from vlm_rl.chat import Chat
from vlm_rl.config import DataConfig, SftConfig, TrainConfig
from vlm_rl.console import Console
from vlm_rl.errors import RowError, UserError
from vlm_rl.ranks import ALONE, Ranks
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Sample


@dataclass
class RunRows(ABC):
    """What a process of a run knows of its rows; the run goes on at step `done` (checkpoint `path`)."""

    config: TrainConfig | SftConfig
    run_dir: Path
    path: Path | None
    done: int
    console: Console
    ranks: Ranks = ALONE
    bad: dict[str, RowError] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    held_out: Rows = ()
    pictured: float = 0.0  # the share of the last rows drawn that have media

    @property
    def per_step(self) -> int:
        return self.config.train.batch_size if isinstance(self.config, SftConfig) else self.config.rollout.prompts_per_step

    @property
    def tries(self) -> int:
        """Most draws of prompts for one step; the sampler's steps after the run's last are those of second and later draws."""
        dynamic = self.config.algo.dynamic_sampling if isinstance(self.config, TrainConfig) else None
        return dynamic.tries if dynamic else 1

    @cached_property
    def splits(self) -> cli_parts.Splits:
        return cli_parts.open_rows(self.config)

    @cached_property
    def sampler(self) -> Sampler:
        return make_sampler(self.splits.train, self.config.data, self.per_step, self.config.seed)

    @property
    def streams(self) -> list[tuple[Rows, Sampler]]:
        """What is trained on."""
        return [(self.splits.train, self.sampler)]

    @cached_property
    def data_mark(self) -> str:
        """A hash by which changed training rows are noticed: how many there are, and the ids of the first step's. Reads only those."""
        return f"{stable_hash(*(part for rows, sampler in self.streams for part in (len(rows), *_ids(rows, sampler.batch(0))))):016x}"

    @cached_property
    def resumed(self) -> dict[str, Any]:
        """What the checkpoint holds beside tensors; {} at the start."""
        return checkpoint.load_plain(self.path) if self.path is not None else {}

    def check_same_data(self) -> None:
        """A run goes on with the rows it began with. Raises UserError."""
        if self.resumed.get("data", self.data_mark) != self.data_mark:
            raise UserError(
                f"the training data changed since {self.path}: not the same number of rows, or others in the first step; "
                "put the former data back, or write run_dir=OTHER"
            )

    @cached_property
    def chat(self) -> Chat:
        return cli_parts.make_chat(self.config)

    def check_rows(self) -> None:
        """Try all rows of the steps to come and of the evaluation; bad ones stop the run here, or are left out where the config says so."""
        used = {i for step in range(self.first_row_step, self.config.train.steps * self.tries) for i in self.sampler.batch(step)}
        self.bad = self.check(self.splits.train, used, self.config.data)
        held_out = self.splits.held_out
        bad = self.check(held_out, range(len(held_out)), self.config.eval_data or self.config.data)
        self.held_out = cli_parts.without(held_out, bad)
        if not self.held_out:
            raise UserError("no held-out row is usable; mend them or name others as eval_data")

    @property
    def first_row_step(self) -> int:
        """The first step (from 0) whose rows this process may meet."""
        return self.done

    def check(self, rows: Rows, used: Iterable[int], data: DataConfig) -> dict[str, RowError]:
        """The bad ones of these rows by id. Raises UserError when there may be none, or when there are too many."""
        bad = cli_parts.check_used(rows, used, data, self.try_rows)
        limit = self.config.guards.bad_row_limit
        if len(bad) > limit:
            raise UserError(f"{len(bad)} bad rows, more than guards.bad_row_limit={limit}; the first: {next(iter(bad.values()))}")
        if bad:
            self.console.message(f"{len(bad)} bad rows will be skipped, the first: {next(iter(bad.values()))}")
        return bad

    def try_rows(self, rows: Rows) -> list[RowError]:
        """Parse, decode, verify the gold answer, and look whether a prompt of bearable length can be made of each row."""
        phase = partial(self.console.phase, "checking rows")
        own = rows if self.ranks.world == 1 else Subset(rows, [i for i, _ in self.ranks.share(range(len(rows)))])
        errors = check_rows(own, grading.gold_problem, phase, budget=self.chat.look.budget, prompt_problem=self.chat.problem)
        if self.ranks.world == 1:
            return errors
        told = self.ranks.exchange("bad rows", [(error.row_id, error.reason) for error in errors])
        return [RowError(*said) for part in told for said in part]

    def samples(self, step: int) -> list[Sample]:
        """The usable rows of a step (from 1). Raises UserError when there is none, or too many were bad."""
        return self.usable(step, self.splits.train, self.sampler.batch(step - 1))

    def usable(self, step: int, rows: Rows, indices: Sequence[int]) -> list[Sample]:
        """These rows without the bad ones."""
        samples = []
        for index in indices:
            try:
                sample = rows[index]
                if sample.id in self.bad:
                    raise self.bad[sample.id]
                samples.append(sample)
            except RowError as error:
                self.skip(error)
        if not samples:
            raise UserError(f"step {step}: every row of the step is bad")
        self.pictured = sum(bool(sample.media) for sample in samples) / len(samples)
        return samples

    def skip(self, error: RowError) -> None:
        """Leave one bad row out where the config says so, and count it. Raises UserError when too many were met."""
        if self.config.data.on_bad_row == "error":
            raise error
        self.skipped.add(error.row_id)
        limit = self.config.guards.bad_row_limit
        if len(self.skipped) > limit:
            raise UserError(f"more than guards.bad_row_limit={limit} bad rows were met; the last: {error}")


def _ids(rows: Rows, indices: Sequence[int]) -> list[str]:
    ids = []
    for index in indices:
        try:
            ids.append(rows[index].id)
        except RowError as error:
            ids.append(error.row_id)
    return ids
