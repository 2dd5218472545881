"""Whether answers of equal meaning are equal, for votes and listeners that look at no gold answer. It asks nobody and pays nothing."""

from collections import Counter
from collections.abc import Hashable, Sequence

from rewards.choices import choice_letters
from rewards.grading import lettered_options, yes_or_no
from rewards.numerals import parse_number
from rewards.option_shuffle import contents
from rewards.wording import collapsed, normal, without_article, without_lead_in
from vlm_rl.types import Sample

_LONGEST = 2000


def canonical(answer: str | None, sample: Sample) -> Hashable | None:
    """What an answer says, so that equal answers are equal: options by their contents (whatever their order), yes or no, a number, a text.

    None for no answer, or one that cannot be read. canonical("The answer is B.", row) == canonical("teal", row) where B is teal.
    """
    if answer is None or not answer.strip() or len(answer) > _LONGEST:
        return None
    if sample.kind == "choice":
        return contents(answer, sample) if sample.options else choice_letters(answer, lettered_options(sample))
    if sample.kind == "yesno":
        return yes_or_no(answer)
    number = parse_number(answer)
    if number is not None and (sample.kind in ("number", "math") or collapsed(answer).isdecimal()):
        return (round(number.value, 9), number.percent)
    return without_article(normal(without_lead_in(normal(answer)))) or None


def majority(votes: Sequence[Hashable | None], least_share: float = 0.0) -> Hashable | None:
    """The one thing most voters say; None without a vote, on a tie for the first place, or where it has less than this share of the votes.

    None is no vote. majority(["A", "A", "B", None]) -> "A"
    """
    counts = Counter(vote for vote in votes if vote is not None).most_common(2)
    if not counts or (len(counts) > 1 and counts[0][1] == counts[1][1]):
        return None
    return counts[0][0] if counts[0][1] >= least_share * sum(vote is not None for vote in votes) else None
