"""LoRA by PEFT: adapters put into a model that stays the model it was; switched off to ask what it was; merged into copies for others.

PEFT puts its layers in the place of linear ones, so that packing, engines and checkpointing see the same module tree as before. Adapters
are float32 whatever the model is. It is imported only where adapters are used.
"""

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlm_rl import parts
from vlm_rl.config_finetune import LoraConfig
from vlm_rl.engine.base import Engine, GenerateRequest, Progress, ScoreRequest
from vlm_rl.errors import UserError
from vlm_rl.packing import Pack
from vlm_rl.policy import Policy, TokenStats
from vlm_rl.types import Completion

NAME = "default"  # PEFT's, of the only adapter there is
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # what PEFT's own files put before the names of the model that adapters are in


def attach(model: Any, config: LoraConfig, base: str, seed: int) -> None:
    """Put new adapters, which change nothing yet, on the model and freeze the rest. `base` is where the model is loaded from."""
    import peft

    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # pyright: ignore[reportArgumentType] - any number
        lora_dropout=config.dropout,
        use_dora=config.dora,
        use_rslora=config.rslora,
        target_modules=parts.linear_layers(model, config.parts),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.get_peft_model(model, settings)
    model.peft_config[NAME].base_model_name_or_path = base


def has_adapters(model: Any) -> bool:
    return NAME in vars(model).get("peft_config", {})


def named(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The adapters' own weights under the names of PEFT's files."""
    import peft

    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    return ((_PREFIX + name, tensor.detach()) for name, tensor in state.items())


def save(directory: Path, model: Any) -> None:
    """Adapters alone, as PEFT saves them."""
    save_file({name: tensor.cpu().contiguous() for name, tensor in named(model)}, directory / WEIGHTS, {"format": "pt"})
    settings = copy.deepcopy(model.peft_config[NAME])
    settings.inference_mode, settings.target_modules = True, sorted(settings.target_modules)
    settings.save_pretrained(str(directory))


def load(directory: Path, model: Any) -> None:
    """The adapters that `save` wrote into those of `model`. Raises UserError when they do not fit."""
    import peft

    saved = {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(directory / WEIGHTS).items()}
    wanted = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    shapes = [{name: tuple(t.shape) for name, t in state.items()} for state in (saved, wanted)]
    if shapes[0] != shapes[1]:
        odd = sorted(name for name in saved.keys() | wanted.keys() if shapes[0].get(name) != shapes[1].get(name))
        raise UserError(f"{directory}: its adapters are not those of model.lora: {len(odd)} tensors differ, such as {odd[0]}")
    peft.set_peft_model_state_dict(model, saved)


def layers(model: Any) -> dict[str, Any]:
    """The adapted layers by name."""
    if not has_adapters(model):
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


@torch.no_grad()
def merged(adapted: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Weights of adapted layers with the adapters in them, under the names of the model without any. Each layer is copied for it, one at
    a time; those that train are not touched."""
    for name, layer in adapted.items():
        twin = copy.deepcopy(layer)
        twin.merge()
        for kind, weight in twin.get_base_layer().named_parameters():
            yield f"{name}.{kind}", weight.detach()


@contextlib.contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """Within it the model answers as the one that adapters were put on."""
    adapted, mode = layers(model), model.training
    for layer in adapted.values():
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in adapted.values():
            layer.enable_adapters(True)
        model.train(mode)  # a backward pass that forwards once more must find what the forward pass found


class AdaptersOff:
    """The policy before training, out of the same weights."""

    def __init__(self, policy: Policy):
        self.policy = policy

    def __call__(self, row: Pack, temperature: float = 1.0) -> TokenStats:
        with switched_off(self.policy.model):
            return self.policy(row, temperature)


class AdaptersOffEngine:
    """An engine on the policy's own weights, answering as the policy before training."""

    def __init__(self, engine: Engine, policy: Policy):
        self.engine, self.policy = engine, policy

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress | None = None) -> list[tuple[Completion, ...]]:
        with switched_off(self.policy.model):
            return self.engine.generate(requests, progress)

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        with switched_off(self.policy.model):
            return self.engine.score(requests)

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> None:
        """It has no weights of its own, and the start does not change."""
