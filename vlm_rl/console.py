"""What a person watching a run sees: a progress bar with time left, reward and accuracy so far, and a sample rollout now and then.

Without a terminal it is quiet: one plain line every 10 steps through logging. It shows what it is given and keeps no record.
"""

import io
import logging
import time
import unicodedata
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import rich.console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

logger = logging.getLogger(__name__)

QUIET_EVERY = 10
RECENT_STEPS = 10
LONGEST_FIELD = 2000


@dataclass(frozen=True)
class Work:
    """What is being done: its name, the unit its progress is counted in, metrics shown beside the bar (label -> key)."""

    name: str
    unit: str
    shown: Mapping[str, str]
    quiet_every: int = QUIET_EVERY


TRAINING = Work("training", "step", {"reward": "reward/total", "accuracy": "reward/accuracy/raw"})
EVALUATING = Work("evaluating", "questions", {"accuracy": "accuracy"}, quiet_every=1)


class Console:
    """Live display of a run of `total_steps` steps, used as a context manager; with 0 steps it shows phases only.

    `quiet` None means: quiet unless `output` (standard output by default) is a terminal. An earlier process made `start_step` steps.
    """

    def __init__(
        self,
        total_steps: int,
        quiet: bool | None = None,
        start_step: int = 0,
        output: rich.console.Console | None = None,
        work: Work = TRAINING,
    ):
        self._output = output or rich.console.Console()
        if isinstance(self._output.file, io.TextIOWrapper):
            # A character the terminal's encoding lacks (rich adds some of its own) must not end a run.
            self._output.file.reconfigure(errors="replace")
        self._quiet = not self._output.is_terminal if quiet is None else quiet
        self._total, self._start_step, self._started = total_steps, start_step, time.monotonic()
        self._work = work
        self._recent: dict[str, deque[float]] = {name: deque(maxlen=RECENT_STEPS) for name in work.shown}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=self._output,
            refresh_per_second=4,
            speed_estimate_period=3600,
            disable=self._quiet,
        )
        self._main = self._progress.add_task(work.name, total=total_steps, completed=start_step, numbers="", visible=total_steps > 0)
        self._phases: dict[str, TaskID] = {}

    def __enter__(self) -> "Console":
        self._started = time.monotonic()
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def step(self, n: int, metrics: Mapping[str, float]) -> None:
        """Step `n` (counted from 1) is done. Shows what the work's `shown` names of the metrics, averaged over recent steps."""
        for name, key in self._work.shown.items():
            if key in metrics:
                self._recent[name].append(float(metrics[key]))
        numbers = "  ".join(f"{name} {sum(values) / len(values):.3f}" for name, values in self._recent.items() if values)
        self._progress.update(self._main, completed=n, numbers=numbers)
        if self._quiet and (n % self._work.quiet_every == 0 or n == self._total):
            logger.info("%s %d/%d  %s  %s left", self._work.unit, n, self._total, numbers, self._time_left(n))

    def sample(self, title: str, fields: Mapping[str, str]) -> None:
        """Show one rollout: `fields` by name, as plain text whatever they contain. Nothing when quiet."""
        if self._quiet:
            return
        body = Text()
        for name, value in fields.items():
            body.append(f"{_safe(name)}  ", style="bold cyan").append(_safe(value) + "\n")
        body.rstrip()
        self._output.print(Panel(body, title=Text(_safe(title)), title_align="left", border_style="dim"))

    def message(self, text: str) -> None:
        """One line for the person watching, above the progress bar."""
        if self._quiet:
            logger.info("%s", text)
        else:
            self._output.print(Text(_safe(text)))

    def phase(self, name: str, done: int, total: int) -> None:
        """Progress of a part of the work (evaluation, rollout); its bar goes when `done` reaches `total`. Nothing when quiet."""
        if self._quiet:
            return
        if name not in self._phases:
            self._phases[name] = self._progress.add_task(f"  {_safe(name)}", total=total, numbers="")
        self._progress.update(self._phases[name], completed=done, total=total)
        if done >= total:
            self._progress.remove_task(self._phases.pop(name))

    def _time_left(self, n: int) -> str:
        done = max(n - self._start_step, 1)
        seconds = round((time.monotonic() - self._started) / done * max(self._total - n, 0))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _safe(text: str) -> str:
    """Model output is hostile: no escape sequences, surrogates or direction overrides, and a bounded length."""
    cut = text if len(text) <= LONGEST_FIELD else text[:LONGEST_FIELD] + " ..."
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_control(char) else char for char in cut.replace("\r\n", "\n"))


def _is_control(char: str) -> bool:
    if unicodedata.category(char) in ("Cc", "Cs"):
        return char not in "\n\t"
    return unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
