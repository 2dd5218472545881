"""vLLM that is given LoRA adapters as adapters: its weights stay those it began with, and only a few megabytes move at a sync.

vLLM knows an adapter, and all it keeps of it, by number and name. So each sync brings a new number, a new name and a new directory, and
an adapter that it would take only in part (it says so nowhere) is refused.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from safetensors.torch import save_file

from vlm_rl.adapters import SETTINGS
from vlm_rl.chat import Chat
from vlm_rl.config import LoraConfig, VLLMConfig
from vlm_rl.engine.base import Engine, GenerateRequest, Progress, ScoreRequest
from vlm_rl.engine.vllm import VLLMEngine, import_vllm
from vlm_rl.errors import UserError
from vlm_rl.lora import WEIGHTS
from vlm_rl.types import Completion

KEY = "rollout.vllm.adapters=adapter"
MERGED = "write rollout.vllm.adapters=merged"


class VLLMAdapterEngine(VLLMEngine):
    """`load_weights` takes what `lora.named` gives, and must be called once before anything is asked. vLLM computes with adapters in the
    model's number format. Raises UserError for a model, a part of it or a rank that this vLLM has no adapters for."""

    def __init__(self, source: str, chat: Chat, settings: VLLMConfig, scorer: Engine, max_tokens: int, lora: LoraConfig):
        self.lora, self.numbers, self.visual = lora, itertools.count(1), any(part != "text" for part in lora.parts)
        self.scratch: TemporaryDirectory[str] | None = None
        import_vllm()
        options = {**_options(lora), "enable_tower_connector_lora": self.visual}
        try:
            super().__init__(source, chat, settings, scorer, max_tokens, options)
        except UserError as error:
            raise UserError(f"{error}; if it has no adapters for this model, {MERGED}") from error

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Adapters in the place of those before, by another name; whatever was computed with those is forgotten."""
        number = next(self.numbers)
        scratch = TemporaryDirectory(prefix="vlm-rl-adapter-")
        _write(Path(scratch.name), dict(weights), self.lora)
        asked, old = self._named(number, scratch.name), self.adapter
        engine = self.llm.llm_engine
        if old is not None:
            engine.remove_lora(old.lora_int_id)
        try:
            engine.add_lora(asked)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{KEY}: vLLM cannot take the adapter: {str(error).strip()}; {MERGED}") from error
        if left := sorted(set().union(*self.llm.apply_model(_left_out))):
            raise UserError(f"{KEY}: vLLM has no adapters on {len(left)} layers that have one, such as {left[0]}; {MERGED}")
        self.adapter = asked
        if self.scratch is not None:
            self.scratch.cleanup()
        self.scratch = scratch
        self.forget()

    def written(self, requests: Sequence[GenerateRequest], progress: Progress | None, adapter: Any) -> list[tuple[Completion, ...]]:
        """With adapters in the tower prompts with videos are asked after the others: vLLM (seen in 0.32) tells its adapters of all tokens
        that the tower is to see in a step, and then lets it see pictures and videos apart. Raises UserError for a prompt with both."""
        if not self.visual:
            return super().written(requests, progress, adapter)
        kinds = [{medium.kind for medium in request.prompt.sample.media} for request in requests]
        for request, kind in zip(requests, kinds, strict=True):
            if len(kind) > 1:
                row = request.prompt.sample.id
                raise UserError(f"row {row}: {KEY} with adapters beside the text is not for pictures and videos in one prompt; {MERGED}")
        told: dict[int, tuple[Completion, ...]] = {}
        for clips in (False, True):
            places = [i for i, kind in enumerate(kinds) if ("video" in kind) == clips]
            told |= zip(places, super().written([requests[i] for i in places], None, adapter), strict=True)
        if progress and requests:
            total = sum(len(request.seeds) for request in requests)
            progress(total, total)
        return [told[i] for i in range(len(requests))]

    def without_adapter(self) -> Engine:
        """The same vLLM, answering by the weights alone."""
        return _Bare(self)

    def _named(self, number: int, directory: str) -> Any:
        from vllm.lora.request import LoRARequest

        return LoRARequest(f"sync-{number}", number, directory)


class _Bare:
    """Continuations are scored by the policy's own engine, whose adapters are switched off around it."""

    def __init__(self, engine: VLLMAdapterEngine):
        self.engine = engine

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress | None = None) -> list[tuple[Completion, ...]]:
        return self.engine.written(requests, progress, None)

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        return self.engine.score(requests)

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Its weights are those vLLM began with."""


def _options(lora: LoraConfig) -> Mapping[str, Any]:
    from vllm.config.lora import MaxLoRARanks

    ranks = [rank for rank in get_args(MaxLoRARanks) if rank >= lora.rank]
    if not ranks:
        raise UserError(f"{KEY}: vLLM takes adapters up to rank {max(get_args(MaxLoRARanks))}, not model.lora.rank={lora.rank}; {MERGED}")
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": min(ranks)}


def _write(directory: Path, weights: Mapping[str, torch.Tensor], lora: LoraConfig) -> None:
    """In the layout of PEFT, as far as vLLM reads it."""
    save_file({name: weight.cpu().contiguous() for name, weight in weights.items()}, directory / WEIGHTS, {"format": "pt"})
    layers = sorted({name.rpartition(".lora_")[0] for name in weights})
    settings = {"peft_type": "LORA", "r": lora.rank, "lora_alpha": lora.alpha, "use_rslora": lora.rslora, "target_modules": layers}
    (directory / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")


def _left_out(model: Any) -> set[str]:
    """Layers that an adapter was brought for and that vLLM has none on: it loads these weights and never looks at them."""
    manager = model.lora_manager
    return {name for adapter in manager.list_adapters().values() for name in adapter.loras} - set(manager.modules)
