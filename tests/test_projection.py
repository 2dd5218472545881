"""Log-probs and entropies in tiles equal the plain formulas, values and gradients, however large the tiles are."""

import pytest
import torch
from torch import Tensor

from vlm_rl import projection

T, D, V = 23, 8, 37


def plain(hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor, banned_V: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Everything at once, as the formulas stand."""
    logp_TV = ((hidden_TD @ weight_VD.T).float().masked_fill(banned_V, float("-inf")) / temperature).log_softmax(-1)
    return logp_TV.gather(1, target_T[:, None])[:, 0], -(logp_TV.exp() * logp_TV.masked_fill(banned_V, 0)).sum(-1)


def case(dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(n, D, generator=generator).to(dtype).requires_grad_() for n in (T, V))
    banned = torch.zeros(V, dtype=torch.bool)
    banned[[3, 17]] = True
    return hidden, weight, torch.randint(4, 17, (T,), generator=generator), banned


@pytest.mark.parametrize("tokens", [1, 5, 23, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("given", ["both", "log-probs", "entropies"])
def test_values_and_gradients(monkeypatch: pytest.MonkeyPatch, tokens: int, temperature: float, given: str) -> None:
    monkeypatch.setitem(projection.TILE, "cpu", tokens * V)
    factor_T = torch.linspace(-1, 1, T)
    found = []
    for how in (projection.token_stats, plain):
        hidden, weight, target, banned = case()
        logprob_T, entropy_T = how(hidden, weight, target, banned, temperature, *([True] if how is not plain else []))
        parts = {"log-probs": (logprob_T * factor_T).sum(), "entropies": (entropy_T * factor_T**2).sum()}
        (parts[given] if given in parts else sum(parts.values())).backward()
        found.append((logprob_T.detach(), entropy_T.detach(), hidden.grad, weight.grad))
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine, theirs, atol=2e-6), (mine - theirs).abs().max()


def test_entropies_have_no_gradient_unless_asked_for() -> None:
    logprob_T, entropy_T = projection.token_stats(*case())
    assert logprob_T.requires_grad and not entropy_T.requires_grad
    with torch.no_grad():
        assert not projection.token_stats(*case())[0].requires_grad


@pytest.mark.parametrize("frozen", [0, 1])
def test_what_is_frozen_gets_no_gradient(frozen: int) -> None:
    inputs = list(case())
    inputs[frozen].requires_grad_(False)
    projection.token_stats(*inputs)[0].sum().backward()
    assert inputs[frozen].grad is None and inputs[1 - frozen].grad is not None


def test_bfloat16_weights_sum_their_gradients_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    grads = []
    for tokens in (1, 1000):
        monkeypatch.setitem(projection.TILE, "cpu", tokens * V)
        hidden, weight, target, banned = case(torch.bfloat16)
        projection.token_stats(hidden, weight, target, banned)[0].sum().backward()
        assert weight.grad is not None and weight.grad.dtype == torch.bfloat16
        grads.append(weight.grad.float())
    exact = [x.detach().double().float().requires_grad_() if x.is_floating_point() else x for x in case(torch.bfloat16)]
    plain(*exact, 1.0)[0].sum().backward()
    for grad in grads:
        assert float((grad - exact[1].grad).norm() / exact[1].grad.norm()) < 1e-2


def test_no_tensor_is_as_large_as_tokens_times_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, tuple) else (out,):
                self.size = max(self.size, x.numel() if isinstance(x, Tensor) else 0)
            return out

    monkeypatch.setitem(projection.TILE, "cpu", 2 * V)
    with Largest() as largest:
        logprob_T, entropy_T = projection.token_stats(*case(), 1.0, True)
        (logprob_T + entropy_T).sum().backward()
    assert largest.size == V * D
