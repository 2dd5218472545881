"""Sample -> Prompt -> processor tensors. The only file that knows chat templates, visual placeholder tokens and processors.

The processor runs once per unique picture (cached by content id within a byte limit) and its tensors are shared by reference, so engine
and trainer are handed the same pixels. What a question looks like as text (`render`) and how bytes become a picture (`decode`) is
decided elsewhere and handed in.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from vlm_rl.config import ModelConfig
from vlm_rl.errors import RowError, UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Media, Prompt, Sample

MARK = re.compile(r"<(image|video)>")
VISUAL_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")
TYPE_OF = {"image": 1, "video": 2}


@dataclass(frozen=True, eq=False)
class Vision:
    """The processor's tensors for one medium, as the model's forward names them, and how many visual tokens it takes."""

    tensors: Mapping[str, torch.Tensor]
    tokens: int


class Chat:
    """Renders prompts for one processor. `decode(media, row_id)` gives an RGB picture or raises RowError."""

    def __init__(self, processor: Any, config: ModelConfig, render: Callable[[Sample], str], decode: Callable[[Media, str], Image.Image]):
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.config, self.render, self.decode = config, render, decode
        self._cache: OrderedDict[tuple[str, str], Vision] = OrderedDict()
        self._cache_bytes, self.cache_limit = 0, 1 << 30
        self.processor_calls = 0

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

    def prompt(self, sample: Sample, prefill: str = "") -> Prompt:
        """Render one sample. Raises RowError when media and marks disagree, a control token hides in the text, or it is too long."""
        content = self._content(sample)
        self._refuse_control_tokens(sample.id, prefill, *(part.get("text", "") for part in content))
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        vision = tuple(self.vision(media, sample.id) for media in sample.media)
        expanded, types = self._expand(sample, ids, vision)
        # The prefill is tokenized apart: joined, its first letters could merge with the template's last, and no completion starts so.
        written = self.tokenizer(prefill, add_special_tokens=False)["input_ids"] if prefill else []
        if len(expanded) + len(written) > self.config.max_prompt_tokens:
            raise RowError(
                sample.id,
                f"the prompt has {len(expanded) + len(written)} tokens ({sum(v.tokens for v in vision)} visual), more than "
                f"model.max_prompt_tokens={self.config.max_prompt_tokens}; raise it, lower model.image_max_pixels, or drop the row",
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
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def vision(self, media: Media, row: str) -> Vision:
        """The processor's tensors of one medium, from the cache where possible."""
        try:
            key = (media.kind, media.id)
        except OSError as error:
            raise RowError(row, f"cannot read {media.path}: {error.strerror or error}") from None
        if key not in self._cache:
            self._remember(key, self._process(media, row))
        self._cache.move_to_end(key)
        return self._cache[key]

    def _process(self, media: Media, row: str) -> Vision:
        if media.kind == "video":
            raise RowError(row, "videos are not supported yet; give frames as images")
        picture = self.decode(media, row)
        size = {"min_pixels": self.config.image_min_pixels, "max_pixels": self.config.image_max_pixels}
        try:
            out = self.processor.image_processor(images=[picture], return_tensors="pt", **{k: v for k, v in size.items() if v})
        except ValueError as error:
            raise RowError(row, f"the picture ({picture.width}x{picture.height}) cannot be processed: {error}") from None
        self.processor_calls += 1
        merge = self.processor.image_processor.merge_size
        return Vision(dict(out), int(out["image_grid_thw"].prod()) // merge**2)

    def _remember(self, key: tuple[str, str], vision: Vision) -> None:
        self._cache[key] = vision
        self._cache_bytes += _bytes(vision)
        while self._cache_bytes > self.cache_limit and len(self._cache) > 1:
            _, old = self._cache.popitem(last=False)
            self._cache_bytes -= _bytes(old)

    def _content(self, sample: Sample) -> list[dict[str, str]]:
        text = self.render(sample)
        marks = MARK.findall(text)
        kinds = [media.kind for media in sample.media]
        if not marks:
            return [{"type": kind} for kind in kinds] + [{"type": "text", "text": text}]
        if marks != kinds:
            raise RowError(sample.id, f"the question's marks {marks} do not match its media {kinds}")
        pieces = MARK.split(text)
        parts = [{"type": p} if i % 2 else {"type": "text", "text": p} for i, p in enumerate(pieces)]
        return [part for part in parts if part.get("text") != ""]

    def _refuse_control_tokens(self, row: str, *texts: str) -> None:
        for token in self.control_tokens:
            if any(token in text for text in texts):
                raise RowError(row, f"its text contains the model's control token {token}; remove it from the row")

    def _expand(self, sample: Sample, ids: list[int], vision: tuple[Vision, ...]) -> tuple[list[int], list[int]]:
        kinds = [media.kind for media in sample.media]
        found = [id_ for id_ in ids if id_ in self.placeholder.values()]
        if found != [self.placeholder[kind] for kind in kinds]:
            raise UserError(
                f"row {sample.id}: the chat template wrote {len(found)} visual placeholders for {len(kinds)} media; "
                "this processor's template is not one of the Qwen-VL families"
            )
        expanded, types, items = [], [], iter(zip(kinds, vision, strict=True))
        for id_ in ids:
            if id_ not in self.placeholder.values():
                expanded.append(id_)
                types.append(0)
                continue
            kind, item = next(items)
            expanded += [id_] * item.tokens
            types += [TYPE_OF[kind]] * item.tokens
        return expanded, types


def _bytes(vision: Vision) -> int:
    return sum(t.numel() * t.element_size() for t in vision.tensors.values())
