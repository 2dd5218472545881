"""How long prompts are for `vlm-rl plan`, and how many rows of the tower they have: from rows of the data where they are here, else the
largest that the config lets in. Composition only.

Where the model's processor is here it is asked, as training asks it, by the sizes of media alone. Without it the rules of the Qwen-VL
families are known; pictures of the others are cut into tiles as their processor's files say.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

from transformers.image_processing_utils import select_best_resolution

from data import Rows, load_rows, seeded_order
from data.media import image_size
from data.templates import render
from data.video import check_video, outline_of
from vlm_rl import cli_parts, models
from vlm_rl.architecture import Architecture
from vlm_rl.chat import Chat
from vlm_rl.cli_trial import CHARACTERS
from vlm_rl.config import DataConfig, ModelConfig, TrainConfig, project_path
from vlm_rl.errors import RowError, UserError
from vlm_rl.plan import Seen
from vlm_rl.types import Media, Outline, Sample, VideoBudget
from vlm_rl.vision_cache import Vision
from vlm_rl.visual_tokens import OWN_BOUNDS, TIME, TIMED, look, most_of_picture, most_of_video, video_budget

ROWS = 64
TEXT = 300  # tokens of a question, its options and the instruction where no row can be looked at; ours
WRAPPING = 20  # tokens of a chat template's marks; ours
LONG = 8192  # pixels of the longer side of a picture that is as large as any; ours
SHAPES = 12  # most times that one side is the other; ours
FRAME = (720, 1280)  # of a video that the config does not bound; ours

Size = tuple[int, int]  # tokens, rows of the tower


class Ruler(Protocol):
    @property
    def said(self) -> str:
        """How it knows."""
        ...

    def prompt(self, sample: Sample) -> Size:
        """Of a whole prompt. Raises RowError or ValueError for one that training leaves out."""
        ...

    def pictures(self) -> list[Size]:
        """Tokens and rows of large pictures of many shapes."""
        ...

    def videos(self) -> list[Size]:
        """Of videos with as many frames as the config lets in."""
        ...


def prompts_of(config: TrainConfig, arch: Architecture) -> Seen:
    """Raises UserError where a family's pictures cannot be known from what is here."""
    ruler = _ruler(config, arch)
    if not _is_here(config.data):
        return _allowed(config, ruler)
    rows = load_rows(config.data)
    sizes = [size for index in seeded_order(len(rows), 0)[:ROWS].tolist() if (size := _size(rows, index, config, ruler)) is not None]
    if not sizes:
        return _allowed(config, ruler)
    return Seen(
        max(t for t, _ in sizes), max(p for _, p in sizes), fmean(t for t, _ in sizes), f"{len(sizes)} rows of the data, {ruler.said}"
    )


def _is_here(data: DataConfig) -> bool:
    if data.parts:
        return all(_is_here(part.data) for part in data.parts)
    return data.name not in ("hub", "jsonl", "parquet") or (data.path is not None and project_path(data.path).exists())


def _allowed(config: TrainConfig, ruler: Ruler) -> Seen:
    """The largest that fits beside the text; where none does, one that is cut short."""
    most, video = config.model.max_prompt_tokens, "video" in (config.data.mapping or "")
    found = ruler.videos() if video else ruler.pictures()
    fitting = [(tokens, rows) for tokens, rows in found if tokens + TEXT <= most]
    tokens, rows = max(fitting) if fitting else min(found)
    if tokens + TEXT > most:
        rows = min(rows, rows * most // tokens)
    kind = "video" if video else "picture"
    source = f"the largest {kind} that the config lets in, at most model.max_prompt_tokens, {ruler.said}; {TEXT} tokens of text (ours)"
    return Seen(min(most, tokens + TEXT), rows, float(min(most, tokens + TEXT)), source)


def _size(rows: Rows, index: int, config: TrainConfig, ruler: Ruler) -> Size | None:
    """Of a row; None for one that cannot be read or is too long, which training leaves out or refuses."""
    try:
        tokens, patches = ruler.prompt(rows[index])
    except (RowError, ValueError):
        return None
    return (tokens, patches) if tokens <= config.model.max_prompt_tokens else None


def _ruler(config: TrainConfig, arch: Architecture) -> Ruler:
    model = config.model
    try:
        if model.path is None or not project_path(model.path).is_dir():
            raise UserError("its processor is not here")
        return ByProcessor(cli_parts.chat_of(model, config.data.template, models.load_processor(model)), arch)
    except UserError as error:
        if arch.family in OWN_BOUNDS:
            return ByRule(config, arch)
        raise UserError(
            f"model.path={model.path}: pictures of a {arch.family} become tokens as its processor says; put preprocessor_config.json and "
            f"the tokenizer's files beside config.json ({error})"
        ) from None


def _outline(medium: Media, row: str, model: ModelConfig, budget: VideoBudget) -> Outline:
    if medium.kind == "image":
        width, height = image_size(medium, row)
        return Outline(height, width)
    return outline_of(check_video(medium, row, model.video_backend, model.decode_timeout_s), budget)


@dataclass(frozen=True)
class ByRule:
    """Of the Qwen-VL families, by their bounds and CHARACTERS of text a token."""

    config: TrainConfig
    arch: Architecture
    said: str = f"media by their sizes, {CHARACTERS} characters of text a token"

    def prompt(self, sample: Sample) -> Size:
        visual = sum(self._visual(medium, sample) for medium in sample.media)
        text = len(render(self.config.data.template)(sample)) // CHARACTERS + WRAPPING
        return visual + text, visual * self.arch.projector.joined

    def _visual(self, medium: Media, sample: Sample) -> int:
        model, side = self.config.model, self.arch.side
        outline = _outline(medium, sample.id, model, video_budget(model, side))
        if medium.kind == "image":
            return look(model, self.arch).picture(outline.height, outline.width)
        frames = -(-len(outline.indices) // 2)
        return frames * (outline.height * outline.width // side**2 + (TIME if self.arch.family in TIMED else 0))

    def pictures(self) -> list[Size]:
        return [self._size(most_of_picture(self.config.model, self.arch))]

    def videos(self) -> list[Size]:
        return [self._size(most_of_video(self.config.model, self.arch))]

    def _size(self, tokens: int) -> Size:
        return tokens, tokens * self.arch.projector.joined


@dataclass(frozen=True)
class ByProcessor:
    """As training renders prompts, without pixels."""

    chat: Chat
    arch: Architecture
    said: str = "measured by the model's processor"

    def prompt(self, sample: Sample) -> Size:
        outlines = [_outline(medium, sample.id, self.chat.config, self.chat.look.budget) for medium in sample.media]
        prompt = self.chat.outlined(sample, outlines)
        alone = sum(medium.kind == "image" for medium in sample.media) == 1
        seen = zip(sample.media, outlines, prompt.vision, strict=True)
        return len(prompt.expanded_ids), sum(self._rows(medium.kind, outline, vision, alone) for medium, outline, vision in seen)

    def pictures(self) -> list[Size]:
        return self._sizes("image", [Outline(height, width) for height, width in _shapes()])

    def videos(self) -> list[Size]:
        config, budget = self.chat.config, self.chat.look.budget
        height, width = FRAME
        if not self.chat.family.whole_frames:
            tokens = most_of_video(config, self.arch)
            return [(tokens, tokens * self.arch.projector.joined)]
        if config.video_max_pixels:
            height = width = math.isqrt(config.video_max_pixels)
        frames = tuple(range(budget.max_frames))
        return self._sizes("video", [Outline(height, width, frames, len(frames), config.video_fps)])

    def _sizes(self, kind: Any, outlines: Sequence[Outline]) -> list[Size]:
        found, medium = [], Media(kind, data=b"")
        for outline in outlines:
            try:
                vision = self.chat.look.outlined(medium, outline, "a row with the largest that the config lets in")
            except RowError as error:
                raise UserError(str(error)) from None
            spelled = len(self.chat.tokenizer(vision.text, add_special_tokens=False)["input_ids"]) - len(vision.runs)
            found.append((vision.tokens + spelled, self._rows(kind, outline, vision, True)))
        return found

    def _rows(self, kind: str, outline: Outline, vision: Vision, alone: bool) -> int:
        """Rows of the tower that a medium takes."""
        tower, joined = self.arch.tower, self.arch.projector.joined
        if not tower.tile:
            return vision.tokens * joined
        if not self.chat.family.alone:
            return vision.tokens * joined * tower.tile // (tower.tile - tower.first)
        if kind == "video":
            return len(outline.indices) * tower.tile
        return tower.tile * (1 + (self._tiles(outline) if alone else 0))  # of a picture of several, the whole only

    def _tiles(self, outline: Outline) -> int:
        picture: Any = self.chat.processor.image_processor
        best = select_best_resolution((outline.height, outline.width), picture.image_grid_pinpoints)
        side = picture.size["height"]
        return math.prod(-(-length // side) for length in best)


def _shapes() -> Iterator[tuple[int, int]]:
    """Heights and widths of pictures whose longer side is LONG."""
    for rows in range(1, SHAPES + 1):
        for columns in range(1, SHAPES + 1):
            if math.gcd(rows, columns) == 1:
                yield LONG * rows // max(rows, columns), LONG * columns // max(rows, columns)
