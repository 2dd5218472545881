"""Generation with the transformers model itself: the engine of laptops and tests, and the reference the others are held against.

Each distinct prompt is prefilled once, its key-value cache expanded to the group; finished rows leave the batch. A row's draws come from
its own seed by inverse transform of its own distribution, so they do not depend on what else is in the batch. Not for speed on GPUs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from vlm_rl.chat import Chat
from vlm_rl.engine.base import GenerateRequest, Progress, ScoreRequest
from vlm_rl.packing import Item, join_vision, split
from vlm_rl.policy import Policy
from vlm_rl.types import Completion, Prompt, Segment
from vlm_rl.visual_inputs import visual_inputs

TAIL = 48  # tokens decoded to look for a stop string; longer strings than their text are not sensible stops


class HFEngine:
    """Shares `policy`'s weights: nothing needs to be synced while trainer and engine are one module."""

    def __init__(self, policy: Policy, chat: Chat, batch_size: int = 512, token_budget: int = 16384):
        self.policy, self.chat = policy, chat
        self.batch_size, self.token_budget = batch_size, token_budget
        eos = policy.model.generation_config.eos_token_id
        self.eos = set(eos if isinstance(eos, list) else [eos]) - {None} or {chat.tokenizer.eos_token_id}

    @torch.no_grad()
    def generate(self, requests: Sequence[GenerateRequest], progress: Progress | None = None) -> list[tuple[Completion, ...]]:
        wanted = [(r, seed) for r, request in enumerate(requests) for seed in request.seeds]
        written: list[list[Completion]] = [[] for _ in requests]
        self.policy.model.eval()
        done = 0
        for batch in self._batches(requests, wanted):
            rows = [Row(requests[r], seed) for r, seed in batch]
            self._write(rows)
            for (r, _), row in zip(batch, rows, strict=True):
                written[r].append(self._completion(row))
            done += len(batch)
            if progress:
                progress(done, len(wanted))
        return [tuple(completions) for completions in written]

    @torch.no_grad()
    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        same: dict[int, list[int]] = {}  # continuations of one prompt object share its forward
        for i, request in enumerate(requests):
            if request.continuation_ids:
                same.setdefault(id(request.prompt), []).append(i)
        items = [Item(requests[w[0]].prompt, tuple(requests[i].continuation_ids for i in w), tuple(w)) for w in same.values()]
        scores: list[tuple[float, ...]] = [()] * len(requests)
        for batch in split(items, self.token_budget):
            row = self.policy.pack(batch)
            logprobs = self.policy(row).logprob_T
            for i in (index for item in batch for index in item.rollouts):
                scores[i] = tuple(logprobs[row.rollout_T == i].tolist())
        return scores

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> None:
        own = self.policy.model.state_dict()
        for name, tensor in weights:
            own[name].copy_(tensor)

    def _batches(self, requests: Sequence[GenerateRequest], wanted: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        """In order, at most `batch_size` completions at once and `token_budget` padded tokens of distinct prompts in a prefill."""
        batch: list[tuple[int, int]] = []
        prompts: dict[int, int] = {}
        for r, seed in wanted:
            prompt = requests[r].prompt
            held = {**prompts, id(prompt): len(prompt.expanded_ids)}
            if batch and (len(batch) == self.batch_size or len(held) * max(held.values()) > self.token_budget):
                yield batch
                batch, held = [], {id(prompt): len(prompt.expanded_ids)}
            batch.append((r, seed))
            prompts = held
        if batch:
            yield batch

    def _write(self, rows: list["Row"]) -> None:
        """Decode all rows to their ends; rows of one prompt object share its prefill."""
        prompts = {id(row.request.prompt): row.request.prompt for row in rows}
        place = {key: i for i, key in enumerate(prompts)}
        source = torch.tensor([place[id(row.request.prompt)] for row in rows], device=self.policy.device)
        logits, cache, mask, position = self._prefill(list(prompts.values()))
        cache.reorder_cache(source)  # unlike batch_select_indices it knows layers that carry a state
        logits, mask, position = logits[source], mask[source], position[source]
        draw = Draw(rows, self.policy.device)
        active = list(range(len(rows)))
        for step in range(max(row.limit for row in rows)):
            if step == 0:
                self._keep_alternatives(rows, logits)
            ids, logprobs = draw(logits, step, self.policy.banned_V)
            self._append([rows[i] for i in active], ids.tolist(), logprobs.tolist())
            keep = [k for k, i in enumerate(active) if not rows[i].done]
            if not keep:
                return
            if len(keep) < len(active):
                index = torch.tensor(keep, device=ids.device)
                cache.reorder_cache(index)
                active = [active[k] for k in keep]
                ids, mask, position = ids[index], mask[index], position[index]
                draw.select(index)
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            text = self.policy.text_inputs(ids[:, None], (position + step).expand(self.policy.family.axes, -1)[:, :, None])
            out = self.policy.model(**text, attention_mask=mask, past_key_values=cache, use_cache=True)
            logits = out.logits[:, -1]

    def _prefill(self, prompts: list[Prompt]) -> tuple[Tensor, Any, Tensor, Tensor]:
        """Left-padded prompts -> last logits (B, V), cache, mask (B, P), first position (B,) of what follows."""
        width = max(len(p.expanded_ids) for p in prompts)
        ids, types, mask = (torch.zeros(len(prompts), width, dtype=torch.long) for _ in range(3))
        positions = torch.zeros(self.policy.family.axes, len(prompts), width, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            n = len(prompt.expanded_ids)
            ids[i, width - n :], mask[i, width - n :] = torch.tensor(prompt.expanded_ids), 1
            types[i, width - n :] = torch.tensor(prompt.token_types)
            positions[:, i, width - n :] = self.policy.rope_index(prompt)
        device = self.policy.device
        vision = visual_inputs(self.policy.model, join_vision(prompts, device))
        cache = DynamicCache(config=self.policy.model.config.get_text_config())
        out = self.policy.model(
            **self.policy.text_inputs(ids.to(device), positions.to(device), types.to(device)),
            **vision,
            attention_mask=mask.to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1], cache, mask.to(device), positions.amax(dim=(0, 2)).to(device) + 1

    def _append(self, rows: list["Row"], ids: list[int], logprobs: list[float]) -> None:
        for row, id_, logprob in zip(rows, ids, logprobs, strict=True):
            row.ids.append(id_)
            row.logprobs.append(logprob)
            if id_ in self.eos or (row.stop and any(s in self.chat.text_of(row.ids[-TAIL:]) for s in row.stop)):
                row.finish = "stop"
            elif len(row.ids) >= row.limit:
                row.finish = "length"

    def _keep_alternatives(self, rows: list["Row"], logits: Tensor) -> None:
        """Log-probs at temperature 1 of the likeliest first tokens, for the rows that want them; tokens of one text count together."""
        for i, row in enumerate(rows):
            if row.request.sampling.alternatives:
                logprobs_V = logits[i].float().masked_fill(self.policy.banned_V, float("-inf")).log_softmax(-1)
                told, ids = logprobs_V.topk(min(row.request.sampling.alternatives, len(logprobs_V)))
                for logprob, id_ in zip(told.tolist(), ids.tolist(), strict=True):
                    text = self.chat.tokenizer.decode([id_])
                    row.alternatives[text] = float(np.logaddexp(row.alternatives.get(text, -np.inf), logprob))

    def _completion(self, row: "Row") -> Completion:
        segments = (Segment(tuple(row.ids), tuple(row.logprobs)),)
        return Completion(self.chat.text_of(row.ids), segments, row.finish or "length", row.alternatives)


@dataclass
class Row:
    """One completion being written."""

    request: GenerateRequest
    seed: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Any = None
    alternatives: dict[str, float] = field(default_factory=dict)

    @property
    def limit(self) -> int:
        return self.request.sampling.max_new_tokens

    @property
    def stop(self) -> tuple[str, ...]:
        return self.request.sampling.stop

    @property
    def done(self) -> bool:
        return self.finish is not None


class Draw:
    """Draws the next token of each row from the row's own seed. Temperature 0 is greedy with log-probs at temperature 1."""

    def __init__(self, rows: Sequence[Row], device: torch.device):
        uniform = [torch.rand(row.limit, generator=torch.Generator().manual_seed(row.seed), dtype=torch.float64) for row in rows]
        self.uniform = torch.nn.utils.rnn.pad_sequence(uniform, batch_first=True).to(device)
        temperature = torch.tensor([row.request.sampling.temperature for row in rows], device=device)
        self.greedy = temperature == 0
        self.temperature = temperature.masked_fill(self.greedy, 1.0)

    def select(self, index: Tensor) -> None:
        self.uniform, self.greedy, self.temperature = self.uniform[index], self.greedy[index], self.temperature[index]

    def __call__(self, logits: Tensor, step: int, banned_V: Tensor) -> tuple[Tensor, Tensor]:
        logprobs = (logits.float().masked_fill(banned_V, float("-inf")) / self.temperature[:, None]).log_softmax(-1)
        # First id whose cumulative probability passes u: ids of probability 0 are never "first", whatever the rounding.
        cumulative = logprobs.double().exp().cumsum(-1)
        drawn = torch.searchsorted(cumulative, (self.uniform[:, step] * cumulative[:, -1])[:, None], right=True)[:, 0]
        best = logprobs.argmax(-1)
        ids = torch.where(self.greedy | (drawn >= logprobs.shape[1]), best, drawn)
        return ids, logprobs.gather(1, ids[:, None])[:, 0]
