"""The schema of `vlm-rl eval` and `vlm-rl stress`: which rows, which model, how it answers, what is measured. Reads no files."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from vlm_rl.config import DataConfig, ModelConfig, Section, VLLMConfig
from vlm_rl.config_evaluators import EvaluatorConfig, check_labels, filled
from vlm_rl.config_judges import JudgeConfig, check_names, checked_address

_ENDPOINT = ("name", "api_key_env", "max_concurrency", "timeout_s", "retries")


class BenchmarkConfig(Section):
    """Which benchmark; `data` says where its rows are. Several configurations or splits are read one after another."""

    name: str = Field(description="an entry of the BENCHMARKS table")
    configs: tuple[str, ...] = Field(default=(), description="each in the place of data.config")
    splits: tuple[str, ...] = Field(default=(), description="each in the place of data.split")
    media_folders: dict[str, str] = Field(default_factory=dict, description="configuration -> folder of its media below data.media_root")
    whole_videos: bool = Field(default=False, description="videos are not cut yet to the seconds that their rows are about")
    subtitle_frames: int | None = Field(
        default=None, ge=1, description="the setting with subtitles: those of this many evenly drawn frames"
    )
    judge: str | None = Field(default=None, description="who of judges: grades what no rule can (TempCompass' descriptions)")


class EvalRolloutConfig(Section):
    """How a question is answered in an evaluation: greedily, and `samples` of an evaluation at `temperature`."""

    engine: Literal["hf", "vllm"] = "hf"
    vllm: VLLMConfig = VLLMConfig()
    max_new_tokens: int = Field(default=1024, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    stop: tuple[str, ...] = ()
    batch_size: int = Field(default=64, ge=1, description="most completions decoded at once")


class EvalModelConfig(ModelConfig):
    """What is evaluated: `path`, a Hugging Face directory, hub id or LoRA adapter directory, or `url`, an OpenAI-compatible endpoint that
    serves it as `name`. With neither it is the shipped small policy that fits the data.
    """

    url: str | None = Field(default=None, description="such as http://127.0.0.1:8000/v1")
    name: str | None = Field(default=None, description="under which the endpoint serves it; without it the only one it has")
    api_key_env: str | None = Field(default=None, description="the environment variable that holds the endpoint's key")
    max_concurrency: int = Field(default=16, ge=1, le=256, description="most questions that an endpoint is asked at once")
    timeout_s: float = Field(default=120.0, gt=0, description="for one answer of an endpoint")
    retries: int = Field(default=3, ge=0, le=20)

    @model_validator(mode="after")
    def _one_source(self) -> "EvalModelConfig":
        if self.path is not None and self.url is not None:
            raise ValueError("set model.path or model.url, not both")
        if self.scratch is not None:
            raise ValueError("a model made from sizes has learnt nothing to evaluate; write model=PATH or model=http://HOST:PORT/v1")
        if self.url is None:
            values, fields = dict(self), type(self).model_fields
            foreign = [f"model.{key}" for key in _ENDPOINT if values[key] != fields[key].default]
            if foreign:
                raise ValueError(f"{', '.join(foreign)}: only for an endpoint, which model.url names")
        return self

    _address = field_validator("url")(checked_address)


class EvalConfig(Section):
    """`vlm-rl eval` and `vlm-rl stress`. `model=PATH` or `model=http://HOST:PORT/v1#NAME` is short for model.path, or model.url and
    model.name. Accuracy is always measured; `evaluators` are what else is.
    """

    run_dir: str
    seed: int = 0
    model: EvalModelConfig = EvalModelConfig()
    data: DataConfig
    benchmark: BenchmarkConfig | None = None
    rollout: EvalRolloutConfig = EvalRolloutConfig()
    samples: int = Field(default=0, ge=0, description="sampled answers per question beside the greedy one")
    blank_control: bool = Field(default=True, description="ask each question again with a blank picture")
    judges: dict[str, JudgeConfig] = Field(default_factory=dict)
    evaluators: dict[str, EvaluatorConfig] = Field(default_factory=dict)
    chunk: int = Field(default=64, ge=1, description="questions between two savings: what an interruption loses, and what is in memory")
    failure_limit: float = Field(default=0.1, ge=0, le=1, description="stop when more than this share of a chunk's answers failed")

    @field_validator("model", mode="before")
    @classmethod
    def _named(cls, model: Any) -> Any:
        return spelled_out(model) if isinstance(model, str) else {} if model is None else model

    _judge_names = field_validator("judges")(check_names)
    _entries = field_validator("evaluators", mode="before")(filled)
    _labels = field_validator("evaluators")(check_labels)


def spelled_out(model: str) -> dict[str, str]:
    """spelled_out("http://127.0.0.1:8000/v1#qwen") -> {"url": "http://127.0.0.1:8000/v1", "name": "qwen"}; else a path."""
    if not model.startswith(("http://", "https://")):
        return {"path": model}
    url, _, name = model.partition("#")
    return {"url": url, **({"name": name} if name else {})}
