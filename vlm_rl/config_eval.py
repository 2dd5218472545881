"""The schema of an evaluation on a benchmark: what is asked (a benchmark and where its rows are) and how it is answered. Reads no files."""

from typing import Any, Literal

from pydantic import Field, field_validator

from vlm_rl.config import DataConfig, ModelConfig, Section


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


class EvalRolloutConfig(Section):
    """How a question is answered in an evaluation."""

    engine: Literal["hf"] = "hf"
    max_new_tokens: int = Field(default=1024, ge=1)
    stop: tuple[str, ...] = ()
    batch_size: int = Field(default=64, ge=1, description="most completions decoded at once")


class EvalConfig(Section):
    """A config with `benchmark:`; `model=PATH` as an override is short for model.path."""

    run_dir: str
    seed: int = 0
    model: ModelConfig | None = None
    data: DataConfig
    benchmark: BenchmarkConfig
    rollout: EvalRolloutConfig = EvalRolloutConfig()

    @field_validator("model", mode="before")
    @classmethod
    def _path_only(cls, model: Any) -> Any:
        return {"path": model} if isinstance(model, str) else model
