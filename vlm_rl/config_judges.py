"""The schema of `judges:`, models behind OpenAI's chat protocol that rewards may ask by name. Reads no files and no environment."""

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

RESERVED = ("policy", "start")


class JudgeConfig(BaseModel):
    """One entry of `judges:`. A question is tried 1 + `retries` times, `timeout_s` seconds each, then it counts as unscored."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    url: str = Field(description="such as http://127.0.0.1:8000/v1")
    model: str = Field(description="the name under which the endpoint serves it")
    api_key_env: str | None = Field(
        default=None, description="the environment variable that holds the key; the key itself never stands here"
    )
    max_concurrency: int = Field(default=16, ge=1, le=256, description="most questions asked at once")
    timeout_s: float = Field(default=60.0, gt=0)
    retries: int = Field(default=3, ge=0, le=20)
    cache_dir: str | None = Field(default=None, description="keep replies here between runs")
    image_max_pixels: int = Field(default=1280 * 28 * 28, ge=28 * 28, description="larger pictures are shrunk before they are sent")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        """Without what is put behind it, and without secrets."""
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


def check_names(judges: dict[str, JudgeConfig]) -> dict[str, JudgeConfig]:
    """Raises ValueError for a name that rewards or overrides could not use."""
    for name in judges:
        if name in RESERVED:
            raise ValueError(f"no judge can be called '{name}': that is the model being trained; choose another name")
        if not name or "." in name or "/" in name:
            raise ValueError(f"a judge's name has no '.' or '/': '{name}'")
    return judges
