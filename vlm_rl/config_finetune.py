"""The keys of `model:` that say what of it trains: named parts in full, or LoRA adapters on named parts."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from vlm_rl.config_section import Section
from vlm_rl.families import Part


class LoraConfig(Section):
    """Adapters (LoRA, arXiv 2106.09685) on every linear layer of `parts`, without the vocabulary projection; all else is frozen."""

    parts: tuple[Part, ...] = Field(default=("text",), min_length=1)
    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0, description="an adapter counts alpha / rank times, with rslora alpha / sqrt(rank) times")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of an adapter's input; for vlm-rl sft only")
    dora: bool = Field(default=False, description="weights' lengths are trained apart from their directions (arXiv 2402.09353)")
    rslora: bool = Field(default=False, description="see alpha (arXiv 2312.03732)")


class TrainableConfig(Section):
    train: tuple[Part, ...] = Field(default=(), description="parts that train, the others are frozen; without it the whole model trains")
    lora: LoraConfig | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "TrainableConfig":
        if self.lora is not None and self.train:
            raise ValueError("model.lora freezes the model itself, model.train trains it; leave one of them out")
        return self

    @property
    def trained(self) -> tuple[Part, ...]:
        """By name where any is named."""
        return self.lora.parts if self.lora is not None else self.train


def check_base(model: Any) -> Any:
    """Raises ValueError for adapters on a random model."""
    if model.lora is not None and model.path is None:
        raise ValueError("model.lora needs model.path: adapters are saved without the model they belong to")
    return model


def check_rates(model: TrainableConfig, rates: Mapping[Part, float]) -> None:
    """Raises ValueError for the rate of a part that does not train."""
    if model.trained and (idle := [part for part in rates if part not in model.trained]):
        raise ValueError(f"optim.part_learning_rates.{idle[0]}: this part does not train; {', '.join(model.trained)} does")


def check_rl(model: TrainableConfig, reference: str) -> None:
    """Raises ValueError for what only a supervised fine-tuning may do, and for a reference that LoRA has no copy for."""
    if model.lora is not None and model.lora.dropout:
        raise ValueError("model.lora.dropout: log-probs with dropped inputs are not those that were sampled; write 0 or use vlm-rl sft")
    if model.lora is not None and reference != "fixed":
        raise ValueError(
            f"algo.reference.kind={reference}: with model.lora the reference is the model without its adapters and cannot follow; write "
            "algo.reference.kind=fixed, or leave model.lora out"
        )


def check_apart(lora: LoraConfig | None, engine: str, sleep_level: int) -> None:
    """Raises ValueError for adapters that vLLM cannot take as adapters."""
    key, merged = "rollout.vllm.adapters=adapter", "write rollout.vllm.adapters=merged"
    if lora is None or engine != "vllm":
        raise ValueError(f"{key} is about the adapters of model.lora and rollout.engine=vllm; {merged}, or write both")
    if lora.dora:
        raise ValueError(f"{key}: vLLM knows no adapters of model.lora.dora=true; {merged}")
    if sleep_level == 2:
        raise ValueError(
            f"{key}: with rollout.vllm.sleep_level=2 vLLM throws its weights away, and an adapter does not bring them back; write "
            "rollout.vllm.sleep_level=1, or rollout.vllm.adapters=merged"
        )
