"""Worker processes that decode videos and can be killed. It knows nothing of rows, budgets or models.

A worker is started when it is first needed (a fraction of a second), serves one clip at a time, and is replaced after it was killed for
taking too long or crashed. The time limit counts only time spent waiting for the worker.
"""

import atexit
import json
import logging
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)
SCRIPT = Path(__file__).with_name("decoding_worker.py")
WORKERS = 2
_START_SECONDS = 60.0
_PIECE = 1 << 20


class DecodeError(Exception):
    """The video is unusable; the text says why."""


class MissingLibrary(Exception):
    """The backend's library is not installed."""


class _Gone(Exception):
    """The worker died or had to be killed."""


@dataclass(frozen=True)
class VideoInfo:
    """What a container says of its video: number of frames, frames per second, upright size in pixels.

    Of a part of a video: the `frames` from its frame `first` on.
    """

    frames: int
    fps: float
    height: int
    width: int
    first: int = 0


class Worker:
    """One process. Not thread-safe."""

    def __init__(self) -> None:
        # -P: the folder of the script, full of short module names, stays off the child's import path.
        command = [sys.executable, "-P", str(SCRIPT)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.requests, self.replies = self.process.stdin, self.process.stdout
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.replies, selectors.EVENT_READ)
        self.buffer = bytearray()
        self.busy, self.left = True, _START_SECONDS
        self._reply()
        self.busy = False

    def ask(self, request: dict[str, Any], data: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """One request, its reply and the bytes behind it. Raises DecodeError, MissingLibrary, TimeoutError, _Gone."""
        self.busy = True
        line = json.dumps({**request, "bytes": len(data), "seconds": self.left}).encode() + b"\n"
        try:
            self.requests.write(line)
            self.requests.write(data)
            self.requests.flush()
        except OSError:
            raise _Gone from None
        reply = self._reply()
        frames = self._take(reply["bytes"])
        self.busy = False
        if "missing" in reply:
            raise MissingLibrary(reply["missing"])
        if "error" in reply:
            raise DecodeError(reply["error"])
        return reply, frames

    def _reply(self) -> dict[str, Any]:
        while (end := self.buffer.find(b"\n")) < 0:
            self._more()
        return json.loads(self._take(end + 1))

    def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self._more()
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        return taken

    def _more(self) -> None:
        started = time.monotonic()
        ready = self.selector.select(max(self.left, 0))
        self.left -= time.monotonic() - started
        if not ready:
            raise TimeoutError
        piece = os.read(self.replies.fileno(), _PIECE)
        if not piece:
            raise _Gone
        self.buffer += piece

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.selector.close()
        for pipe in (self.requests, self.replies):
            try:
                pipe.close()
            except OSError:
                log.debug("a pipe to a killed worker could not be flushed")


class Reader:
    """An open clip in a worker."""

    def __init__(self, worker: Worker, info: VideoInfo):
        self.worker, self.info = worker, info

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """(n, height, width, 3) uint8 RGB frames. Indices ascend within a call; reading on is fastest."""
        _, data = self.worker.ask({"op": "read", "indices": list(indices)})
        return np.frombuffer(data, np.uint8).reshape(len(indices), self.info.height, self.info.width, 3)


class Pool:
    """At most `size` workers, shared by threads. A process forked from this one starts its own."""

    def __init__(self, size: int = WORKERS):
        self.size = size
        self._own()
        atexit.register(self.close)

    def _own(self) -> None:
        self.pid, self.idle, self.free, self.lock = os.getpid(), list[Worker](), threading.Semaphore(self.size), threading.Lock()

    @contextmanager
    def open(self, source: Path | bytes, backend: str, seconds: float, rate: float | None = None) -> Iterator[Reader]:
        """The clip, opened. Whatever goes wrong in the block with the file or the worker is raised as DecodeError.

        `seconds` bounds the waiting for the worker over the whole block. `rate` is the frames per second of a folder of frames.
        """
        if self.pid != os.getpid():
            self._own()
        with self.free:
            worker = self._worker()
            worker.left = seconds
            try:
                yield _opened(worker, source, backend, rate)
                worker.ask({"op": "close"})
            except TimeoutError:
                raise DecodeError(f"decoding it took longer than {seconds:g} s") from None
            except _Gone:
                raise DecodeError("the decoder crashed on it") from None
            finally:
                self._give_back(worker)

    def _worker(self) -> Worker:
        with self.lock:
            worker = self.idle.pop() if self.idle else None
        if worker is not None and worker.process.poll() is None:
            return worker
        if worker is not None:
            worker.close()
        try:
            return Worker()
        except (_Gone, TimeoutError):
            raise DecodeError("the process that decodes videos did not start") from None

    def _give_back(self, worker: Worker) -> None:
        if worker.busy:  # it is stuck, dead, or would answer the wrong question
            worker.close()
            return
        with self.lock:
            self.idle.append(worker)

    def close(self) -> None:
        if self.pid == os.getpid():
            while self.idle:
                self.idle.pop().close()


def _opened(worker: Worker, source: Path | bytes, backend: str, rate: float | None) -> Reader:
    data = source if isinstance(source, bytes) else b""
    path = "" if isinstance(source, bytes) else str(source.absolute())
    reply, _ = worker.ask({"op": "open", "path": path, "backend": backend, "rate": rate}, data)
    return Reader(worker, VideoInfo(reply["frames"], reply["fps"], reply["height"], reply["width"]))


@cache
def pool() -> Pool:
    """The process's own pool."""
    return Pool()
