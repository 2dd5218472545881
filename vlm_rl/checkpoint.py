"""Checkpoints that are whole or absent: `step_N/` is a Hugging Face model directory with the trainer's state and a manifest beside it.

Everything is written into `.tmp-step_N`, flushed to the disk, listed with sizes and hashes in manifest.json, and only then renamed. What
the model's files and the state contain is the caller's business. One process owns a folder of checkpoints at a time.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vlm_rl.errors import UserError

logger = logging.getLogger(__name__)

MANIFEST, TENSORS, PLAIN = "manifest.json", "trainer_state.pt", "trainer_state.json"
REPLACED = ".tmp-replaced-"
# torch and safetensors report a full disk as errors of their own, known by their text only.
WRITE_FAILURES = ("No space left", "os error", "inline_container", "PytorchStreamWriter")


def save(root: Path, step: int, write_model: Callable[[Path], None], state: dict[str, Any], keep: int) -> Path:
    """Write `root/step_N` and then remove all but the newest `keep` whole checkpoints up to this step. Returns the new directory.

    `write_model(directory)` writes the model's files. Entries of `state` that JSON gives back unchanged go to trainer_state.json, the
    others to trainer_state.pt; they may hold tensors, numbers, strings, None, and dicts, lists and tuples of them.
    On any failure the temporary directory goes and earlier checkpoints stay; a write that fails (full disk) is a UserError.
    """
    partial, final = root / f".tmp-step_{step}", root / f"step_{step}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_model(partial)
        _write_state(partial, state)
        _write_manifest(partial, step)
        _publish(partial, final)
    except BaseException as error:
        free = _free_bytes(root)
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) or any(text in str(error) for text in WRITE_FAILURES):
            raise UserError(
                f"checkpoint {final} could not be written ({error}); {free / 1e9:.2f} GB were free. Earlier checkpoints are untouched: "
                "free some space or lower checkpoint.keep, then run the same command again to go on from the newest one"
            ) from error
        raise
    _prune(root, step, keep)
    return final


def newest(root: Path) -> Path | None:
    """The newest checkpoint under `root` whose every file has the size and hash its manifest says, or None.

    Damaged ones are skipped with a warning that names the file. What killed writers left behind is removed, except a checkpoint that
    was set aside to be replaced and was not: it is put back.
    """
    for stale in root.glob(".tmp-*"):
        replaced = root / stale.name.removeprefix(REPLACED)
        if stale.name.startswith(REPLACED) and not replaced.exists():
            stale.rename(replaced)
            continue
        logger.info("removing %s, left by a run that was stopped while writing it", stale)
        shutil.rmtree(stale, ignore_errors=True)
    for path in listed(root):
        damage = find_damage(path)
        if damage is None:
            return path
        logger.warning("checkpoint %s is damaged and skipped: %s", path, damage)
    return None


def load_state(path: Path) -> dict[str, Any]:
    """The `state` that was given to `save`, tensors on the CPU. Raises UserError if it cannot be read."""
    plain = load_plain(path)
    try:
        return plain | torch.load(path / TENSORS, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unreadable(path, error) from error


def load_plain(path: Path) -> dict[str, Any]:
    """The entries of the `state` that JSON holds, without loading a tensor. Raises UserError if they cannot be read."""
    try:
        return dict(json.loads((path / PLAIN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"the trainer's state in {path} cannot be read ({error}); remove that directory to go on from an earlier one")


def step_of(path: Path) -> int:
    """step_of(Path("checkpoints/step_40")) -> 40"""
    return int(path.name.removeprefix("step_"))


def find_damage(path: Path, hashes: bool = True) -> str | None:
    """What is wrong with a checkpoint ("model.safetensors has 10 bytes, not 2000"), or None. Without `hashes` only sizes are compared."""
    try:
        files = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
        listed = [(name, int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} is missing or unreadable ({error})"
    for name, size, digest in listed:
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes, not {size}"
        if hashes and _sha256(file) != digest:
            return f"{name} has other contents than were written"
    return None


def _write_state(directory: Path, state: dict[str, Any]) -> None:
    plain = {key: value for key, value in state.items() if _survives_json(value)}
    (directory / PLAIN).write_text(json.dumps(plain, indent=1), encoding="utf-8")
    torch.save({key: value for key, value in state.items() if key not in plain}, directory / TENSORS)
    # Read back lazily: a state that the safe loader refuses must fail now, not when a run is to be resumed.
    torch.load(directory / TENSORS, weights_only=True, mmap=True)


def _survives_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


def _write_manifest(directory: Path, step: int) -> None:
    paths = sorted(p for p in directory.rglob("*") if p.is_file())
    files = {p.relative_to(directory).as_posix(): {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in paths}
    for path in paths:
        _sync(path)
    (directory / MANIFEST).write_text(json.dumps({"step": step, "files": files}, indent=1), encoding="utf-8")
    _sync(directory / MANIFEST)
    for folder in (directory, *(p for p in directory.rglob("*") if p.is_dir())):
        _sync(folder)


def _publish(partial: Path, final: Path) -> None:
    replaced = final.with_name(REPLACED + final.name)
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    try:
        partial.rename(final)
    except BaseException:
        if replaced.exists() and not final.exists():
            replaced.rename(final)
        raise
    _sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _prune(root: Path, step: int, keep: int) -> None:
    # Later ones are left alone: they are damaged ones that a resumed run has yet to replace.
    kept = 1
    for path in listed(root):
        if step_of(path) >= step:
            continue
        if kept < keep and find_damage(path, hashes=False) is None:
            kept += 1
            continue
        try:
            # Renamed first, so that a removal cut short does not leave half a checkpoint behind.
            shutil.rmtree(path.rename(path.with_name(f".tmp-removed-{path.name}")))
        except OSError as error:
            logger.warning("old checkpoint %s could not be removed: %s", path, error)


def listed(root: Path) -> list[Path]:
    """Checkpoints under `root`, whole or not, the newest first."""
    found = [p for p in root.glob("step_*") if re.fullmatch(r"step_\d+", p.name) and p.is_dir()]
    return sorted(found, key=step_of, reverse=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _free_bytes(root: Path) -> int:
    existing = next(p for p in (root, *root.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free
