"""How far reasoning and answers go together over a data set, as numbers. It asks nobody and reads no text: all arguments are contents.

A content is what an answer or a trace stands for (the indices of the options named, a normalised text), None where there is none. A missing
answer equals nothing, not even another missing one.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

Content = Hashable | None


@dataclass(frozen=True)
class TraceAgreement:
    """`cacr` is the share of read answers that the trace supports; `cr_wa` (right trace, wrong answer) and `wr_ca` are shares of all items.

    `unread` counts items without an answer, which are in neither of the two.
    """

    cacr: float
    cr_wa: float
    wr_ca: float
    unread: int


def trace_agreement(supported: Sequence[Content], answered: Sequence[Content], right: Sequence[Hashable]) -> TraceAgreement:
    """`supported` is what a reader of the trace alone says it leads to; nothing supported is not the right thing. ACRE, arXiv 2510.10104.

    trace_agreement([0, 2, 2, 2], [0, 1, 0, 2], [0, 1, 2, 3]) -> cacr 0.5, cr_wa 0.25, wr_ca 0.25. Raises ValueError for no items.
    """
    items = list(zip(supported, answered, right, strict=True))
    if not items:
        raise ValueError("no items")
    read = [(s, a, y) for s, a, y in items if a is not None]
    return TraceAgreement(
        cacr=fmean(s == a for s, a, _ in read) if read else 0.0,
        cr_wa=sum(s == y and a != y for s, a, y in read) / len(items),
        wr_ca=sum(s != y and a == y for s, a, y in read) / len(items),
        unread=len(items) - len(read),
    )


def option_shuffling(first: Sequence[Content], again: Sequence[Sequence[Content]]) -> float:
    """Share of second answers equal to the first, averaged over items: `oscr_fixed` where the same trace was re-fed in each order,
    `oscr_regen` where another was written. option_shuffling([1, 0], [[1, 2], [None, 0]]) -> 0.5
    """
    return fmean(fmean(a is not None and b == a for b in seconds) for a, seconds in zip(first, again, strict=True))
