"""The schema of `judges:`, models that rewards may ask by name: behind OpenAI's chat protocol, or loaded here from Hugging Face files.

Reads no files and no environment.
"""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

RESERVED = ("policy", "start")
SCORERS = ("reward_model", "embedding")  # kinds that answer with a number, and to no prompt
_REMOTE = frozenset({"url", "model", "api_key_env", "max_concurrency", "timeout_s", "retries", "cache_dir"})
_LOCAL = frozenset({"path", "dtype", "device", "batch_size", "max_tokens"})


def checked_address(url: str | None) -> str | None:
    """An endpoint's address without what is put behind it, and without secrets. Raises ValueError."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("write an address such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("an address has no user, password or query; name the variable that holds a key as api_key_env")
    return url.rstrip("/").removesuffix("/chat/completions")


class JudgeConfig(BaseModel):
    """One entry of `judges:`. Of kind openai a question is tried 1 + `retries` times, `timeout_s` seconds each, then it counts as unscored.

    The other kinds load `path`, a Hugging Face directory or hub id, beside the policy: `hf_chat` answers prompts; `reward_model` gives a
    response a number (one output, or a value head); `embedding` gives two texts the cosine of their mean-pooled embeddings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    kind: Literal["openai", "hf_chat", "reward_model", "embedding"] = "openai"
    url: str | None = Field(default=None, description="such as http://127.0.0.1:8000/v1")
    model: str | None = Field(default=None, description="the name under which the endpoint serves it")
    path: str | None = Field(default=None, description="a Hugging Face directory or hub id")
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: int = Field(default=8, ge=1, description="most questions forwarded at once")
    max_tokens: int | None = Field(default=None, ge=1, description="longer questions go unscored; without it what the model can take")
    api_key_env: str | None = Field(
        default=None, description="the environment variable that holds the key; the key itself never stands here"
    )
    max_concurrency: int = Field(default=16, ge=1, le=256, description="most questions asked at once")
    timeout_s: float = Field(default=60.0, gt=0)
    retries: int = Field(default=3, ge=0, le=20)
    cache_dir: str | None = Field(default=None, description="keep replies here between runs")
    image_max_pixels: int = Field(default=1280 * 28 * 28, ge=28 * 28, description="larger pictures are shrunk before they are sent")

    @field_validator("url", "model", "path")
    @classmethod
    def _needed(cls, value: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("kind")
        if not value and kind is not None and (info.field_name == "path") == (kind != "openai"):
            raise ValueError(f"a judge of kind {kind} needs it")
        return value

    @model_validator(mode="after")
    def _own_keys(self) -> "JudgeConfig":
        """Defaults may be written out, as in the config that a run leaves."""
        values, fields = dict(self), type(self).model_fields
        foreign = [key for key in (_LOCAL if self.kind == "openai" else _REMOTE) if values[key] != fields[key].default]
        if foreign:
            raise ValueError(f"{', '.join(sorted(foreign))} is not for judges of kind {self.kind}")
        return self

    _address = field_validator("url")(checked_address)


def check_names(judges: dict[str, JudgeConfig]) -> dict[str, JudgeConfig]:
    """Raises ValueError for a name that rewards or overrides could not use."""
    for name in judges:
        if name in RESERVED:
            raise ValueError(f"no judge can be called '{name}': that is the model being trained; choose another name")
        if not name or "." in name or "/" in name:
            raise ValueError(f"a judge's name has no '.' or '/': '{name}'")
    return judges
