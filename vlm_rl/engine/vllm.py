"""Generation by vLLM in this process: the policy's weights are streamed into it, pictures and frames are those the trainer sees.

Imported only where a config asks for it. What it must never do silently is checked: its prompt ids equal the trainer's, its cached states
are dropped with every change of weights, visual tokens are never drawn. Continuations are scored by the trainer's own forward, which is
exact and cheaper than vLLM's prompt log-probs (they skip its prefix cache and know no excluded tokens).
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from vlm_rl.chat import Chat
from vlm_rl.config import VLLMConfig
from vlm_rl.engine.base import Engine, GenerateRequest, Progress, ScoreRequest
from vlm_rl.errors import UserError
from vlm_rl.types import Completion, Media, Prompt, Segment
from vlm_rl.vision import about

BANNED = "vlm_rl_banned_ids"
NOTHING: Mapping[str, Any] = {}


class VLLMEngine:
    """Weights begin as those of the Hugging Face directory `source` and follow `load_weights`. `scorer` holds the trainer's own forward.

    One request per prompt asks for a whole group; its draws derive from the request's first seed and each draw's place in the request
    (vLLM's own rule), so equal requests are answered equally but not bit for bit as other engines do. `options` are further ones of vLLM.
    Raises UserError where vLLM is not installed or cannot load the model.
    """

    adapter: Any = None  # vLLM's name for what it is to answer with beside its weights

    def __init__(
        self, source: str, chat: Chat, settings: VLLMConfig, scorer: Engine, max_tokens: int, options: Mapping[str, Any] = NOTHING
    ):
        self.chat, self.scorer, self.settings = chat, scorer, settings
        vllm = import_vllm()
        config = chat.config
        self.sleeps = torch.cuda.is_available() and settings.sleep_level > 0
        frames = {"do_sample_frames": False} | ({} if chat.family.whole_frames else {"do_resize": False})
        try:
            self.llm = vllm.LLM(
                model=source,
                dtype=config.dtype,
                max_model_len=max_tokens,
                max_num_batched_tokens=max(8192, max_tokens),
                # In parts, a prompt's draws that come too early are taken back from its seed's generator, which on a CPU cannot go back.
                enable_chunked_prefill=torch.cuda.is_available(),
                max_num_seqs=settings.max_num_seqs,
                enforce_eager=settings.enforce_eager,
                gpu_memory_utilization=settings.gpu_memory_utilization,
                enable_sleep_mode=self.sleeps,
                logprobs_mode="processed_logprobs",
                logits_processors=[_banned_processor()],
                additional_config={BANNED: list(chat.visual_ids)},
                limit_mm_per_prompt={"image": 999, "video": 999},
                mm_processor_kwargs={"images_kwargs": dict(chat.look.image_size), "videos_kwargs": frames},
                skip_mm_profiling=True,
                disable_log_stats=True,
                seed=0,
                **options,
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise UserError(f"rollout.engine=vllm: vLLM cannot load {source}: {str(error).strip().splitlines()[-1]}") from error

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress | None = None) -> list[tuple[Completion, ...]]:
        """See `engine.base`; a step's prompts are one call, so that vLLM batches all of them."""
        return self.written(requests, progress, self.adapter)

    def written(self, requests: Sequence[GenerateRequest], progress: Progress | None, adapter: Any) -> list[tuple[Completion, ...]]:
        """By the weights with this adapter, or by the weights alone where it is None."""
        if not requests:
            return []
        prompts = [self._prompt(request.prompt) for request in requests]
        sampling = [self._sampling(request) for request in requests]
        outputs = self.llm.generate(prompts, sampling, use_tqdm=False, lora_request=adapter)
        for request, output in zip(requests, outputs, strict=True):
            self._same_prompt(request.prompt, output.prompt_token_ids)
        if progress:
            total = sum(len(request.seeds) for request in requests)
            progress(total, total)
        return [tuple(self._completion(o) for o in sorted(output.outputs, key=lambda o: o.index)) for output in outputs]

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        return self.scorer.score(requests)

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Stream weights in and forget what was computed with the old ones: cached prompts, and pictures that the tower has encoded.

        vLLM's reload clears the worker's encoded pictures and not the scheduler's notion of them, so that the next known picture would
        crash it; other ways of moving weights clear neither and would be stale in silence. Both are cleared here whatever the way.
        """
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        self.llm.apply_model(_repack_projection)
        self.forget()

    def forget(self) -> None:
        """Drop every cached state that depends on weights."""
        self.llm.reset_prefix_cache()
        self.llm.llm_engine.reset_encoder_cache()

    def sleep(self) -> None:
        """Give the device's memory to the update. Does nothing on a CPU."""
        if self.sleeps:
            self.llm.sleep(level=self.settings.sleep_level)

    def wake(self) -> None:
        """Before weights are loaded."""
        if self.sleeps:
            self.llm.wake_up()

    def _prompt(self, prompt: Prompt) -> dict[str, Any]:
        """Ids with one placeholder a medium; media as the trainer's decoder gives them, known to vLLM's caches by their content ids."""
        media: dict[str, list[Any]] = {}
        known: dict[str, list[str]] = {}
        for medium in prompt.sample.media:
            kind = medium.kind
            media.setdefault(kind, []).append(self._image(medium, prompt) if kind == "image" else self._video(medium, prompt))
            known.setdefault(kind, []).append(f"{medium.id}-{self.chat.look.settings[kind]:016x}")
        asked: dict[str, Any] = {"prompt_token_ids": list(prompt.ids)}
        return asked | ({"multi_modal_data": media, "multi_modal_uuids": known} if media else {})

    def _image(self, medium: Media, prompt: Prompt) -> Any:
        return self.chat.look.decode(medium, prompt.sample.id)

    def _video(self, medium: Media, prompt: Prompt) -> tuple[Any, dict[str, Any]]:
        assert self.chat.look.decode_video is not None
        clip = self.chat.look.decode_video(medium, self.chat.look.budget, prompt.sample.id)
        return clip.frames, about(clip.outline) | {"do_sample_frames": False}

    def _sampling(self, request: GenerateRequest) -> Any:
        import vllm

        how = request.sampling
        return vllm.SamplingParams(
            n=len(request.seeds),
            seed=request.seeds[0] % (1 << 62),
            temperature=how.temperature,
            max_tokens=how.max_new_tokens,
            stop=list(how.stop),
            include_stop_str_in_output=True,
            logprobs=0,
        )

    def _completion(self, output: Any) -> Completion:
        ids = tuple(output.token_ids)
        logprobs = tuple(by_id[id_].logprob for id_, by_id in zip(ids, output.logprobs, strict=True))
        finish = "length" if output.finish_reason == "length" else "stop"
        return Completion(self.chat.text_of(ids), (Segment(ids, logprobs),), finish)

    def _same_prompt(self, prompt: Prompt, seen: Sequence[int]) -> None:
        if tuple(read_as(self.chat, seen)) != prompt.expanded_ids:
            place = next((i for i, (a, b) in enumerate(zip(seen, prompt.expanded_ids, strict=False)) if a != b), "end")
            raise UserError(
                f"row {prompt.sample.id}: vLLM read {len(seen)} prompt tokens and the trainer {len(prompt.expanded_ids)}, different from "
                f"token {place} on: they do not see the same picture, video or text. Use rollout.engine=hf, or a vLLM whose processor is "
                "that of the installed transformers"
            )


def read_as(chat: Chat, seen: Sequence[int]) -> list[int]:
    """vLLM's ids of a prompt as the family's processor writes them: where that has frames and pictures stand at one token, vLLM (InternVL,
    seen in 0.32) keeps a video's mark at the tokens of its frames."""
    family = chat.family
    if family.shown.get("video") != family.shown["image"]:
        return list(seen)
    mark = chat.tokenizer.convert_tokens_to_ids(family.marks["video"])
    return [chat.placeholder["video"] if id_ == mark else id_ for id_ in seen]


def import_vllm() -> Any:
    """vLLM with its engine in this process; both variables are read when it is imported."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if not torch.cuda.is_available():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    try:
        import vllm
    except ImportError as error:
        raise UserError(f'rollout.engine=vllm: vLLM cannot be imported ({error}); install it with pip install "vlm-rl[vllm]"') from error
    return vllm


def _repack_projection(model: torch.nn.Module) -> None:
    """vLLM's CPU build projects on the vocabulary by a packed copy of the embedding, which its reload (seen in 0.32) leaves as it was."""
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding) and not module.weight.is_cuda:
            module.quant_method.process_weights_after_loading(module)


def _banned_processor() -> Any:
    """A logits processor that gives the ids of additional_config[BANNED] no probability in any request."""
    from vllm.v1.sample.logits_processor import LogitsProcessor

    class Banned(LogitsProcessor):
        def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool):
            self.ids = torch.tensor(vllm_config.additional_config[BANNED], dtype=torch.long, device=device)

        def apply(self, logits: torch.Tensor) -> torch.Tensor:
            return logits.index_fill_(1, self.ids, float("-inf"))

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: Any) -> None:
            """Nothing depends on which requests there are."""

    return Banned
