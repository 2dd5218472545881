"""Tokens of a training step by phase, at most: read, written, forwarded for the update, and what sharing prompts saves of that."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlm_rl.config import TrainConfig
from vlm_rl.footprint_layers import Form
from vlm_rl.plan import Seen


@dataclass(frozen=True)
class Questions:
    """What a step's rewards ask one target, per rollout: questions, tokens read (without the row's own prompt) and tokens written."""

    target: str
    asked: float
    read: float
    written: float


@dataclass(frozen=True)
class Count:
    """Tokens of a phase, all devices together. `note` says what they are made of."""

    phase: str
    read: float
    written: float
    note: str


def counts(config: TrainConfig, seen: Seen, questions: Sequence[Questions], form: Form = "shared_prefix") -> tuple[Count, ...]:
    rollout = config.rollout
    rollouts = rollout.prompts_per_step * rollout.group_size
    prompts = rollout.prompts_per_step * seen.mean
    written = float(rollouts * rollout.max_new_tokens)
    passes, why = forwards(config)
    shared = prompts + written
    apart = rollouts * seen.mean + written
    asked = [
        Count(
            f"scoring by {q.target}",
            rollouts * (q.asked * seen.mean * (q.target in ("policy", "start")) + q.read),
            rollouts * q.written,
            f"questions a rollout: {q.asked:g}",
        )
        for q in questions
    ]
    plain, why_plain = form == "plain", "model.attention=plain" if config.model.attention == "plain" else "the family is not packed"
    saving = f"prompts are repeated ({why_plain})" if plain else f"{apart / shared:.1f} times fewer than with each its own prompt"
    return (
        Count("rollout", prompts, written, f"{rollout.prompts_per_step} prompts read once, {rollouts} completions at the limit"),
        *asked,
        Count("update", passes * (apart if plain else shared), 0.0, f"{why}; {saving}"),
    )


def forwards(config: TrainConfig) -> tuple[float, str]:
    """How often a step's tokens are forwarded beside the backward, and in words."""
    train, algo = config.train, config.algo
    passes = float(train.updates_per_rollout)
    said = [f"{train.updates_per_rollout} with gradients"]
    if algo.old_logprobs == "trainer" and train.mini_batches > 1:
        passes += (train.mini_batches - 1) / train.mini_batches
        said.append(f"{(train.mini_batches - 1) / train.mini_batches:.2f} ahead, for mini-batches after the first")
    if algo.kl_weight:
        passes += 1
        said.append("1 by the reference")
    return passes, f"forwarded {passes:g} times: " + ", ".join(said)
