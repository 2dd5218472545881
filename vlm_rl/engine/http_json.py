"""JSON over HTTP to one server that may be slow, down, overloaded or talking rubbish: time limits, retries, size limits.

It knows no chat and caches nothing. Secrets never stand in what it raises or logs.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2

ResultT = TypeVar("ResultT")

MOST_BYTES = 8 << 20
MOST_WAIT_S = 60.0
CONNECT_S = 10.0
_OVERLOADED = (408, 409, 425, 429)
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Endpoint:
    """Where a judge is, and how it is asked: `url` ends before /chat/completions. A question is tried 1 + `retries` times, `timeout_s`
    seconds each; the n-th pause is about backoff_s x 2^n seconds, or what the server asks for, at most MOST_WAIT_S.
    """

    name: str
    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    max_concurrency: int = 16
    timeout_s: float = 60.0
    retries: int = 3
    backoff_s: float = 0.5


class Unanswered(Exception):
    """No usable answer; the text says why. `again`: the same request may fare better later. `status` is the server's, if it spoke."""

    def __init__(self, reason: str, again: bool, status: int | None = None, wait_s: float | None = None):
        super().__init__(reason)
        self.again, self.status, self.wait_s = again, status, wait_s


class Connection:
    """Thread-safe. `requests` counts what was sent, retries included. Once `stopped` is set, nothing is waited for or tried again."""

    def __init__(self, endpoint: Endpoint):
        self.endpoint = endpoint
        self.requests = 0
        self.stopped = threading.Event()
        self._counting = threading.Lock()
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {},
            timeout=httpx2.Timeout(endpoint.timeout_s, connect=min(endpoint.timeout_s, CONNECT_S)),
            limits=httpx2.Limits(max_connections=endpoint.max_concurrency, max_keepalive_connections=endpoint.max_concurrency),
            trust_env=urlsplit(endpoint.url).hostname not in ("localhost", "127.0.0.1", "::1"),  # a proxy's loopback is not this one
        )

    def request(self, method: str, path: str, body: Mapping[str, Any] | None, read: Callable[[Any], ResultT]) -> ResultT:
        """What `read` makes of the JSON that the server answers; `read` raises Unanswered for what it cannot use. Raises Unanswered."""
        for attempt in range(self.endpoint.retries + 1):
            try:
                return read(self._once(method, path, body))
            except Unanswered as error:
                if not error.again or attempt == self.endpoint.retries:
                    tried = f" (tried {attempt + 1} times)" if attempt else ""
                    raise Unanswered(f"{error}{tried}", error.again, error.status) from None
                self._pause(attempt, error.wait_s)
        raise AssertionError("the last attempt returns or raises")

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        with self._counting:
            self.requests += 1
        try:
            with self._client.stream(method, self.endpoint.url + path, json=body) as response:
                content = self._read(response)
        except httpx2.TimeoutException:
            raise Unanswered(f"no answer within {self.endpoint.timeout_s:g} s", again=True) from None
        except httpx2.HTTPError as error:
            raise Unanswered(self._clean(f"{type(error).__name__}: {error}"), again=True) from None
        tree = _parsed(content)
        if response.status_code == 200 and tree is not None:
            return tree
        if response.status_code == 200:
            raise Unanswered(self._clean(f"the reply is not JSON: {content[:80]!r}"), again=True)
        raise self._refusal(response, tree)

    def _read(self, response: httpx2.Response) -> bytes:
        """The body. The time limit of httpx2 holds for each piece, so a server that drips is stopped here."""
        deadline = time.monotonic() + self.endpoint.timeout_s
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > MOST_BYTES:
                raise Unanswered(f"the reply is longer than {MOST_BYTES} bytes", again=False)
            if time.monotonic() > deadline:
                raise Unanswered(f"no whole answer within {self.endpoint.timeout_s:g} s", again=True)
        return bytes(content)

    def _refusal(self, response: httpx2.Response, tree: Any) -> Unanswered:
        status = response.status_code
        problem = tree.get("error", tree) if isinstance(tree, dict) else None
        said = problem.get("message", "") if isinstance(problem, dict) else problem or ""
        reason = self._clean(f"HTTP {status} {response.reason_phrase}: {said}".rstrip(": "))
        return Unanswered(reason, status >= 500 or status in _OVERLOADED, status, _retry_after(response.headers.get("Retry-After")))

    def _clean(self, text: str) -> str:
        """One printable line of bounded length, without the key, which some servers repeat."""
        if self.endpoint.api_key:
            text = text.replace(self.endpoint.api_key, "***")
        return "".join(char if char.isprintable() else " " for char in text)[:_LONGEST_REASON]

    def _pause(self, attempt: int, asked_s: float | None) -> None:
        wait = self.endpoint.backoff_s * 2**attempt * random.uniform(0.5, 1.5)
        if asked_s is not None:
            wait = asked_s + random.uniform(0, self.endpoint.backoff_s)
        if self.stopped.wait(min(wait, MOST_WAIT_S)):
            raise Unanswered("interrupted", again=False)


def _parsed(content: bytes) -> Any:
    """The JSON, None when it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _retry_after(header: str | None) -> float | None:
    """Seconds, from a number of them or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
