"""What a subscriber of the soak test was owed, and whether it got that.

Authors number their events from 0, each its own. A subscriber's filter selects some of an author's numbers
(a ``Selection``), so that each event tells which one has to come next. Rules of this room:

- A number that came already, or that was not asked for, is a violation.
- A number that was left out is a violation, unless a ``gateway-gap`` came in its place.
- A task's events whose first was lost in a gap wait for it, and so may come later than what was sent after
  them: a number that a gap has excused may come late, once. (The gateway waits a second for a task's name.)
"""

from collections.abc import Mapping
from typing import NamedTuple

WALK_EVENTS = 3
"""Of a task: received, started, succeeded."""
APPS, WORKER = ("app-0@soak", "app-1@soak"), "worker@soak"
"""The authors: two that send events of their own, each with a name, and one that sends what tasks do."""
NAMES, ROOTS, PAID_EVERY = 50, 1_000, 10


class Selection(NamedTuple):
    """The numbers n for which ``n // run % period == residue``."""

    period: int = 1
    residue: int = 0
    run: int = 1

    def has(self, number: int) -> bool:
        return number // self.run % self.period == self.residue

    def after(self, number: int) -> int:
        """Return the one after a selected number."""
        unit = number // self.run
        return number + 1 if (number + 1) // self.run == unit else (unit + self.period) * self.run

    def last(self, end: int) -> int | None:
        """Return the last one before ``end``."""
        window = range(max(0, end - self.period * self.run), end)
        return next((number for number in reversed(window) if self.has(number)), None)

    def count_between(self, start: int, stop: int) -> int:
        """Return how many there are from ``start``, itself one of them, to before ``stop``, another."""
        per_period = self.run
        whole, rest = divmod(stop - start, self.period * self.run)
        return whole * per_period + sum(self.has(stop - back) for back in range(1, rest + 1))


class Interest(NamedTuple):
    """A filter, as a query says it, and what it selects of each author."""

    query: str
    selections: Mapping[str, Selection]


EVERY = Selection()


def interest(kind: str, number: int) -> Interest:
    """Return one of the filters of a kind; ``number`` chooses among those."""
    if kind == "all":
        return Interest("", {author: EVERY for author in (*APPS, WORKER)})
    if kind == "host":
        author = APPS[number % len(APPS)]
        return Interest(f"hostname={author}", {author: EVERY})
    if kind == "glob":
        return Interest("name=soak.walk_*", {WORKER: EVERY})
    if kind == "paid":
        return Interest("type=shop-paid", {author: Selection(PAID_EVERY) for author in APPS})
    if kind == "succeeded":
        return Interest("type=task-succeeded", {WORKER: Selection(WALK_EVENTS, WALK_EVENTS - 1)})
    if kind == "task":
        return Interest(
            f"name=soak.task_{number % NAMES}", {a: Selection(NAMES, number % NAMES) for a in APPS}
        )
    if kind == "walk":
        selection = Selection(NAMES, number % NAMES, WALK_EVENTS)
        return Interest(f"name=soak.walk_{number % NAMES}", {WORKER: selection})
    author = APPS[number % len(APPS)]
    return Interest(f"root_id={author}-{number % ROOTS}", {author: Selection(ROOTS, number % ROOTS)})


AUDIENCE = {
    **{"all": 0.06, "host": 0.06, "glob": 0.06, "paid": 0.1, "succeeded": 0.1, "task": 0.2, "walk": 0.1},
    "root": 0.32,
}
"""Which part of the subscribers has a filter of which kind. Few want everything, as it is in practice;
and one process has to read it all."""


class Account:
    """What one subscriber has got, through all its connections.

    Attributes:
        delivered: events.
        lost: numbers that gaps have excused and that did not come.
        gaps: gaps told.
    """

    def __init__(self, interest: Interest) -> None:
        self.delivered = 0
        self.lost = 0
        self.gaps = 0
        self._selections = interest.selections
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._is_excused: dict[str, bool] = {}
        self._holes: dict[str, list[range]] = {author: [] for author in interest.selections}
        self._late: set[tuple[str, int]] = set()

    def gap(self) -> None:
        """Take a ``gateway-gap``."""
        self.gaps += 1
        self._is_excused = dict.fromkeys(self._selections, True)

    def event(self, author: str, number: int) -> str | None:
        """Take an event; return what is wrong with it, if anything is."""
        self.delivered += 1
        selection = self._selections.get(author)
        if selection is None or not selection.has(number):
            return f"{author} {number} was not asked for"
        last = self._last.get(author)
        if last is None:
            self._first[author] = self._last[author] = number
            return None
        expected = selection.after(last)
        if number < expected:
            return self._late_one(author, number)
        self._last[author] = number
        is_excused = self._is_excused.pop(author, False)
        if number == expected:
            return None
        if not is_excused:
            return f"{author}: {number} came after {last}, and no gap between them"
        self.lost += selection.count_between(expected, number)
        self._holes[author].append(range(expected, number))
        return None

    def missing(self, ends: Mapping[str, int]) -> list[str]:
        """Return what should have come before the authors' ends (the numbers that they did not use)."""
        found = []
        for author, last in self._last.items():
            due = self._selections[author].last(ends[author])
            if due is not None and last < due and not self._is_excused.get(author):
                found.append(f"{author}: {due} did not come, the last was {last}")
        return found

    def _late_one(self, author: str, number: int) -> str | None:
        is_missed = any(number in hole for hole in self._holes[author])
        if author == WORKER and (author, number) not in self._late:
            self._late.add((author, number))
            if is_missed:
                self.lost -= 1
                return None
            if number < self._first[author]:  # it waited while the subscriber came
                return None
        return f"{author}: {number} came after {self._last[author]}"
