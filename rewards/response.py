"""The one grammar of responses, `<think>trace</think><answer>answer</answer>`, for rewards and evaluation alike.

It finds the answer and the trace; it does not judge them (`grading`) and never makes one up. Model output is hostile: everything here is
linear in the length of the text.
"""

import re
from dataclasses import dataclass
from typing import Literal

from vlm_rl.errors import unknown

Mode = Literal["lenient", "strict"]
MODES = ("lenient", "strict")
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_BOXED = "\\boxed{"
_PHRASE = re.compile(r"\banswer\s*(?:is\s*:?|:)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n")
_LONGEST_PHRASE = 1000


@dataclass(frozen=True)
class Response:
    """What was found: the reasoning and the answer, None where there is none, and whether the text obeys the strict grammar."""

    trace: str | None
    answer: str | None
    wellformed: bool


def parse(text: str, mode: str = "lenient") -> Response:
    """Split a response. Raises UserError for an unknown mode.

    Well-formed: optional whitespace, one non-empty think block, optional whitespace, one non-empty answer block, optional whitespace, each
    of the four tags exactly once. Mode "strict" reads nothing from any other text. Mode "lenient" takes the first that is there, after the
    last `</think>` (an unclosed think block hides all that follows it): the last complete answer block; an answer block still open at the
    end; the last `\\boxed{}` with balanced braces; the rest of the sentence after the last "answer is" or "Answer:". An answer inside the
    think block never counts.

    Example: parse("<think>red</think><answer>B</answer>") -> Response("red", "B", True).
    """
    if mode not in MODES:
        raise unknown("response mode", mode, MODES)
    strict = _strict(text)
    if strict is not None:
        return strict
    return Response(_trace(text), _answer(_after_think(text)), False) if mode == "lenient" else Response(None, None, False)


def before_answer(turn: str, opened: bool = False) -> str | None:
    """The turn up to "<answer", the first tag after its thought; None without the tag, or where the thought is not closed.

    `opened`: the chat template itself opens the think block. before_answer("<think>x</think> <answer>B") -> "<think>x</think> <answer"
    """
    end = turn.rfind("</think>")
    tag = turn.find("<answer>", max(end, 0))
    open_thought = (opened and end < 0) or "<think>" in turn[max(end, 0) : max(tag, 0)]
    return None if tag < 0 or open_thought else turn[:tag] + "<answer"


def _strict(text: str) -> Response | None:
    text = text.strip()
    if not (text.startswith("<think>") and text.endswith("</answer>") and all(text.count(tag) == 1 for tag in _TAGS)):
        return None
    trace, _, rest = text.removeprefix("<think>").partition("</think>")
    rest = rest.strip()
    answer = rest.removeprefix("<answer>").removesuffix("</answer>").strip()
    trace = trace.strip()
    return Response(trace, answer, True) if rest.startswith("<answer>") and trace and answer else None


def _trace(text: str) -> str | None:
    """The think block; a text that only closes one began it in the prompt."""
    end = text.rfind("</think>")
    start = text.find("<think>", 0, end if end >= 0 else None)
    if start < 0 and end < 0:
        return None
    return text[start + len("<think>") if start >= 0 else 0 : end if end >= 0 else None].strip() or None


def _after_think(text: str) -> str:
    _, closed, after = text.rpartition("</think>")
    return "" if "<think>" in after else after if closed else text


def _answer(body: str) -> str | None:
    end = body.rfind("</answer>")
    start = body.rfind("<answer>", 0, max(end, 0))
    if start >= 0:
        start += len("<answer>")
        return body[start : body.find("</answer>", start)].strip() or None
    _, opened, rest = body.rpartition("<answer>")
    if opened:
        return rest.strip() or None
    return _boxed(body) or _phrase(body)


def _boxed(body: str) -> str | None:
    """The content of the last `\\boxed{}`, braces balanced."""
    start = body.rfind(_BOXED)
    if start < 0:
        return None
    start, depth = start + len(_BOXED), 1
    for brace in re.finditer(r"[{}]", body[start:]):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return body[start : start + brace.start()].strip() or None
    return None


def _phrase(body: str) -> str | None:
    """The rest of the sentence after the last "answer is" or "Answer:"."""
    ends = [match.end() for match in _PHRASE.finditer(body)]
    if not ends:
        return None
    rest = body[ends[-1] : ends[-1] + _LONGEST_PHRASE].lstrip(" \t\r\n*_:")
    end = _SENTENCE_END.search(rest)
    return (rest[: end.start()] if end else rest).strip().strip("*_").rstrip(".").strip() or None
