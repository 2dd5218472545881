"""Tokens per second of the transformers engine against vLLM's CPU build, on the same weights and requests, alternating in one process."""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.cases import Shape, make_chat, samples, sizes
from vlm_rl import models, small
from vlm_rl.config import VLLMConfig
from vlm_rl.engine.base import GenerateRequest
from vlm_rl.engine.hf import HFEngine
from vlm_rl.engine.vllm import VLLMEngine
from vlm_rl.policy import Policy
from vlm_rl.types import Sampling


def measure(shape: Shape, pairs: int, seed: int) -> dict[str, Any]:
    """Completions end where they end, so tokens are counted and rates compared. Pictures are new in every pair. vLLM sets its own number
    of threads when it loads; both sides then run with that of the caller."""
    scratch = sizes()
    chat = make_chat(scratch)
    policy = Policy(small.make_model(scratch, chat.tokenizer, seed), chat.visual_ids)
    hf = HFEngine(policy, chat)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as directory:
        models.save_model(Path(directory), policy.model, chat)
        config = VLLMConfig(max_num_seqs=shape.completions, enforce_eager=True)
        vllm = VLLMEngine(directory, chat, config, hf, shape.prompt_tokens + shape.new_tokens)
    torch.set_num_threads(threads)
    rates: dict[str, list[float]] = {"hf": [], "vllm": []}
    for step in samples(chat, shape, pairs + 1, seed):
        requests = [
            GenerateRequest(chat.prompt(row), Sampling(shape.new_tokens), tuple(range(i * shape.group, (i + 1) * shape.group)))
            for i, row in enumerate(step)
        ]
        for name, engine in (("hf", hf), ("vllm", vllm)):
            start = time.perf_counter()
            written = engine.generate(requests)
            taken = time.perf_counter() - start
            rates[name].append(sum(len(c.token_ids) for group in written for c in group) / taken)
    ratios = [a / b for a, b in zip(rates["hf"][1:], rates["vllm"][1:], strict=True)]
    return {"tokens_per_second": rates, "ratio": median(ratios), "threads": torch.get_num_threads()}
