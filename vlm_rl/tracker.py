"""One place for all numbers of a run: metrics.jsonl and rollouts.jsonl in its directory, TensorBoard, W&B, and the media of reports.

It decides no names and computes nothing. The two files of a resumed run equal those of an unbroken one.
"""

import json
import logging
import math
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vlm_rl.errors import UserError

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Another place that wants the metrics."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class MediaFolder:
    """Pictures of a run directory for its reports, by content hash."""

    def __init__(self, run_dir: Path):
        self._run_dir = run_dir

    def has_media(self, media_id: str) -> bool:
        """Whether media/ID.png is kept already, so that it need not be made again."""
        return (self._run_dir / "media" / f"{media_id}.png").exists()

    def save_media(self, media_id: str, png: bytes) -> Path:
        """Keep a picture as media/ID.png, once. Returns its path. `media_id` is a content hash: letters and digits only."""
        if not (media_id.isascii() and media_id.isalnum()):
            raise ValueError(f"{media_id!r} is no media id")
        path = self._run_dir / "media" / f"{media_id}.png"
        if not path.exists():
            partial = path.with_suffix(".tmp")
            try:
                path.parent.mkdir(exist_ok=True)
                partial.write_bytes(png)
                partial.replace(path)
            except OSError as error:
                raise _cannot_write(path, error) from error
        return path


class Tracker(MediaFolder):
    """Writes what happens at each step of the run in `run_dir`, going on after `start_step` steps (0: from the beginning).

    Lines of later steps, and a last line cut off by a kill, are removed first. `tensorboard` and `wandb` raise UserError if not installed.
    """

    def __init__(self, run_dir: Path, tensorboard: bool, wandb: bool, start_step: int):
        super().__init__(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        self._metrics = StepFile(run_dir / "metrics.jsonl", start_step)
        self._rollouts = StepFile(run_dir / "rollouts.jsonl", start_step)
        self._last_step = self._metrics.kept_step
        self._sinks: list[Sink] = []
        if tensorboard:
            self._sinks.append(TensorBoardSink(run_dir, start_step))
        if wandb:
            self._sinks.append(WandbSink(run_dir))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line with `step` and the metrics, keys sorted, and wait until it is on the disk. One call per step, in order.

        Values are numbers or scalar tensors or arrays. Raises UserError naming a metric that is not finite; then nothing is written.
        A step that the file already held when this run was resumed is not written again.
        """
        if step <= self._metrics.kept_step:
            return
        if step <= self._last_step:
            raise ValueError(f"metrics of step {step} come after those of step {self._last_step}; all metrics of a step go into one call")
        numbers = {name: _finite(name, value, step) for name, value in sorted(metrics.items())}
        self._metrics.write([dict(sorted({**numbers, "step": step}.items()))])
        self._last_step = step
        for sink in self._sinks:
            sink.log(step, numbers)

    def log_rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one line per row, `step` first. Scalars of numpy and torch become numbers, non-finite numbers their names as text."""
        if step > self._rollouts.kept_step:
            self._rollouts.write([{"step": step} | {str(k): _plain(v) for k, v in row.items() if k != "step"} for row in rows])

    def close(self) -> None:
        """Close files and sinks; a second call does nothing."""
        self._metrics.close()
        self._rollouts.close()
        while self._sinks:
            self._sinks.pop().close()


class StepFile:
    """A JSONL file that is only appended to, cut back to the lines of `start_step` and before when it is opened.

    `kept_step` is the last step it then holds, -1 when it is empty.
    """

    def __init__(self, path: Path, start_step: int):
        self._path = path
        try:
            self.kept_step = self._cut(start_step)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise _cannot_write(path, error) from error

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        try:
            self._file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _cannot_write(self._path, error) from error

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            logger.warning("%s: the last lines could not be written: %s", self._path, error)

    def _cut(self, start_step: int) -> int:
        last = -1
        if not self._path.exists():
            return last
        partial = self._path.with_suffix(".tmp")
        with partial.open("wb") as new:
            for line, row in _rows(self._path):
                if row.get("step", 0) <= start_step:
                    new.write(line.rstrip(b"\n") + b"\n")
                    last = max(last, row.get("step", 0))
            new.flush()
            os.fsync(new.fileno())
        partial.replace(self._path)
        return last


class TensorBoardSink:
    """Event files under run_dir/tensorboard; events after `start_step` are purged."""

    def __init__(self, run_dir: Path, start_step: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("TensorBoard is not installed: pip install tensorboard, or set tracker.tensorboard=false") from error
        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start_step + 1)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbSink:
    """One W&B run per run directory: its id is kept in run_dir/wandb_id, so that a resumed run goes on in the same one."""

    def __init__(self, run_dir: Path):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError("W&B is not installed: pip install wandb, or set tracker.wandb=false") from error
        marker = run_dir / "wandb_id"
        if not marker.exists():
            marker.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
        try:
            run_id = marker.read_text(encoding="utf-8").strip()
            self._run = wandb.init(project="vlm-rl", name=run_dir.resolve().name, id=run_id, resume="allow", dir=str(run_dir))
        except Exception as error:
            raise UserError(
                f"W&B did not start ({error}): run 'wandb login', set WANDB_MODE=offline, or set tracker.wandb=false"
            ) from error

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects in a JSONL file, one per line, [] if there is no file; a last line cut off by a kill is left out.

    Raises UserError naming file and line where an earlier line is no JSON object.
    """
    return [row for _, row in _rows(path)] if path.exists() else []


def _rows(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    damage = ""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if damage:
                raise UserError(damage)
            try:
                row = json.loads(line)
            except ValueError as error:
                damage = f"{path}: line {number} is not valid JSON ({error}); delete that line"
                continue
            if not isinstance(row, dict):
                raise UserError(f"{path}: line {number} is no JSON object; delete that line")
            yield line, row
    if damage:
        logger.info("%s: the last line was cut off and is left out", path)


def _finite(name: str, value: Any, step: int) -> float:
    number = value.item() if hasattr(value, "item") else value
    if not isinstance(number, int | float):
        raise TypeError(f"metric '{name}' at step {step} is no number: {number!r}")
    if not math.isfinite(number):
        raise UserError(
            f"metric '{name}' at step {step} is {number}: look at that step in rollouts.jsonl for what caused it; "
            "a lower optim.learning_rate often helps, and a checkpoint before it is intact"
        )
    return int(number) if isinstance(number, bool) else number


def _plain(value: Any) -> Any:
    """The same value in what JSON knows."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written ({error}): free some space or choose another run_dir; the same command then goes on")
