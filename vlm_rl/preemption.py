"""SIGTERM in a run, as machines that can be taken away send it: work that can be done again is left at once, and a step whose update has
begun is finished; either way a checkpoint is written and the process exits with 143.

A second SIGTERM leaves at once, with the checkpoints there are. Several processes that train together keep the system's own way, since each
would leave at a point of its own while the others wait for it.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ParamSpec, TypeVar

from torch import distributed

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


class Terminated(SystemExit):
    """Exit status 143, what a shell shows of a process that SIGTERM ended."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Termination:
    """Whether SIGTERM came (`asked`), and whether it must wait for the end of a step."""

    def __init__(self) -> None:
        self.asked = self._held = False

    @contextmanager
    def heard(self, put_down: Callable[[], None]) -> Iterator[None]:
        """A block that SIGTERM ends; `put_down()` then saves what the block reached. Raises Terminated after it."""
        if threading.current_thread() is not threading.main_thread() or one_of_several():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._hear)
        try:
            yield
        except Terminated:
            self._held = True  # a second signal while saving leaves too: see _hear
            put_down()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)

    def whole(self, update: Callable[P, T]) -> Callable[P, T]:
        """The same function; from its call to the next `free` SIGTERM waits."""

        def held(*args: P.args, **kwargs: P.kwargs) -> T:
            self._held = True  # before the look, so that no signal falls between
            if self.asked:
                raise Terminated
            return update(*args, **kwargs)

        return held

    def free(self) -> None:
        """The end of a step, when all of it is saved or can be done again. Raises Terminated where SIGTERM came meanwhile."""
        self._held = False
        if self.asked:
            raise Terminated

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again or not self._held:
            raise Terminated
        log.info("SIGTERM: the step is finished and saved first; a second one ends the process now")


def one_of_several() -> bool:
    """Whether this process trains together with others."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
