"""What an evaluation asks: a model loaded here or one behind an endpoint, and what it can do. Composition only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.templates import render
from data.video import THUMBNAIL
from vlm_rl.asking import Asker
from vlm_rl.cli_judges import Pictures, key_of
from vlm_rl.config import DataConfig, project_path
from vlm_rl.config_eval import EvalConfig
from vlm_rl.config_judges import JudgeConfig
from vlm_rl.engine.base import Engine, Judge, Progress
from vlm_rl.engine.http_json import Endpoint
from vlm_rl.errors import UserError
from vlm_rl.memory import guarded
from vlm_rl.types import Outline, Sample, VideoBudget

if TYPE_CHECKING:
    from vlm_rl.chat import Chat  # loads torch
    from vlm_rl.engine.hf import HFEngine

SHIPPED = "data/policies"
FRAMES = 32  # most pictures of a video that an endpoint is sent
Problem = Callable[[Sample, Sequence[Outline] | None], str | None]


@dataclass(frozen=True)
class Target:
    """`capabilities` are entries of eval.evaluator.CAPABILITIES; `problem` says why a row cannot be asked, where that can be known."""

    who: str
    capabilities: frozenset[str]
    asker: Callable[[Progress], Asker]
    budget: VideoBudget = THUMBNAIL
    problem: Problem | None = None


def with_model(config: EvalConfig) -> EvalConfig:
    """The config with the shipped small policy that fits its data, where it names no model. Raises UserError where none does."""
    if config.model.path is not None or config.model.url is not None:
        return config
    path = _shipped(config.data) if config.benchmark is None else None
    if path is None:
        raise UserError("which model? write model=PATH (a directory, hub id or LoRA adapter) or model=http://HOST:PORT/v1#NAME")
    return config.model_copy(update={"model": config.model.model_copy(update={"path": path})})


def _shipped(data: DataConfig) -> str | None:
    """The policy of a data set of our own; of a mixture that of its first part that has one."""
    if data.name == "mixture":
        return next((path for part in data.parts if (path := _shipped(part.data)) is not None), None)
    if data.name == "scenes":
        clips = f"{SHIPPED}/clips"
        return clips if data.config == "clips" and project_path(clips).exists() else f"{SHIPPED}/scenes"
    return f"{SHIPPED}/{data.name}" if data.name == "easy_vqa" else None


def open_target(config: EvalConfig, judges: Mapping[str, Judge], environment: Mapping[str, str]) -> Target:
    """Load the model, or find its endpoint and try what that can do. Raises UserError."""
    return _local(config, judges) if config.model.url is None else _remote(config, judges, environment)


def _remote(config: EvalConfig, judges: Mapping[str, Judge], environment: Mapping[str, str]) -> Target:
    from vlm_rl.engine.remote_policy import RemotePolicy

    model = config.model
    assert model.url is not None
    key = key_of(model.api_key_env, "model.api_key_env", environment)
    endpoint = Endpoint("model", model.url, model.name or "", key, model.max_concurrency, model.timeout_s, model.retries)
    most = model.image_max_pixels or JudgeConfig.model_fields["image_max_pixels"].default
    policy = RemotePolicy(endpoint, Pictures(most, model, min(FRAMES, model.video_max_frames)), render(config.data.template))
    policy.probe()
    return Target("the endpoint", policy.capabilities, lambda progress: Asker({}, None, progress, {**judges, "policy": policy}))


@guarded("load")
def _local(config: EvalConfig, judges: Mapping[str, Judge]) -> Target:
    from vlm_rl import cli_parts, models  # only here is torch needed
    from vlm_rl.engine.hf import HFEngine
    from vlm_rl.policy import Policy

    chat = cli_parts.chat_of(config.model, config.data.template)
    policy = Policy(models.load_model(config.model, chat), chat.visual_ids, config.model.attention)
    own = HFEngine(policy, chat, config.rollout.batch_size)
    vllm = config.rollout.engine == "vllm"
    engine = _vllm(config, chat, own) if vllm else own
    return Target(
        "vLLM" if vllm else "the model",
        frozenset({"prefill", "score"} if vllm else {"prefill", "score", "alternatives"}),
        lambda progress: Asker({"policy": engine}, chat, progress, judges),
        chat.look.budget,
        chat.problem,
    )


def _vllm(config: EvalConfig, chat: "Chat", own: "HFEngine") -> Engine:
    """vLLM on the same files, of an adapter on those of its model and given the weights with it; continuations are scored by `own`."""
    from vlm_rl import adapters, models
    from vlm_rl.engine.vllm import VLLMEngine
    from vlm_rl.weights import named_weights

    path = models.source_of(config.model.path or "", "model.path")
    adapted = adapters.is_adapter(path)
    source = models.source_of(adapters.base_of(path, "model.path"), "base_model_name_or_path") if adapted else path
    longest = config.model.max_prompt_tokens + config.rollout.max_new_tokens
    engine = VLLMEngine(source, chat, config.rollout.vllm, own, longest)
    if adapted:
        engine.load_weights(named_weights(own.policy))
    return engine
