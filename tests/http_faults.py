"""A real HTTP server on this machine that answers as a script says, faults included, and remembers what it was asked."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Behaviour = Callable[["Handler", dict], None]


def completion(text, **more) -> dict:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **more}]}


def says(text, **more) -> Behaviour:
    return lambda handler, body: handler.send_json(200, completion(text, **more))


def echo(handler, body) -> None:
    """The last word of the prompt."""
    content = body["messages"][-1]["content"]
    handler.send_json(200, completion((content if isinstance(content, str) else content[-1]["text"]).split()[-1]))


def status(code: int, message: str = "no", **headers) -> Behaviour:
    error = {"error": {"message": message, "type": "t", "param": None, "code": None}}
    return lambda handler, body: handler.send_json(code, error, {name.replace("_", "-"): value for name, value in headers.items()})


def raw(content: bytes, declared: int | None = None) -> Behaviour:
    """Status 200 with these bytes, and a Content-Length that may promise more."""
    return lambda handler, body: handler.send_bytes(200, content, {}, declared)


def hang_up(handler, body) -> None:
    handler.close_connection = True


def slow(seconds: float) -> Behaviour:
    def behave(handler, body) -> None:
        handler.server.released.wait(seconds)
        echo(handler, body)

    return behave


def drip(handler, body) -> None:
    """A byte at a time, each in time, never all of them."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(1000):
        if handler.server.released.wait(0.02):
            return
        handler.wfile.write(b" ")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *script: Behaviour, models=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.models = script, models
        self.asked: list[dict] = []
        self.headers: list[dict] = []
        self.at_once = self.most_at_once = 0
        self.lock, self.released = threading.Lock(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address) -> None:
        """Clients that give up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.headers.append(dict(self.headers))
        behaviour = self.server.models or says("models are not what this server was asked about")
        behaviour(self, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.asked)
            self.server.asked.append(body)
            self.server.headers.append(dict(self.headers))
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        try:
            self.server.script[min(number, len(self.server.script) - 1)](self, body)
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def send_json(self, code: int, tree, headers=None) -> None:
        self.send_bytes(code, json.dumps(tree).encode(), headers or {})

    def send_bytes(self, code: int, content: bytes, headers: dict, declared: int | None = None) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if declared is None else declared))
        self.end_headers()
        self.wfile.write(content)
        if declared is not None:
            self.close_connection = True

    def log_message(self, format: str, *args) -> None:
        pass


@contextmanager
def faulty(*script: Behaviour, models=None):
    """Answers the n-th POST by the n-th behaviour, the last one from then on."""
    server = Server(*script, models=models)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def later(seconds: float, behaviour: Behaviour) -> Behaviour:
    def behave(handler, body) -> None:
        time.sleep(seconds)
        behaviour(handler, body)

    return behave
