"""Replies by content key: the most recent in memory and, with a directory, all of them on disk, one small JSON file each.

A file that cannot be read is asked anew, one that cannot be written costs a warning: a cache never ends a run. Failures are not kept.
"""

import json
import logging
import os
import threading
from collections import OrderedDict
from pathlib import Path

from vlm_rl.types import Reply

logger = logging.getLogger(__name__)
MOST_IN_MEMORY = 20_000


class ReplyCache:
    """Not thread-safe; several processes may share a directory."""

    def __init__(self, directory: Path | None):
        self.directory = directory
        self._recent: OrderedDict[str, Reply] = OrderedDict()

    def get(self, key: str) -> Reply | None:
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        reply = None if self.directory is None else _read(self._path(self.directory, key))
        if reply is not None:
            self._remember(key, reply)
        return reply

    def put(self, key: str, reply: Reply) -> None:
        self._remember(key, reply)
        if self.directory is None:
            return
        try:
            _write(self._path(self.directory, key), reply)
        except OSError as error:
            logger.warning("%s: replies are not kept on disk any more: %s", self.directory, error.strerror or error)
            self.directory = None

    def _remember(self, key: str, reply: Reply) -> None:
        self._recent[key] = reply
        if len(self._recent) > MOST_IN_MEMORY:
            self._recent.popitem(last=False)

    @staticmethod
    def _path(directory: Path, key: str) -> Path:
        return directory / key[:2] / f"{key}.json"


def _read(path: Path) -> Reply | None:
    try:
        tree = json.loads(path.read_bytes())
        text, finish, alternatives = tree["text"], tree["finish"], dict(tree["alternatives"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    sound = isinstance(text, str) and finish in ("stop", "length") and all(isinstance(value, float) for value in alternatives.values())
    return Reply(text, finish=finish, alternatives=alternatives) if sound else None


def _write(path: Path, reply: Reply) -> None:
    """Written aside and renamed: a killed process leaves no half file under the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    aside.write_text(json.dumps({"text": reply.text, "finish": reply.finish, "alternatives": dict(reply.alternatives)}), encoding="utf-8")
    aside.replace(path)
