"""The nouns of the program, frozen and staged: Media -> Sample -> Prompt -> Completion -> Rollout -> Group -> ScoredGroup -> Record.

Standard library only. A later stage holds the earlier one; nothing is filled in afterwards. Questions that rewards and evaluators ask
(`Generate`, `Score`) and the answers they get (`Reply`) live here too, so that neither side needs the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vlm_rl.media import Backend as Backend
from vlm_rl.media import Box as Box
from vlm_rl.media import Clip as Clip
from vlm_rl.media import Edit as Edit
from vlm_rl.media import Media as Media
from vlm_rl.media import Outline as Outline
from vlm_rl.media import VideoBudget as VideoBudget

AnswerKind = Literal["choice", "number", "math", "text", "yesno"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Sample:
    """One question. Sample(id="7", question="What colour is it?", options=("red", "teal"), answer="B", kind="choice", media=(...))

    `question` may hold one "<image>" or "<video>" mark per medium to place it in the text; without marks media come first.
    For `choice` the answer is the letter of the right option ("B"), or several ("A,C"); otherwise it is the gold text.
    `response` is a demonstration to imitate (supervised fine-tuning only). `prefill` is the beginning of the assistant's turn, given to
    the model: what it writes goes on from there, and its answer is read from both together.
    """

    id: str
    question: str
    answer: str
    kind: AnswerKind = "text"
    options: tuple[str, ...] = ()
    media: tuple[Media, ...] = ()
    response: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    prefill: str = ""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A Sample as the model reads it.

    `ids` has one placeholder per medium (what vLLM wants), `expanded_ids` one per visual token (what the model sees), `token_types` marks
    each expanded id as 0 text, 1 image, 2 video. `vision` holds the processor's tensors, one opaque entry per medium, shared by reference.
    `prefill` is the beginning of the assistant's turn, the sample's own and what was asked for; it is already part of `text` and the ids.
    """

    sample: Sample
    text: str
    ids: tuple[int, ...]
    expanded_ids: tuple[int, ...]
    token_types: tuple[int, ...]
    vision: tuple[Any, ...] = ()
    prefill: str = ""

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) in pixels of each medium as the model sees it: what the processor made of it, not what it should have made."""
        return tuple(seen.size for seen in self.vision)


@dataclass(frozen=True)
class Sampling:
    """Limits of one generation. temperature 0 is greedy. `stop` strings end it and stay in the text.

    `alternatives` asks for the log-probs of that many likeliest first tokens; who cannot tell them leaves them out.
    """

    max_new_tokens: int
    temperature: float = 1.0
    stop: tuple[str, ...] = ()
    alternatives: int = 0


@dataclass(frozen=True)
class Segment:
    """Tokens written by the model (with their log-probs at the sampling temperature) or, with logprobs None, inserted as an observation."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Completion:
    """What an engine wrote after a prompt. `text` excludes the prefill and special tokens; finish "length" means cut off.

    `alternatives` are the log-probs of the likeliest first tokens by their text, where the sampling asked for them.
    """

    text: str
    segments: tuple[Segment, ...]
    finish: Literal["stop", "length"] = "stop"
    alternatives: Mapping[str, float] = field(default_factory=dict)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(t for s in self.segments for t in s.token_ids)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """One per token; 0.0 for inserted tokens, which `loss_mask` leaves out."""
        return tuple(p for s in self.segments for p in (s.logprobs or (0.0,) * len(s.token_ids)))

    @property
    def loss_mask(self) -> tuple[bool, ...]:
        return tuple(s.logprobs is not None for s in self.segments for _ in s.token_ids)


@dataclass(frozen=True)
class Rollout:
    """One completion of a group, with the seed it was drawn from."""

    index: int
    seed: int
    completion: Completion

    @property
    def text(self) -> str:
        return self.completion.text


@dataclass(frozen=True, eq=False)
class Group:
    """All rollouts of one prompt. `seed` = hash(run seed, step, sample id): every draw about this group derives from it.

    `rank` is the process that rendered the prompt and holds its pixels; on the others `prompt.vision` has sizes only.
    """

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    seed: int
    rank: int = 0

    @property
    def sample(self) -> Sample:
        return self.prompt.sample


@dataclass(frozen=True)
class Generate:
    """Ask `target` ("policy", "start" or a judge's name) to answer `sample`, its turn beginning with `prefill` (after the sample's own).

    A judge reads `sample.question` as its whole prompt, with the sample's media before it; options, answer and kind are not shown to it.
    A reward model scores `sample.response` as the answer to it, an embedding model compares it with `sample.answer`.
    """

    target: str
    sample: Sample
    sampling: Sampling
    prefill: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Score:
    """Ask `target` for the log-probs of `continuation`, token by token, after `sample` and `prefill`.

    `lead` stands between the two and is read in one piece with the continuation, as a model would have written both: its own tokens are
    not told, one that it shares with the continuation (">" and "a" as ">a") is.
    """

    target: str
    sample: Sample
    continuation: str
    prefill: str = ""
    lead: str = ""


Query = Generate | Score


@dataclass(frozen=True)
class Reply:
    """The answer to one query. `error` says why there is none; then `text` is empty and no reward may read it as an answer.

    `alternatives` are the log-probs of the likeliest first tokens by their text, where they were asked for and are known.
    """

    text: str = ""
    logprobs: tuple[float, ...] = ()
    finish: Literal["stop", "length"] = "stop"
    error: str | None = None
    alternatives: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RewardResult:
    """One reward's opinion of one rollout. value None means "not scored" (a judge failed): left out and counted, never 0.

    With a reason under detail["skipped"] it means that there was nothing to score, which is no failure. Numbers in `detail` are logged as
    means under the reward's name.
    """

    value: float | None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One reward's share of a total: contribution = weight x gate x value, None where it was left out.

    `raw` is what the reward said, `value` what its transform made of that (or put in its place, where it was unscored).
    """

    raw: float | None
    weight: float
    contribution: float | None
    detail: Mapping[str, Any] = field(default_factory=dict)
    value: float | None = None
    gate: float = 1.0


@dataclass(frozen=True, eq=False)
class ScoredGroup:
    """A group with its totals (one per rollout) and every part by reward label."""

    group: Group
    totals: tuple[float, ...]
    parts: Mapping[str, tuple[Part, ...]]


@dataclass(frozen=True)
class Record:
    """One graded completion of an evaluation, as it is stored: enough to grade again without a model.

    `condition` names what was asked ("clean", "blank"), `mode` how it was decoded ("greedy", "sample"). `answer` and `wellformed` were read
    from `prefill + completion`: what the model was given of its turn, and what it wrote. `detail` holds what an evaluator keeps beside it,
    in JSON values.
    """

    sample_id: str
    condition: str
    mode: str
    index: int
    question: str
    options: tuple[str, ...]
    gold: str
    kind: AnswerKind
    media_ids: tuple[str, ...]
    completion: str
    answer: str | None
    correct: bool
    wellformed: bool
    finish: str
    prefill: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
