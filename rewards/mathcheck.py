"""Equality of mathematical expressions by math-verify, in a worker process that can be killed.

math-verify's own time limits use a signal, which works in the main thread only and cannot interrupt arithmetic on huge integers
("9^{9^{9^9}}"). So one persistent worker does the work; past the time limit it is killed and the answer counts as not equal. A verdict can
therefore depend on the machine's load, but only for answers that take seconds. This file is also the worker's own script: no imports of
this project.
"""

import atexit
import json
import logging
import os
import re
import selectors
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

log = logging.getLogger(__name__)
LONGEST = 512
_SECONDS = 3.0
_START_SECONDS = 60.0
_MEMORY_BYTES = 1 << 30
_DELIMITERS = re.compile(r"\$|\\[()\[\]]")


@dataclass(frozen=True)
class Verdict:
    """`equal`: the two denote the same; `readable`: the gold text is mathematics at all."""

    equal: bool
    readable: bool


class MathCheckError(Exception):
    """The worker cannot be started; the text says why."""


class Worker:
    """One child process and its pipes. Not thread-safe; raises TimeoutError when it had to be killed."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        # -P: the folder of this script, full of short module names, stays off the child's import path.
        command = [sys.executable, "-P", str(Path(__file__).resolve())]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            started = self._read(_START_SECONDS)
        except TimeoutError:
            raise MathCheckError("the process that checks mathematics did not start") from None
        if "error" in started:
            self.close()
            raise MathCheckError(f"mathematics cannot be checked: {started['error']}")

    def check(self, gold: str, answer: str, seconds: float) -> Verdict:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps([gold, answer]).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            self.close()
            raise TimeoutError from None
        reply = self._read(seconds)
        return Verdict(reply["equal"], reply["readable"])

    def _read(self, seconds: float) -> dict:
        """One line; a reply is far shorter than a pipe's buffer, so it comes in one piece."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            line = os.read(self.process.stdout.fileno(), 4096) if selector.select(seconds) else b""
        if not line:
            self.close()
            raise TimeoutError
        return json.loads(line)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                _close_quietly(pipe)


def _close_quietly(pipe) -> None:
    try:
        pipe.close()
    except OSError:
        log.debug("a pipe to a killed worker could not be flushed")


class Checker:
    """Serialises requests to one worker and replaces it when it was killed or belongs to the process this one was forked from."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.worker: Worker | None = None
        self.pid = os.getpid()
        atexit.register(self.close)

    def check(self, gold: str, answer: str, seconds: float) -> Verdict | None:
        """None when the time ran out."""
        if self.pid != os.getpid():
            # A fork copies the lock in whatever state it was.
            self.lock, self.worker, self.pid = threading.Lock(), None, os.getpid()
        with self.lock:
            if self.worker is not None and self.worker.process.poll() is not None:
                # It was ended from outside while idle; the next answer must not pay for that.
                self.close()
            if self.worker is None:
                self.worker = Worker()
            try:
                return self.worker.check(gold, answer, seconds)
            except TimeoutError:
                log.debug("no verdict on %r within %.1f s", answer, seconds)
                self.worker = None
                return None

    def close(self) -> None:
        if self.worker is not None and self.worker.owner == os.getpid():
            self.worker.close()
            self.worker = None


_checker = Checker()


@lru_cache(maxsize=8192)
def check(gold: str, answer: str, seconds: float = _SECONDS) -> Verdict:
    """Whether `answer` is mathematically equal to `gold`; not equal where either has more than 512 characters or the time runs out.

    Works in any thread. Inner dollar signs are removed, so that "$5$ $6$" is one (wrong) answer and not two. Raises MathCheckError when
    the worker cannot be started. Example: check("\\\\frac{1}{2}", "0.5").equal -> True.
    """
    if max(len(gold), len(answer)) > LONGEST:
        return Verdict(False, len(gold) <= LONGEST)
    plain_gold, plain_answer = (_DELIMITERS.sub(" ", text).strip() for text in (gold, answer))
    return _checker.check(plain_gold, plain_answer, seconds) or Verdict(False, False)


def serve() -> None:
    """The worker: one JSON pair a line in, one JSON verdict a line out."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr
    try:
        import resource

        from math_verify import parse, verify

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    except (ImportError, OSError, ValueError) as error:
        replies.write(json.dumps({"error": str(error)}) + "\n")
        return
    logging.disable(logging.CRITICAL)
    _reply(replies, {"ready": True})
    for line in sys.stdin:
        _die_after(60)
        try:
            gold, answer = (parse(f"${text}$", parsing_timeout=None) for text in json.loads(line))  # type: ignore[arg-type]
            equal = bool(verify(gold, answer, timeout_seconds=None))
            verdict = {"equal": equal, "readable": bool(gold) and not isinstance(gold[0], str)}
        except Exception:
            # Whatever a hostile expression brings sympy to, it is not equal.
            verdict = {"equal": False, "readable": False}
        _die_after(0)
        _reply(replies, verdict)


def _reply(replies, content: dict) -> None:
    replies.write(json.dumps(content) + "\n")
    replies.flush()


def _die_after(seconds: int) -> None:
    """The kernel ends this process after so many seconds even inside C code, should the parent be gone; 0 cancels."""
    import signal

    signal.alarm(seconds)


if __name__ == "__main__":
    serve()
