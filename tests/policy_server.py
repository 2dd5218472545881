"""An OpenAI-compatible server in front of a real small model: pictures are looked at, turns may be begun, first tokens told."""

import base64
import threading

from http_faults import Behaviour, completion

from vlm_rl.chat import Chat
from vlm_rl.engine.base import GenerateRequest
from vlm_rl.engine.hf import HFEngine
from vlm_rl.types import Media, Sample, Sampling


def sample_of(messages: list[dict]) -> Sample:
    """The user's turn as a question with marks where its pictures stand."""
    content = messages[0]["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    text = "".join("<image>" if part["type"] == "image_url" else part["text"] for part in parts)
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return Sample("asked", text, "", media=tuple(Media("image", data=base64.b64decode(url.partition(",")[2])) for url in urls))


def policy(engine: HFEngine, chat: Chat, begins: bool = True, tells: bool = True) -> Behaviour:
    """`begins`: whether it knows continue_final_message; else it ends every turn, as servers do that do not know it."""
    lock = threading.Lock()

    def behave(handler, body) -> None:
        sampling = Sampling(body["max_tokens"], body["temperature"], tuple(body.get("stop", ())), body.get("top_logprobs", 0))
        begun = body["messages"][-1]["content"] if body["messages"][-1]["role"] == "assistant" else ""
        continued = begins and body.get("continue_final_message", False)
        with lock:
            prompt = chat.prompt(sample_of(body["messages"]), begun)
            ((written,),) = engine.generate([GenerateRequest(prompt, sampling, (body.get("seed", 0),))])
        told = [{"token": token, "logprob": logprob} for token, logprob in written.alternatives.items()]
        logprobs = {"content": [{"token": "", "logprob": 0.0, "top_logprobs": told}]} if tells and told else None
        usage = {"prompt_tokens": len(prompt.expanded_ids) + (3 if begun and not continued else 0)}
        tree = completion(written.text, logprobs=logprobs) | {"usage": usage}
        tree["choices"][0]["finish_reason"] = written.finish
        handler.send_json(200, tree)

    return behave
