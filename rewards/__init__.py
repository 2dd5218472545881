"""Rewards: the table of those that come with the program, and making the ones a config names. Importing it loads no torch.

A reward elsewhere is named as "module:Name" (a module in the current directory is found too); nothing registers itself on import.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewards.base import Adapted, Reward
from vlm_rl.config import RewardConfig
from vlm_rl.errors import UserError, unknown

REWARDS: dict[str, str] = {
    "accuracy": "rewards.accuracy:Accuracy",
    "acre": "rewards.acre:Acre",
    "care": "rewards.care:Care",
    "evidence": "rewards.evidence:Evidence",
    "faithful": "rewards.faithful:Faithful",
    "format": "rewards.format:Format",
    "hybrid": "rewards.hybrid:Hybrid",
    "length_penalty": "rewards.length:LengthPenalty",
    "overlong": "rewards.length:Overlong",
    "reference": "rewards.reference:Reference",
    "repetition": "rewards.repetition:Repetition",
    "sccm": "rewards.sccm:Sccm",
    "self_aligned": "rewards.self_aligned:SelfAligned",
    "thinking": "rewards.thinking:Thinking",
    "trace_only": "rewards.trace_only:TraceOnly",
}


def make_rewards(configs: Mapping[str, RewardConfig]) -> dict[str, Reward]:
    """One reward per label. All names and arguments are checked before the first constructor runs.

    Raises UserError naming `rewards.LABEL` or `rewards.LABEL.KEY`, with the nearest known name.
    """
    classes = {label: find(config.use or label, f"rewards.{label}") for label, config in configs.items()}
    for label, config in configs.items():
        _check_arguments(label, classes[label], config.arguments)
    return {label: _construct(label, classes[label], config.arguments) for label, config in configs.items()}


def find(use: str, where: str) -> Callable[..., Any]:
    """The class named by a table entry or "module:Name". Raises UserError. Example: find("format", "rewards.format") -> Format."""
    if ":" not in use and use not in REWARDS:
        raise UserError(f'{unknown("reward", use, REWARDS, where)}; or name a class of your own as use: "module:Name"')
    module_name, _, name = REWARDS.get(use, use).partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        reason = f"no module named '{missing}'" + (
            "" if module_name.split(".")[0] == missing.split(".")[0] else f", which {module_name} imports"
        )
        raise UserError(f'{where}.use: "{use}": {reason}; is its file in the current directory or its package installed?') from error
    except (ImportError, SyntaxError, ValueError, TypeError) as error:
        raise UserError(f'{where}.use: "{use}": importing {module_name or "it"} failed: {error}') from error
    found = vars(module).get(name)
    if not inspect.isclass(found):
        if found is not None:
            raise UserError(f'{where}.use: "{use}" is not a class; write a class with score(self, group, replies)')
        own = [key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module_name]
        raise unknown(f"class of {module_name}", name, own, f"{where}.use")
    if not (_has(found, "score") or _has(found, "rounds")):
        raise UserError(f'{where}.use: "{use}" has neither score(self, group, replies) nor rounds(self, group)')
    return found


def _has(kind: type, method: str) -> bool:
    return any(method in vars(base) for base in kind.__mro__ if base not in (Reward, object))


def _check_arguments(label: str, kind: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    parameters = inspect.signature(kind).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = {p.name for p in named}
    for key in arguments:
        if key not in known and not takes_any:
            raise _unknown_key(label, key, sorted(known | set(RewardConfig.model_fields)))
    missing = [p.name for p in named if p.default is p.empty and p.name not in arguments]
    if missing:
        raise UserError(f"rewards.{label}.{missing[0]} is missing: this reward takes {', '.join(f'{p}' for p in named)}")


def _unknown_key(label: str, key: str, known: Sequence[str]) -> UserError:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean 'rewards.{label}.{near[0]}'? " if near else ""
    return UserError(f"unknown key 'rewards.{label}.{key}'; {hint}known here: {', '.join(known)}")


def _construct(label: str, kind: Callable[..., Any], arguments: Mapping[str, Any]) -> Reward:
    try:
        reward = kind(**arguments)
    except (UserError, TypeError, ValueError) as error:
        raise UserError(f"rewards.{label}: {error}") from error
    return reward if isinstance(reward, Reward) else Adapted(reward)
