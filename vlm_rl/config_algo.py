"""The section `algo:`: advantage, ratio, loss, aggregation, KL, corrections. Every published algorithm is a setting of these axes
(configs/fragments/algo_*.yaml); docs/algorithms.md has the equations. Names are those of the tables in vlm_rl/algo/."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from vlm_rl.config_section import Section


class ReferenceConfig(Section):
    """Whom the KL term holds the policy to: the model it started from, or one that follows the policy, mix x policy + (1 - mix) x itself
    after every `every` steps (TR-DPO, arXiv 2404.09656; with every: 1 an exponential moving average)."""

    kind: Literal["fixed", "ema"] = "fixed"
    mix: float = Field(default=0.6, gt=0, le=1)
    every: int = Field(default=512, ge=1)


class CorrectionConfig(Section):
    """A weight against the gap between engine and trainer, an entry of algo.mismatch.CORRECTIONS, with the bounds of its ratio."""

    use: str
    low: float | None = Field(default=None, ge=0)
    high: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _bounds(self) -> "CorrectionConfig":
        if self.low is None and self.high is None:
            raise ValueError("a correction needs a bound of its ratio; write low, high or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low={self.low} is above high={self.high}")
        return self


class DynamicConfig(Section):
    """Dynamic sampling (DAPO): only groups whose reward labelled `reward` differs between rollouts are trained on; others are replaced by
    groups of further prompts, in at most `tries` draws of rollout.prompts_per_step prompts each."""

    reward: str = "accuracy"
    tries: int = Field(default=4, ge=1)


class ReplayConfig(Section):
    """Groups of earlier steps that are trained on once more beside the step's own, the most valuable first."""

    share: float = Field(default=0.25, ge=0, le=1, description="replayed groups per prompt of rollout.prompts_per_step; 0 is no replay")
    value: str = Field(default="spread", description="an entry of replay.VALUES")
    groups: int = Field(default=64, ge=1, description="most groups that are kept; those of the lowest value go first")
    max_age: int = Field(default=8, ge=1, description="steps after which a group is dropped")


class AlgoConfig(Section):
    loss: str = Field(default="grpo", description="an entry of algo.losses.LOSSES or module:Name")
    loss_settings: dict[str, Any] = Field(
        default_factory=dict,
        description="the loss's own settings, such as dual_clip of grpo; null forgets those of a file that is extended",
    )
    ratio: str = Field(default="token", description="an entry of algo.ratios.LEVELS: of what the importance ratio is")
    clip_low: float = Field(default=0.2, description="ratios below 1 - clip_low are clipped")
    clip_high: float = Field(default=0.2, description="ratios above 1 + clip_high are clipped")
    aggregation: str = Field(default="sequence_mean", description="an entry of algo.losses.AGGREGATIONS")
    norm_length: int | None = Field(
        default=None, ge=1, description="the divisor of token_sum_norm; without it rollout.max_new_tokens, so that gradients are small"
    )
    advantage: str = Field(default="group_std", description="an entry of algo.advantages.ADVANTAGES or module:Name")
    advantage_eps: float = 1e-4
    rewards: Literal["sum_then_normalize", "normalize_then_sum", "whiten_then_sum"] = Field(
        default="sum_then_normalize",
        description="one advantage of the rewards' sum; or (GDPO) each reward's own, summed and whitened; or one of the sum of rewards "
        "that are each whitened over the batch",
    )
    least_std: float = Field(default=0.05, ge=0, description="a reward normalised alone: a spread below this is not blown up to one")
    batch: Literal["none", "reward_std", "whiten", "whiten_tokens"] | None = Field(
        default=None, description="what is done with advantages over the whole batch; without it whiten for normalize_then_sum, else none"
    )
    credit: str = Field(
        default="uniform", description="an entry of credit.CREDITS or module:Name: from a rollout's advantage to its tokens'"
    )
    kl_weight: float = Field(default=0.0, ge=0, description="beta; at 0 no reference model is made")
    kl: Literal["k1", "k2", "k3"] = "k3"
    kl_in: Literal["loss", "reward"] = Field(default="loss", description="in the reward it is the sum of k1 over the rollout's tokens")
    kl_gradient: Literal["own", "ratio", "straight"] = Field(default="own", description="in the loss; an entry of algo.kl.GRADIENTS")
    kl_target: float | None = Field(default=None, gt=0, description="nats per token; kl_weight is adapted to come there")
    kl_horizon: float = Field(default=10000.0, gt=0, description="rollouts; with kl_target, how slowly")
    reference: ReferenceConfig = ReferenceConfig()
    old_logprobs: Literal["trainer", "engine"] = Field(
        default="trainer", description="whose log-probs of the sampling policy the ratio is taken to; the engine's cost no forward"
    )
    correction: tuple[CorrectionConfig, ...] = Field(default=(), description="weights against the engine's gap, multiplied")
    off_policy_mask: float | None = Field(
        default=None, gt=0, description="leave out rollouts of negative advantage that drifted by more nats per token than this"
    )
    mask_truncated: bool = Field(default=False, description="rollouts cut off at the limit are in their group's mean, but not trained on")
    entropy_bonus: float = Field(default=0.0, ge=0, description="weight of the mean entropy per token, which is raised")
    top_entropy: float = Field(default=1.0, gt=0, le=1, description="share of the tokens, those of highest entropy, that are trained on")
    dynamic_sampling: DynamicConfig | None = None
    replay: ReplayConfig | None = None

    @field_validator("loss_settings", mode="before")
    @classmethod
    def _forgotten(cls, settings: Any) -> Any:
        return {} if settings is None else settings
