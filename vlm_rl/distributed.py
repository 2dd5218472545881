"""Several processes as torchrun, DeepSpeed's launcher or mpirun start them: finding each other, talking, and stopping together.

A process that fails leaves its cause in the store that all of them know; the others look there every few seconds and stop with it, also
out of a collective call that would never return.
"""

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vlm_rl import rundir
from vlm_rl.config import SftConfig, TrainConfig
from vlm_rl.errors import UserError
from vlm_rl.ranks import ALONE, GATHERED, Ranks

log = logging.getLogger(__name__)
T = TypeVar("T")
FAILED = "vlm_rl_failed"
LOOK_EVERY = 2.0  # seconds between looks at whether another process failed
LONGEST_WAIT = timedelta(hours=6)  # of one process for another: rollouts of one rank may take long
LONGEST_CAUSE = 2000


class Group(Ranks):
    """This process among `world`. Objects travel pickled between the processes of one training, which trust each other."""

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.words: Any = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)

    def exchange(self, what: str, value: T) -> list[T]:
        told: list[Any] = [None] * self.world
        dist.all_gather_object(told, (what, value), group=self.words)
        if others := {rank: name for rank, (name, _) in enumerate(told) if name != told[0][0]}:
            rank, name = next(iter(others.items()))
            raise UserError(
                f"the processes went different ways: rank 0 is at '{told[0][0]}', rank {rank} at '{name}'. A reward, credit or evaluator "
                "of one's own that draws by chance or by time does this; derive its draws from group.seed"
            )
        return [said for _, said in told]

    def sum_gradients(self, weights: Iterable[Tensor]) -> None:
        weights = list(weights)
        if not weights:
            return
        device = weights[0].device
        there = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.uint8, device=device)
        dist.all_reduce(there, op=dist.ReduceOp.MAX)
        for bucket in _buckets([weight for weight, known in zip(weights, there.tolist(), strict=True) if known]):
            flat = torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in bucket])
            dist.all_reduce(flat)
            for weight, piece in zip(bucket, flat.split([w.numel() for w in bucket]), strict=True):
                weight.grad = piece.view_as(weight).clone()


def _buckets(weights: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """In order, of one dtype each and of about GATHERED numbers."""
    bucket: list[Tensor] = []
    for weight in weights:
        if bucket and (bucket[0].dtype != weight.dtype or sum(w.numel() for w in bucket) + weight.numel() > GATHERED):
            yield bucket
            bucket = []
        bucket.append(weight)
    if bucket:
        yield bucket


def several(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher started more than this process."""
    return int(environment.get("WORLD_SIZE", "1")) > 1


@contextmanager
def opened(config: TrainConfig | SftConfig) -> Iterator[Ranks]:
    """The processes of this training, until the block ends; ALONE where there is one and DeepSpeed has no part in it.

    A failure of one process ends all of them with its cause: those that are in the block by an error, and at the latest after a few
    seconds by leaving.
    """
    if isinstance(config, SftConfig) and several():
        raise UserError("vlm-rl sft is one process: start it without torchrun (vlm-rl train shares its work among processes)")
    if isinstance(config, SftConfig) or (not several() and config.distributed.zero == 0):
        yield ALONE
        return
    if (local := os.environ.get("LOCAL_RANK")) is not None and _on_cuda(config):
        torch.cuda.set_device(int(local))
    store = _join(_on_cuda(config))
    if dist.get_rank() > 0:
        logging.getLogger().setLevel(logging.WARNING)
    alarm = Alarm(store)
    try:
        with alarm.watching():
            yield Group()
    except BaseException as error:
        cause = alarm.told()
        if cause is not None:
            raise UserError(cause) from error
        alarm.tell(error)
        raise
    dist.destroy_process_group()


@contextmanager
def claimed(config: TrainConfig | SftConfig, ranks: Ranks) -> Iterator[Path]:
    """The run directory, held by the first process for all of them. Raises UserError where one of them does not see it."""
    if ranks.first:
        with rundir.claimed(config) as run_dir:
            ranks.wait("run_dir is claimed")
            yield run_dir
        return
    ranks.wait("run_dir is claimed")
    run_dir = Path(config.run_dir)
    if not (run_dir / "config.yaml").exists():
        raise UserError(f"run_dir {run_dir} is not there for rank {ranks.rank}; several machines need a file system that all of them see")
    yield run_dir


def _on_cuda(config: TrainConfig) -> bool:
    return torch.cuda.is_available() and config.model.device != "cpu"


def _join(cuda: bool) -> Any:
    """Meet the other processes. Returns the store that all of them know."""
    backend = "nccl" if cuda else "gloo"
    if not several():
        store: Any = dist.HashStore()
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
        return store
    try:
        store, rank, world = next(iter(dist.rendezvous("env://")))
        dist.init_process_group(backend, store=dist.PrefixStore("vlm_rl", store), rank=rank, world_size=world, timeout=LONGEST_WAIT)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the processes did not find each other ({error}); start them with torchrun, see docs/distributed.md") from error
    return store


class Alarm:
    """Tells the other processes why this one failed, and listens for theirs."""

    def __init__(self, store: Any):
        self.store, self.rank = store, dist.get_rank()
        self.over = threading.Event()

    def tell(self, error: BaseException) -> None:
        said = str(error).strip() or type(error).__name__
        named = said if isinstance(error, UserError) else f"{type(error).__name__}: {said}"
        try:
            self.store.compare_set(FAILED, "", f"rank {self.rank} stopped the training: {named[:LONGEST_CAUSE]}")
        except RuntimeError as lost:  # the store went with its process; that one has told its cause
            log.debug("no store to tell the cause to: %s", lost)

    def told(self) -> str | None:
        """What another process failed of, None while all is well."""
        try:
            return self.store.get(FAILED).decode() if self.store.check([FAILED]) else None
        except RuntimeError:
            return None

    @contextmanager
    def watching(self) -> Iterator[None]:
        listener = threading.Thread(target=self._listen, args=(self.store.clone(),), daemon=True)
        listener.start()
        try:
            yield
        finally:
            self.over.set()

    def _listen(self, store: Any) -> None:
        while not self.over.wait(LOOK_EVERY):
            try:
                failed = store.get(FAILED).decode() if store.check([FAILED]) else None
            except RuntimeError:
                failed = "the process that holds the training's store is gone; its own words are in its output"
            if failed is not None and not self.over.wait(LOOK_EVERY):  # time for the main thread to say it better
                log.error("error: %s", failed)
                os._exit(2)
