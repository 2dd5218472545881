"""The trained model: packed groups -> log-probs of completion tokens. No optimiser, no rewards, no sampling.

The whole computation, vocabulary projection included, happens inside `Policy.forward`, the one module that distributed wrappers see.
Prompt logits are never made: hidden states are gathered where a completion token is predicted and projected in chunks.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from vlm_rl import attention, attention_windows
from vlm_rl.families import Family, family_of
from vlm_rl.packing import Item, Pack, join_vision, pack
from vlm_rl.projection import token_stats
from vlm_rl.types import Prompt
from vlm_rl.visual_inputs import visual_inputs

log = logging.getLogger(__name__)


class TokenStats(NamedTuple):
    """Per completion token, in the pack's order: natural log-prob (with gradient) and entropy (with one where asked for)."""

    logprob_T: Tensor
    entropy_T: Tensor


class Policy(nn.Module):
    """A vision-language model with how it is forwarded: "shared_prefix" (fast), "dense" (its oracle) or "plain" (repeated prompts)."""

    banned_V: Tensor

    def __init__(
        self,
        model: Any,
        visual_ids: Iterable[int],
        mode: Literal["shared_prefix", "dense", "plain"] = "shared_prefix",
        gradient_checkpointing: bool = False,
        dropout: bool = False,
    ):
        super().__init__()
        self.family = family_of(model.config.model_type)
        if mode != "plain" and (why := _unpackable(model, self.family)):
            log.warning(
                "%s: no tested shared-prefix forward (%s), so every completion is forwarded with its own prompt",
                model.config.model_type,
                why,
            )
            mode = "plain"
        self.model, self.mode = model, mode
        attention.register()
        name = attention.NAME if mode == "shared_prefix" else "sdpa"
        model.set_attn_implementation({"text_config": name, "vision_config": "sdpa"})
        model.eval()
        self.checkpointing, self.dropout = gradient_checkpointing, dropout
        if gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        banned = torch.zeros(model.get_output_embeddings().weight.shape[0], dtype=torch.bool, device=model.device)
        banned[list(visual_ids)] = True
        self.register_buffer("banned_V", banned, persistent=False)
        self.project = Projection(model)

    @property
    def device(self) -> torch.device:
        return self.model.device

    def rope_index(self, prompt: Prompt) -> Tensor:
        """(A, P) positions of the prompt's tokens: temporal, height and width, text after a medium beyond all of the medium's own, or,
        in families with plain positions, their places."""
        if self.family.axes == 1:
            return torch.arange(len(prompt.expanded_ids))[None]
        ids = torch.tensor([prompt.expanded_ids])
        types = torch.tensor([prompt.token_types], dtype=torch.int)
        grids = join_vision([prompt], "cpu", ("grid_thw", "grid_ts"))
        return after_media(self.model.model.get_rope_index(ids, mm_token_type_ids=types, **grids)[0][:, 0], types[0])

    def pack(self, items: Sequence[Item]) -> Pack:
        return pack(items, self.rope_index, self.device)

    def forward(self, row: Pack, temperature: float = 1.0, entropy_gradient: bool = False) -> TokenStats:
        """Log-probs at `temperature`, visual tokens outside the support, as the engine samples."""
        self._set_mode()
        hidden_TD = self._plain(row) if self.mode == "plain" else self._packed(row, row.predict_T)
        return self.stats(hidden_TD, row, temperature, entropy_gradient)

    def stats(self, hidden_TD: Tensor, row: Pack, temperature: float = 1.0, entropy_gradient: bool = False) -> TokenStats:
        """What `forward` gives, from the states that predict the pack's tokens."""
        return self.project(hidden_TD, row.target_T, self.banned_V, temperature, entropy_gradient)

    def states(self, row: Pack) -> tuple[Tensor, Tensor]:
        """(T, D) hidden states that predict each completion token and (R, D) those at the last token of each completion, in the pack's
        order; completions of two tokens or more."""
        lengths = torch.tensor([len(c) for item in row.items for c in item.completions], device=self.device)
        assert int(lengths.min()) > 1
        # The last token stands one position after the one whose state predicts it.
        last_R = row.predict_T[lengths.cumsum(0) - 1] + 1
        self._set_mode()
        found = self._plain(row, last=True) if self.mode == "plain" else self._packed(row, torch.cat([row.predict_T, last_R]))
        return found[: len(row.predict_T)], found[len(row.predict_T) :]

    def _set_mode(self) -> None:
        """transformers checkpoints in training mode only, and then drops the cache that generation needs. These families have no dropout
        of their own; adapters may."""
        self.model.train((self.checkpointing or self.dropout) and torch.is_grad_enabled())

    def _packed(self, row: Pack, at_T: Tensor) -> Tensor:
        how = self._dense(row) if self.mode == "dense" else self._layout(row)
        text = self.text_inputs(row.ids_L[None], row.positions_AL[:, None], row.types_L[None])
        out = self.model.model(**text, **visual_inputs(self.model, row.vision), use_cache=False, **how)
        return out.last_hidden_state[0, at_T]

    def _dense(self, row: Pack) -> dict[str, Any]:
        mask = attention.dense_mask(row.lengths, self.model.dtype, self.device)
        if not self.family.windows:
            return {"attention_mask": mask}
        return {"attention_mask": attention_windows.dense_masks(row.lengths, row.types_L, mask, self._window)}

    def _layout(self, row: Pack) -> dict[str, Any]:
        where = attention.layout(row.lengths, self.device)
        if self.family.windows:
            own = attention_windows.windows(row.types_L, where.prompt_NP, where.mask_M1RK, row.lengths, self._window)
            where = replace(where, windows=own)
        how: dict[str, Any] = {"shared_prefix": where}
        if self.family.axes == 1:  # or transformers takes the positions for packed sequences and makes a mask of L x L
            how["attention_mask"] = torch.zeros(1, 1, 1, 1, device=self.device)
        return how

    @property
    def _window(self) -> int:
        return self.model.config.get_text_config().sliding_window

    def _plain(self, row: Pack, last: bool = False) -> Tensor:
        """Every completion behind its own copy of the prompt, padded on the right; with `last` also the states at their last tokens."""
        pairs = [(item.prompt, completion) for item in row.items for completion in item.completions]
        sizes = [(len(p.expanded_ids), len(c)) for p, c in pairs]
        width = max(p + c for p, c in sizes)
        ids, types, mask = (torch.zeros(len(pairs), width, dtype=torch.long) for _ in range(3))
        positions = torch.zeros(self.family.axes, len(pairs), width, dtype=torch.long)
        rope = {id(prompt): self.rope_index(prompt) for prompt, _ in pairs}
        rows, columns = [], []
        for i, ((prompt, completion), (p, c)) in enumerate(zip(pairs, sizes, strict=True)):
            ids[i, : p + c] = torch.tensor(prompt.expanded_ids + completion)
            types[i, :p] = torch.tensor(prompt.token_types)
            mask[i, : p + c] = 1
            positions[:, i, :p] = rope[id(prompt)]
            positions[:, i, p : p + c] = torch.arange(c) + positions[:, i, :p].max() + 1
            rows += [i] * c
            columns += range(p - 1, p + c - 1)
        if last:
            rows += range(len(pairs))
            columns += [p + c - 1 for p, c in sizes]
        ids, types, mask, positions = (x.to(self.device) for x in (ids, types, mask, positions))
        vision = visual_inputs(self.model, join_vision([prompt for prompt, _ in pairs], self.device))
        out = self.model.model(**self.text_inputs(ids, positions, types), attention_mask=mask, use_cache=False, **vision)
        return out.last_hidden_state[rows, columns]

    def text_inputs(self, ids_BL: Tensor, positions_ABL: Tensor, types_BL: Tensor | None = None) -> dict[str, Tensor]:
        """As the family's forward names them; `types_BL` where there may be visual tokens."""
        given = {"input_ids": ids_BL, "position_ids": positions_ABL if self.family.axes == 3 else positions_ABL[0]}
        return given if self.family.types is None or types_BL is None else given | {self.family.types: types_BL}


def _unpackable(model: Any, family: Family) -> str | None:
    """Why the completions of a prompt cannot share its forward, None where they can: an allow-list, by family and by type of layer."""
    known = {"full_attention"} | ({"sliding_attention"} if family.windows else set())
    layers = set(model.config.get_text_config().to_dict().get("layer_types") or ())
    if family.packs and layers <= known:
        return None
    return f"layers of type {', '.join(sorted(layers - known))}" if layers - known else "not tried"


class Projection(nn.Module):
    """`token_stats` over the vocabulary projection of `model`. A module of its own, so that weights that lie in parts (ZeRO-3) are put
    together for it, forward and backward."""

    def __init__(self, model: Any):
        super().__init__()
        self.owner = (model.get_output_embeddings(),)  # in a tuple: its weights are the model's, not this module's

    def forward(self, hidden_TD: Tensor, target_T: Tensor, banned_V: Tensor, temperature: float, entropy_gradient: bool) -> TokenStats:
        return TokenStats(*token_stats(hidden_TD, self.owner[0].weight, target_T, banned_V, temperature, entropy_gradient))


def after_media(positions_3P: Tensor, types_P: Tensor) -> Tensor:
    """Positions whose text goes on after the largest position before it (arXiv 2409.12191; as the checkpoints were trained and vLLM reads).

    transformers from 5.3 on goes on after a video's height or width and forgets its time, so that text shares the positions of later frames
    (huggingface/transformers#45381); where it does not, nothing is changed here.
    """
    fixed = positions_3P.clone()
    text = types_P == 0
    for start in (torch.nonzero(text[1:] & ~text[:-1])[:, 0] + 1).tolist():
        fixed[:, start:] += (fixed[:, :start].max() + 1 - fixed[0, start]).clamp(min=0)
    return fixed
