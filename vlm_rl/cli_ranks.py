"""A run that several processes share: whose optimiser, whose weights, whose questions. One process without DeepSpeed is the plain case."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from vlm_rl import parts
from vlm_rl.cli_run import Run
from vlm_rl.config import TrainConfig
from vlm_rl.optim import Optimiser
from vlm_rl.policy import Policy
from vlm_rl.sharing import Ask, SharedAsk
from vlm_rl.weights import weights_for
from vlm_rl.zero import Lender, ZeroOptimiser


@dataclass
class SharedRun(Run):
    """`ranks` and `distributed:` of its config decide."""

    config: TrainConfig

    @cached_property
    def lender(self) -> Lender | None:
        """Of the policy's weights, where they lie in parts."""
        return Lender(self.policy) if self.config.distributed.zero == 3 else None

    @property
    def answering(self) -> Policy:
        return self.lender.copy if self.lender else self.policy

    def weights_at_hand(self) -> AbstractContextManager[None]:
        return self.lender.lent_on_cpu(self.ranks.first) if self.lender else super().weights_at_hand()

    def whole_weights(self) -> Iterator[tuple[str, Tensor]]:
        return self.lender.named() if self.lender else super().whole_weights()

    def weights(self, policy: Policy) -> Iterator[tuple[str, Tensor]]:
        """As another engine wants them."""
        return self.lender.named() if self.lender else weights_for(self.engine, policy)

    def shared(self, ask: Ask) -> Ask:
        if self.lender is None:
            return ask if self.ranks.world == 1 else SharedAsk(ask, self.ranks)
        return SharedAsk(ask, self.ranks, self.lender.lent, self.config.rollout.engine == "hf")

    def new_optimiser(self) -> Optimiser:
        distributed = self.config.distributed
        if distributed.zero == 0:
            return super().new_optimiser()
        assert self.lender or distributed.zero < 3  # made before DeepSpeed takes the policy apart
        config = self.config.optim
        return ZeroOptimiser(self.policy, config, self.updates, parts.rates(self.policy.model, config), distributed, self.ranks)
