"""Criteria: conditions on a task beside those of a filter: a text, times, numbers, and whether it is lost.

Rules: all conditions have to hold. A condition on a value that a task does not have does not hold. Texts are
compared without regard to case (``str.casefold``). Pure.
"""

import operator
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

from celery_gateway.state.task import Task

SEARCHED_FIELDS: Final = ("uuid", "name", "args", "kwargs", "result", "exception")
"""The fields of a task that a text is searched in."""
BEGUN_FIELDS: Final = ("sent", "received", "started")
"""The fields that ``Task.begun_at`` reads."""
LOST_FIELDS: Final = ("lost", "stale")
"""The fields that show whether a task is lost."""
COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_SEPARATOR: Final = "\0"
"""Between the fields in which a text is searched; no text to search contains it."""


class Comparison(NamedTuple):
    """A condition on a number.

    >>> Comparison("runtime", ">=", 5.0).holds(7.5), Comparison("runtime", ">=", 5.0).holds(None)
    (True, False)
    """

    field: str
    operator: str
    value: float

    def holds(self, value: float | None) -> bool:
        """Return whether the condition holds for a value; not for ``None``."""
        return value is not None and COMPARISONS[self.operator](value, self.value)


class Criteria(NamedTuple):
    """Conditions on a task.

    Attributes:
        text: a text that one of ``SEARCHED_FIELDS`` contains; ``""``: any.
        since: it began at this time or later (``Task.begun_at``), in epoch seconds.
        before: it began before this time.
        comparisons: conditions on its numbers.
        stale: whether it is lost; ``None``: either.
    """

    text: str = ""
    since: float | None = None
    before: float | None = None
    comparisons: tuple[Comparison, ...] = ()
    stale: bool | None = None

    def reads(self) -> list[tuple[str, str]]:
        """Return the fields that the conditions read, each with the parameter that asks for it.

        The fields that a text is searched in are not among them: those that are hidden are left out.
        """
        times = [name for name in ("since", "before") if getattr(self, name) is not None]
        found = [(field, name) for name in times for field in BEGUN_FIELDS]
        found += [(each.field, each.field) for each in self.comparisons]
        return found + ([(field, "stale") for field in LOST_FIELDS] if self.stale is not None else [])

    def matcher(self, hidden: Collection[str] = ()) -> Callable[[Task], bool] | None:
        """Return a function that returns whether all conditions hold; ``None`` if there are none.

        Args:
            hidden: the fields in which the text is not searched.
        """
        checks: list[Callable[[Task], bool]] = []
        if self.since is not None or self.before is not None:
            checks.append(_times(self.since, self.before))
        if self.stale is not None:
            checks.append(_lost if self.stale else _not_lost)
        checks += [_number(each) for each in self.comparisons]
        if self.text:  # last: it takes the most time
            checks.append(_text(self.text, [field for field in SEARCHED_FIELDS if field not in hidden]))
        return checks[0] if len(checks) == 1 else _all(checks) if checks else None


def _all(checks: Sequence[Callable[[Task], bool]]) -> Callable[[Task], bool]:
    return lambda task: all([check(task) for check in checks[:-1]]) and checks[-1](task)


def _lost(task: Task) -> bool:
    return task.lost is not None


def _not_lost(task: Task) -> bool:
    return task.lost is None


def _times(since: float | None, before: float | None) -> Callable[[Task], bool]:
    def matches(task: Task) -> bool:
        begun_at = task.begun_at
        return (
            begun_at is not None
            and (since is None or begun_at >= since)
            and (before is None or begun_at < before)
        )

    return matches


def _number(comparison: Comparison) -> Callable[[Task], bool]:
    value_of, compare, limit = (
        attrgetter(comparison.field),
        COMPARISONS[comparison.operator],
        comparison.value,
    )

    def matches(task: Task) -> bool:
        value = value_of(task)
        return value is not None and compare(value, limit)

    return matches


def _text(text: str, fields: Sequence[str]) -> Callable[[Task], bool]:
    needle, values_of = text.casefold(), attrgetter(*fields)
    join = _SEPARATOR.join

    def matches(task: Task) -> bool:
        return needle in join(filter(None, values_of(task))).casefold()  # one text is faster than six

    return matches


def contains(text: str, values: Sequence[str | None]) -> bool:
    """Return whether one of the values contains a text, as ``Criteria.text`` is compared."""
    return text.casefold() in _SEPARATOR.join(filter(None, values)).casefold()
