"""Where the media of a question stand in its text: by "<image>" and "<video>" marks, or before it."""

import re

from vlm_rl.errors import RowError
from vlm_rl.types import Sample

MARK = re.compile(r"<(image|video)>")


def content_parts(sample: Sample, text: str) -> list[dict[str, str]]:
    """The parts of the user's turn in order, {"type": "image"} or {"type": "text", "text": ...}; `text` is the rendered question.

    Raises RowError when marks and media disagree.
    """
    marks = MARK.findall(text)
    kinds = [media.kind for media in sample.media]
    if not marks:
        return [{"type": kind} for kind in kinds] + [{"type": "text", "text": text}]
    if marks != kinds:
        raise RowError(sample.id, f"the question's marks {marks} do not match its media {kinds}")
    pieces = MARK.split(text)
    parts = [{"type": p} if i % 2 else {"type": "text", "text": p} for i, p in enumerate(pieces)]
    return [part for part in parts if part.get("text") != ""]
