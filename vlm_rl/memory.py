"""Running out of memory told as a user's error: in which phase of a run, and which keys of its config to lower. It frees nothing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from vlm_rl.errors import UserError

log = logging.getLogger(__name__)
Phase = Literal["load", "generate", "evaluate", "update"]
SEEN = "what is seen (model.image_max_pixels, model.video_max_pixels, model.video_max_frames)"
WRITING = f"lower rollout.batch_size, train.token_budget, rollout.max_new_tokens, or {SEEN}"
LOWER: dict[Phase, str] = {
    "load": "take a smaller model, or write model.dtype=bfloat16",
    "generate": WRITING,
    "evaluate": WRITING,
    "update": f"lower train.token_budget, or {SEEN}, or write model.gradient_checkpointing=true",
}
# What allocators say that raise no class of their own: the CPU's, CUDA's outside of torch's cache, and cuBLAS.
SAID = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


@contextmanager
def guarded(phase: Phase) -> Iterator[None]:
    """A block, or as a decorator a function, that may run out of memory. Raises UserError then; of nested phases the inner one is named."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        log.debug("out of memory came from:", exc_info=True)
        said = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"out of memory in the phase '{phase}': {LOWER[phase]}; the allocator said: {said}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is what a failed allocation raises, on any device."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in SAID)
