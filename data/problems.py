"""Kinds of bad rows, for a summary. The row's own message stays what a person mends it by."""

from collections import Counter
from collections.abc import Iterable

from vlm_rl.errors import RowError

# The first kind one of whose phrases occurs in the message; phrases stand in the order in which they decide.
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("id used twice", ("is used twice",)),
    ("row cannot be parsed", ("not valid JSON", "a row is an object", "not valid text", "not readable parquet")),
    ("media file missing", ("no such file",)),
    ("media file empty", ("0 bytes", "is empty")),
    ("media too large", ("megapixels", "bytes, more than", "pixels, more than")),
    ("media and marks disagree", ("marks for", "marks")),
    (
        "media cannot be decoded",
        ("not an image", "corrupt", "truncated", "not a file", "cannot be read", "base64", "decode", "frames", "video", "image"),
    ),
    ("answer missing", ('"answer" is missing', "has no answer", '"answer" is blank', "the answer is empty")),
    ("answer is not among the options", ("not among", "is not the letter of an option", "a choice without options", "must be a letter")),
    ("answer is ambiguous", ("can mean",)),
    ("answer fails its verifier", ("verifier", "math-verify")),
    ("column missing or misnamed", ("is missing", "the key is", "does not fit the row")),
    ("options", ('"options"', "options", "letters")),
    ("question", ('"question"',)),
)


def kind_of(error: RowError) -> str:
    """ "media file missing" for RowError("7", "cat.png: no such file"); "other" for what no kind is known for."""
    return next((kind for kind, phrases in _KINDS if any(phrase in error.reason for phrase in phrases)), "other")


def summary(errors: Iterable[RowError]) -> list[tuple[str, int, str]]:
    """(kind, how many, row id of the first), the most frequent kind first."""
    counts: Counter[str] = Counter()
    firsts: dict[str, str] = {}
    for error in errors:
        kind = kind_of(error)
        counts[kind] += 1
        firsts.setdefault(kind, error.row_id)
    return [(kind, count, firsts[kind]) for kind, count in counts.most_common()]
