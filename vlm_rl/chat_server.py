"""A small server of OpenAI's chat protocol, on this machine only, for anything that turns a prompt into a text: POST /v1/chat/completions,
GET /v1/models and GET /health.

It is for laboratories, not for the network: one process, no keys, no streaming, one choice. Pictures are accepted and not looked at;
temperature and seed change nothing.
"""

import json
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from vlm_rl.seeds import stable_hash

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
MOST_BYTES = 64 << 20
REQUEST_S = 30.0  # for one request to arrive
MOST_TOP = 20
_ROLES = ("system", "developer", "user", "assistant", "tool")
_PARTS = ("text", "image_url", "video_url", "input_audio", "file")
_PIECE = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")  # what counts as a token


class Written(Protocol):
    """A reply; `first` holds the probabilities of its first token's alternatives, where there is something to tell."""

    @property
    def text(self) -> str: ...

    @property
    def first(self) -> Mapping[str, float] | None: ...


Respond = Callable[[str], Written]


class Refused(Exception):
    """A request that is answered by an error of OpenAI's schema."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.tree = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True)
class Asked:
    """A checked request: the text of its last user message, and what was wanted of the reply."""

    prompt: str
    most_tokens: int | None
    logprobs: bool
    top: int


class ChatServer(ThreadingHTTPServer):
    """Answers with what `respond` makes of a prompt, under the name of `model`. Port 0 takes a free one; `url` tells it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, respond: Respond, model: str, port: int = 0):
        super().__init__((HOST, port), _Handler)
        self.respond, self.model = respond, model

    @property
    def url(self) -> str:
        """What a client is given: "http://127.0.0.1:8000/v1"."""
        return f"http://{HOST}:{self.server_address[1]}/v1"

    def complete(self, asked: Asked) -> dict[str, Any]:
        """The answer to a request, in OpenAI's schema."""
        written = self.respond(asked.prompt)
        pieces = _PIECE.findall(written.text)
        kept = pieces[: asked.most_tokens]
        prompt_tokens = len(_PIECE.findall(asked.prompt))
        first = written.first if asked.logprobs else None
        return {
            "id": f"chatcmpl-{stable_hash(self.model, asked.prompt):016x}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "".join(kept)},
                    "logprobs": None if first is None else {"content": [_token(kept[0], first, asked.top)], "refusal": None},
                    "finish_reason": "length" if len(kept) < len(pieces) else "stop",
                }
            ],
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": len(kept), "total_tokens": prompt_tokens + len(kept)},
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_S
    server: ChatServer

    def do_GET(self) -> None:
        known = {"/health": {"status": "ok"}, "/v1/models": {"object": "list", "data": [self._model()]}}
        tree = known.get(self.path.partition("?")[0])
        self._send(404, Refused(404, f"no such route: GET {self.path[:100]}").tree) if tree is None else self._send(200, tree)

    def do_POST(self) -> None:
        try:
            if self.path.partition("?")[0] != "/v1/chat/completions":
                raise Refused(404, f"no such route: POST {self.path[:100]}; there is /v1/chat/completions")
            asked = read_request(self._body(), self.server.model)
            status, tree = 200, self.server.complete(asked)
        except Refused as error:
            status, tree = error.status, error.tree
        except Exception:
            logger.exception("a request failed")
            status, tree = 500, Refused(500, "internal error").tree
        self._send(status, tree)

    def _model(self) -> dict[str, Any]:
        return {"id": self.server.model, "object": "model", "created": 0, "owned_by": "vlm-rl"}

    def _body(self) -> bytes:
        """The request's body. A client whose body is not read to its end gets an error and no further request."""
        length = self.headers.get("Content-Length", "")
        self.close_connection = True
        if not length.isascii() or not length.isdigit():
            raise Refused(411, "a Content-Length is needed")
        if len(length) > 12 or int(length) > MOST_BYTES:
            raise Refused(413, f"the body is larger than {MOST_BYTES} bytes")
        deadline, body = time.monotonic() + REQUEST_S, bytearray()
        while len(body) < int(length):
            try:
                piece = self.rfile.read1(min(1 << 20, int(length) - len(body)))
            except OSError:
                raise Refused(408, "the body did not arrive in time") from None
            if not piece or time.monotonic() > deadline:
                raise Refused(408, "the body did not arrive in time")
            body += piece
        self.close_connection = self.headers.get("Connection", "").lower() == "close"
        return bytes(body)

    def _send(self, status: int, tree: Mapping[str, Any]) -> None:
        content = json.dumps(tree).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # the client has gone
            self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses (unknown methods, malformed request lines), in OpenAI's schema too."""
        self.close_connection = True
        self._send(code, Refused(code, message or "bad request").tree)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


def read_request(body: bytes, model: str) -> Asked:
    """Check a chat request. Raises Refused with the parameter that is wrong."""
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not valid JSON") from None
    if not isinstance(tree, dict):
        raise Refused(400, "the body is no JSON object")
    if tree.get("model") != model:
        raise Refused(404, f"the model {str(tree.get('model'))[:100]!r} does not exist; there is {model!r}", "model_not_found", "model")
    if tree.get("stream"):
        raise Refused(400, "streaming is not supported", "unsupported_parameter", "stream")
    if tree.get("n") not in (None, 1):
        raise Refused(400, "only one choice is given", "unsupported_parameter", "n")
    most = _whole(tree, "max_completion_tokens", 1, 1 << 31) or _whole(tree, "max_tokens", 1, 1 << 31)
    return Asked(_prompt(tree.get("messages")), most, tree.get("logprobs") is True, _whole(tree, "top_logprobs", 0, MOST_TOP) or 0)


def _whole(tree: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = tree.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most):
        raise Refused(400, f"{name} must be a whole number from {least} to {most}", "invalid_value", name)
    return value


def _prompt(messages: Any) -> str:
    """The text of the last user message; its text parts joined by line ends."""
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages must be a list with at least one message", "invalid_type", "messages")
    texts = [(message["role"], _text(message.get("content"), f"messages[{i}]")) for i, message in enumerate(messages) if _check(message, i)]
    of_users = [text for role, text in texts if role == "user"]
    if not of_users:
        raise Refused(400, "messages hold none of the user", "invalid_value", "messages")
    return of_users[-1]


def _check(message: Any, i: int) -> bool:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise Refused(
            400, f"messages[{i}] must be an object with a role, one of {', '.join(_ROLES)}", "invalid_value", f"messages[{i}].role"
        )
    return True


def _text(content: Any, where: str) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    if not isinstance(content, list):
        raise Refused(400, f"{where}.content must be a text or a list of parts", "invalid_type", f"{where}.content")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _PARTS or (kind == "text" and not isinstance(part.get("text"), str)):
            raise Refused(400, f"{where}.content has a part that is none of {', '.join(_PARTS)}", "invalid_value", f"{where}.content")
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _token(token: str, first: Mapping[str, float], top: int) -> dict[str, Any]:
    told = [_entry(text, probability) for text, probability in sorted(first.items(), key=lambda item: -item[1])[:top]]
    return {**_entry(token, first.get(token, 0.0)), "top_logprobs": told}


def _entry(token: str, probability: float) -> dict[str, Any]:
    return {"token": token, "logprob": math.log(probability) if probability > 0 else -9999.0, "bytes": list(token.encode())}
