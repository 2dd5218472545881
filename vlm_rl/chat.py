"""Sample -> Prompt. With vlm_rl.vision the only file that knows chat templates, visual placeholder tokens and processors.

What a question looks like as text (`render`) and how bytes become a picture (`decode`) or frames (`decode_video`) is decided elsewhere
and handed in.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from vlm_rl.config import ModelConfig
from vlm_rl.errors import RowError, UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.turns import content_parts
from vlm_rl.types import Outline, Prompt, Sample
from vlm_rl.vision import DecodeImage, DecodeVideo, VisualProcessor
from vlm_rl.vision_cache import Vision

OPENING = "<think>"
TYPE_OF = {"image": 1, "video": 2}


class Chat:
    """Renders prompts for one processor. `decode(media, row_id)` gives an RGB picture, `decode_video(media, budget, row_id)` frames."""

    def __init__(
        self,
        processor: Any,
        config: ModelConfig,
        render: Callable[[Sample], str],
        decode: DecodeImage,
        decode_video: DecodeVideo | None = None,
    ):
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.config, self.render = config, render
        self.look = VisualProcessor(processor, config, decode, decode_video)
        self.family = self.look.family

    @cached_property
    def placeholder(self) -> dict[str, int]:
        """Token id that stands for one visual token: {"image": 151655, "video": 151656}"""
        return {kind: self.tokenizer.convert_tokens_to_ids(token) for kind, token in self.family.shown.items()}

    @cached_property
    def visual_ids(self) -> tuple[int, ...]:
        """Ids that may never be sampled: one placeholder in a completion breaks the next forward."""
        vocabulary = self.tokenizer.get_vocab()
        return tuple(vocabulary[token] for token in self.family.visual_tokens if token in vocabulary)

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.family.marks.values())))

    @cached_property
    def control_tokens(self) -> tuple[str, ...]:
        return tuple(token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of vocabulary and chat template; a model saved with another one would look blind without any error."""
        return f"{stable_hash(sorted(self.tokenizer.get_vocab().items()), self.processor.chat_template):016x}"

    def problem(self, sample: Sample, outlines: Sequence[Outline] | None = None) -> str | None:
        """Why this sample cannot be rendered, as far as that shows without its pixels: marks that do not match, a control token, and, given
        the outlines of its media, a side too long or a prompt too long.
        """
        try:
            content = self._content(sample)
            if outlines is not None:
                self._outlined(sample, content, outlines)
        except RowError as error:
            return error.reason
        return None

    def outlined(self, sample: Sample, outlines: Sequence[Outline]) -> Prompt:
        """What `prompt` gives but for the tensors of media, of which it needs the outlines only. Raises RowError as that does."""
        return self._outlined(sample, self._content(sample), outlines)

    def _outlined(self, sample: Sample, content: list[dict[str, str]], outlines: Sequence[Outline]) -> Prompt:
        pairs, alone = zip(sample.media, outlines, strict=True), _alone(sample)
        return self._prompt(sample, content, tuple(self.look.outlined(*pair, sample.id, alone) for pair in pairs), "")

    def prompt(self, sample: Sample, prefill: str = "") -> Prompt:
        """Render one sample; the assistant's turn begins with the sample's own prefill, then `prefill`.

        Raises RowError when media and marks disagree, a control token hides in the text, or it is too long.
        """
        content = self._content(sample)
        return self._prompt(sample, content, tuple(self.look(media, sample.id, _alone(sample)) for media in sample.media), prefill)

    def _prompt(self, sample: Sample, content: list[dict[str, str]], vision: tuple[Vision, ...], prefill: str) -> Prompt:
        text = self._render([{"role": "user", "content": content}])
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        expanded, types = self._expand(sample, text, ids, vision)
        # The prefill is tokenized apart: joined, its first letters could merge with the template's last, and no completion starts so.
        prefill = sample.prefill + prefill
        if text.rstrip().endswith(OPENING):  # the template itself opens the thought: one opening tag, not two
            prefill = prefill.removeprefix(OPENING)
        written = list(self.ids_of(prefill))
        if len(expanded) + len(written) > self.config.max_prompt_tokens:
            raise RowError(
                sample.id,
                f"the prompt has {len(expanded) + len(written)} tokens ({sum(v.tokens for v in vision)} visual), more than "
                f"model.max_prompt_tokens={self.config.max_prompt_tokens}; raise it, lower {self._largest(sample)}, or drop the row",
            )
        return Prompt(
            sample=sample,
            text=text + prefill,
            ids=tuple(ids + written),
            expanded_ids=tuple(expanded + written),
            token_types=tuple(types + [0] * len(written)),
            vision=vision,
            prefill=prefill,
        )

    def text_of(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def ids_of(self, text: str) -> tuple[int, ...]:
        """Ids of what the model wrote or is said to have written: a control token spelled in it stays plain text and controls nothing."""
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]) if text else ()

    def _content(self, sample: Sample) -> list[dict[str, str]]:
        content = content_parts(sample, self.render(sample))
        for part in content:
            self._refuse_control_tokens(sample.id, part.get("text", ""))
        return content

    def _render(self, turns: list[dict[str, Any]]) -> str:
        """By the family's own processor; arguments for it are named, or some warn at every prompt of those they add themselves."""
        how = {"processor_kwargs": {"padding": False}}
        return self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **how)

    def _refuse_control_tokens(self, row: str, text: str) -> None:
        for token in self.control_tokens:
            if token in text:
                raise RowError(row, f"its text contains the model's control token {token}; remove it from the row")

    def _largest(self, sample: Sample) -> str:
        videos = any(media.kind == "video" for media in sample.media)
        return "model.video_max_frames or model.video_max_pixels" if videos else "model.image_max_pixels"

    def _expand(self, sample: Sample, text: str, ids: list[int], vision: tuple[Vision, ...]) -> tuple[list[int], list[int]]:
        """Ids with one placeholder per visual token, and their types. `ids` are those of `text`."""
        kinds = [media.kind for media in sample.media]
        kind_of = {mark: kind for kind, mark in self.family.marks.items()}
        found = [kind_of[mark] for mark in self._marks.findall(text)]
        ordered = found == kinds or (len(set(self.placeholder.values())) > 1 and sorted(found) == sorted(kinds))
        if not ordered:
            raise UserError(
                f"row {sample.id}: the chat template wrote {len(found)} visual placeholders ({', '.join(found)}) for {len(kinds)} media "
                f"({', '.join(kinds)}); it is not one of a {type(self.processor).__name__}"
            )
        # A template may gather media of one kind before the others; within a kind it keeps their order.
        queues = {kind: iter([v for k, v in zip(kinds, vision, strict=True) if k == kind]) for kind in self.family.marks}
        placed = [(kind, next(queues[kind])) for kind in found]
        spelled = self._spell(text, iter([v.text for _, v in placed]))
        ids = ids if spelled == text else self.tokenizer(spelled, add_special_tokens=False)["input_ids"]
        runs = iter([(run, TYPE_OF[kind]) for kind, v in placed for run in v.runs])
        shown = set(self.placeholder.values())
        expanded, types = [], []
        for id_ in ids:
            count, type_ = next(runs) if id_ in shown else (1, 0)
            expanded += [id_] * count
            types += [type_] * count
        assert next(runs, None) is None, "a medium is spelled without its visual tokens"
        return expanded, types

    def _spell(self, text: str, media: Iterator[str]) -> str:
        """The prompt with each medium spelled as its family does, times between frames included."""
        return self._marks.sub(lambda mark: next(media), text)


def _alone(sample: Sample) -> bool:
    return sum(media.kind == "image" for media in sample.media) == 1
