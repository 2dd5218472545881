"""One frozen schema per command, sharing sections. Reading YAML, `extends:` and `key.sub=value` is `load`'s work; nothing else reads files.

A field exists only because a shipped config or a test sets it. Unknown keys are refused with the nearest known one.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from vlm_rl.config_algo import AlgoConfig as AlgoConfig
from vlm_rl.config_data import DataConfig as DataConfig
from vlm_rl.config_distributed import DistributedConfig as DistributedConfig
from vlm_rl.config_evaluators import EvaluatorConfig, check_labels, filled
from vlm_rl.config_finetune import LoraConfig as LoraConfig
from vlm_rl.config_finetune import check_apart, check_rates, check_rl
from vlm_rl.config_judges import JudgeConfig, check_names
from vlm_rl.config_model import ModelConfig as ModelConfig
from vlm_rl.config_model import ScratchConfig as ScratchConfig
from vlm_rl.config_model import TrainedModelConfig as TrainedModelConfig
from vlm_rl.config_rewards import GateConfig as GateConfig
from vlm_rl.config_rewards import RewardConfig as RewardConfig
from vlm_rl.config_rewards import ScheduleConfig as ScheduleConfig
from vlm_rl.config_rewards import TransformConfig as TransformConfig
from vlm_rl.config_section import Section as Section
from vlm_rl.families import Part


class VLLMConfig(Section):
    """With rollout.engine: vllm."""

    max_num_seqs: int = Field(default=256, ge=1, description="most completions decoded at once")
    gpu_memory_utilization: float = Field(default=0.45, gt=0, le=1, description="share of the device's memory that vLLM takes for itself")
    enforce_eager: bool = Field(default=False, description="without CUDA graphs: starts sooner, decodes slower")
    sleep_level: Literal[0, 1, 2] = Field(default=1, description="on CUDA, what vLLM gives back during the update: 1 cache, 2 weights too")


class RolloutVLLMConfig(VLLMConfig):
    adapters: Literal["merged", "adapter"] = Field(
        default="merged", description="how vLLM gets those of model.lora: in the weights they are on, or as an adapter of its own"
    )


class RolloutConfig(Section):
    engine: Literal["hf", "vllm"] = "hf"
    vllm: RolloutVLLMConfig = RolloutVLLMConfig()
    prompts_per_step: int = Field(default=16, ge=1)
    group_size: int = Field(default=8, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, description="1 only: the trainer's log-probs are those of the whole vocabulary")
    top_k: int = Field(default=0, description="0 (all) only, for the same reason")
    max_new_tokens: int = Field(default=64, ge=1)
    stop: tuple[str, ...] = ()
    batch_size: int = Field(default=512, ge=1, description="most completions decoded at once")

    @model_validator(mode="after")
    def _whole_support(self) -> "RolloutConfig":
        if self.top_p != 1.0 or self.top_k != 0:
            raise ValueError(
                f"rollout.top_p={self.top_p:g}, rollout.top_k={self.top_k}: sampling from a part of the vocabulary makes every log-prob "
                "of the engine one under another distribution than the trainer's, and every ratio wrong; leave top_p=1 and top_k=0, and "
                "lower rollout.temperature instead, which both apply"
            )
        return self


class OptimConfig(Section):
    learning_rate: float = Field(default=1e-6, gt=0)
    part_learning_rates: dict[Part, PositiveFloat] = Field(default_factory=dict, description="other rates, on the same schedule, by part")
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    grad_clip: float = Field(default=1.0, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)


class TrainConfigSection(Section):
    steps: int = Field(ge=1)
    updates_per_rollout: int = Field(default=1, ge=1, description="passes over the same rollouts")
    mini_batches: int = Field(default=1, ge=1, description="optimiser steps per pass, each on its part of the groups")
    token_budget: int = Field(default=16384, ge=1, description="most tokens (prompts once, completions) in one forward")


class EvalSection(Section):
    """Evaluation before, after and during training, on held-out rows."""

    questions: int = Field(default=500, ge=1)
    samples: int = Field(default=8, ge=0, description="sampled answers per question beside the greedy one")
    blank_control: bool = True
    every: int | None = Field(default=None, ge=1, description="also evaluate greedily every so many steps")
    every_questions: int = Field(default=200, ge=1)


class CheckpointSection(Section):
    every: int = Field(default=50, ge=1)
    keep: int = Field(default=2, ge=1)


class TrackerSection(Section):
    tensorboard: bool = True
    wandb: bool = False
    show_rollout_every: int = Field(default=10, ge=1)


class GuardSection(Section):
    parity_every: int = Field(default=1, ge=1, description="compare engine and trainer log-probs on the first step and every so many")
    parity_limit: float = Field(default=0.05, gt=0, description="stop when the mean |log-prob difference| per token is above this")
    unscored_limit: float = Field(default=0.1, ge=0, le=1, description="stop when more than this share of a step's rewards went unscored")
    bad_row_limit: int = Field(default=10, ge=0, description="with on_bad_row: skip, stop after this many bad rows met in a run")
    alarms: dict[str, float | None] = Field(
        default_factory=dict, description="other thresholds of alarms.ALARMS by name; null silences one"
    )
    stop_on: dict[str, PositiveInt] = Field(
        default_factory=dict, description="end training after so many steps in a row at which the alarm of that name rings"
    )


class TrainConfig(Section):
    """`vlm-rl train`"""

    run_dir: str
    seed: int = 0
    model: TrainedModelConfig
    data: DataConfig
    eval_data: DataConfig | None = None
    augment: dict[str, float] = Field(default_factory=dict, description="shares of training prompts under a view, by its name")
    rollout: RolloutConfig = RolloutConfig()
    rewards: dict[str, RewardConfig]
    judges: dict[str, JudgeConfig] = Field(default_factory=dict)
    evaluators: dict[str, EvaluatorConfig] = Field(default_factory=dict, description="what else is measured every eval.every steps")
    algo: AlgoConfig = AlgoConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfigSection
    eval: EvalSection = EvalSection()
    checkpoint: CheckpointSection = CheckpointSection()
    tracker: TrackerSection = TrackerSection()
    guards: GuardSection = GuardSection()
    distributed: DistributedConfig = DistributedConfig()

    @field_validator("rewards")
    @classmethod
    def _labels(cls, rewards: dict[str, RewardConfig]) -> dict[str, RewardConfig]:
        if not rewards:
            raise ValueError("at least one reward is needed, for instance accuracy: {weight: 1.0}")
        if dotted := [label for label in rewards if "." in label or "/" in label]:
            raise ValueError(f"a reward's label has no '.' or '/': {dotted[0]}")
        return rewards

    _judge_names = field_validator("judges")(check_names)
    _entries = field_validator("evaluators", mode="before")(filled)
    _evaluator_labels = field_validator("evaluators")(check_labels)

    @model_validator(mode="after")
    def _parts(self) -> "TrainConfig":
        if self.train.mini_batches > self.rollout.prompts_per_step:
            raise ValueError(
                f"train.mini_batches={self.train.mini_batches} is more than rollout.prompts_per_step={self.rollout.prompts_per_step}; a "
                "mini-batch holds whole groups"
            )
        check_rates(self.model, self.optim.part_learning_rates)
        if self.model.lora is not None and self.distributed.zero:
            raise ValueError(
                f"distributed.zero={self.distributed.zero} with model.lora: adapters are so small that nothing is won by sharing out their "
                "optimiser, and DeepSpeed would round them to the model's dtype; write distributed.zero=0"
            )
        check_rl(self.model, self.algo.reference.kind)
        if self.rollout.vllm.adapters == "adapter":
            check_apart(self.model.lora, self.rollout.engine, self.rollout.vllm.sleep_level)
        dynamic = self.algo.dynamic_sampling
        if dynamic and dynamic.reward not in self.rewards:
            raise ValueError(f"algo.dynamic_sampling.reward={dynamic.reward} is no reward's label; known: {', '.join(self.rewards)}")
        return self


class SftSection(Section):
    steps: int = Field(ge=1)
    batch_size: int = Field(default=32, ge=1)
    token_budget: int = Field(default=16384, ge=1)


class SftPhase(Section):
    """Other rows for the first steps: `data` of the config follows when all phases are over."""

    steps: int = Field(ge=1)
    data: DataConfig


class JudgeTraining(Section):
    """Rows of a question, a response and a score become what a judge is asked and what it should write; held-out ones measure it."""

    form: Literal["text", "value"] = Field(
        default="text", description="writes the score (judges of kind hf_chat), or has a value head (reward_model)"
    )
    prompt: str = Field(default="thinking", description="of form text: a prompt of rewards.judging for question and trace, or a .txt file")
    score: str = Field(default="score", description="the field that holds a response's score, from 0 to 1")
    per_bucket: int = Field(default=5000, ge=1, description="most rows trained on of each tenth of the scale: raw scores are bimodal")
    likelihood: bool = Field(default=False, description="of form value: the head also reads how likely the model finds the response")
    imitation: float = Field(
        default=0.0, ge=0, description="of form value: weight of also learning to write the responses of score 1, which keeps it looking"
    )

    @model_validator(mode="after")
    def _of_the_form(self) -> "JudgeTraining":
        if self.form == "text" and (self.likelihood or self.imitation):
            raise ValueError(
                "likelihood and imitation are for form: value; one that writes its score has no head to read or keep seeing for"
            )
        return self


class SftConfig(Section):
    """`vlm-rl sft`; with `judge` it trains a judge."""

    run_dir: str
    seed: int = 0
    model: TrainedModelConfig
    data: DataConfig
    phases: tuple[SftPhase, ...] = ()
    judge: JudgeTraining | None = None
    eval_data: DataConfig | None = None
    optim: OptimConfig = OptimConfig()
    train: SftSection
    rollout: RolloutConfig = RolloutConfig()
    eval: EvalSection = EvalSection()
    checkpoint: CheckpointSection = CheckpointSection()
    tracker: TrackerSection = TrackerSection()
    guards: GuardSection = GuardSection()

    @field_validator("rollout")
    @classmethod
    def _own_engine(cls, rollout: RolloutConfig) -> RolloutConfig:
        if rollout.engine != "hf":
            raise ValueError("engine: only vlm-rl train has another than hf; a fine-tuning answers with the model it trains")
        return rollout

    @model_validator(mode="after")
    def _what_trains(self) -> "SftConfig":
        check_rates(self.model, self.optim.part_learning_rates)
        if self.model.lora is not None and self.judge is not None and self.judge.form == "value":
            raise ValueError("model.lora is not for judges of form value: their head is trained with the model; leave it out")
        return self

    @model_validator(mode="after")
    def _judges_in_one_phase(self) -> "SftConfig":
        if self.judge is not None and self.phases:
            raise ValueError("phases are not for the training of a judge; leave phases or judge out")
        return self


def project_path(path: str | Path) -> Path:
    """A relative path as given if it exists from here, else beside the installed packages (how shipped files are found)."""
    here = Path(path).expanduser()
    beside = Path(__file__).resolve().parent.parent / here
    return beside if not here.is_absolute() and not here.exists() and beside.exists() else here
