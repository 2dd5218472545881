"""Errors for the person who typed the command: what is wrong, where, and what to write instead."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend; the CLI prints its text without a traceback and exits with 2."""


class RowError(UserError):
    """One data row is unusable. `row_id` names it, `reason` says why."""

    def __init__(self, row_id: str, reason: str):
        super().__init__(f"row {row_id}: {reason}")
        self.row_id, self.reason = row_id, reason


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> UserError:
    """unknown("reward", "acuracy", ["accuracy"]) reads "unknown reward 'acuracy'; did you mean 'accuracy'? (known: accuracy)"."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    place = f" in {where}" if where else ""
    return UserError(f"unknown {what} '{name}'{place}{hint} (known: {', '.join(names)})")
