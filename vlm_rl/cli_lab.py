"""`vlm-rl lab`: servers for experiments whose truth is known. Composition only."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from eval.lab_judge import LabJudge
from vlm_rl.chat_server import HOST, ChatServer
from vlm_rl.errors import UserError


@contextmanager
def serving(kind: str = "honest", rate: float = 0.2, hack: str = "length", port: int = 0, seed: int = 0) -> Iterator[ChatServer]:
    """A judge of traces about scenes behind OpenAI's protocol, on this machine only, until the block ends.

    Its `url` and `model` are what a config's `judges:` names. Raises UserError for an unknown kind or hack and a port that is taken.
    """
    judge = LabJudge(kind, rate, hack, seed)
    try:
        server = ChatServer(judge.reply, judge.name, port)
    except OSError as error:
        raise UserError(
            f"port {port} of {HOST} cannot be used: {error.strerror or error}; write another --port, or 0 for a free one"
        ) from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name=judge.name, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def judge(kind: str, rate: float, hack: str, port: int, seed: int, announce: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM. One line of JSON is announced when it is ready: url, model, kind."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with serving(kind, rate, hack, port, seed) as server:
        announce(json.dumps({"url": server.url, "model": server.model, "kind": kind}))
        stopped.wait()
