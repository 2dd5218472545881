"""What a process of a training and of a fine-tuning share: rows, model, optimiser, engine, tracker, evaluation in between, checkpoints."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from data import Rows
from vlm_rl import checkpoint, cli_parts, model_card, models, parts, rundir
from vlm_rl.asking import Asker
from vlm_rl.cli_rows import RunRows
from vlm_rl.config import SftConfig, SftSection, TrainConfig
from vlm_rl.console import Console
from vlm_rl.distributed import claimed, opened
from vlm_rl.engine.base import Engine
from vlm_rl.engine.hf import HFEngine
from vlm_rl.memory import guarded
from vlm_rl.optim import Optimiser
from vlm_rl.policy import Policy
from vlm_rl.preemption import Termination
from vlm_rl.ranks import Ranks
from vlm_rl.sharing import Ask
from vlm_rl.tracker import Tracker
from vlm_rl.types import Record
from vlm_rl.weights import weights_for

ConfigT = TypeVar("ConfigT", TrainConfig, SftConfig)


def carry_out(config: ConfigT, make: Callable[[ConfigT, Path, Path | None, int, Console, Ranks], "Run"]) -> Path:
    """Run to the end from the newest whole checkpoint of `run_dir`; a finished run is only pointed at. Returns the run directory."""
    with opened(config) as ranks:
        return carried_out(config, make, ranks)


def carried_out(config: ConfigT, make: Callable[[ConfigT, Path, Path | None, int, Console, Ranks], "Run"], ranks: Ranks) -> Path:
    """The same by processes that have found each other."""
    with claimed(config, ranks) as run_dir:
        path, done = ranks.first_says("where to begin", lambda: cli_parts.resume_point(run_dir))
        with Console(config.train.steps, start_step=done) as console:
            if ranks.first_says("finished or not", lambda: rundir.is_finished(run_dir)):
                console.message(f"{run_dir} is finished: {_result(run_dir, path)}; to train anew write run_dir=OTHER")
            else:
                make(config, run_dir, path, done, console, ranks).go_or_be_put_down()
        ranks.wait("the end")
    return run_dir


def _result(run_dir: Path, checkpoint: Path | None) -> str:
    report = run_dir / "report.html"
    return f"report at {report}" if report.exists() else str(checkpoint)


@dataclass
class Run(RunRows):
    """One process of one run, from step `done` (checkpoint `path`) to the end. Parts are made when first used."""

    ended: int | None = None  # the step an alarm stopped training at
    started: float = field(default_factory=time.perf_counter)
    reached: int = 0  # the last step that is over in this process, and the last it wrote a checkpoint of
    written: int = 0
    termination: Termination = field(default_factory=Termination)
    tracker: Tracker = field(init=False)
    movement: parts.Movement = field(init=False)  # made with the optimiser

    @abstractmethod
    def go(self) -> None:
        """From `begin` to `finish`."""

    def go_or_be_put_down(self) -> None:
        with self.termination.heard(self.put_down):
            self.go()

    def begin(self) -> None:
        """What may refuse a run comes before the long work; what the tracker needs may not be there."""
        self.check_same_data()
        self.check_rows()
        if self.ranks.first:
            self.tracker = Tracker(self.run_dir, self.config.tracker.tensorboard, self.config.tracker.wandb, self.done)
        self.ranks.wait("the files of the run are ready")

    def finish(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write the model card, and summary.json, by which a run is known to be finished. Returns what that holds."""
        whole = {**facts, **rundir.machine(), "time/total": self.seconds(), "run/finished": True}
        if self.ranks.first:
            self.tracker.close()
            model_card.write(self.last_checkpoint, self.run_dir, checkpoint.step_of(self.last_checkpoint), whole)
            rundir.write_json(self.run_dir / "summary.json", whole)
        return whole

    @property
    def updates(self) -> int:
        """Optimiser updates of the whole run."""
        train = self.config.train
        return train.steps * (1 if isinstance(train, SftSection) else train.updates_per_rollout * train.mini_batches)

    def seconds(self) -> float:
        """Spent on the run so far, by this process and, up to its last checkpoint, by those before it."""
        return self.resumed.get("seconds", 0.0) + time.perf_counter() - self.started

    @cached_property
    @guarded("load")
    def policy(self) -> Policy:
        settings = self.config.model
        model = models.load_trained(settings, self.chat, self.path, self.config.seed)
        drops = settings.lora is not None and settings.lora.dropout > 0
        return Policy(model, self.chat.visual_ids, settings.attention, settings.gradient_checkpointing, drops)

    @property
    def optimised(self) -> nn.Module:
        """What the optimiser holds the trained weights of."""
        return self.policy

    @cached_property
    @guarded("load")
    def optimiser(self) -> Optimiser:
        optimiser = self.new_optimiser()
        if self.path is not None:
            optimiser.load_state_dict(checkpoint.load_state(self.path)["optimizer"])
        self.movement = parts.Movement(self.policy.model, optimiser, self.whole_weights)
        self.movement.expect(self.resumed.get("frozen", self.movement.mark), self.path, self.config.model.path)
        return optimiser

    def new_optimiser(self) -> Optimiser:
        config = self.config.optim
        return Optimiser(self.optimised, config, self.updates, parts.rates(self.policy.model, config), self.ranks)

    def whole_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Of the policy's model, as they are and by name. All processes go through all of them."""
        return self.policy.model.named_parameters()

    @property
    def answering(self) -> Policy:
        """The policy where it generates, scores and is saved: the trained one, or a copy of its modules that borrows the weights."""
        return self.policy

    def weights_at_hand(self) -> AbstractContextManager[None]:
        """Around the saving of `answering`, by all processes."""
        return nullcontext()

    def shared(self, ask: Ask) -> Ask:
        """The same asking, where several processes share it."""
        return ask

    @cached_property
    def engine(self) -> Engine:
        """What writes rollouts and answers of evaluations: the policy itself, or vLLM beside it."""
        rollout = self.config.rollout
        own = HFEngine(self.answering, self.chat, rollout.batch_size, self.config.train.token_budget)
        if rollout.engine == "hf":
            return own
        from vlm_rl.engine.vllm import VLLMEngine
        from vlm_rl.engine.vllm_adapter import VLLMAdapterEngine

        model, adapted = self.config.model, self.config.model.lora is not None
        source = str((None if adapted else self.path) or model.path or self.run_dir / "random_start")
        if not (self.path or model.path):
            if self.ranks.first:
                models.save_model(Path(source), self.policy.model, self.chat)
            self.ranks.wait("the random start is written")
        longest = model.max_prompt_tokens + rollout.max_new_tokens
        arguments = (models.source_of(source, "model.path"), self.chat, rollout.vllm, own, longest)
        apart = model.lora if rollout.vllm.adapters == "adapter" else None
        engine = VLLMAdapterEngine(*arguments, apart) if apart else VLLMEngine(*arguments)
        if apart or (adapted and self.path is not None):
            engine.load_weights(weights_for(engine, self.policy))
        return engine

    @guarded("evaluate")
    def answers(self, what: str, full: bool) -> list[Record]:
        """Graded answers of the policy as it is now: in full to all held-out rows, else greedy ones to the few used during training."""
        rows = self.held_out if full else self.few
        ask = self.shared(Asker({"policy": self.engine}, self.chat, partial(self.console.phase, what)))
        return cli_parts.evaluate(rows, ask, self.config.eval, self.config.rollout, full)

    def evaluate(self, step: int) -> dict[str, float]:
        """Metrics of the evaluation that follows this step, if one does; the last step is followed by the full one instead."""
        every = self.config.eval.every
        if every is None or step % every or step == self.config.train.steps:
            return {}
        records = self.answers("evaluating", full=False)
        return {**cli_parts.shares(records), **self.watched(step, records)}

    def watched(self, step: int, records: Sequence[Record]) -> dict[str, float]:
        """What else is measured after an evaluation; `records` hold the answers to the few questions used during training."""
        return {}

    @property
    def few(self) -> Rows:
        """The held-out rows that are asked about during training, the same each time."""
        return cli_parts.first(self.held_out, self.config.eval.every_questions, 0)

    @property
    def checkpoints(self) -> Path:
        return self.run_dir / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        return self.checkpoints / f"step_{self.ended or self.config.train.steps}"

    def write_model(self, directory: Path) -> None:
        models.save_model(directory, self.answering.model, self.chat)

    def own_state(self) -> dict[str, Any]:
        """What else a checkpoint of this kind of run holds."""
        return {}

    def save(self, step: int) -> None:
        """A checkpoint every so many steps, after the last, and where training ends before it or the process is to end."""
        self.reached, final = step, step in (self.config.train.steps, self.ended)
        if step % self.config.checkpoint.every == 0 or final or self.termination.asked:
            self.write(step, final)
        self.termination.free()

    def write(self, step: int, final: bool) -> None:
        self.movement.check(step, final)
        state = {"step": step, "optimizer": self.optimiser.state_dict(), "seconds": self.seconds()}
        state |= {"data": self.data_mark, "frozen": self.movement.mark, **self.own_state()}
        with self.weights_at_hand():
            if self.ranks.first:
                checkpoint.save(self.checkpoints, step, self.write_model, state, self.config.checkpoint.keep)
        self.ranks.wait("the checkpoint is written")
        self.written = step

    def put_down(self) -> None:
        """After SIGTERM: a checkpoint of the last step that is over, where there is none yet."""
        if self.reached > self.written:
            self.write(self.reached, final=False)
        step = self.reached or self.done
        self.console.message(f"stopped by SIGTERM; the same command goes on {f'after step {step}' if step else 'from the start'}")
