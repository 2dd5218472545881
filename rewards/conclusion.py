"""What a trace concludes, by an exact rule: the one answer that its last sentence states. Doubt gives None; no judge is asked.

The cheap first form of the consistency of arXiv 2602.12506, which asks a judge. A trace that states its conclusion earlier, in other words,
or only says that the answer follows, has none here.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from rewards.choices import choice_letters
from rewards.grading import is_correct, lettered_options, yes_or_no
from rewards.numerals import parse_number
from rewards.rules import same_text
from rewards.wording import normal, without_lead_in
from vlm_rl.types import LETTERS, Sample

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_DOUBT = re.compile(r"\b(?:not|neither|nor|or|either|maybe|perhaps)\b|n't\b", re.IGNORECASE)
_LONGEST = 1000


def conclusion(trace: str, sample: Sample) -> str | None:
    """The answer that the last sentence states, in a form of the sample's kind: letters, a number, yes or no, a text.

    With options (red, teal): "I see a teal circle. So it is teal." -> "B"; "It is red or teal." -> None.
    """
    sentence = next((s.strip() for s in reversed(_SENTENCE_END.split(trace)) if s.strip()), "")
    if not sentence or len(sentence) > _LONGEST:
        return None
    options = lettered_options(sample)
    if options:
        letters = choice_letters(sentence, options) or _mentioned(sentence, options)
        return ",".join(sorted(letters)) if letters else None
    if sample.kind == "number":
        return sentence if parse_number(sentence) else None
    if sample.kind == "yesno":
        return {True: "yes", False: "no", None: None}[yes_or_no(sentence)]
    stated = without_lead_in(sentence)
    return stated.rstrip(".") if stated != sentence else None


def agrees(trace: str, answer: str | None, sample: Sample) -> bool:
    """Whether the answer is what the trace concludes, right or wrong: the same options, number, word or text."""
    stated = conclusion(trace, sample)
    if stated is None or not answer:
        return False
    if options := lettered_options(sample):
        return choice_letters(answer, options) == frozenset(stated.split(","))
    return same_text(stated, answer) if sample.kind == "text" else is_correct(replace(sample, answer=stated), answer)


def _mentioned(sentence: str, options: Sequence[str]) -> frozenset[str] | None:
    """The one option whose words stand in the sentence; of "red" inside "dark red" only the longer counts."""
    text = normal(sentence)
    words = {letter: normal(option) for letter, option in zip(LETTERS, options, strict=False)}
    spans = {
        letter: [match.span() for match in re.finditer(rf"(?<!\w){re.escape(said)}(?!\w)", text)] for letter, said in words.items() if said
    }
    everything = [span for found in spans.values() for span in found]
    outer = {letter for letter, found in spans.items() if any(not _inside(span, everything) for span in found)}
    return frozenset(outer) if len(outer) == 1 and not _DOUBT.search(text) else None


def _inside(span: tuple[int, int], others: Sequence[tuple[int, int]]) -> bool:
    return any(a <= span[0] and span[1] <= b and (a, b) != span for a, b in others)
