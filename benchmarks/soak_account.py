"""The events that a subscriber of the soak test expects, and a check that it gets them.

Each author numbers its events from 0. A subscriber's filter selects some of an author's numbers (a
``Selection``), so each event determines the next expected number. Rules:

- A number that was received already, or that the filter does not select, is a violation.
- A missing number is a violation, unless a ``gateway-gap`` was received in its place.
- A number inside a gap may arrive late, once. (If the first event of a task is lost, the others wait up to a
  second for the task's name, and so may arrive after events that were sent later.)
"""

from collections.abc import Mapping
from typing import NamedTuple

WALK_EVENTS = 3
"""Events per task: received, started, succeeded."""
APPS, WORKER = ("app-0@soak", "app-1@soak"), "worker@soak"
"""The authors: two applications that send custom events, and a worker that sends task events."""
NAMES, ROOTS, PAID_EVERY = 50, 1_000, 10


class Selection(NamedTuple):
    """The numbers n for which ``n // run % period == residue``."""

    period: int = 1
    residue: int = 0
    run: int = 1

    def has(self, number: int) -> bool:
        return number // self.run % self.period == self.residue

    def after(self, number: int) -> int:
        """Return the next selected number after a selected one."""
        unit = number // self.run
        return number + 1 if (number + 1) // self.run == unit else (unit + self.period) * self.run

    def last(self, end: int) -> int | None:
        """Return the last selected number before ``end``."""
        window = range(max(0, end - self.period * self.run), end)
        return next((number for number in reversed(window) if self.has(number)), None)

    def count_between(self, start: int, stop: int) -> int:
        """Count the selected numbers from ``start`` up to, not including, ``stop``; both are selected."""
        per_period = self.run
        whole, rest = divmod(stop - start, self.period * self.run)
        return whole * per_period + sum(self.has(stop - back) for back in range(1, rest + 1))


class Interest(NamedTuple):
    """A filter as a query string, and the numbers that it selects of each author."""

    query: str
    selections: Mapping[str, Selection]


EVERY = Selection()


def interest(kind: str, number: int) -> Interest:
    """Return a filter of a kind; ``number`` chooses among the filters of this kind."""
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
"""The share of subscribers for each kind of filter. Few read everything: that is so in practice, and one
process has to read for all."""


class Account:
    """The events that one subscriber has received, over all its connections.

    Attributes:
        delivered: the number of events.
        lost: the number of events that did not arrive and lie in a gap.
        gaps: the number of gaps.
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
        """Record a ``gateway-gap``."""
        self.gaps += 1
        self._is_excused = dict.fromkeys(self._selections, True)

    def event(self, author: str, number: int) -> str | None:
        """Record an event. Return the violation, or ``None``."""
        self.delivered += 1
        selection = self._selections.get(author)
        if selection is None or not selection.has(number):
            return f"{author} {number} is not selected by the filter"
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
            return f"{author}: {number} arrived after {last}, without a gap between them"
        self.lost += selection.count_between(expected, number)
        self._holes[author].append(range(expected, number))
        return None

    def missing(self, ends: Mapping[str, int]) -> list[str]:
        """Return the violations at the end. ``ends`` has the first unused number of each author."""
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
        return f"{author}: {number} arrived after {self._last[author]}"
