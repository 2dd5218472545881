"""Fine-tuning of a scalar reward model: a value head (`value_head`) at a response's last token, fitted to the response's score.

    loss = mean over responses of BCE(sigmoid(logit), score) + imitation x mean negative log-prob of the tokens of responses of score 1

The form of Skywork-VL-Reward (arXiv 2505.07263). Deviation: fitted to scores, not preferences. That a verifier goes on learning to write
is from arXiv 2110.14168: it does not forget how to see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from vlm_rl.chat import Chat
from vlm_rl.errors import RowError, UserError
from vlm_rl.memory import guarded
from vlm_rl.packing import Item, split
from vlm_rl.policy import Policy
from vlm_rl.sft import Metrics, SftTrainer
from vlm_rl.types import Sample
from vlm_rl.value_head import ValueHead, load_head

_MARK = "RESPONSE"


class Valued(nn.Module):
    """A policy with a value head, optimised together. The head is zero, or the one saved in `directory`."""

    def __init__(self, policy: Policy, directory: Path | None, likelihood: bool = False):
        super().__init__()
        self.policy = policy
        self.head = ValueHead(policy.model.config.get_text_config().hidden_size, likelihood).to(policy.device)
        if directory is not None:
            self.head.fill(load_head(directory))

    def read(self, batch: Sequence[Item], written: bool) -> "Read":
        """Logits of a pack's responses with gradient; where `written`, or likelihood counts, their tokens' log-probs too."""
        row = self.policy.pack(batch)
        predicting_TD, last_RD = self.policy.states(row)
        lengths_R = torch.tensor([len(c) for item in batch for c in item.completions], device=last_RD.device)
        wanted = written or self.head.likelihood is not None
        logprob_T = self.policy.stats(predicting_TD, row).logprob_T if wanted else None
        responses = [index for item in batch for index in item.rollouts]
        return Read(responses, self.head(last_RD, logprob_T, lengths_R), lengths_R, logprob_T)

    @torch.no_grad()
    def scores(self, items: Sequence[Item], token_budget: int) -> list[float]:
        """sigmoid(logit) of each response, by its index."""
        found: dict[int, float] = {}
        for batch in split(items, token_budget):
            read = self.read(batch, written=False)
            found |= dict(zip(read.responses, read.logit_R.sigmoid().tolist(), strict=True))
        return [found[i] for i in range(len(found))]


@dataclass(frozen=True, eq=False)
class Read:
    """Responses of a pack by their indices: logits, lengths in tokens, and the log-probs of their tokens one response after another."""

    responses: Sequence[int]
    logit_R: Tensor
    lengths_R: Tensor
    logprob_T: Tensor | None


@dataclass
class ValueTrainer(SftTrainer):
    """Rows carry their score in meta["score"]. The optimiser is one of `valued`, whose policy is the trainer's."""

    valued: Valued
    imitation: float

    def items(self, rows: Sequence[Sample]) -> list[Item]:
        return answered(self.chat, rows)

    @guarded("update")
    def update(self, items: Sequence[Item], rows: Sequence[Sample], step: int) -> Metrics:
        scores = [float(row.meta["score"]) for row in rows]
        good_tokens = sum(len(c) for item in items for c, i in zip(item.completions, item.rollouts, strict=True) if scores[i] == 1)
        total = {"loss/value": 0.0, "loss/imitation": 0.0, "value/mae": 0.0}
        for batch in split(items, self.token_budget):
            read = self.valued.read(batch, written=self.imitation > 0)
            target_R = torch.tensor([scores[i] for i in read.responses], device=read.logit_R.device)
            value = binary_cross_entropy_with_logits(read.logit_R, target_R, reduction="sum") / len(rows)
            copied = _imitated(read, target_R) / max(1, good_tokens) if self.imitation else value.new_zeros(())
            (value + self.imitation * copied).backward()
            self.optimiser.gather()
            total["loss/value"] += float(value.detach())
            total["loss/imitation"] += float(copied.detach())
            total["value/mae"] += float((read.logit_R.detach().sigmoid() - target_R).abs().sum()) / len(rows)
        metrics = self.optimiser.step(step - 1, lambda: ", ".join(row.id for row in rows))
        return metrics | total | {"loss/total": total["loss/value"] + self.imitation * total["loss/imitation"]}


def _imitated(read: Read, target_R: Tensor) -> Tensor:
    """Summed negative log-prob of the tokens of the responses of score 1."""
    assert read.logprob_T is not None
    return -(read.logprob_T * (target_R == 1).repeat_interleave(read.lengths_R)).sum()


def answered(chat: Chat, rows: Sequence[Sample]) -> list[Item]:
    """Question and response of each row in the tokens that a reward model reads: the template's turns, the closing of the last included.

    Raises RowError for a row without a response.
    """
    closing = _closing(chat)
    if missing := [row for row in rows if not row.response]:
        raise RowError(missing[0].id, "it has no response to grade")
    return [Item(chat.prompt(row), ((*chat.ids_of(row.response or ""), *closing),), (i,)) for i, row in enumerate(rows)]


def _closing(chat: Chat) -> tuple[int, ...]:
    """What the chat template writes after the assistant's text. Raises UserError for a template that changes that text."""
    turns = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in (("user", "q"), ("assistant", _MARK))]
    text = chat.processor.apply_chat_template(turns, tokenize=False)
    before, found, after = text.rpartition(_MARK)
    if not found or not after or not before:
        raise UserError("the chat template does not write the assistant's turn with an end, so no value can be read there")
    return tuple(chat.tokenizer(after, add_special_tokens=False)["input_ids"])
