"""The installed TRL's GRPOTrainer on the same model, prompts and pictures, its own lines throughout, with its phases timed.

On a CPU TRL projects every position on the vocabulary, prompts too, because compilers there dislike changing shapes; on a GPU only those of
completions. `compact` takes its GPU way, which is also the faster one here.
"""

import io
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.cases import Shape, evenness
from vlm_rl.chat import Chat
from vlm_rl.types import Sample, ScoredGroup

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import datasets
    import trl.trainer.utils
    from transformers import TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

Between = Callable[[int, dict[str, float]], None]


class Timed(GRPOTrainer):
    """TRL's trainer with seconds by phase of the step in `laps`. `told`, once set, are completions taken instead of sampling."""

    model: Any
    laps: dict[str, float]
    told: list[list[int]] | None = None

    @contextmanager
    def _lap(self, name: str) -> Any:
        start = time.perf_counter()
        yield
        self.laps[name] = self.laps.get(name, 0.0) + time.perf_counter() - start

    def _generate(self, prompts: list) -> Any:
        with self._lap("rollout"):
            return super()._generate(prompts)

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        return (self.told, None) if self.told is not None else super()._generate_single_turn(*args, **kwargs)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        with self._lap("scoring"):
            return super()._calculate_rewards(*args, **kwargs)


class Alternate(TrainerCallback):
    """Times each step of TRL and then calls `between` with its number and phases, outside of the time."""

    def __init__(self, between: Between):
        self.between, self.start, self.done = between, 0.0, 0
        self.trainer: Any = None

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.laps = {}
        self.start = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        total, laps = time.perf_counter() - self.start, dict(self.trainer.laps)
        laps["update"] = total - sum(laps.values())
        self.between(self.done, {**laps, "total": total})
        self.done += 1


def rows(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": sample.question}],
            "image": Image.open(io.BytesIO(sample.media[0].read())).convert("RGB"),
        }
        for sample in samples
    ]


def reward(completion_ids: list[list[int]], **kwargs: Any) -> list[float | None]:
    return [evenness(ids) for ids in completion_ids]


def make(model: Any, chat: Chat, shape: Shape, steps: list[list[Sample]], between: Between, micro: int = 16) -> Timed:
    """`micro` completions are forwarded at once. Everything that our side does not do either is off: checkpointing, bfloat16, KL."""
    settings = GRPOConfig(
        output_dir=tempfile.mkdtemp(prefix="trl-"),
        max_steps=len(steps),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=shape.completions // micro,
        num_generations=shape.group,
        max_completion_length=shape.new_tokens,
        learning_rate=1e-6,
        loss_type="grpo",
        lr_scheduler_type="constant",
        beta=0.0,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        shuffle_dataset=False,
        generation_kwargs={"suppress_tokens": list(chat.visual_ids), "min_new_tokens": shape.new_tokens},
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    data = datasets.Dataset.from_list([row for step in steps for row in rows(step)])
    callback = Alternate(between)
    trainer = Timed(model, [reward], settings, data, processing_class=chat.processor, callbacks=[callback])
    trainer.laps, callback.trainer = {}, trainer
    return trainer


@contextmanager
def compact() -> Any:
    """TRL's GPU way of choosing positions: those of completions only."""
    own = trl.trainer.utils._use_triton
    trl.trainer.utils._use_triton = lambda device: True
    try:
        yield
    finally:
        trl.trainer.utils._use_triton = own


def inputs_of(trainer: Timed, scored: Sequence[ScoredGroup]) -> dict[str, Any]:
    """TRL's own tensors, rewards and advantages for these completions."""
    trainer.told = [list(rollout.completion.token_ids) for s in scored for rollout in s.group.rollouts]
    repeated = [row for s in scored for row in rows([s.group.sample]) * len(s.group.rollouts)]
    trainer.model.train()
    made = trainer._generate_and_score_completions(repeated)
    trainer.told = None
    return made


def gradient(trainer: Timed, scored: Sequence[ScoredGroup]) -> tuple[float, list[Tensor]]:
    """(loss, gradient by parameter) on these completions, in one forward."""
    made = inputs_of(trainer, scored)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, made)
    loss.backward()
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trainer.model.parameters()]
    trainer.model.zero_grad()
    return float(loss.detach()), found
