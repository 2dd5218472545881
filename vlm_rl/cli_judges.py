"""Judges made from a config: keys looked up, pictures and frames encoded as they are sent. Composition only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from data.media import decode_image, png_media
from data.video import decode_video
from vlm_rl.config import ModelConfig, TrainConfig
from vlm_rl.config_judges import JudgeConfig
from vlm_rl.engine.base import Judge
from vlm_rl.engine.http_json import Endpoint
from vlm_rl.engine.openai import OpenAIJudge
from vlm_rl.errors import UserError
from vlm_rl.types import Media, VideoBudget

FRAMES = 8  # of a video, sent as pictures: the protocol has no common form for videos


def make_judges(config: TrainConfig, environment: Mapping[str, str]) -> dict[str, Judge]:
    """One judge per entry of `judges:`; nothing is sent or loaded yet. Raises UserError, naming the variable, for a key that is not set."""
    return judges_of(config.judges, config.model, environment)


def judges_of(judges: Mapping[str, JudgeConfig], model: ModelConfig, environment: Mapping[str, str]) -> dict[str, Judge]:
    """The same of a `judges:` section alone; `model` says how videos become frames."""
    return {name: _make(name, settings, model, environment) for name, settings in judges.items()}


def _make(name: str, settings: JudgeConfig, model: ModelConfig, environment: Mapping[str, str]) -> Judge:
    pictures = Pictures(settings.image_max_pixels, model)
    if settings.kind != "openai":
        from vlm_rl.engine.hf_judge import make_local  # only here is torch needed for a judge

        return make_local(name, settings, pictures)
    assert settings.url and settings.model
    limits = (settings.max_concurrency, settings.timeout_s, settings.retries)
    key = key_of(settings.api_key_env, f"judges.{name}.api_key_env", environment)
    endpoint = Endpoint(name, settings.url, settings.model, key, *limits)
    cache_dir = Path(settings.cache_dir).expanduser() if settings.cache_dir is not None else None
    return OpenAIJudge(endpoint, pictures, cache_dir)


def key_of(variable: str | None, setting: str, environment: Mapping[str, str]) -> str | None:
    """The key in the environment variable that `setting` of the config names, None where it names none. Raises UserError."""
    if variable is None:
        return None
    key = environment.get(variable, "").strip()
    where = f"{setting}: the environment variable {variable}"
    if not key:
        raise UserError(f"{where} is not set or empty")
    if not key.isascii() or not key.isprintable():
        raise UserError(f"{where} holds characters that no key has")
    return key


@dataclass(frozen=True)
class Pictures:
    """A medium as PNGs of at most `most_pixels`: a picture, or frames drawn evenly from a video. Raises RowError for an unreadable one."""

    most_pixels: int
    model: ModelConfig
    frames: int = FRAMES

    def __call__(self, medium: Media, row: str) -> list[bytes]:
        return [_png(image) for image in self._images(medium, row)]

    def _images(self, medium: Media, row: str) -> list[Image.Image]:
        if medium.kind == "image":
            image = decode_image(medium, row)
            scale = math.sqrt(self.most_pixels / (image.width * image.height))
            small = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
            return [image if scale >= 1 else image.resize(small)]
        rate = self.model.video_fps
        budget = VideoBudget(rate, 2, self.frames, 1, self.most_pixels, self.most_pixels * self.frames, 2, self.model.video_backend)
        return [Image.fromarray(frame) for frame in decode_video(medium, budget, row, self.model.decode_timeout_s).frames]


def _png(image: Image.Image) -> bytes:
    data = png_media(image).data
    assert data is not None
    return data
