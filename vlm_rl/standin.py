"""A stand-in where a judge is not there: it replies in the form that is asked for and knows nothing. For dry runs and plans alone."""

import re
from collections.abc import Sequence

from vlm_rl.engine.base import Progress
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Generate, Reply

# The form that the prompts of `rewards.judging` end with, and a reply in it; the first that stands last in the prompt.
_FORMS = {
    "<score>": "<score>{score:.1f}</score>",
    "<choice>": "<choice>tie</choice>",
    "<conclusion>": "<conclusion>NONE</conclusion>",
    "<stances>": '<stances>{{"reasoning": "", "answer": "", "inserted": "", "following": "", "second": "", "flaw": ""}}</stances>',
    "yes or no": "yes",
}
_LETTERED = re.compile(r"^[A-Z]\. ", re.MULTILINE)


class StandIn:
    """In place of a judge of that kind. Replies depend on the question alone, so that scores differ and repeat."""

    def __init__(self, kind: str):
        self.kind = kind

    def probe(self) -> None:
        """It is always there."""

    def answer(self, queries: Sequence[Generate], progress: Progress | None = None) -> list[Reply]:
        return [Reply(self._text(query)) for query in queries]

    def _text(self, query: Generate) -> str:
        asked = query.sample.question
        score = stable_hash(asked, query.sample.response) % 11 / 10
        if self.kind in ("reward_model", "embedding"):
            return f"{score:.1f}"
        places = {form: asked.rfind(form) for form in _FORMS}
        last = max(places, key=lambda form: places[form])
        if places[last] >= 0:
            return _FORMS[last].format(score=score)
        return "<answer>A</answer>" if _LETTERED.search(asked) else "<answer>1</answer>"  # a question that is put as to the policy
