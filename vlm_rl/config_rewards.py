"""The sections that say what is rewarded: one entry of `rewards:` with its weight, schedule, transform and gates. Knows no reward."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from vlm_rl.config_section import Section


class ScheduleConfig(Section):
    """A factor over training: constant, or from 1 to `final` over `anneal_steps` (linear, cosine), or exp(-step / anneal_steps)."""

    kind: Literal["constant", "linear", "cosine", "exponential"] = "constant"
    anneal_steps: int = Field(default=1, ge=1)
    final: float = 0.0


class TransformConfig(BaseModel):
    """What a reward's values become before they are weighted; other keys are the transform's own settings."""

    model_config = ConfigDict(frozen=True, extra="allow")
    use: str

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class GateConfig(Section):
    """What a reward's contribution is multiplied by, seen from the reward `on`, which counts as right from `threshold` on."""

    use: str
    on: str = "accuracy"
    threshold: float = 0.5


class RewardConfig(BaseModel):
    """One entry of `rewards:`; `use` defaults to its label. Other keys are the reward's own arguments, checked by its constructor.

    `transform` and `gate` may be a name alone, and `gate` a list.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    use: str | None = None
    weight: float = 1.0
    schedule: ScheduleConfig = ScheduleConfig()
    transform: TransformConfig | None = None
    gate: tuple[GateConfig, ...] = ()
    unscored: Literal["drop_term", "impute_mean", "impute_side_mean"] = Field(
        default="drop_term",
        description="when a rollout of a group is unscored: leave the reward out of the group, or put a mean in its place",
    )

    @field_validator("transform", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"use": given} if isinstance(given, str) else given

    @field_validator("gate", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        entries = given if isinstance(given, list | tuple) else [given]
        return [{"use": entry} if isinstance(entry, str) else entry for entry in entries]

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})
