"""From a YAML file and command-line overrides to a checked config. Errors name the file or override, the key, and the nearest key."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from vlm_rl.config import project_path
from vlm_rl.config_eval import EvalConfig, spelled_out
from vlm_rl.errors import UserError

ConfigT = TypeVar("ConfigT", bound=BaseModel)


def load(schema: type[ConfigT], path: str | Path, overrides: Sequence[str] = ()) -> ConfigT:
    """Read `path` (with `extends:`), apply `key.sub=value` overrides, validate. Raises UserError.

    The override `extends=FILE` lays a whole file over what stands before it: extends=configs/fragments/algo_gspo.yaml
    """
    tree = read_tree(project_path(path))
    for text in overrides:
        if text.startswith("extends="):
            tree = _merge(tree, read_tree(project_path(text.removeprefix("extends="))))
        else:
            _override(tree, text)
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(schema, error, str(path), overrides)) from None


def load_eval(path: str, overrides: Sequence[str]) -> EvalConfig:
    """The config of an evaluation; `model=PATH` may stand beside `model.KEY=VALUE`. Raises UserError."""
    spelled = [item for text in overrides for item in _spelled(text)]
    return load(EvalConfig, path, spelled)


def _spelled(override: str) -> list[str]:
    key, _, value = override.partition("=")
    if key != "model" or value.startswith("{") or not value:
        return [override]
    return [f"model.{name}={text}" for name, text in spelled_out(value).items()]


def read_tree(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The file's mapping laid over those it extends (paths relative to the file, later ones win)."""
    path = path.resolve()
    if path in seen:
        raise UserError(f"{path}: extends itself by way of {', '.join(p.name for p in seen)}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1)
        raise UserError(f"no config file {path}" + (f"; did you mean {path.parent / near[0]}?" if near else "")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a config is a mapping of keys to values, this file holds {type(tree).__name__}")
    base: dict[str, Any] = {}
    parents = tree.pop("extends", None) or []
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise UserError(f"{path}: extends: {parents!r} is no file; write the path of one, or a list of them")
    for parent in parents:
        base = _merge(base, read_tree(path.parent / parent, (*seen, path)))
    return _merge(base, tree)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _override(tree: dict[str, Any], text: str) -> None:
    key, equals, raw = text.partition("=")
    if not equals or not key or key.startswith("-"):
        raise UserError(f"override '{text}' is not of the form key.sub=value")
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise UserError(f"override '{text}': the value is not valid YAML: {error}") from None
    *parents, last = key.split(".")
    labels = tree.get("rewards")
    labels = labels if isinstance(labels, dict) else {}
    if parents[:1] == ["rewards"] and parents[1:] and parents[1] not in labels and last != "use":
        known = ", ".join(map(str, labels)) or "none"
        raise UserError(
            f"override '{text}': no reward is labelled '{parents[1]}' (labels: {known}); give rewards.{parents[1]}.use=NAME first"
        )
    for part in parents:
        node = tree.setdefault(part, {})
        if not isinstance(node, dict):
            tree[part] = node = {}
        tree = node
    tree[last] = value


def _explain(schema: type[BaseModel], error: ValidationError, path: str, overrides: Sequence[str]) -> str:
    lines = []
    for issue in error.errors():
        key = ".".join(str(part) for part in issue["loc"])
        source = next((f"override '{o}'" for o in overrides if f"{o.split('=')[0]}.".startswith(f"{key}.")), path)
        if issue["type"] == "extra_forbidden":
            known = _fields_at(schema, issue["loc"][:-1])
            near = difflib.get_close_matches(str(issue["loc"][-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(sorted(known))}"
            lines.append(f"{source}: unknown key '{key}'; {hint}")
        else:
            shown = "" if issue["type"] == "missing" else f" (got {issue.get('input')!r})"
            message = issue["msg"].removeprefix("Value error, ")
            lines.append(f"{source}: {key + ': ' if key else ''}{message}{shown if len(shown) < 200 else ''}")
    return "\n".join(lines)


def _fields_at(schema: Any, loc: Sequence[Any]) -> list[str]:
    for part in loc:
        schema = _section(schema.model_fields[part].annotation) if part in getattr(schema, "model_fields", {}) else schema
    return list(getattr(schema, "model_fields", {}))


def _section(annotation: Any) -> Any:
    """The model class in `Section`, `Section | None` or `dict[str, Section]`."""
    inside = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
    return inside[0] if inside else annotation
