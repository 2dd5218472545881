"""How rewards ask a judge about one response: what it is shown of the row and what of the response. It reads no reply.

The judge sees the question as the row has it, never the chat template's text, the gold answer, or, of a trace, the answer behind it.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.options import MARK
from data.templates import plain
from rewards.judging import Field, render
from rewards.response import parse
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Generate, Reply, Sample, Sampling

_LEADING_MARKS = re.compile(rf"\A\s*(?:{MARK.pattern}\s*)+")
_ANSWER = re.compile(r"<answer>.*?(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class JudgeCall:
    """`media`: the judge is sent the row's pictures. `item`: it is told the row's id, for judges that know the rows."""

    name: str
    media: bool = True
    item: bool = False
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise UserError("judge: write the name of one of `judges:`")
        if isinstance(self.max_new_tokens, bool) or not isinstance(self.max_new_tokens, int) or self.max_new_tokens < 1:
            raise UserError(f"judge.max_new_tokens is a number of tokens, 1 or more, not {self.max_new_tokens!r}")

    def query(self, sample: Sample, prompt: str, alternatives: int = 0, **fields: Field) -> Generate:
        """The prompt file of that name (see `judging.render`) with its fields, asked greedily."""
        text = render(prompt, item=sample.id if self.item else None, **fields)
        shown = Sample(sample.id, text, "", media=sample.media if self.media else ())
        return Generate(self.name, shown, Sampling(self.max_new_tokens, 0.0, alternatives=alternatives))


def judge_call(judge: str | Mapping[str, Any], **defaults: Any) -> JudgeCall:
    """From a config's `judge: exact` or `judge: {name: exact, media: false, item: true, max_new_tokens: 16}`. Raises UserError."""
    given = {"name": judge} if isinstance(judge, str) else dict(judge) if isinstance(judge, Mapping) else {"name": judge}
    known = inspect.signature(JudgeCall).parameters
    for key in given:
        if key not in known:
            raise unknown("key", str(key), known, "judge")
    return JudgeCall(**{"name": "", **defaults, **given})


def question_of(sample: Sample) -> str:
    """The question with its options, one a line, as it is put to the policy; a judge gets all media before it, so marks become words."""
    return MARK.sub("[picture]", _LEADING_MARKS.sub("", plain(sample))).strip()


def bare_trace(text: str) -> str:
    """The reasoning of a response without any answer block, "" where there is none: what a judge of reasoning may see."""
    return _ANSWER.sub("", parse(text).trace or "").strip()


def why_unread(reply: Reply) -> str:
    """Why nothing could be read from a reply, for a result's detail["error"]."""
    return reply.error or f"the judge's reply is not of the form that was asked for: {reply.text[:100]!r}"
