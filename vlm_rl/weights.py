"""Keeping an engine that holds weights of its own in step with the policy that is trained."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from vlm_rl import lora
from vlm_rl.engine.base import Engine
from vlm_rl.policy import Policy
from vlm_rl.types import ScoredGroup


@runtime_checkable
class SleepingEngine(Engine, Protocol):
    """An engine with weights of its own, which can give its memory back for a while."""

    def sleep(self) -> None: ...

    def wake(self) -> None: ...


@runtime_checkable
class AdapterEngine(SleepingEngine, Protocol):
    """One that keeps the weights it began with, and is given adapters apart from them."""

    def without_adapter(self) -> Engine: ...


@dataclass
class Followed:
    """An update that `engine` follows: it sleeps meanwhile and is given the new weights, with every cached state dropped, before anything
    is asked of it again. That they arrived shows in the next step's comparison of engine and trainer.
    """

    update: Callable[[Sequence[ScoredGroup], int], dict[str, float]]
    policy: Policy
    engine: SleepingEngine
    weights: Callable[[Policy], Iterator[tuple[str, Tensor]]] | None = None  # where the policy's own are in parts

    def __call__(self, scored: Sequence[ScoredGroup], step: int) -> dict[str, float]:
        self.engine.sleep()
        metrics = self.update(scored, step)
        start = time.perf_counter()
        self.engine.wake()
        self.engine.load_weights(self.weights(self.policy) if self.weights else weights_for(self.engine, self.policy))
        return metrics | {"time/sync": time.perf_counter() - start}


def weights_for(engine: Engine, policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """What brings the engine in step with the policy: all weights, or the adapters alone where it has them apart."""
    return lora.named(policy.model) if isinstance(engine, AdapterEngine) else named_weights(policy)


def named_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Every parameter once, tied ones under their first name; adapters are in the weights they are on (in copies of them)."""
    adapted = lora.layers(policy.model)
    inside = {id(parameter) for layer in adapted.values() for parameter in layer.parameters()}
    for name, parameter in policy.model.named_parameters():
        if id(parameter) not in inside:
            yield name, parameter.detach()
    yield from lora.merged(adapted)
