"""Generators that ask, advanced together: one call a round for the questions of all. Knows neither rewards nor evaluators."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from vlm_rl.errors import UserError
from vlm_rl.types import Generate, Query, Reply, Score

Ask = Callable[[Sequence[Query]], Sequence[Reply]]
T = TypeVar("T")
MOST_ROUNDS = 64


@dataclass
class Course(Generic[T]):
    """One generator and how far it is. `name` stands in errors; `result` is what it returned, once it did."""

    name: str
    rounds: Generator[Sequence[Query], Sequence[Reply], T]
    queries: tuple[Query, ...] = ()
    result: Any = None

    def advance(self, replies: Sequence[Reply] | None) -> bool:
        """Run to the next question; False when the result is there. None starts."""
        try:
            queries = tuple(self.rounds.send(replies) if replies is not None else next(self.rounds))
        except StopIteration as stop:
            self.result = stop.value
            return False
        except Exception as error:
            error.add_note(f"in {self.name}")
            raise
        if wrong := [query for query in queries if not isinstance(query, Generate | Score)]:
            raise UserError(f"{self.name}: asked {type(wrong[0]).__name__}; a question is a Generate or a Score")
        self.queries = queries
        return True


def run_together(courses: Sequence[Course[T]], ask: Ask) -> None:
    """Advance all to their results, one `ask` a round. Raises UserError naming one that never ends."""
    pending = [course for course in courses if course.advance(None)]
    for _ in range(MOST_ROUNDS):
        if not pending:
            return
        queries = [query for course in pending for query in course.queries]
        replies = list(ask(queries)) if queries else []
        assert len(replies) == len(queries), f"{len(queries)} questions got {len(replies)} replies"
        start, still = 0, []
        for course in pending:
            end = start + len(course.queries)
            if course.advance(replies[start:end]):
                still.append(course)
            start = end
        pending = still
    raise UserError(f"{pending[0].name}: still asking after {MOST_ROUNDS} rounds; does its rounds() ever return?")
