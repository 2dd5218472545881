"""The functions that the section `algo:` names, a stranger's by module:Name; and where a name belongs that stands under the wrong key.

What a stranger's function gives is checked where it is used, so that a wrong shape is told by its name.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vlm_rl.algo.advantages import ADVANTAGES
from vlm_rl.algo.losses import AGGREGATIONS, LOSSES, Loss, LossOut, Tokens
from vlm_rl.algo.mismatch import CORRECTIONS
from vlm_rl.algo.ratios import LEVELS
from vlm_rl.config import project_path
from vlm_rl.config_algo import AlgoConfig
from vlm_rl.credit import CREDITS
from vlm_rl.errors import UserError, unknown
from vlm_rl.plugins import find_function

TABLES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "algo.loss": LOSSES,
    "algo.ratio": LEVELS,
    "algo.aggregation": AGGREGATIONS,
    "algo.advantage": ADVANTAGES,
    "algo.credit": CREDITS,
}
# What other programs and papers call it -> a fragment, or what to write.
ELSEWHERE = {
    "ppo": "algo.loss=grpo",
    "ppo_clip": "algo.loss=grpo",
    "vanilla": "algo.loss=grpo",
    "clip_higher": "algo.clip_high=0.28",
    "dual_clip": "algo.loss_settings.dual_clip=3",
    "delta": "algo.loss_settings.dual_clip=3",
    "bnpo": "algo.aggregation=token_mean",
    "seq_mean_token_mean": "algo.aggregation=sequence_mean",
    "seq_mean_token_sum": "algo.aggregation=token_sum",
    "seq_mean_token_sum_norm": "algo.aggregation=token_sum_norm",
    "drgrpo": "dr_grpo",
    "geo_mean": "gmpo",
    "reinforce_plus_plus": "reinforce_pp",
    "reinforce_plus_plus_baseline": "reinforce_pp_baseline",
    "mis": "algo.correction=[{use: token_mask, high: 2}]",
}


def loss_of(algo: AlgoConfig) -> Loss:
    """Raises UserError for an unknown name; what is returned raises it for an output that is none."""
    found = find_function("algo.loss", algo.loss, LOSSES, "(tokens, low, high)")
    return found if algo.loss in LOSSES else _checked_loss(algo.loss, found)


def advantage_of(algo: AlgoConfig) -> Callable[[Tensor, float], Tensor]:
    """As `loss_of`."""
    found = find_function("algo.advantage", algo.advantage, ADVANTAGES, "(totals_G, eps)")
    if algo.advantage in ADVANTAGES:
        return found

    def checked(totals_G: Tensor, eps: float) -> Tensor:
        given = found(totals_G, eps)
        if not isinstance(given, Tensor) or given.shape != totals_G.shape or not torch.isfinite(given).all():
            raise UserError(
                f"algo.advantage={algo.advantage} gave {_told(given)} for {len(totals_G)} totals, not one finite number for each"
            )
        return given.to(totals_G.dtype)

    return checked


def misplaced(key: str, name: str) -> UserError:
    """For a name that is not in the table of `key`: the fragment or the key that it is a value of, else the nearest of the table."""
    table: Mapping[str, Any] = CORRECTIONS if key == "algo.correction" else TABLES[key]
    plain = name.lower().replace("++", "_pp").replace("-", "_").replace(".", "")
    meant = ELSEWHERE.get(plain, plain)
    places = [meant] if "=" in meant else [f"{other}={meant}" for other, entries in TABLES.items() if meant in entries]
    if meant in CORRECTIONS and table is not CORRECTIONS:
        places.append(f"algo.correction=[{{use: {meant}, high: 2}}]")
    fragment = f"configs/fragments/algo_{meant}.yaml"
    if meant.isidentifier() and project_path(fragment).exists():
        places.append(f"extends={fragment}")
    if not places:
        return unknown(key, name, table)
    return UserError(f"unknown {key} '{name}'; write {' or '.join(places)} (known for {key}: {', '.join(sorted(table))})")


def _checked_loss(name: str, found: Callable[..., Any]) -> Loss:
    def checked(tokens: Tokens, low: float, high: float, **settings: Any) -> LossOut:
        out = found(tokens, low, high, **settings)
        out = LossOut(out) if isinstance(out, Tensor) else out
        if not isinstance(out, LossOut) or out.loss_T.shape != tokens.logp_T.shape:
            raise UserError(f"algo.loss={name} gave {_told(out)} for {len(tokens.logp_T)} tokens, not one number for each")
        return out

    checked.__kwdefaults__ = getattr(found, "__kwdefaults__", None)
    return checked


def _told(given: Any) -> str:
    given = given.loss_T if isinstance(given, LossOut) else given
    return f"numbers of shape {tuple(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
