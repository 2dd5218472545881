"""`vlm-rl train --dry-run`: one step through all phases on small random weights of the model's family, in a directory that goes again.

Composition only. What is not there is replaced by name: rows by generated ones of the same shape, judges by `standin.StandIn`.
"""

import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from rich.table import Table
from rich.text import Text

from vlm_rl import cli_dry_parts, cli_parts, doctor_model
from vlm_rl.asking import Asker
from vlm_rl.cli_train import TrainRun, prepared
from vlm_rl.cli_trial import completion, responses
from vlm_rl.config import TrainConfig
from vlm_rl.console import Console
from vlm_rl.engine.base import GenerateRequest
from vlm_rl.errors import RowError, UserError
from vlm_rl.packing import Item
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Group, Prompt, Query, Reply, Rollout, Sampling, ScoredGroup

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """A phase that went through: what it did, and how long it took."""

    phase: str
    said: str
    seconds: float


def dry_run(config: TrainConfig, environment: Mapping[str, str], show: Callable[[Table], None], hub: bool = False) -> list[Done]:
    """Shows a table of phases when all went through. `hub` lets data sets be loaded from there. Raises UserError naming the phase."""
    done: list[Done] = []
    with tempfile.TemporaryDirectory(prefix="vlm-rl-dry-run-") as folder, Console(1) as console:
        for name, run in Trial(config, environment, Path(folder), console, hub).phases():
            console.phase(f"dry run: {name}", 0, 1)
            start = time.perf_counter()
            done.append(Done(name, _tried(name, run), time.perf_counter() - start))
            console.phase(f"dry run: {name}", 1, 1)
    show(table(done))
    return done


def _tried(name: str, run: Callable[[], str]) -> str:
    try:
        return run()
    except (UserError, RowError) as error:
        raise UserError(f"dry run, in the phase '{name}': {error}") from None
    except Exception as error:  # whatever breaks, the phase it broke in is the first thing to know
        log.debug("the phase '%s' broke:", name, exc_info=True)
        raise UserError(f"dry run: the phase '{name}' broke: {type(error).__name__}: {error}") from error


def table(done: Sequence[Done]) -> Table:
    shown = Table("phase", "what was done", "s", title="dry run: every phase of a step went through", show_lines=True)
    for row in done:
        shown.add_row(row.phase, Text(row.said), f"{row.seconds:.1f}")
    return shown


@dataclass
class Trial:
    """The parts of a training as a dry run makes them, and its phases in order."""

    given: TrainConfig
    environment: Mapping[str, str]
    folder: Path
    console: Console
    hub: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    scored: list[ScoredGroup] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)

    def phases(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("data", self.data),
            ("judges", self.find_judges),
            ("model", self.model),
            ("rows", self.rows),
            ("evaluation before", lambda: self.evaluation(0)),
            ("rollout", self.rollout),
            ("parity", self.parity),
            ("scoring", self.scoring),
            ("update", self.update),
            ("checkpoint", self.checkpoint),
            ("evaluation after", lambda: self.evaluation(1)),
        ]

    @cached_property
    def found(self) -> cli_dry_parts.Found:
        return cli_dry_parts.find_data(self.given, self.folder / "rows", self.hub)

    @cached_property
    def small(self) -> cli_dry_parts.Small:
        return cli_dry_parts.small_model(self.found.config, self.folder / "model")

    @cached_property
    def judges(self) -> cli_dry_parts.Judges:
        return cli_dry_parts.judges(self.given, self.environment)

    @cached_property
    def run(self) -> TrainRun:
        return self.make(None, 0)

    def make(self, path: Path | None, done: int) -> TrainRun:
        config = self.small.config
        make = prepared(config, {**cli_dry_parts.keys(config), **self.environment})
        return make(config, self.folder, path, done, self.console, judges=self.judges.made)

    def data(self) -> str:
        return f"{len(self.found.rows)} rows; {self.found.said}"

    def find_judges(self) -> str:
        return self.judges.said

    def model(self) -> str:
        run = self.run
        trained = sum(weight.numel() for weight in run.optimiser.weights)
        return f"{self.small.said}; {trained:,} numbers train"

    def rows(self) -> str:
        self.run.check_rows()
        return f"those of the step and {len(self.run.held_out)} held-out ones decode, and their answers pass their own verifier"

    def evaluation(self, step: int) -> str:
        records = self.run.answers("dry run", full=True)
        figures = self.run.watched(step, records) if self.run.evaluators else {}
        also = f"; {len(figures)} figures of {', '.join(self.run.evaluators)}" if self.run.evaluators else ""
        return f"{len(records)} answers{also}"

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Of the step's rows under their views, and of one more of each kind of answer that the step has not."""
        run = self.run
        samples = run.samples(1)
        known = {sample.kind for sample in samples}
        others = {sample.kind: sample for sample in map(run.splits.train.__getitem__, range(min(len(run.splits.train), 64)))}
        samples += [sample for kind, sample in others.items() if kind not in known]
        return [run.rendered(sample, run.augment(sample, 1, samples)) for sample in samples]

    def rollout(self) -> str:
        rollout = self.run.config.rollout
        sampling = Sampling(rollout.max_new_tokens, rollout.temperature, rollout.stop)
        seeds = [tuple(stable_hash(prompt.sample.id, i) for i in range(rollout.group_size)) for prompt in self.prompts]
        requests = [GenerateRequest(prompt, sampling, own) for prompt, own in zip(self.prompts, seeds, strict=True)]
        for request, written in zip(requests, self.run.engine.generate(requests), strict=True):
            rollouts = tuple(Rollout(i, seed, c) for i, (seed, c) in enumerate(zip(request.seeds, written, strict=True)))
            self.groups.append(Group(request.prompt, rollouts, stable_hash(request.prompt.sample.id)))
        tokens = sum(len(rollout.completion.token_ids) for group in self.groups for rollout in group.rollouts)
        kinds = ", ".join(sorted({prompt.sample.kind for prompt in self.prompts}))
        return f"{len(self.groups)} prompts ({kinds}), {sum(len(g.rollouts) for g in self.groups)} completions, {tokens} tokens"

    def parity(self) -> str:
        config = self.run.config
        gap_T = doctor_model.gaps(self.run.policy, self.groups, config.rollout.temperature, config.train.token_budget)
        if float(gap_T.mean()) > config.guards.parity_limit:
            raise UserError(f"engine and trainer differ by {float(gap_T.mean()):.4f} nats per token, more than guards.parity_limit")
        return f"{len(gap_T)} tokens, engine and trainer differ by {float(gap_T.mean()):.1e} nats on average"

    def scoring(self) -> str:
        """What the model wrote, and responses written for it: random weights write nothing that a reward could ask about."""
        run = self.run
        written = [self._written(group) for group in self.groups]
        asker = Asker(run.engines, run.chat, judges=run.judges)

        def ask(queries: Sequence[Query]) -> Sequence[Reply]:
            self.asked.update(query.target for query in queries)
            return asker(queries)

        run.mixture.score(self.groups, 0, ask)
        self.scored = run.mixture.score(written, 0, ask)
        silent = sorted(run.mixture.targets - self.asked.keys())
        said = ", ".join(f"{target} {count}" for target, count in sorted(self.asked.items())) or "none"
        warning = f"; nobody asked {', '.join(silent)}: no row here is of the kind that such a reward looks at" if silent else ""
        return f"{', '.join(run.mixture.rewards)}; questions: {said}{warning}"

    @torch.no_grad()
    def _written(self, group: Group) -> Group:
        run = self.run
        texts = responses(group.sample, len(group.rollouts), run.mixture.rewards)
        ids = tuple(run.chat.ids_of(text) for text in texts)
        row = run.policy.pack([Item(group.prompt, ids, tuple(range(len(ids))))])
        logprob_T = run.policy(row, run.config.rollout.temperature).logprob_T.float().cpu()
        told = [logprob_T[row.rollout_T.cpu() == i].tolist() for i in range(len(ids))]
        made = [completion(text, own, logprobs) for text, own, logprobs in zip(texts, ids, told, strict=True)]
        return Group(group.prompt, tuple(Rollout(i, i, one) for i, one in enumerate(made)), group.seed)

    def update(self) -> str:
        metrics = self.run.updater(self.scored, 0)
        if "loss/grad_norm" not in metrics:
            raise UserError("no group has a spread of rewards, so nothing was trained on; look at the rewards' weights and gates")
        return f"loss {metrics['loss/total']:.3g}, gradient norm {metrics['loss/grad_norm']:.3g}"

    def checkpoint(self) -> str:
        self.run.save(1)
        path, done = cli_parts.resume_point(self.folder)
        again = dict(self.make(path, done).policy.model.named_parameters())
        for name, weight in self.run.policy.model.named_parameters():
            if not torch.equal(weight, again[name]):
                raise UserError(f"the weight {name} is not what was saved")
        return "saved, and loaded again to the bit"
