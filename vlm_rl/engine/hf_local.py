"""What judges loaded here from Hugging Face files have in common: loading that refuses, texts made harmless, batches.

Raises UserError, by the judge's name, for files that hold another model than the config says: a head that was never trained would give
noise that looks like scores. Texts are hostile: a control token spelled in one stays text. What a reply means is not its business.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
import transformers
from PIL import Image
from torch import Tensor

from vlm_rl.config_judges import JudgeConfig
from vlm_rl.engine.base import Progress
from vlm_rl.errors import RowError, UserError
from vlm_rl.models import source_of
from vlm_rl.types import Generate, Media, Reply

Pictures = Callable[[Media, str], Sequence[bytes]]
Encoded = Any  # what a tokenizer or processor makes of one text

DEFAULT_MAX_TOKENS = 8192
_ENDLESS = 1_000_000  # tokenizers without a limit say a number of this kind


class LocalJudge(ABC):
    """What the three have in common: loading that refuses, batches, one reply for equal questions. Models with pictures are asked one by
    one; a busy run is better served by a judge behind an endpoint.
    """

    padding: Literal["left", "right"] = "right"

    def __init__(self, name: str, settings: JudgeConfig, pictures: Pictures):
        assert settings.path
        self.name, self.settings, self.pictures, self.path = name, settings, pictures, settings.path
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if settings.device == "auto" else settings.device

    def probe(self) -> None:
        """Load it. Raises UserError."""
        self._loaded()

    def answer(self, queries: Sequence[Generate], progress: Progress | None = None) -> list[Reply]:
        """One reply per query, in order; equal questions are forwarded once."""
        keys = [(q.sample.question, q.sample.answer, q.sample.response, q.sample.media, q.sampling) for q in queries]
        waiting = list(dict(zip(keys, queries, strict=True)).items())
        replies: dict[Any, Reply] = {}
        together = 1 if self.sees or self.tokenizer.pad_token_id is None else self.settings.batch_size
        for start in range(0, len(waiting), together):
            batch = waiting[start : start + together]
            replies |= zip([key for key, _ in batch], self._batch([query for _, query in batch]), strict=True)
            if progress is not None:
                progress(len(replies), len(waiting))
        return [replies[key] for key in keys]

    def _batch(self, queries: Sequence[Generate]) -> list[Reply]:
        """What cannot be asked is answered with an error, the rest together."""
        replies: dict[int, Reply] = {}
        ready: dict[int, list[Encoded]] = {}
        for i, query in enumerate(queries):
            try:
                ready[i] = self.encode(query)
            except RowError as error:
                replies[i] = Reply(error=error.reason)
        with torch.no_grad():
            said = self.forward(list(ready.values()), [queries[i] for i in ready]) if ready else []
        replies |= zip(ready, said, strict=True)
        return [replies[i] for i in range(len(queries))]

    @abstractmethod
    def load(self) -> Any:
        """The model at `source`. Raises UserError."""

    @abstractmethod
    def encode(self, query: Generate) -> list[Encoded]:
        """The texts of one query for the model. Raises RowError for a query that cannot be asked."""

    @abstractmethod
    def forward(self, encoded: Sequence[Sequence[Encoded]], queries: Sequence[Generate]) -> list[Reply]:
        """The replies to encoded queries."""

    @cached_property
    def source(self) -> str:
        return source_of(self.path, f"judges.{self.name}.path")

    @cached_property
    def config(self) -> Any:
        return self._read(transformers.AutoConfig, "model")

    @cached_property
    def model(self) -> Any:
        return self.load().to(self.device).eval()

    @cached_property
    def processor(self) -> Any:
        processor = self._read(transformers.AutoProcessor, "tokenizer")
        tokenizer = vars(processor).get("tokenizer", processor)
        tokenizer.padding_side = self.padding
        return processor

    @property
    def tokenizer(self) -> Any:
        return vars(self.processor).get("tokenizer", self.processor)

    @property
    def sees(self) -> bool:
        """Whether it takes pictures."""
        return self.tokenizer is not self.processor

    def _read(self, auto: Any, what: str) -> Any:
        try:
            return auto.from_pretrained(self.source)
        except (OSError, ValueError, KeyError) as error:
            raise self.refusal(f"no {what} could be loaded: {str(error).strip().splitlines()[0]}") from None

    def _loaded(self) -> tuple[Any, Any]:
        return self.processor, self.model

    def refusal(self, reason: str) -> UserError:
        return UserError(f"judges.{self.name}.path={self.path}: {reason}")

    def whole(self, auto: Any, spare: tuple[str, ...] = ()) -> Any:
        """The model of that class with all its weights, but for those whose names begin with `spare`. Raises UserError."""
        try:
            model, found = auto.from_pretrained(self.source, dtype=getattr(torch, self.settings.dtype), output_loading_info=True)
        except (OSError, ValueError, KeyError) as error:
            raise self.refusal(f"no model of kind {self.settings.kind} could be loaded: {str(error).strip().splitlines()[0]}") from None
        missing = [key for key in sorted(found["missing_keys"]) if not key.startswith(spare)] + [str(k) for k in found["mismatched_keys"]]
        if missing:
            raise self.refusal(
                f"{len(missing)} weights of a {type(model).__name__} are missing or of another shape, such as {missing[0]}; "
                f"it was not saved as a judge of kind {self.settings.kind}"
            )
        return model

    @cached_property
    def limit(self) -> int:
        """Most tokens of one text."""
        known = (self.tokenizer.model_max_length, self.config.get_text_config().to_dict().get("max_position_embeddings"))
        sensible = [number for number in known if number and number < _ENDLESS]
        return self.settings.max_tokens or min(sensible, default=DEFAULT_MAX_TOKENS)

    def plain(self, text: str) -> str:
        """The text with every control token broken, so that it controls nothing."""
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        for token in dict.fromkeys([*self.tokenizer.all_special_tokens, *added]):
            text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text

    def chat(self, query: Generate, response: str | None = None) -> Encoded:
        """A user's turn of media and question, and the assistant's turn where there is one; without a chat template two texts."""
        sample, question = query.sample, self.plain(query.sample.question)
        if sample.media and not self.sees:
            raise RowError(sample.id, f"judge '{self.name}' reads text only; write media: false where it is named")
        answered = [] if response is None else [self.plain(response)]
        if not self.processor.chat_template:
            return self.checked(self.tokenizer(question, *answered), sample.id)
        images = [Image.open(io.BytesIO(png)).convert("RGB") for medium in sample.media for png in self.pictures(medium, sample.id)]
        text = self._turns(question, answered, len(images))
        if self.sees:
            seen = {"images": images} if images else {}
            return self.checked(self.processor(text=[text], return_tensors="pt", **seen), sample.id)
        return self.checked(self.tokenizer(text, add_special_tokens=False), sample.id)

    def _turns(self, question: str, answered: Sequence[str], images: int) -> str:
        content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": question}] if self.sees else question
        turns = [{"role": "user", "content": content}]
        turns += [{"role": "assistant", "content": [{"type": "text", "text": text}] if self.sees else text} for text in answered]
        return self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=not answered)

    def tail(self, query: Generate) -> int:
        """How many tokens the assistant's text and what closes its turn are. Raises UserError for a template that changes that text."""
        question, response = self.plain(query.sample.question), self.plain(query.sample.response or "")
        before, whole = self._turns(question, [], 0), self._turns(question, [response], 0)
        start = whole.find(response, len(before)) if whole.startswith(before) else -1
        if start < 0:
            raise self.refusal("its chat template does not write the assistant's text as it is behind its own generation prompt")
        return len(self.tokenizer(whole[start:], add_special_tokens=False)["input_ids"])

    def checked(self, encoded: Encoded, row: str) -> Encoded:
        length = len(encoded["input_ids"][0] if self.sees else encoded["input_ids"])
        if not 0 < length <= self.limit:
            raise RowError(row, f"the question to judge '{self.name}' has {length} tokens, and it takes from 1 to {self.limit}")
        return encoded

    def padded(self, encoded: Sequence[Encoded]) -> dict[str, Tensor]:
        if self.sees:
            assert len(encoded) == 1
            return dict(encoded[0].to(self.device))
        return dict(self.tokenizer.pad({key: [e[key] for e in encoded] for key in encoded[0]}, return_tensors="pt").to(self.device))
