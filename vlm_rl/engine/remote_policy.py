"""A policy behind an OpenAI-compatible chat endpoint: a question is a chat message with its pictures in place, its turn may be begun.

What the endpoint can do beside answering is tried once, before anything is asked, and never guessed or emulated: beginning the model's turn
(`continue_final_message`, as vLLM and SGLang have it) and telling the likeliest first tokens (`top_logprobs`). Log-probs of a given text
are not part of the protocol.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vlm_rl.engine.http_json import Endpoint, Unanswered
from vlm_rl.engine.openai import OpenAIJudge, Pictures, read_reply
from vlm_rl.errors import UserError
from vlm_rl.turns import content_parts
from vlm_rl.types import Generate, Sample, Sampling

OPEN_TURN = {"add_generation_prompt": False}
CONTINUED = {**OPEN_TURN, "continue_final_message": True}
_QUESTION = Sample("probe", "Is the sky blue?", "yes")
_BEGINNING = "Let me look at it. I see"


class RemotePolicy(OpenAIJudge):
    """`render` is how a question and its options become text. `capabilities` are known after `probe`."""

    def __init__(self, endpoint: Endpoint, pictures: Pictures, render: Callable[[Sample], str]):
        super().__init__(endpoint, pictures)
        self.render = render
        self.capabilities: frozenset[str] = frozenset()
        self.who, self.where, self.model_key = "the model's endpoint", "model", "model.name"

    def probe(self) -> None:
        """Find the served model and what the endpoint can do. Raises UserError, saying what to mend, unless it answers."""
        names = self.served()
        if not self.endpoint.model:
            if len(names) != 1:
                known = f"it has {', '.join(names[:20])}" if names else "it does not tell which models it has"
                raise UserError(f"model={self.endpoint.url}: {known}; write model={self.endpoint.url}#NAME")
            self.endpoint = replace(self.endpoint, model=names[0])
        super().probe()
        tried = {"prefill": self._begins_turns, "alternatives": self._tells_alternatives}
        self.capabilities = frozenset(name for name, can in tried.items() if can())

    def messages(self, query: Generate) -> list[dict[str, Any]]:
        media = iter(query.sample.media)
        content: list[dict[str, Any]] = []
        for part in content_parts(query.sample, self.render(query.sample)):
            content += self.shown(next(media), query.sample.id) if part["type"] != "text" else [self.text(part["text"])]
        only_text = len(content) == 1 and content[0]["type"] == "text"
        turns: list[dict[str, Any]] = [{"role": "user", "content": content[0]["text"] if only_text else content}]
        begun = query.sample.prefill + query.prefill
        return [*turns, {"role": "assistant", "content": begun}] if begun else turns

    def settings(self, query: Generate) -> dict[str, Any]:
        return dict(CONTINUED) if query.sample.prefill + query.prefill else {}

    def content(self, query: Generate) -> Sequence[str]:
        return (self.render(query.sample), query.sample.prefill + query.prefill)

    def _begins_turns(self) -> bool:
        """Whether a begun turn is shorter, in tokens of the prompt, than the same turn ended: a server that does not know the setting, or
        ends the turn all the same, counts both alike. One that counts no tokens is not believed.
        """
        turns = [{"role": "user", "content": _QUESTION.question}, {"role": "assistant", "content": _BEGINNING}]
        ended, continued = self._tokens(turns, OPEN_TURN), self._tokens(turns, CONTINUED)
        return continued is not None and ended is not None and continued < ended

    def _tokens(self, turns: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> int | None:
        """How long the server says the prompt is; None where it refuses the request or does not say."""
        body = {"model": self.endpoint.model, "messages": list(turns), "max_tokens": 1, "temperature": 0, **settings}
        try:
            return self.connection.request("POST", "/chat/completions", body, _prompt_tokens)
        except Unanswered as error:
            if error.again:
                raise UserError(self.unreachable(error)) from None
            return None

    def _tells_alternatives(self) -> bool:
        query = Generate("policy", _QUESTION, Sampling(1, 0.0, alternatives=5))
        try:
            return len(self.sent(self.body(query)).alternatives) > 1
        except Unanswered as error:
            raise UserError(self.unreachable(error)) from None


def _prompt_tokens(tree: Any) -> int | None:
    read_reply(tree)
    usage = tree.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else None
