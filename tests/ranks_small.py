"""What tests of several processes run under torchrun: updates on fixed rollouts, and whole trainings, of one ZeRO stage.

torchrun --nproc-per-node 2 tests/ranks_small.py STAGE DIRECTORY whole writes what each case gave to DIRECTORY/STAGE.pt; with `broken` the
trainings are stopped and gone on with.
"""

import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from models_small import completions, make, sample, video
from runs_small import Brief, train_config

from vlm_rl import zero
from vlm_rl.cli_padding import padding_of
from vlm_rl.cli_run import carried_out
from vlm_rl.cli_train import TrainRun, prepared
from vlm_rl.config import AlgoConfig, DistributedConfig, OptimConfig, TrainConfig
from vlm_rl.distributed import opened
from vlm_rl.errors import UserError
from vlm_rl.optim import Optimiser
from vlm_rl.ranks import ALONE, Ranks
from vlm_rl.sharing import Shared, gathered
from vlm_rl.step_batch import Limits
from vlm_rl.types import Completion, Group, Part, Rollout, ScoredGroup, Segment
from vlm_rl.update import Updater
from vlm_rl.weights import Followed
from vlm_rl.zero import Lender, ZeroOptimiser

OPTIM = OptimConfig(learning_rate=1e-4, grad_clip=0.5, weight_decay=0.1)
SPREAD, FLAT = (1.0, 0.0, 0.5), (0.5, 0.5, 0.5)
# Of each group its medium, its rewards and who holds it: rank 0 pictures and rank 1 text; rank 1 lost all its groups; of all kinds.
CASES: dict[str, tuple[tuple[str, tuple[float, ...], int], ...]] = {
    "pictures on one, text on the other": (("image", SPREAD, 0), ("text", SPREAD, 1), ("image", SPREAD, 0)),
    "one lost all": (("image", SPREAD, 0), ("image", FLAT, 1), ("image", SPREAD, 0)),
    "a video, a picture": (("video", SPREAD, 0), ("image", SPREAD, 1)),
}
ALGO = AlgoConfig(clip_low=0.01, clip_high=0.01, kl_weight=0.05, top_entropy=0.8)
RUN = (
    "train.steps=3",
    "checkpoint.every=1",
    "checkpoint.keep=3",
    "optim.learning_rate=1e-5",  # so that rounding does not decide a draw
    "train.updates_per_rollout=2",
    "train.mini_batches=2",
    "algo.kl_weight=0.05",
    "algo.kl_in=reward",
    "algo.dynamic_sampling={reward: brief, tries: 2}",
    "data.on_bad_row=skip",
    "optim.weight_decay=0.1",
)


class Killed(BaseException):
    pass


class FailsOnRankOne(Brief):
    """A reward that only one of two processes fails at."""

    def score(self, group, replies):
        if os.environ.get("RANK") == "1":
            raise ValueError("a cause of its own")
        return super().score(group, replies)


class Recorded:
    """Stands where vLLM stands: keeps what weights it was given."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.weights: dict[str, torch.Tensor] = {}

    def generate(self, requests, progress=None):
        raise AssertionError

    def score(self, requests):
        raise AssertionError

    def sleep(self) -> None:
        self.calls.append("sleep")

    def wake(self) -> None:
        self.calls.append("wake")

    def load_weights(self, weights) -> None:
        self.calls.append("load")
        self.weights = {name: tensor.clone() for name, tensor in list(weights)}


def groups_of(case: str, ranks: Ranks) -> list[ScoredGroup]:
    """As a step has them: of others' groups no pixels."""
    _, chat = make()
    own: dict[int, ScoredGroup] = {}
    for k, (kind, totals, rank) in enumerate(CASES[case]):
        seen = sample(f"{case}{k}", 1 if kind == "image" else 0)
        prompt = chat.prompt(replace(seen, media=(video(k),)) if kind == "video" else seen)
        said = completions(chat, [3, 5, 2], seed=k)
        rollouts = tuple(
            Rollout(i, i, Completion("", (Segment(ids, tuple(-4.0 - 0.1 * i - 0.01 * t for t in range(len(ids)))),)))
            for i, ids in enumerate(said)
        )
        group = Group(prompt, rollouts, k, rank)
        own[k] = ScoredGroup(group, totals, {"r": tuple(Part(t, 1.0, t, {}, t) for t in totals)})
    mine = {k: s.group for k, s in own.items() if ranks.world == 1 or s.group.rank == ranks.rank}
    return [replace(own[k], group=group) for k, group in enumerate(gathered(mine, ranks))]


class Patient:
    """A policy, its optimiser and its updater."""

    def __init__(self, stage: int, ranks: Ranks, limits: Limits):
        self.policy, chat = make()
        reference, _ = make()
        self.lender = Lender(self.policy) if stage == 3 else None
        self.optimiser: Optimiser = Optimiser(self.policy, OPTIM, 8, ranks=ranks)
        if stage:
            self.optimiser = ZeroOptimiser(self.policy, OPTIM, 8, {}, DistributedConfig(zero=stage), ranks)
        shared = Shared(ranks, padding_of(chat))
        self.updater = Updater(self.policy, self.optimiser, ALGO, limits, reference.requires_grad_(False), shared=shared)
        self.engine = Recorded()
        self.followed = Followed(self.updater, self.policy, self.engine, (lambda _: self.lender.named()) if self.lender else None)


def updates(case: str, stage: int, ranks: Ranks, steps: int = 2) -> dict[str, Any]:
    """Metrics of each step, the weights that an engine beside the policy has after the last, and the state of the optimiser."""
    patient, groups = Patient(stage, ranks, Limits(1.0, 60, 5, 1, 2)), groups_of(case, ranks)
    metrics = [patient.followed(groups, step) for step in range(steps)]
    assert patient.engine.calls == ["sleep", "wake", "load"] * steps
    return {"metrics": metrics, "weights": patient.engine.weights, "state": patient.optimiser.state_dict()}


def config_of(directory: Path, name: str, stage: int) -> TrainConfig:
    offload = "optimizer" if stage == 1 else "none"
    return train_config(directory, f"run_dir={directory}/{name}", f"distributed.zero={stage}", f"distributed.offload={offload}", *RUN)


def trained(directory: Path, name: str, stage: int, ranks: Ranks, stop: int | None = None) -> None:
    """A whole training; or one that ends right after the checkpoint of step `stop`."""
    config, whole = config_of(directory, name, stage), TrainRun.save

    def save(run: TrainRun, step: int) -> None:
        whole(run, step)
        if step == stop:
            raise Killed

    TrainRun.save = save
    try:
        with suppress(Killed):
            carried_out(config, prepared(config, {}), ranks)
    finally:
        TrainRun.save = whole


def broken(stage: int, directory: Path, ranks: Ranks) -> None:
    """By two processes: a run stopped and gone on with, one to go on with, and one that one process began."""
    trained(directory, f"two-two-{stage}", stage, ranks, stop=1)
    trained(directory, f"two-two-{stage}", stage, ranks)
    trained(directory, f"two-one-{stage}", stage, ranks, stop=2)
    trained(directory, f"one-two-{stage}", stage, ranks)


def whole(stage: int, directory: Path, ranks: Ranks) -> None:
    found: dict[str, Any] = {case: updates(case, stage, ranks) for case in CASES}
    trained(directory, f"ranks{stage}", stage, ranks)
    try:
        ranks.exchange(f"place {ranks.rank}", None)
    except UserError as error:
        found["apart"] = str(error)
    if ranks.first:
        torch.save(found, directory / f"{stage}.pt")


def main(stage: int, directory: Path, what: str) -> None:
    zero.KEPT_WHOLE = 0  # so that with ZeRO-3 the small weights of these models lie in parts too
    with opened(config_of(directory, "any", stage)) as ranks:
        {"whole": whole, "broken": broken}[what](stage, directory, ranks)


def alone(directory: Path) -> dict[str, Any]:
    """The same by one process."""
    trained(directory, "alone", 0, ALONE)
    return {case: updates(case, 0, ALONE) for case in CASES}


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
