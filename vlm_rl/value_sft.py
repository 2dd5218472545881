"""Fine-tuning of a scalar reward model: a linear head on the hidden state of a response's last token, fitted to the response's score.

    loss = mean over responses of BCE(sigmoid(w . h_last + b), score)

The form of Skywork-VL-Reward (arXiv 2505.07263), saved as TRL and LLaMA-Factory save theirs. Deviation: fitted to scores, not preferences.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlm_rl.chat import Chat
from vlm_rl.errors import RowError, UserError
from vlm_rl.memory import guarded
from vlm_rl.packing import Item, split
from vlm_rl.policy import Policy
from vlm_rl.sft import Metrics, SftTrainer
from vlm_rl.types import Sample

FILE = "value_head.safetensors"
PREFIX = "v_head.summary."
_MARK = "RESPONSE"


class Valued(nn.Module):
    """A policy with a value head, optimised together. The head is zero, or the one saved in `directory`."""

    def __init__(self, policy: Policy, directory: Path | None):
        super().__init__()
        self.policy = policy
        self.head = nn.Linear(policy.model.config.get_text_config().hidden_size, 1, device=policy.device)
        if directory is None:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        else:
            self.head.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in load_file(directory / FILE).items()})

    def save_head(self, directory: Path) -> None:
        """Beside the model's own files."""
        state = {f"{PREFIX}{name}": tensor.detach().cpu().contiguous() for name, tensor in self.head.state_dict().items()}
        save_file(state, directory / FILE)

    def logits(self, items: Sequence[Item], token_budget: int) -> Iterator[tuple[list[int], Tensor]]:
        """For each pack: its responses' indices, and their logits (R,) with gradient."""
        for batch in split(items, token_budget):
            hidden_RD = self.policy.last_states(self.policy.pack(batch))
            yield [index for item in batch for index in item.rollouts], self.head(hidden_RD.float())[:, 0]

    @torch.no_grad()
    def scores(self, items: Sequence[Item], token_budget: int) -> list[float]:
        """sigmoid(logit) of each response, by its index."""
        found = {
            i: float(p) for indices, logit_R in self.logits(items, token_budget) for i, p in zip(indices, logit_R.sigmoid(), strict=True)
        }
        return [found[i] for i in range(len(found))]


@dataclass
class ValueTrainer(SftTrainer):
    """Rows carry their score in meta["score"]. The optimiser is one of `valued`, whose policy is the trainer's."""

    valued: Valued

    def items(self, rows: Sequence[Sample]) -> list[Item]:
        return answered(self.chat, rows)

    @guarded("update")
    def update(self, items: Sequence[Item], rows: Sequence[Sample], step: int) -> Metrics:
        total, error = 0.0, 0.0
        for indices, logit_R in self.valued.logits(items, self.token_budget):
            target_R = torch.tensor([float(rows[i].meta["score"]) for i in indices], device=logit_R.device)
            loss = nn.functional.binary_cross_entropy_with_logits(logit_R, target_R, reduction="sum") / len(rows)
            loss.backward()
            self.optimiser.gather()
            total += float(loss.detach())
            error += float((logit_R.detach().sigmoid() - target_R).abs().sum()) / len(rows)
        metrics = self.optimiser.step(step - 1, lambda: ", ".join(row.id for row in rows))
        return metrics | {"loss/total": total, "value/mae": error}


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
