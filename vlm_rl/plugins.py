"""Classes and functions that a config names: an entry of a table or "module:Name", and whether they take the arguments that it gives them.

A stranger's module in the current directory is found too; nothing registers itself on import.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from vlm_rl.errors import UserError, unknown


def find_class(use: str, table: Mapping[str, str], where: str, what: str, shape: str) -> Callable[..., Any]:
    """The class named by a table entry or "module:Name". Raises UserError naming `where`.

    `what` is what the table holds ("reward"), `shape` what such a class has ("score(self, group, replies)").
    Example: find_class("format", REWARDS, "rewards.format", "reward", "score(...)") -> Format.
    """
    if ":" not in use and use not in table:
        raise UserError(f'{unknown(what, use, table, where)}; or name a class of your own as use: "module:Name"')
    module_name, _, name = table.get(use, use).partition(":")
    module = _imported(f'{where}.use: "{use}"', module_name)
    found = vars(module).get(name)
    if not inspect.isclass(found):
        if found is not None:
            raise UserError(f'{where}.use: "{use}" is not a class; write a class with {shape}')
        own = [key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module_name]
        raise unknown(f"class of {module_name}", name, own, f"{where}.use")
    return found


def find_function(key: str, name: str, table: Mapping[str, Callable[..., Any]], shape: str) -> Callable[..., Any]:
    """The function that the setting `key` names: an entry of `table`, or a stranger's by "module:Name". `shape` says what it takes.

    Raises UserError. Example: find_function("algo.credit", "uniform", CREDITS, "(rollout, advantage, penalties_T)") -> uniform.
    """
    if ":" not in name:
        if name not in table:
            raise unknown(key, name, table)
        return table[name]
    module_name, _, attribute = name.partition(":")
    found = vars(_imported(f"{key}={name}", module_name)).get(attribute)
    if not callable(found):
        raise UserError(
            f"{key}={name} is no function of {shape}; {'it is something else' if found is not None else f'{module_name} has none'}"
        )
    return found


def check_arguments(where: str, kind: Callable[..., Any], arguments: Mapping[str, Any], fields: Sequence[str], what: str) -> None:
    """Raises UserError for arguments that `kind` does not take and for those that it needs; `fields` are keys that every entry has."""
    parameters = inspect.signature(kind).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = {p.name for p in named}
    for key in arguments:
        if key not in known and not takes_any:
            raise _unknown_key(where, key, sorted({*known, *fields}))
    missing = [p.name for p in named if p.default is p.empty and p.name not in arguments]
    if missing:
        raise UserError(f"{where}.{missing[0]} is missing: this {what} takes {', '.join(f'{p}' for p in named)}")


def construct(where: str, kind: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """`kind(**arguments)`; what its constructor refuses is a UserError naming `where`."""
    try:
        return kind(**arguments)
    except (UserError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error


def _unknown_key(where: str, key: str, known: Sequence[str]) -> UserError:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean '{where}.{near[0]}'? " if near else ""
    return UserError(f"unknown key '{where}.{key}'; {hint}known here: {', '.join(known)}")


def _imported(place: str, module_name: str) -> ModuleType:
    """Raises UserError that begins with `place`."""
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        reason = f"no module named '{missing}'" + (
            "" if module_name.split(".")[0] == missing.split(".")[0] else f", which {module_name} imports"
        )
        raise UserError(f"{place}: {reason}; is its file in the current directory or its package installed?") from error
    except (ImportError, SyntaxError, ValueError, TypeError) as error:
        raise UserError(f"{place}: importing {module_name or 'it'} failed: {error}") from error
