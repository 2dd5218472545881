"""Rewards: the table of those that come with the program, and making the ones a config names. Importing it loads no torch.

A reward elsewhere is named as "module:Name" (a module in the current directory is found too); nothing registers itself on import.
"""

from collections.abc import Callable, Mapping
from typing import Any

from rewards.base import Adapted, Reward
from vlm_rl.config import RewardConfig
from vlm_rl.errors import UserError
from vlm_rl.plugins import check_arguments, construct, find_class

REWARDS: dict[str, str] = {
    "accuracy": "rewards.accuracy:Accuracy",
    "acre": "rewards.acre:Acre",
    "care": "rewards.care:Care",
    "checks": "rewards.checks:Checks",
    "citations": "rewards.citations:Citations",
    "co_reward": "rewards.co_reward:CoReward",
    "evidence": "rewards.evidence:Evidence",
    "faithful": "rewards.faithful:Faithful",
    "flipped": "rewards.flipped:Flipped",
    "format": "rewards.format:Format",
    "hybrid": "rewards.hybrid:Hybrid",
    "key_points": "rewards.keypoints:KeyPoints",
    "length_penalty": "rewards.length:LengthPenalty",
    "listeners": "rewards.listeners:Listeners",
    "overlong": "rewards.length:Overlong",
    "pairwise": "rewards.pairwise:Pairwise",
    "reference": "rewards.reference:Reference",
    "repetition": "rewards.repetition:Repetition",
    "scalar": "rewards.scalar:Scalar",
    "sccm": "rewards.sccm:Sccm",
    "self_aligned": "rewards.self_aligned:SelfAligned",
    "steps": "rewards.steps:Steps",
    "thinking": "rewards.thinking:Thinking",
    "trace_only": "rewards.trace_only:TraceOnly",
}


def make_rewards(configs: Mapping[str, RewardConfig]) -> dict[str, Reward]:
    """One reward per label. All names and arguments are checked before the first constructor runs.

    Raises UserError naming `rewards.LABEL` or `rewards.LABEL.KEY`, with the nearest known name.
    """
    classes = {label: find(config.use or label, f"rewards.{label}") for label, config in configs.items()}
    for label, config in configs.items():
        check_arguments(f"rewards.{label}", classes[label], config.arguments, list(RewardConfig.model_fields), "reward")
    made = {label: construct(f"rewards.{label}", classes[label], config.arguments) for label, config in configs.items()}
    return {label: reward if isinstance(reward, Reward) else Adapted(reward) for label, reward in made.items()}


def find(use: str, where: str) -> Callable[..., Any]:
    """The class named by a table entry or "module:Name". Raises UserError. Example: find("format", "rewards.format") -> Format."""
    found = find_class(use, REWARDS, where, "reward", "score(self, group, replies)")
    if not (_has(found, "score") or _has(found, "rounds")):
        raise UserError(f'{where}.use: "{use}" has neither score(self, group, replies) nor rounds(self, group)')
    return found


def _has(kind: Any, method: str) -> bool:
    return any(method in vars(base) for base in kind.__mro__ if base not in (Reward, object))
