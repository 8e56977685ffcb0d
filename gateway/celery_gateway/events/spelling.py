"""Detect misspelled event types and states in filters, which would match no event.

Names of tasks, workers and queues are free. Types and states are those of Celery or of an application. So
only values are refused that are a value of Celery in another spelling: other case or separators
(``task_failed``, ``failure``), a state instead of the verb of a type (``task-success``), a verb instead of a
state (``failed``), or one wrong letter in a word of six letters or more (``task-suceeded``).
"""

import re
from collections.abc import Iterable, Mapping

from celery_gateway.events.event_types import LOST, STATE_OF_EVENT
from celery_gateway.events.pattern import Glob

CONTROL_PREFIX = "gateway-"

TYPES = (*STATE_OF_EVENT, "task-lost", "task-progress", "worker-online", "worker-heartbeat", "worker-offline")
"""The types of the events of Celery, of the gateway, and of the progress helper."""
STATES = (*dict.fromkeys(STATE_OF_EVENT.values()), LOST, "PROGRESS")
"""The states of tasks, without those of custom events."""
KNOWN: Mapping[str, tuple[str, ...]] = {"type": TYPES, "state": STATES}
"""The known values by field; other fields are free."""
_KNOWN = {field: frozenset(values) for field, values in KNOWN.items()}

_MIN_FUZZY_CHARS = 6
_MAX_CHARS = 40
"""A longer value is no misspelling of a known one."""
_MAX_LIST_CHARS = 400
"""A longer value is no list of types or states."""
_MAX_WORDS = 4
"""How many words of a list are checked; one known word is enough."""
_SEPARATED = re.compile(r"[,;|\s]")
_GROUPS = {"task": "task-*", "tasks": "task-*", "worker": "worker-*", "workers": "worker-*"}
_TYPES_BY_STATE = {state.lower(): type for type, state in STATE_OF_EVENT.items()}
_STATES_BY_VERB = {type.removeprefix("task-"): state for type, state in STATE_OF_EVENT.items()}


def correction(field: str, value: str, *, is_glob: bool) -> str | None:
    """Return the correct spelling of a misspelled type or state.

    Args:
        field: of an event.
        value: without escapes, or a pattern with wildcards.
        is_glob: the value is a pattern with wildcards.

    Returns:
        ``None`` if the value is correct, or is not similar to a known one.

    >>> correction("type", "task-suceeded", is_glob=False), correction("state", "failed", is_glob=False)
    ('task-succeeded', 'FAILURE')
    """
    known = KNOWN.get(field)
    if known is None or value in known or len(value) > _MAX_CHARS:
        return None
    if is_glob:
        plain = value.replace("_", "-")
        return _glob(value, plain.upper() if field == "state" else plain.lower(), known)
    plain = re.sub(r"[_\s]+", "-", value.strip()).lower()
    return _state(plain) if field == "state" else _type(plain)


def is_known(field: str, value: str) -> bool:
    """Return whether a value is a known type or state.

    Args:
        field: a key of ``KNOWN``.
        value: without escapes.
    """
    return value in _KNOWN[field]


def is_list(field: str, value: str) -> bool:
    """Return whether a value has several types or states in one text.

    >>> is_list("state", "SUCCESS FAILURE"), is_list("state", "MY STATE")
    (True, False)
    """
    if len(value) > _MAX_LIST_CHARS:
        return False
    words = [word for word in _SEPARATED.split(value) if word]
    return len(words) > 1 and any(
        word in KNOWN[field] or correction(field, word, is_glob=False) for word in words[:_MAX_WORDS]
    )


def _type(plain: str) -> str | None:
    if plain in TYPES:
        return plain
    group, dash, word = plain.partition("-")
    if not word:
        return _GROUPS.get(group)
    if group == "task" and word in _TYPES_BY_STATE:
        return _TYPES_BY_STATE[word]
    return _nearest(plain, TYPES, len(group) + len(dash))


def _state(plain: str) -> str | None:
    word = plain.removeprefix("task-")
    if word.upper() in STATES:
        return word.upper()
    return _STATES_BY_VERB.get(word) or _nearest(word.upper(), STATES, 0)


def _glob(value: str, respelled: str, known: Iterable[str]) -> str | None:
    # A pattern that begins with a wildcard may be meant for custom types.
    is_useless = value[0] not in "*?" and not _matched(value, known) and _matched(respelled, known)
    return respelled if is_useless else None


def _matched(pattern: str, values: Iterable[str]) -> bool:
    glob = Glob.parse(pattern)
    return any(glob.match(value) for value in values)


def _nearest(value: str, known: Iterable[str], start: int) -> str | None:
    """Return the known value that is one edit away; the first letter of its word must be correct.

    Args:
        value: in the case of the known values.
        known: the values to compare with.
        start: the index at which the words begin; before it the values must be equal.
    """
    for each in known:
        word, other = value[start:], each[start:]
        is_near = len(other) >= _MIN_FUZZY_CHARS and abs(len(word) - len(other)) <= 1
        if (
            is_near
            and word.isalpha()
            and word[0] == other[0]
            and value[:start] == each[:start]
            and _is_one_edit(word, other)
        ):
            return each
    return None


def _is_one_edit(one: str, other: str) -> bool:
    """Return whether adding, removing, replacing or swapping characters once makes the texts equal.

    >>> _is_one_edit("suceeded", "succeeded"), _is_one_edit("failde", "failed"), _is_one_edit("fai", "failed")
    (True, True, False)
    """
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    one, other = one[start:], other[start:]
    return (
        one[1:] == other[1:]
        or one[1:] == other
        or one == other[1:]
        or (one[:2] == other[1::-1] and one[2:] == other[2:])
    )
