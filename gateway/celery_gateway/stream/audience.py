"""Which streams get an entry: an event by its keys, a control message about a task by those of the task.

Such a message goes to each stream that shows the task. A stream with a filter by ``type`` wants some events
of the task, so this condition is ignored. A scope's condition on ``type`` is not: it must pass. Pure.
"""

from typing import Final

from celery_gateway.events.event import FILTER_FIELDS, Keys
from celery_gateway.events.filter import Filter
from celery_gateway.events.matcher import Matcher
from celery_gateway.stream.history import Entry

_TYPE: Final = FILTER_FIELDS.index("type")


def is_for(entry: Entry, filter: Matcher) -> bool:
    """Return whether a stream with a filter gets an entry."""
    if entry.control_type is None:
        return filter.matches(entry.keys)
    return not entry.keys or shows_task(filter, entry.keys)


def shows_task(filter: Matcher, keys: Keys) -> bool:
    """Return whether a filter passes a task, whatever the type of its event.

    Args:
        keys: those of the task (``Record.keys``).
    """
    return any(
        all(
            (clause.index == _TYPE and not clause.requires_value) or clause.passes(keys[clause.index])
            for clause in alternative.clauses
        )
        for alternative in filter.alternatives
        if isinstance(alternative, Filter)
    )
