"""Hidden states -> log-probs and entropies of tokens, without keeping anything as large as tokens x vocabulary.

Both passes go over tiles of a bounded size; backward makes each tile's logits again and turns them into their gradient in place. The
gradient of the weights is summed in float32. Suffixes: _T tokens, _C those of one tile, _D hidden size, _V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

TILE = {"cpu": 1 << 22, "cuda": 1 << 26}  # logits at once, 4 bytes each; large enough that the weights are not read too often


def token_stats(
    hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor, banned_V: Tensor, temperature: float = 1.0, entropy_gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """(log-prob of each target, entropy), float32, of softmax(hidden weight^T / temperature) over what is not banned.

    The entropy has a gradient only where it is asked for, at the price of one more tile.
    """
    logprob_T, entropy_T = _TokenStats.apply(hidden_TD, weight_VD, target_T, banned_V, temperature)
    return logprob_T, entropy_T if entropy_gradient else entropy_T.detach()


class _TokenStats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor, banned_V: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        found = [torch.empty(len(target_T), dtype=torch.float32, device=hidden_TD.device) for _ in range(3)]
        logprob_T, entropy_T, norm_T = found
        for part in _tiles(hidden_TD, weight_VD):
            logits_CV = _logits(hidden_TD[part], weight_VD, banned_V, temperature)
            norm_T[part] = logits_CV.logsumexp(-1)
            logp_CV = logits_CV.sub_(norm_T[part, None])
            logprob_T[part] = logp_CV.gather(1, target_T[part, None])[:, 0]
            p_CV = logp_CV.exp()
            entropy_T[part] = -p_CV.mul_(logp_CV.masked_fill_(banned_V, 0.0)).sum(-1)
        ctx.save_for_backward(hidden_TD, weight_VD, target_T, banned_V, norm_T, entropy_T)
        ctx.temperature = temperature
        return logprob_T, entropy_T

    @staticmethod
    def backward(ctx: Any, logprob_grad_T: Tensor | None, entropy_grad_T: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """d log p_t / d z_j = [j = t] - p_j;  d H / d z_j = -p_j (log p_j + H)."""
        hidden_TD, weight_VD, target_T, banned_V, norm_T, entropy_T = ctx.saved_tensors
        hidden_grad = torch.empty_like(hidden_TD) if ctx.needs_input_grad[0] else None
        weight_grad = torch.zeros_like(weight_VD, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for part in _tiles(hidden_TD, weight_VD):
            logp_CV = _logits(hidden_TD[part], weight_VD, banned_V, ctx.temperature).sub_(norm_T[part, None])
            factor_C1 = torch.zeros_like(norm_T[part, None]) if logprob_grad_T is None else -logprob_grad_T[part, None]
            if entropy_grad_T is None:
                grad_CV = logp_CV.exp_().mul_(factor_C1)
            else:
                p_CV = logp_CV.exp()
                grad_CV = logp_CV.masked_fill_(banned_V, 0.0).add_(entropy_T[part, None]).mul_(-entropy_grad_T[part, None])
                grad_CV = grad_CV.add_(factor_C1).mul_(p_CV)
            if logprob_grad_T is not None:
                grad_CV.scatter_add_(1, target_T[part, None], logprob_grad_T[part, None])
            grad_CV = grad_CV.div_(ctx.temperature).to(weight_VD.dtype)
            if hidden_grad is not None:
                hidden_grad[part] = grad_CV @ weight_VD
            if weight_grad is not None and weight_VD.dtype == torch.float32:
                weight_grad.addmm_(grad_CV.T, hidden_TD[part])
            elif weight_grad is not None:
                weight_grad += grad_CV.T @ hidden_TD[part]
        return hidden_grad, None if weight_grad is None else weight_grad.to(weight_VD.dtype), None, None, None


def _tiles(hidden_TD: Tensor, weight_VD: Tensor) -> Iterator[slice]:
    tokens = max(1, TILE.get(hidden_TD.device.type, TILE["cuda"]) // len(weight_VD))
    return (slice(start, start + tokens) for start in range(0, len(hidden_TD), tokens))


def _logits(hidden_CD: Tensor, weight_VD: Tensor, banned_V: Tensor, temperature: float) -> Tensor:
    logits_CV = (hidden_CD @ weight_VD.T).float().masked_fill_(banned_V, float("-inf"))
    return logits_CV if temperature == 1.0 else logits_CV.div_(temperature)
