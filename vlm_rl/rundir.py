"""The run directory: held by one process, claimed by one config, resumed only by the same one; small files written aside and renamed."""

import errno
import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from vlm_rl.errors import UserError

logger = logging.getLogger(__name__)

# Keys that change nothing about what is computed, so a run may go on with other values.
FREE = (
    "checkpoint",
    "tracker",
    "run_dir",
    "guards",
    "distributed",
    "data.on_bad_row",
    "eval_data.on_bad_row",
    "rollout.batch_size",
    "train.token_budget",
    "model.gradient_checkpointing",
    "model.processor_cache_mb",
    "model.processor_cache_dir",
    "model.decode_timeout_s",
    "chunk",
    "failure_limit",
    *(f"model.{key}" for key in ("api_key_env", "max_concurrency", "timeout_s", "retries")),
    *(f"judges.*.{key}" for key in ("url", "api_key_env", "max_concurrency", "timeout_s", "retries", "cache_dir")),
)
LIBRARIES = ("torch", "transformers", "vlm-rl")
WRITTEN = (
    "eval",
    "media",
    "tensorboard",
    "metrics.jsonl",
    "rollouts.jsonl",
    "summary.json",
    "report.html",
    "wandb_id",
    "rows.jsonl",
    "records.jsonl",
)
NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def claimed(config: BaseModel) -> Iterator[Path]:
    """`run_dir`, made where it is not there, for this process alone until the block ends (or the process dies) and for this config.

    Raises UserError when another process works there, when it is no run directory, and when it holds checkpoints of another config. A
    start with another config that made no checkpoint is replaced; config.yaml follows changes of FREE keys.
    """
    tree = config.model_dump(mode="json", exclude_none=True)
    run_dir = Path(tree["run_dir"])
    try:
        _check_place(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(run_dir / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"run_dir {run_dir} cannot be written: {error.strerror or error}") from None
    try:
        _lock(handle, run_dir)
        _claim(run_dir, tree)
        yield run_dir
    finally:
        os.close(handle)


def _check_place(run_dir: Path) -> None:
    if run_dir.exists() and not run_dir.is_dir():
        raise UserError(f"run_dir {run_dir} is a file; write run_dir=OTHER")
    if not run_dir.exists() or (run_dir / "config.yaml").exists():
        return
    # What a start killed in its first moment leaves is no reason to refuse: the lock, and a file not yet renamed.
    if any(path.suffix != ".part" and not path.name.startswith(".") for path in run_dir.iterdir()):
        raise UserError(f"{run_dir} exists, is not empty and holds no config.yaml: it is not a run directory; write run_dir=OTHER")


def _lock(handle: int, run_dir: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is working in {run_dir}; wait for it, stop it, or write run_dir=OTHER") from None
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise
        logger.warning("%s: this file system has no locks, so start no second process on this directory", run_dir)


def _claim(run_dir: Path, tree: Mapping[str, Any]) -> None:
    path = run_dir / "config.yaml"
    there = _read(path) if path.exists() else None
    keys = [] if there is None else sorted(key for key in differences(there, tree) if not _is_free(key))
    if keys and _is_begun(run_dir):
        shown = "\n".join(f"  {key}: there {_at(there, key)!r}, now {_at(tree, key)!r}" for key in keys[:10])
        raise UserError(
            f"{run_dir} holds a run with another config:\n{shown}\nto start anew write run_dir=OTHER; to go on with that run give "
            f"it the same values"
        )
    if keys:
        logger.info("%s: replacing a start with another config that made no checkpoint", run_dir)
        _clear(run_dir)
    if there != tree and not (there is not None and is_finished(run_dir)):
        try:
            write_text(path, yaml.safe_dump(tree, sort_keys=False))
        except OSError as error:
            raise UserError(f"run_dir {run_dir} cannot be written: {error.strerror or error}") from None


def _is_free(key: str) -> bool:
    return any(fnmatchcase(key, free) or fnmatchcase(key, f"{free}.*") for free in FREE)


def _is_begun(run_dir: Path) -> bool:
    """Whether there is something to go on from, or a result to lose."""
    answered = run_dir / "progress.jsonl"
    return any((run_dir / "checkpoints").glob("step_*")) or (answered.exists() and answered.stat().st_size > 0) or is_finished(run_dir)


def _clear(run_dir: Path) -> None:
    """Remove what an abandoned start wrote; its config.yaml is overwritten last, so that a kill in between leaves it abandoned."""
    for path in (run_dir / name for name in WRITTEN):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def differences(a: Any, b: Any, prefix: str = "") -> set[str]:
    """Dotted keys whose values differ. differences({"x": {"y": 1}}, {"x": {"y": 2}}) -> {"x.y"}"""
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return set() if a == b else {prefix}
    return {d for key in a.keys() | b.keys() for d in differences(a.get(key), b.get(key), f"{prefix}.{key}" if prefix else str(key))}


def write_text(path: Path, text: str) -> None:
    """All or nothing, also when the machine dies in the middle."""
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_summary(run_dir: Path) -> dict[str, Any]:
    """summary.json, or {} when there is none yet."""
    path = run_dir / "summary.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): remove it, and the same command writes it again") from None


def is_finished(run_dir: Path) -> bool:
    """Whether a run came to its end there."""
    return bool(read_summary(run_dir).get("run/finished"))


def machine() -> dict[str, Any]:
    """Where a run ran: system/* facts for summary.json."""
    versions = {f"system/{name}": importlib.metadata.version(name) for name in LIBRARIES}
    return versions | {
        "system/python": platform.python_version(),
        "system/platform": f"{platform.system()} {platform.machine()}",
        "system/cpus": os.cpu_count() or 0,
    }


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({error}); it says which run this directory holds, so write run_dir=OTHER") from None


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
