"""Supervised fine-tuning on rows with a `response`: the warm start of a policy, later also of reward models.

The loss is the mean negative log-prob of all response tokens of the step, the end of turn included. Rows that share a prompt share its
forward. It evaluates nothing itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from vlm_rl.chat import Chat
from vlm_rl.errors import RowError
from vlm_rl.memory import guarded
from vlm_rl.optim import Optimiser
from vlm_rl.packing import Item, split
from vlm_rl.policy import Policy
from vlm_rl.seeds import stable_hash
from vlm_rl.trainer import Clock
from vlm_rl.types import Sample

Metrics = dict[str, float]


@dataclass(frozen=True)
class Hooks:
    """What happens after a step, put together by the command."""

    log: Callable[[int, Mapping[str, float]], None]
    evaluate: Callable[[int], Metrics]
    save: Callable[[int], None]


@dataclass
class SftTrainer:
    """rows(step) gives the step's samples; steps are counted from 1."""

    steps: int
    token_budget: int
    rows: Callable[[int], Sequence[Sample]]
    policy: Policy
    chat: Chat
    optimiser: Optimiser
    hooks: Hooks

    def run(self, done: int = 0) -> None:
        """Train from step `done` + 1 to the end."""
        for step in range(done + 1, self.steps + 1):
            clock = Clock()
            torch.manual_seed(stable_hash("dropout", step))  # whatever was done before this process went on
            rows = self.rows(step)
            items = self.items(rows)
            clock.lap("time/prepare")
            metrics = self.update(items, rows, step)
            clock.lap("time/update")
            metrics |= self.hooks.evaluate(step)
            self.hooks.log(step, metrics | clock.laps)
            self.hooks.save(step)

    def items(self, rows: Sequence[Sample]) -> list[Item]:
        """What is forwarded; `rollouts` of an item are indices of rows."""
        return [demonstration(self.chat, sample, i) for i, sample in enumerate(rows)]

    @guarded("update")
    def update(self, items: Sequence[Item], rows: Sequence[Sample], step: int) -> Metrics:
        """One optimiser step on these demonstrations."""
        tokens = sum(sum(item.lengths[1]) for item in items)
        total, entropy = 0.0, 0.0
        for batch in split(items, self.token_budget):
            stats = self.policy(self.policy.pack(batch))
            loss = -stats.logprob_T.sum() / tokens
            loss.backward()
            self.optimiser.gather()
            total += float(loss.detach())
            entropy += float(stats.entropy_T.sum()) / tokens
        metrics = self.optimiser.step(step - 1, lambda: ", ".join(item.prompt.sample.id for item in items))
        return metrics | {"loss/total": total, "rollout/entropy": entropy, "rollout/length": tokens / len(items)}


def demonstration(chat: Chat, sample: Sample, index: int) -> Item:
    """Prompt and response of one row, the response closed by the end of the turn. Raises RowError when there is none."""
    if not sample.response:
        raise RowError(sample.id, "no response to imitate; supervised rows need a 'response' beside the question")
    end = chat.tokenizer.eos_token_id
    return Item(chat.prompt(sample), ((*chat.ids_of(sample.response), end),), (index,))


@torch.no_grad()
def held_out_loss(policy: Policy, chat: Chat, rows: Sequence[Sample], token_budget: int) -> float:
    """Mean negative log-prob per response token, in nats."""
    items = [demonstration(chat, sample, i) for i, sample in enumerate(rows)]
    total = sum(float(policy(policy.pack(batch)).logprob_T.sum()) for batch in split(items, token_budget))
    return -total / sum(sum(item.lengths[1]) for item in items)
