"""Judges loaded here from Hugging Face files: a chat model, a scalar reward model, an embedding model. Questions in, replies out.

A chat model reads `sample.question` as its whole prompt. A reward model scores `sample.response` as the answer to `sample.question` and its
media, an embedding model compares `sample.question` with `sample.answer`; both reply with nothing but a number, whose meaning is not their
business.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from vlm_rl.config_judges import JudgeConfig
from vlm_rl.engine.hf_local import Encoded, LocalJudge, Pictures
from vlm_rl.errors import RowError
from vlm_rl.types import Generate, Reply
from vlm_rl.value_head import FEATURES, FILE, LIKELIHOOD, ValueHead

HEAD_PREFIXES = ("v_head.summary.", "summary.")


def make_local(name: str, settings: JudgeConfig, pictures: Pictures) -> LocalJudge:
    """The judge that `settings.kind` says; nothing is loaded before it is probed or asked."""
    kinds: Mapping[str, type[LocalJudge]] = {"hf_chat": ChatJudge, "reward_model": RewardModelJudge, "embedding": EmbeddingJudge}
    return kinds[settings.kind](name, settings, pictures)


class ChatJudge(LocalJudge):
    """Writes its reply greedily."""

    padding = "left"

    def load(self) -> Any:
        sighted = "vision_config" in self.config.to_dict()
        return self.whole(transformers.AutoModelForImageTextToText if sighted else transformers.AutoModelForCausalLM)

    def encode(self, query: Generate) -> list[Encoded]:
        if query.sampling.temperature > 0:
            raise RowError(query.sample.id, f"judge '{self.name}' writes greedily; ask it at temperature 0")
        return [self.chat(query)]

    def forward(self, encoded: Sequence[Sequence[Encoded]], queries: Sequence[Generate]) -> list[Reply]:
        inputs = self.padded([item for (item,) in encoded])
        wanted = any(query.sampling.alternatives for query in queries)
        longest = max(query.sampling.max_new_tokens for query in queries)
        out = self.model.generate(
            **inputs, do_sample=False, max_new_tokens=longest, return_dict_in_generate=True, output_logits=wanted, use_cache=True
        )
        written = out.sequences[:, inputs["input_ids"].shape[1] :]
        first = out.logits[0].float().log_softmax(-1) if wanted else [None] * len(queries)
        return [self._reply(ids.tolist(), query, logprobs) for ids, query, logprobs in zip(written, queries, first, strict=True)]

    def _reply(self, ids: list[int], query: Generate, logprobs: Tensor | None) -> Reply:
        sampling, stops = query.sampling, self._ends
        end = next((i for i, id_ in enumerate(ids) if id_ in stops), None)
        whole = end is not None and end < sampling.max_new_tokens
        text = self.tokenizer.decode(ids[: end if whole else sampling.max_new_tokens], skip_special_tokens=True)
        for stop in sampling.stop:
            before, found, _ = text.partition(stop)
            text, whole = (before + found, True) if found else (text, whole)
        alternatives = self._alternatives(logprobs, sampling.alternatives) if logprobs is not None and sampling.alternatives else {}
        return Reply(text, finish="stop" if whole else "length", alternatives=alternatives)

    @cached_property
    def _ends(self) -> set[int]:
        eos = self.model.generation_config.eos_token_id
        return {*(eos if isinstance(eos, list) else [eos]), self.tokenizer.eos_token_id, self.tokenizer.pad_token_id} - {None}

    def _alternatives(self, logprobs: Tensor, count: int) -> dict[str, float]:
        """Of the likeliest first tokens by their text; tokens of one text count together."""
        top = logprobs.topk(min(count, len(logprobs)))
        mass: dict[str, float] = {}
        for logprob, id_ in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            text = self.tokenizer.decode([id_])
            mass[text] = mass.get(text, 0.0) + math.exp(logprob)
        return {text: math.log(p) for text, p in mass.items() if p > 0}


class RewardModelJudge(LocalJudge):
    """A scalar for (question, media, response), as it is: not on [0, 1]. Two kinds of files: a model for sequence classification with one
    output, or a language model (with pictures or without) beside a value head as TRL and LLaMA-Factory save it, read at the last token, or
    as `vlm-rl sft` does, which may count the response's likelihood too.
    """

    def load(self) -> Any:
        head = cached_file(self.source, FILE, _raise_exceptions_for_missing_entries=False)
        if head is not None:
            return self._with_head(Path(head))
        if self.config.num_labels != 1:
            raise self.refusal(
                f"its config says {self.config.num_labels} outputs and there is no {FILE}; a scalar reward model has one output"
            )
        return self.whole(transformers.AutoModelForSequenceClassification)

    def _with_head(self, path: Path) -> "WithValueHead":
        tensors = load_file(path)
        prefix = next((prefix for prefix in HEAD_PREFIXES if f"{prefix}weight" in tensors), None)
        if prefix is None:
            raise self.refusal(f"{FILE} has no {HEAD_PREFIXES[0]}weight; it holds {', '.join(sorted(tensors)[:5]) or 'nothing'}")
        weight, bias, likelihood = tensors[f"{prefix}weight"], tensors.get(f"{prefix}bias"), tensors.get(LIKELIHOOD)
        width = self.config.get_text_config().hidden_size
        if weight.shape != (1, width) or (bias is not None and bias.shape != (1,)):
            raise self.refusal(f"the head in {FILE} is {tuple(weight.shape)}, for this model it must be (1, {width})")
        if likelihood is not None and likelihood.shape != (1, FEATURES):
            raise self.refusal(f"{LIKELIHOOD} in {FILE} is {tuple(likelihood.shape)}, it must be (1, {FEATURES})")
        head = ValueHead(width, likelihood is not None, bias is not None)
        head.fill(tensors, prefix)
        sighted = "vision_config" in self.config.to_dict()
        writing = transformers.AutoModelForImageTextToText if sighted else transformers.AutoModelForCausalLM
        return WithValueHead(self.whole(transformers.AutoModel if likelihood is None else writing), head)

    def encode(self, query: Generate) -> list[Encoded]:
        if query.sample.response is None:
            raise RowError(query.sample.id, f"judge '{self.name}' is a reward model: it scores responses and answers no prompt")
        return [self.chat(query, query.sample.response)]

    def forward(self, encoded: Sequence[Sequence[Encoded]], queries: Sequence[Generate]) -> list[Reply]:
        inputs = self.padded([item for (item,) in encoded])
        if isinstance(self.model, WithValueHead):
            lengths = [self.tail(query) for query in queries] if self.model.head.likelihood is not None else []
            scores = self.model(lengths, **inputs)
        else:
            scores = self.model(**inputs).logits[:, 0]
        return [number(score) for score in scores.float().tolist()]


class WithValueHead(nn.Module):
    """A model's last hidden state at each row's last token (rows padded on the right), through a head in float32. Where likelihood counts
    `base` is a model that writes, and `lengths` says how many tokens at the end of each row are the response's."""

    def __init__(self, base: Any, head: ValueHead):
        super().__init__()
        self.base, self.head = base, head

    def forward(self, lengths: Sequence[int], **inputs: Tensor) -> Tensor:
        reader = self.base if self.head.likelihood is None else self.base.model
        hidden = reader(**inputs, use_cache=False).last_hidden_state
        last = inputs["attention_mask"].sum(-1) - 1
        rows = torch.arange(len(hidden), device=hidden.device)
        logprobs = [self._logprobs(hidden[i], inputs["input_ids"][i], int(last[i]) + 1, n) for i, n in enumerate(lengths)]
        sizes = torch.tensor(lengths, device=hidden.device)
        return self.head(hidden[rows, last], torch.cat(logprobs) if logprobs else None, sizes)

    def _logprobs(self, hidden: Tensor, ids: Tensor, end: int, count: int) -> Tensor:
        """Of the `count` tokens before `end`."""
        logits = self.base.get_output_embeddings()(hidden[end - count - 1 : end - 1]).float()
        return logits.log_softmax(-1).gather(1, ids[end - count : end, None])[:, 0]


class EmbeddingJudge(LocalJudge):
    """The cosine of two texts' embeddings: hidden states averaged over their tokens. A text whose embedding is zero is like nothing: 0."""

    def load(self) -> Any:
        return self.whole(transformers.AutoModel, spare=("pooler.",))  # averaging does without it

    def encode(self, query: Generate) -> list[Encoded]:
        sample = query.sample
        if not sample.answer or sample.media:
            raise RowError(sample.id, f"judge '{self.name}' is an embedding model: it compares two texts and answers no prompt")
        return [self.checked(self.tokenizer(self.plain(text)), sample.id) for text in (sample.question, sample.answer)]

    def forward(self, encoded: Sequence[Sequence[Encoded]], queries: Sequence[Generate]) -> list[Reply]:
        inputs = self.padded([item for pair in encoded for item in pair])
        hidden, mask = self.model(**inputs).last_hidden_state.float(), inputs["attention_mask"][:, :, None]
        means = (hidden * mask).sum(1) / mask.sum(1)
        return [number(cosine) for cosine in torch.cosine_similarity(means[0::2], means[1::2]).tolist()]


def number(value: float) -> Reply:
    """A reply that is nothing but the number; one that is none is a failure."""
    return Reply(f"{value:.9g}") if math.isfinite(value) else Reply(error=f"the model gave {value}")
