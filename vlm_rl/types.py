"""The nouns of the program, frozen and staged: Media -> Sample -> Prompt -> Completion -> Rollout -> Group -> ScoredGroup -> Record.

Standard library only. A later stage holds the earlier one; nothing is filled in afterwards. Questions that rewards and evaluators ask
(`Generate`, `Score`) and the answers they get (`Reply`) live here too, so that neither side needs the other.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

AnswerKind = Literal["choice", "number", "math", "text", "yesno"]
Backend = Literal["decord", "pyav", "any"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Edit:
    """A change of pixels or frames, made whenever the medium is decoded. Edit("blur", severity=3, seed=7)

    `boxes` are (left, top, right, bottom) in pixels of the upright picture as it is after the edits before this one.
    """

    name: str
    severity: int = 3
    seed: int = 0
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Media:
    """A handle to one picture or clip, not decoded: exactly one of `path` and `data` is set. Media("image", path=Path("cat.png"))

    `edits` are what is done to its pixels, in order, when it is decoded; they cost no memory until then. `start` and `end` are seconds of
    the file: the part of a video that is looked at, or, for a picture, the `start` at which a frame is taken of a video. A video may also
    be a folder of frames, in the order of their names, `fps` of them a second.
    """

    kind: Literal["image", "video"]
    path: Path | None = None
    data: bytes | None = None
    edits: tuple[Edit, ...] = ()
    start: float | None = None
    end: float | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        assert (self.path is None) != (self.data is None)

    @property
    def source(self) -> "Media":
        """The medium without its edits."""
        return replace(self, edits=()) if self.edits else self

    @property
    def bounded(self) -> bool:
        """Whether it is a part of its file."""
        return self.start is not None or self.end is not None

    def edited(self, edit: Edit) -> "Media":
        """The medium with one more edit."""
        return replace(self, edits=(*self.edits, edit))

    def read(self) -> bytes:
        """The encoded bytes of the file. Raises OSError when it cannot be read. An edited medium has none: decode it."""
        assert not self.edits, "the bytes of an edited medium are not what it shows; decode it, or read its source"
        return self.data if self.data is not None else self.path.read_bytes()  # type: ignore[union-attr]

    @cached_property
    def id(self) -> str:
        """Content hash, the same for equal bytes, bounds and edits wherever they lie: "3f2a..." (16 hex digits)."""
        if self.edits:
            return _hash(f"{self.source.id} {self.edits!r}".encode())
        if self.bounded or self.fps is not None:
            return _hash(f"{self.file_id} {self.start} {self.end} {self.fps}".encode())
        return self.file_id

    @cached_property
    def file_id(self) -> str:
        """Content hash of the whole file, whichever part of it this is and whatever its edits are."""
        if self.path is None:
            return _hash(self.data or b"")
        if self.path.is_dir():
            return _hash("\n".join(f"{file.name} {_hash_of(file)}" for file in sorted(self.path.iterdir()) if file.is_file()).encode())
        return _hash_of(self.path)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _hash_of(path: Path) -> str:
    status = path.stat()
    return _file_hash(path.absolute(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    """Read in pieces and remembered while the file stays as it is: a long video would cost a second each time its row is met."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@dataclass(frozen=True)
class VideoBudget:
    """How much of a video is looked at. Frames are drawn evenly at `fps` per second, from `min_frames` to `max_frames` of them.

    `min_pixels` and `max_pixels` bound a frame's area and `total_pixels` that of all frames together, as far as `min_pixels` allows; sides
    are multiples of `factor` pixels. `backend` names the decoder; "any" is for looking at a video, not for training on it.
    """

    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 768 * 28 * 28
    total_pixels: int = 115_200 * 28 * 28
    factor: int = 28
    backend: Backend = "decord"


@dataclass(frozen=True)
class Outline:
    """A medium without its pixels: height and width of the upright picture, or of a video's frames as they will be looked at.

    For a video also which frames those are: their `indices` in the source, which has `total` frames at `fps` a second.
    """

    height: int
    width: int
    indices: tuple[int, ...] = ()
    total: int = 1
    fps: float = 1.0


@dataclass(frozen=True, eq=False)
class Clip:
    """A decoded video: `frames` (T, H, W, 3) uint8 RGB array, their `indices` in the source, which has `total` frames at `fps` a second."""

    frames: Any
    indices: tuple[int, ...]
    total: int
    fps: float

    @property
    def timestamps(self) -> tuple[float, ...]:
        """Seconds from the start, one per frame, reading the source's rate as constant."""
        return tuple(index / self.fps for index in self.indices)

    @property
    def sampled_fps(self) -> float:
        return len(self.indices) / self.total * self.fps

    @property
    def outline(self) -> Outline:
        _, height, width, _ = self.frames.shape
        return Outline(height, width, self.indices, self.total, self.fps)


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
    """What an engine wrote after a prompt. `text` excludes the prefill and special tokens; finish "length" means cut off."""

    text: str
    segments: tuple[Segment, ...]
    finish: Literal["stop", "length"] = "stop"

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
    """All rollouts of one prompt. `seed` = hash(run seed, step, sample id): every draw about this group derives from it."""

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    seed: int

    @property
    def sample(self) -> Sample:
        return self.prompt.sample


@dataclass(frozen=True)
class Generate:
    """Ask `target` ("policy", "start" or a judge's name) to answer `sample`, its turn beginning with `prefill` (after the sample's own).

    A judge reads `sample.question` as its whole prompt, with the sample's media before it; options, answer and kind are not shown to it.
    """

    target: str
    sample: Sample
    sampling: Sampling
    prefill: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Score:
    """Ask `target` for the log-probs of `continuation`, token by token, after `sample` and `prefill`."""

    target: str
    sample: Sample
    continuation: str
    prefill: str = ""


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
    from `prefill + completion`: what the model was given of its turn, and what it wrote.
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
