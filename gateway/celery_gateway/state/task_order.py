"""The orders in which tasks are listed, and the place of a task in them. Pure.

Rules: tasks without the value that an order compares come last, in both directions. Of tasks with equal
values the newest comes first. No two tasks have the same place.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from celery_gateway.state.criteria import BEGUN_FIELDS
from celery_gateway.state.task import Task
from celery_gateway.state.task_record import Record

ENDED_FIELDS: Final = ("succeeded", "failed", "revoked")


class _Value(NamedTuple):
    """What an order compares, and the fields of a record that it is computed from."""

    of: Callable[[Task], float | None]
    reads: tuple[str, ...]


_VALUES: Final = {
    "begun": _Value(lambda task: task.begun_at, BEGUN_FIELDS),
    "started": _Value(lambda task: task.started, ("started",)),
    "ended": _Value(lambda task: task.ended_at, ENDED_FIELDS),
    "runtime": _Value(lambda task: task.runtime, ("runtime",)),
    "queued_seconds": _Value(lambda task: task.queued_seconds, ("queued_seconds",)),
    "attempt": _Value(lambda task: task.attempt, ("attempt",)),
    "retries": _Value(lambda task: task.retries, ("retries",)),
    "progress": _Value(lambda task: task.progress, ("progress",)),
}


class Rank(NamedTuple):
    """The place of a task in an order: a lower one comes first.

    Attributes:
        is_missing: whether the task has no value to compare.
        value: the value, negative in a descending order; 0 if it is missing, or if only the number counts.
        number: the number of the task, negative where the newest comes first.
    """

    is_missing: bool
    value: float
    number: int


class TaskOrder:
    """An order of tasks.

    Args:
        name: one of ``ORDERS``.

    Attributes:
        is_by_number: whether it is that in which the tasks became known, or its reverse.
        is_ascending: whether the lowest value, or the lowest number, comes first.
        reads: the fields that it compares.
    """

    __slots__ = ("name", "is_by_number", "is_ascending", "reads", "_value_of")

    def __init__(self, name: str = "newest") -> None:
        self.name = name
        field = name.removeprefix("-")
        self._value_of = _VALUES[field].of if field in _VALUES else None
        self.reads = _VALUES[field].reads if field in _VALUES else ()
        self.is_by_number = self._value_of is None
        self.is_ascending = name != "newest" and field == name

    def rank(self, record: Record) -> Rank:
        """Return the place of a task."""
        if self._value_of is None:
            return Rank(False, 0.0, record.number if self.is_ascending else -record.number)
        value = self._value_of(record.task)
        if value is None or value != value:  # NaN has no place
            return Rank(True, 0.0, -record.number)
        return Rank(False, float(value) if self.is_ascending else -float(value), -record.number)


ORDERS: Final = ("newest", "oldest", *[name for field in _VALUES for name in (field, f"-{field}")])
"""The names of the orders; with a minus sign the highest value comes first."""
