"""The section `model`: what is loaded or made, and how its pictures and videos are read."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from vlm_rl.config_finetune import TrainableConfig, check_base
from vlm_rl.config_section import Section
from vlm_rl.errors import UserError
from vlm_rl.families import family_of


class ScratchConfig(Section):
    """A small model of a real family, made from sizes instead of loaded. Its tokenizer is trained on the data."""

    family: str = "qwen2_5_vl"
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    vision_hidden_size: int = 96
    vision_layers: int = 2
    patch_size: int = 14
    vocab_size: int = 512
    initializer_range: float = 0.08
    image_size: int = Field(
        default=84, description="side in pixels of the squares that the tower sees; where it takes any shape, pictures get that area"
    )

    @field_validator("family")
    @classmethod
    def _known(cls, family: str) -> str:
        try:
            family_of(family)
        except UserError as error:
            raise ValueError(str(error)) from None
        return family


class ModelConfig(Section):
    """`path` is a Hugging Face directory or hub id; `scratch` makes a small random model instead. Exactly one of them."""

    path: str | None = None
    scratch: ScratchConfig | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attention: Literal["shared_prefix", "dense", "plain"] = Field(
        default="shared_prefix", description="how a group is forwarded: fast, dense-mask oracle, or every completion with its own prompt"
    )
    gradient_checkpointing: bool = False
    max_prompt_tokens: int = Field(default=4096, ge=1)
    image_min_pixels: int | None = None
    image_max_pixels: int | None = None
    video_fps: float = Field(default=2.0, gt=0, description="frames looked at per second of video")
    video_min_frames: int = Field(default=4, ge=2)
    video_max_frames: int = Field(default=768, ge=2)
    video_min_pixels: int | None = Field(default=None, ge=1, description="per frame; without it 128 visual tokens' worth")
    video_max_pixels: int | None = Field(default=None, ge=1, description="per frame; never more than 768 visual tokens' worth")
    video_total_pixels: int | None = Field(default=None, ge=1, description="all frames together; without it 115,200 visual tokens' worth")
    video_backend: Literal["decord", "pyav"] = Field(default="decord", description="never changed silently: their pixels differ slightly")
    decode_timeout_s: float = Field(default=60.0, gt=0, description="most seconds to wait for the decoder of one video")
    processor_cache_mb: int = Field(default=1024, ge=0, description="memory for processed pictures and videos")
    processor_cache_dir: str | None = Field(default=None, description="keep processed pictures and videos here between runs")

    @model_validator(mode="after")
    def _one_source(self) -> "ModelConfig":
        if (self.path is None) == (self.scratch is None):
            raise ValueError("set exactly one of model.path and model.scratch")
        return self

    @model_validator(mode="after")
    def _bounds(self) -> "ModelConfig":
        if self.video_min_frames > self.video_max_frames:
            raise ValueError(f"model.video_min_frames={self.video_min_frames} is more than model.video_max_frames={self.video_max_frames}")
        for kind, low, high in (
            ("image", self.image_min_pixels, self.image_max_pixels),
            ("video", self.video_min_pixels, self.video_max_pixels),
        ):
            if low and high and low > high:
                raise ValueError(f"model.{kind}_min_pixels={low} is more than model.{kind}_max_pixels={high}")
        return self


class TrainedModelConfig(ModelConfig, TrainableConfig):
    _saved_apart = model_validator(mode="after")(check_base)
