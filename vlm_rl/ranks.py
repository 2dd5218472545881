"""The processes of one training and what they tell each other. One process is the same thing with nobody to tell.

Every process runs the same program on the same facts: what is made on one of them is handed to all, so that everything decided from it is
decided alike. What they exchange is light (texts, tokens, numbers), never pixels or weights.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")
GATHERED = 32 << 20  # numbers of gradients summed in one call


class Ranks:
    """One process: it does all of the work. `Group` is the form of several."""

    rank, world = 0, 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and talks to the person watching."""
        return self.rank == 0

    def share(self, items: Iterable[T]) -> list[tuple[int, T]]:
        """This process's part of the work, with places: every `world`-th. Rank 1 of 2, of "abcd": [(1, "b"), (3, "d")]"""
        return [(place, item) for place, item in enumerate(items) if place % self.world == self.rank]

    def exchange(self, what: str, value: T) -> list[T]:
        """What each process says, by rank; all of them must call it. `what` is held against the others', so that processes that are not at
        the same place say so instead of waiting for ever."""
        return [value]

    def merge(self, what: str, own: Mapping[int, T]) -> dict[int, T]:
        """All processes' entries, sorted by key."""
        told = {key: value for said in self.exchange(what, own) for key, value in said.items()}
        return {key: told[key] for key in sorted(told)}

    def first_says(self, what: str, function: Callable[[], T]) -> T:
        """What `function` gives on the first process, on all of them."""
        said: Any = self.exchange(what, function() if self.first else None)
        return said[0]

    def wait(self, what: str) -> None:
        """Until all processes are here."""
        self.exchange(what, None)

    def sum_gradients(self, weights: Iterable[Tensor]) -> None:
        """Replace the gradient of each weight by the sum over all processes; of one that has none anywhere it stays None."""


ALONE = Ranks()
