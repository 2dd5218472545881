"""Responses made up so that rewards have something to ask, for `vlm-rl plan` and dry runs, and what they ask counted. Composition only."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from rewards.base import Reward
from rewards.mixture import Mixture
from vlm_rl.config import TrainConfig
from vlm_rl.plan_tokens import Questions
from vlm_rl.standin import StandIn
from vlm_rl.types import LETTERS, Completion, Generate, Group, Media, Prompt, Query, Reply, Rollout, Sample, Score, Segment
from vlm_rl.vision_cache import Vision

CHARACTERS = 4  # of a token of English; ours
SIDE = 112
FILLER = "Then I compare it with what the question says, one thing after the other. "


def responses(sample: Sample, count: int, rewards: Mapping[str, Reward], length: int = 0) -> list[str]:
    """Well-formed texts, right and wrong by turns, each with a box in a convention that the rewards read, and a trace that states its
    answer. `length` is the least number of characters."""
    unit = any(vars(reward).get("convention") == "rel_1" for reward in rewards.values())
    return [_response(sample, i, "0.1, 0.1, 0.6, 0.7" if unit else "8, 8, 40, 44", length) for i in range(count)]


def _response(sample: Sample, index: int, box: str, length: int) -> str:
    answer = _wrong(sample, index) if index % 2 else sample.answer
    letter = answer.split(",")[0]
    said = sample.options[LETTERS.index(letter)] if sample.kind == "choice" and sample.options else answer
    seen = f"I look at [{box}] first, attempt {index}. "
    trace = seen + FILLER * max(0, (length - len(seen) - len(said) - 60) // len(FILLER)) + f"So the answer is {said}."
    return f"<think>{trace}</think><answer>{answer}</answer>"


def _wrong(sample: Sample, index: int) -> str:
    if sample.kind == "choice":
        others = [letter for letter in LETTERS[: max(2, len(sample.options))] if letter not in sample.answer.split(",")]
        return others[index % len(others)] if others else "Z"
    if sample.kind == "yesno":
        return "no" if sample.answer.strip().lower() == "yes" else "yes"
    return str(7919 + index) if sample.kind in ("number", "math") else f"thing {index} that is not there"


def completion(text: str, ids: Sequence[int], logprobs: Sequence[float]) -> Completion:
    return Completion(text, (Segment(tuple(ids), tuple(logprobs)),))


@dataclass(frozen=True)
class _Asked:
    """Of one question: whom, characters read beside the row's own prompt, most tokens written."""

    target: str
    read: int
    written: int


def questions(mixture: Mixture, config: TrainConfig) -> list[Questions]:
    """What the rewards ask about a rollout of full length, at most, by target: of a multiple-choice row with a picture and an open one."""
    most: dict[str, Questions] = {}
    for sample in _samples():
        for found in _about(mixture, config, sample):
            known = most.get(found.target)
            most[found.target] = found if known is None or found.asked * (found.read + 1) > known.asked * (known.read + 1) else known
    return list(most.values())


def _about(mixture: Mixture, config: TrainConfig, sample: Sample) -> list[Questions]:
    size = config.rollout.group_size
    texts = responses(sample, size, mixture.rewards, CHARACTERS * config.rollout.max_new_tokens)
    seen = (Vision({}, (1,), "", (SIDE, SIDE)),)
    rollouts = tuple(Rollout(i, i, completion(text, (0, 1), (0.0, 0.0))) for i, text in enumerate(texts))
    asked: list[_Asked] = []

    def ask(queries: Sequence[Query]) -> list[Reply]:
        asked.extend(_seen(query) for query in queries)
        return [_reply(query) for query in queries]

    Mixture(mixture.configs, 1.0).score([Group(Prompt(sample, "", (0,), (0,), (0,), seen), rollouts, 0)], 0, ask)
    times = Counter(question.target for question in asked)
    return [
        Questions(
            target,
            count / size,
            sum(q.read for q in asked if q.target == target) / CHARACTERS / size,
            sum(q.written for q in asked if q.target == target) / size,
        )
        for target, count in times.items()
    ]


def _seen(query: Query) -> _Asked:
    own = 0 if query.target in ("policy", "start") else len(query.sample.question) + len(query.sample.response or "")
    return _Asked(query.target, own + len(query.prefill), query.sampling.max_new_tokens if isinstance(query, Generate) else 1)


def _reply(query: Query) -> Reply:
    if isinstance(query, Score):
        return Reply(query.continuation, (-1.0,) * max(1, len(query.continuation)))
    if query.target in ("policy", "start"):
        return Reply(">A</answer>" if query.prefill.endswith("<answer") else "<think>x</think><answer>A</answer>")
    [reply] = StandIn("openai").answer([query])
    return reply if "<" in reply.text or reply.text == "yes" else replace(reply, text="0.5")


def _samples() -> list[Sample]:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "teal").save(buffer, "PNG")
    media = (Media("image", data=buffer.getvalue()),)
    choice = Sample("choice", "What colour is it?", "B", "choice", ("red", "teal", "blue", "grey"), media)
    return [choice, Sample("open", "What is there to see?", "a teal wall", "text", media=media)]
