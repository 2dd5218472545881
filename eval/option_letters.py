"""How likely each option is after the model's own reasoning: a scoring question per option where the answer begins (arXiv 2602.12506).

An option is scored as the model wrote its own answer: by its letter or, where it answers in words, by its words and the closing tag.
Deviation: the published form knows letters only. It measures probabilities; what they are worth is `eval.calibration`'s work.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from eval.calibration import entropy, option_probabilities
from rewards.choices import gold_letters
from rewards.response import before_answer
from rewards.wording import normal
from vlm_rl.types import LETTERS, Generate, Record, Reply, Sample, Sampling, Score

LEAST_MASS = 0.5
MOST_ALTERNATIVES = 20
_BEGINS = re.compile(r">[\s(\[*]{0,4}")
_LETTER = re.compile(r"[(\[*\s]{0,4}([A-Z])(?![\w'])")


@dataclass(frozen=True)
class Letters:
    """Probabilities over the options of one question. `mass` is what the model gives to all of them together."""

    probabilities: tuple[float, ...]
    gold: int
    mass: float

    @property
    def off_format(self) -> bool:
        """Most of the probability lies on something else than an option, so that what is between them says little."""
        return self.mass < LEAST_MASS

    @property
    def entropy(self) -> float:
        return entropy(self.probabilities)

    @property
    def normal_entropy(self) -> float:
        """In [0, 1]: entropies of questions with other numbers of options can be averaged only so."""
        return self.entropy / math.log(len(self.probabilities))

    @property
    def right(self) -> float:
        return self.probabilities[self.gold]

    @property
    def margin(self) -> float:
        """P(right) less that of the likeliest wrong option."""
        return self.right - max(p for i, p in enumerate(self.probabilities) if i != self.gold)

    @property
    def confidence(self) -> float:
        return max(self.probabilities)

    @property
    def chosen(self) -> int:
        return self.probabilities.index(self.confidence)


def option_queries(shown: Sample, record: Record) -> list[Score]:
    """One question per option, after the turn of `record` up to its answer; [] where options or an answer tag are missing."""
    gold = gold_letters(record.gold, record.options)
    turn = record.prefill + record.completion
    cut = before_answer(turn)
    if record.kind != "choice" or not 2 <= len(record.options) <= len(LETTERS) or gold is None or len(gold) != 1 or cut is None:
        return []
    begins = _BEGINS.match(turn[len(cut) :])
    lead = begins.group() if begins else ">"
    texts = [f"{option}</answer>" for option in record.options] if in_words(record) else LETTERS[: len(record.options)]
    return [Score("policy", shown, text, cut.removeprefix(shown.prefill), lead) for text in texts]


def in_words(record: Record) -> bool:
    """Whether the answer is an option's words rather than its letter."""
    answer = record.answer or ""
    letter = _LETTER.match(answer)
    known = letter is not None and letter.group(1) in LETTERS[: len(record.options)]
    return not known or normal(answer) in (normal(option) for option in record.options if len(option) > 1)


def instead(query: Score) -> Generate:
    """The same place asked for its likeliest tokens, for who cannot score."""
    return Generate("policy", query.sample, Sampling(1, 0.0, alternatives=MOST_ALTERNATIVES), query.prefill + query.lead)


def option_logprobs(replies: Sequence[Reply]) -> list[float] | str:
    """The log-prob of each option, or why there is none."""
    errors = [reply.error for reply in replies if reply.error is not None]
    if errors:
        return errors[0]
    sums = [sum(reply.logprobs) for reply in replies]
    return sums if all(math.isfinite(s) for s in sums) and all(reply.logprobs for reply in replies) else "no finite log-probs were told"


def from_alternatives(reply: Reply, count: int) -> list[float] | str:
    """Log-probs of the first `count` letters, tokens of one letter summed ("B", " B"). One that is not listed is not of
    probability 0: then the reason why there are none."""
    if reply.error is not None:
        return reply.error
    found: dict[str, float] = {}
    for token, logprob in reply.alternatives.items():
        letter = token.strip(" \t\r\n()[]<>/*.")
        if letter in LETTERS[:count] and letter:
            found[letter] = found.get(letter, 0.0) + math.exp(logprob)
    missing = [letter for letter in LETTERS[:count] if found.get(letter, 0.0) <= 0]
    if missing:
        return f"the {len(reply.alternatives)} likeliest tokens do not hold the letter {missing[0]}"
    return [math.log(found[letter]) for letter in LETTERS[:count]]


def letters_of(record: Record) -> Letters | None:
    """What `detail["options"]` of a record tells; None where the options were not scored."""
    told, gold = record.detail.get("options"), gold_letters(record.gold, record.options)
    whole = isinstance(told, list) and len(told) == len(record.options) >= 2 and all(isinstance(x, int | float) for x in told)
    if not whole or gold is None or len(gold) != 1 or not isinstance(told, list):
        return None
    place = LETTERS.index(next(iter(gold)))
    return Letters(option_probabilities(told), place, min(1.0, sum(math.exp(min(0.0, x)) for x in told)))
