"""Judges behind an OpenAI-compatible chat endpoint (vLLM, SGLang, llama.cpp, hosted ones): questions in, replies out, many at once.

A question is its whole prompt with its pictures before it. There is no chat template here, no meaning in a reply, and no log-probs of a
given text. A question that got no usable answer after all retries is a Reply with an error: unscored, never 0.
"""

import base64
import hashlib
import json
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from vlm_rl.engine.base import Progress
from vlm_rl.engine.http_json import Connection, Endpoint, Unanswered
from vlm_rl.engine.reply_cache import ReplyCache
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Generate, Media, Reply

logger = logging.getLogger(__name__)
Pictures = Callable[[Media, str], Sequence[bytes]]

KEPT_MEDIA = 16
LEAST_IN_A_ROW = 4
MOST_ALTERNATIVES = 20
# Parameters that some servers refuse, and what is sent in their stead: the same under another name, or nothing.
_REFUSABLE: Mapping[str, str | None] = {"max_tokens": "max_completion_tokens", "top_logprobs": None, "logprobs": None, "seed": None}
_ABSENT = (404, 405, 501)


@dataclass
class _Outage:
    """Of one call: how many questions in a row got nothing out of the server, and what became of the last."""

    in_a_row: int = 0
    reason: str = ""


class OpenAIJudge:
    """A judge at an endpoint. `pictures` gives a medium's pictures as encoded PNGs (a video's frames); it may raise RowError.

    Replies are kept by content: url, model, prompt, media, sampling, and the seed where temperature is not 0. `hits` counts questions
    answered from there, `failures` those without an answer, `connection.requests` what was sent.
    """

    def __init__(self, endpoint: Endpoint, pictures: Pictures, cache_dir: Path | None = None):
        self.endpoint, self.pictures = endpoint, pictures
        self.connection, self.cache = Connection(endpoint), ReplyCache(cache_dir)
        self.hits = self.failures = 0
        self.who, self.where, self.model_key = f"judge '{endpoint.name}'", f"judges.{endpoint.name}", f"judges.{endpoint.name}.model"
        self._refused: set[str] = set()
        self._urls: OrderedDict[str, list[str]] = OrderedDict()
        self._decoding = threading.Lock()

    def probe(self) -> None:
        """Raises UserError, naming the judge and what to mend, unless the endpoint answers and has the model."""
        names = self.served()
        if names and self.endpoint.model not in names:
            known = ", ".join(names[:20])
            raise UserError(f"{self.model_key}: {self.endpoint.url} has no model '{self.endpoint.model}', but it has: {known}")

    def served(self) -> list[str]:
        """The models that the endpoint says it has, [] where it offers no list. Raises UserError as `probe`."""
        try:
            return self.connection.request("GET", "/models", None, _model_names)
        except Unanswered as error:
            if error.status not in _ABSENT:  # a list of models is not offered everywhere
                raise UserError(self.unreachable(error)) from None
            return []

    def answer(self, queries: Sequence[Generate], progress: Progress | None = None) -> list[Reply]:
        """One reply per query, in order. Equal questions are asked once, at most `max_concurrency` at a time.

        When that many questions in a row (but no fewer than LEAST_IN_A_ROW) got nothing out of the server, the rest is given up.
        """
        keys = [self._key(query) for query in queries]
        replies = {key: reply for key in dict.fromkeys(keys) if (reply := self.cache.get(key)) is not None}
        self.hits += sum(key in replies for key in keys)
        waiting = {key: query for key, query in zip(keys, queries, strict=True) if key not in replies}
        for done, (key, reply) in enumerate(self._answers(waiting), 1):
            replies[key] = reply
            if reply.error is None:
                self.cache.put(key, reply)
            if progress is not None:
                progress(done, len(waiting))
        answered = [replies[key] for key in keys]
        self._count(answered)
        return answered

    def _answers(self, waiting: Mapping[str, Generate]) -> Iterator[tuple[str, Reply]]:
        """As they come. The threads are daemons: an interrupted program must not wait for a slow server before it ends."""
        todo: SimpleQueue[tuple[str, Generate]] = SimpleQueue()
        done: SimpleQueue[tuple[str, Reply | Exception]] = SimpleQueue()
        for item in waiting.items():
            todo.put(item)
        work = partial(self._work, todo, done, _Outage())
        for _ in range(min(self.endpoint.max_concurrency, len(waiting))):
            threading.Thread(target=work, name=f"judge {self.endpoint.name}", daemon=True).start()
        try:
            for _ in waiting:
                key, result = done.get()
                if isinstance(result, Exception):
                    raise result
                yield key, result
        except BaseException:
            self.connection.stopped.set()
            raise

    def _work(self, todo: "SimpleQueue[tuple[str, Generate]]", done: "SimpleQueue[tuple[str, Reply | Exception]]", outage: _Outage) -> None:
        while not self.connection.stopped.is_set():
            try:
                key, query = todo.get_nowait()
            except Empty:
                return
            try:
                done.put((key, self._ask(query, outage)))
            except Exception as error:  # raised again by the thread that waits
                done.put((key, error))

    def _count(self, replies: Sequence[Reply]) -> None:
        failed = [reply for reply in replies if reply.error is not None]
        self.failures += len(failed)
        if failed:
            logger.warning("%s: %d of %d questions unanswered: %s", self.who, len(failed), len(replies), failed[0].error)

    def _ask(self, query: Generate, outage: _Outage) -> Reply:
        if outage.in_a_row >= max(LEAST_IN_A_ROW, self.endpoint.max_concurrency):
            return Reply(error=f"given up after {outage.in_a_row} questions in a row without an answer; the last: {outage.reason}")
        try:
            body = self.body(query)
        except RowError as error:
            return Reply(error=error.reason)
        except OSError as error:  # a medium's file has gone
            return Reply(error=f"{error.filename}: {error.strerror}")
        try:
            reply = self.sent(body)
        except Unanswered as error:
            outage.in_a_row = outage.in_a_row + 1 if error.again else 0
            outage.reason = str(error)
            return Reply(error=str(error))
        outage.in_a_row = 0
        return reply

    def sent(self, body: dict[str, Any]) -> Reply:
        """The reply to a request; parameters that the server says it does not take are left out, then and from then on."""
        for _ in range(len(_REFUSABLE) + 1):
            sent = self._accepted(body)
            try:
                return self.connection.request("POST", "/chat/completions", sent, read_reply)
            except Unanswered as error:
                refused = _refusal(error, sent)
                if refused is None:
                    raise
                logger.info("%s does not take %s: %s", self.who, refused, error)
                self._refused.add(refused)
        raise AssertionError("every refusable parameter is refused once")

    def _accepted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        named = {(_REFUSABLE[name] if name in self._refused else name): value for name, value in body.items()}
        return {name: value for name, value in named.items() if name is not None}

    def messages(self, query: Generate) -> list[dict[str, Any]]:
        """The chat that asks `query`. Raises RowError."""
        pictures = [part for medium in query.sample.media for part in self.shown(medium, query.sample.id)]
        text = self.text(query.sample.question)
        return [{"role": "user", "content": [*pictures, text] if pictures else text["text"]}]

    def shown(self, medium: Media, row: str) -> list[dict[str, Any]]:
        """A medium as parts of a message. Raises RowError."""
        return [{"type": "image_url", "image_url": {"url": url}} for url in self._data_urls(medium, row)]

    def text(self, text: str) -> dict[str, Any]:
        return {"type": "text", "text": text.encode("utf-8", "replace").decode()}  # half a surrogate pair cannot be sent

    def settings(self, query: Generate) -> dict[str, Any]:
        """What else a request for `query` says."""
        return {}

    def content(self, query: Generate) -> Sequence[str]:
        """The texts by which equal questions are known."""
        return (query.sample.question,)

    def body(self, query: Generate) -> dict[str, Any]:
        sampling = query.sampling
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": self.messages(query),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            **self.settings(query),
        }
        if sampling.temperature > 0:
            body["seed"] = query.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.alternatives:
            body |= {"logprobs": True, "top_logprobs": min(sampling.alternatives, MOST_ALTERNATIVES)}
        return body

    def _data_urls(self, medium: Media, row: str) -> list[str]:
        """Decoded once for all questions of a group, one at a time: decoders need not be thread-safe."""
        with self._decoding:
            if medium.id not in self._urls:
                encoded = self.pictures(medium, row)
                self._urls[medium.id] = [f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in encoded]
                if len(self._urls) > KEPT_MEDIA:
                    self._urls.popitem(last=False)
            return self._urls[medium.id]

    def _key(self, query: Generate) -> str:
        sampling = query.sampling
        seed = query.seed if sampling.temperature > 0 else None
        limits = [sampling.max_new_tokens, sampling.temperature, sampling.stop, sampling.alternatives, seed]
        try:
            media = [medium.id for medium in query.sample.media]
        except OSError as error:  # asking says what is wrong
            media = [repr(error)]
        content = [self.endpoint.url, self.endpoint.model, *self.content(query), media, limits]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def unreachable(self, error: Unanswered) -> str:
        mend = f"start it, or mend {self.where}.url"
        if error.status in (401, 403):
            mend = f"name the environment variable that holds its key as {self.where}.api_key_env, and set it"
        return f"{self.who} at {self.endpoint.url} does not answer: {error}; {mend}"


def _refusal(error: Unanswered, sent: Mapping[str, Any]) -> str | None:
    """The name of the parameter that the server does not take, if that is what it says."""
    return next((name for name in _REFUSABLE if name in sent and name in str(error)), None) if error.status in (400, 422) else None


def _model_names(tree: Any) -> list[str]:
    """The ids of a list of models, [] when it is none."""
    entries = tree.get("data") if isinstance(tree, dict) else None
    return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry] if isinstance(entries, list) else []


def read_reply(tree: Any) -> Reply:
    """Raises Unanswered for JSON that is no chat completion with text."""
    try:
        choice = tree["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Unanswered("the reply has no choices[0].message.content", again=True) from None
    if not isinstance(text, str):
        raise Unanswered("choices[0].message.content of the reply is no text", again=True)
    if finish == "content_filter":
        raise Unanswered("the endpoint's content filter held the reply back", again=False)
    plain = text.encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair, which no file takes
    return Reply(plain, finish="length" if finish == "length" else "stop", alternatives=_alternatives(choice))


def _alternatives(choice: Mapping[str, Any]) -> dict[str, float]:
    """Log-probs of the likeliest first tokens; several tokens of one text count together."""
    try:
        entries = choice["logprobs"]["content"][0]["top_logprobs"]
        told = [(str(entry["token"]), float(entry["logprob"])) for entry in entries]
    except (KeyError, IndexError, TypeError, ValueError):
        return {}
    mass: dict[str, float] = {}
    for token, logprob in told:
        if logprob <= 0:
            mass[token] = mass.get(token, 0.0) + math.exp(logprob)
    return {token: math.log(p) for token, p in mass.items() if p > 0}
