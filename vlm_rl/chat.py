"""Sample -> Prompt. With vlm_rl.vision the only file that knows chat templates, visual placeholder tokens and processors.

What a question looks like as text (`render`) and how bytes become a picture (`decode`) or frames (`decode_video`) is decided elsewhere
and handed in.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from vlm_rl.config import ModelConfig
from vlm_rl.errors import RowError, UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.turns import content_parts
from vlm_rl.types import Outline, Prompt, Sample
from vlm_rl.vision import SNIPPET, DecodeImage, DecodeVideo, VisualProcessor
from vlm_rl.vision_cache import Vision

VISUAL_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")
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

    @cached_property
    def placeholder(self) -> dict[str, int]:
        """Token id that stands for one visual token: {"image": 151655, "video": 151656}"""
        return {kind: self.tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in TYPE_OF}

    @cached_property
    def visual_ids(self) -> tuple[int, ...]:
        """Ids that may never be sampled: one placeholder in a completion breaks the next forward."""
        vocabulary = self.tokenizer.get_vocab()
        return tuple(vocabulary[token] for token in VISUAL_TOKENS if token in vocabulary)

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
                pairs = zip(sample.media, outlines, strict=True)
                self._prompt(sample, content, tuple(self.look.outlined(*pair, sample.id) for pair in pairs), "")
        except RowError as error:
            return error.reason
        return None

    def prompt(self, sample: Sample, prefill: str = "") -> Prompt:
        """Render one sample; the assistant's turn begins with the sample's own prefill, then `prefill`.

        Raises RowError when media and marks disagree, a control token hides in the text, or it is too long.
        """
        content = self._content(sample)
        return self._prompt(sample, content, tuple(self.look(media, sample.id) for media in sample.media), prefill)

    def _prompt(self, sample: Sample, content: list[dict[str, str]], vision: tuple[Vision, ...], prefill: str) -> Prompt:
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
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
        text = self.render(sample)
        self._refuse_control_tokens(sample.id, text)
        return content_parts(sample, text)

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
        pads = {self.placeholder[kind]: type_ for kind, type_ in TYPE_OF.items()}
        found = [id_ for id_ in ids if id_ in pads]
        if found != [self.placeholder[kind] for kind in kinds] or text.count(SNIPPET) != kinds.count("video"):
            raise UserError(
                f"row {sample.id}: the chat template wrote {len(found)} visual placeholders for {len(kinds)} media; "
                "this processor's template is not one of the Qwen-VL families"
            )
        spelled = self._spell(text, [v.text for kind, v in zip(kinds, vision, strict=True) if kind == "video"])
        ids = ids if spelled == text else self.tokenizer(spelled, add_special_tokens=False)["input_ids"]
        runs = iter([run for v in vision for run in v.runs])
        expanded, types = [], []
        for id_ in ids:
            count = next(runs) if id_ in pads else 1
            expanded += [id_] * count
            types += [pads.get(id_, 0)] * count
        return expanded, types

    def _spell(self, text: str, videos: Sequence[str]) -> str:
        """The prompt with each video spelled as its family does, times between frames included."""
        pieces = text.split(SNIPPET)
        return pieces[0] + "".join(video + piece for video, piece in zip(videos, pieces[1:], strict=True))
