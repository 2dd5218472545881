"""What makes one number of a response read by a language model: a linear head, with or without the response's likelihood beside it.

    logit = w . h_last + b [+ u . (mean p, mean log p, min log p)]        over the tokens of the response, log p not below FLOOR

The head alone is what TRL and LLaMA-Factory save. The second part is ours: a policy that sees gives what is not so little probability,
long before a head has learnt to ask its hidden states. It is saved beside the head, and only this program reads it.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FILE = "value_head.safetensors"
PREFIX = "v_head.summary."
LIKELIHOOD = "v_head.likelihood.weight"
FEATURES = 3
FLOOR = -10.0
_SCALE = (
    100.0  # of a weight as it is used to one as it is trained: probabilities are small beside hidden states, and have one rate with them
)


class ValueHead(nn.Module):
    """Zero, so that every response gets logit 0, until it is trained or `load_head` fills it."""

    def __init__(self, width: int, likelihood: bool, bias: bool = True):
        super().__init__()
        self.summary = nn.Linear(width, 1, bias=bias)
        self.likelihood = nn.Linear(FEATURES, 1, bias=False) if likelihood else None
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def forward(self, last_RD: Tensor, logprob_T: Tensor | None, lengths_R: Tensor) -> Tensor:
        """(R,) logits. `logprob_T` are those of all responses' tokens, one response after another, needed where likelihood counts."""
        logit_R = self.summary(last_RD.float())[:, 0]
        if self.likelihood is None:
            return logit_R
        assert logprob_T is not None
        return logit_R + _SCALE * self.likelihood(features(logprob_T.float(), lengths_R))[:, 0]

    def save(self, directory: Path) -> None:
        state = {f"{PREFIX}{name}": tensor for name, tensor in self.summary.state_dict().items()}
        if self.likelihood is not None:
            state[LIKELIHOOD] = self.likelihood.weight * _SCALE
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, directory / FILE)

    def fill(self, tensors: Mapping[str, Tensor], prefix: str = PREFIX) -> None:
        """From what a file holds, whose shapes are this head's."""
        self.summary.load_state_dict({name: tensors[f"{prefix}{name}"] for name in self.summary.state_dict()})
        if self.likelihood is not None:
            self.likelihood.load_state_dict({"weight": tensors[LIKELIHOOD] / _SCALE})


def features(logprob_T: Tensor, lengths_R: Tensor) -> Tensor:
    """(R, 3): mean p, mean log p and min log p of each response's tokens, log p not below FLOOR."""
    parts = [torch.stack([part.exp().mean(), part.mean(), part.min()]) for part in logprob_T.clamp(min=FLOOR).split(lengths_R.tolist())]
    return torch.stack(parts)


def load_head(directory: Path) -> Mapping[str, Tensor]:
    return load_file(directory / FILE)
