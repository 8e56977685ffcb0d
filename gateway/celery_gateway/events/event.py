"""Events: flat JSON objects, and the fields that the gateway reads.

An event is a plain ``dict`` from the broker to the history. ``normalize`` makes it, the task table adds
fields of earlier events, and ``encode`` turns it into bytes once its position is known. Nothing here changes
an event.
"""

import re
from collections.abc import Container
from datetime import UTC, datetime
from functools import lru_cache
from math import modf
from typing import Any, TypeGuard

import msgspec

Event = dict[str, Any]

FILTER_FIELDS = ("type", "name", "root_id", "parent_id", "uuid", "hostname", "state", "queue", "cluster")
"""The fields that filters read, in the order of ``Keys``."""

ORIGIN_FIELDS = ("name", "root_id", "parent_id", "queue", "state")
"""The fields that scopes read from the table of tasks: an event may have any values of its own in them."""

Keys = tuple[str | None, ...]
"""An event's values of ``FILTER_FIELDS``, and, if there is authentication, its task's of ``ORIGIN_FIELDS``.

``None`` for a missing value, and for one that is not a string. Ids may have any type
(``apply_async(task_id=12345)`` on Redis): here they are texts, see ``id_text``.
"""

SCOPE_POSITIONS = {field: at for at, field in enumerate(FILTER_FIELDS)} | {
    field: len(FILTER_FIELDS) + at for at, field in enumerate(ORIGIN_FIELDS)
}
"""The position in ``Keys`` that a scope reads, by field."""
ROOT_ID_POSITIONS = frozenset({FILTER_FIELDS.index("root_id"), SCOPE_POSITIONS["root_id"]})
PARENT_ID_POSITIONS = frozenset({FILTER_FIELDS.index("parent_id"), SCOPE_POSITIONS["parent_id"]})
ID_POSITIONS = ROOT_ID_POSITIONS | PARENT_ID_POSITIONS | {FILTER_FIELDS.index("uuid")}

_ID_FIELDS = frozenset({"root_id", "parent_id", "uuid"})
MAX_NUMBER = 1 << 53
SKEW_SECONDS = 60.0
"""How far the clock of a sender may be ahead of the gateway's at most."""
LATE_SECONDS = 600.0
"""A timestamp that is older than this on arrival is not used for the order of events."""
_CLIENT_NODE = re.compile(r"gen\d+@")
_LINE_ENDS = {"\x85".encode(): b"\\u0085", "\u2028".encode(): b"\\u2028", "\u2029".encode(): b"\\u2029"}
_encode_json = msgspec.json.Encoder().encode
decode_object = msgspec.json.Decoder(dict[str, Any]).decode
"""Return the object that ``encode`` wrote."""


def keys(event: Event) -> Keys:
    """Return an event's values of ``FILTER_FIELDS``, in that order.

    >>> keys({"type": "task-sent", "uuid": 7, "queue": None})
    ('task-sent', None, None, None, '7', None, None, None, None)
    """
    get = event.get
    return tuple(
        [
            value
            if type(value := get(field)) is str or value is None
            else id_text(value)
            if field in _ID_FIELDS
            else None
            for field in FILTER_FIELDS
        ]
    )


def id_text(value: object) -> str | None:
    """Return the id of a task as text: a string stays as it is, other values become JSON.

    >>> id_text("a"), id_text(12345), id_text(True), id_text(["a"]), id_text(None)
    ('a', '12345', 'true', '["a"]', None)
    """
    if type(value) is str:
        return value
    return None if value is None else _encode_json(value).decode()


def is_client(hostname: str) -> bool:
    """Return whether a node name belongs to a client, not to a worker (celery/utils/nodenames.py).

    >>> is_client("gen4711@host"), is_client("celery@host")
    (True, False)
    """
    return _CLIENT_NODE.match(hostname) is not None


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a number, not a truth value, that every JSON reader represents exactly."""
    return (type(value) is float or type(value) is int) and -MAX_NUMBER < value < MAX_NUMBER


def is_time(timestamp: object, arrived: float) -> TypeGuard[float]:
    """Return whether a sender's timestamp can be the time of an event that arrived at ``arrived``.

    It cannot be a text, NaN, 0 or less, or later than ``SKEW_SECONDS`` after the arrival (the future, or
    milliseconds or nanoseconds). The time of arrival replaces such a timestamp wherever a time is needed.

    Args:
        timestamp: epoch seconds on the sender's clock.
        arrived: epoch seconds on the gateway's clock.

    >>> is_time(1795234871.2, 1795234872.0), is_time(1795234871200, 1795234872.0)
    (True, False)
    """
    return (type(timestamp) is float or type(timestamp) is int) and 0 < timestamp <= arrived + SKEW_SECONDS


def rfc3339(timestamp: object) -> str | None:
    """Return epoch seconds as RFC 3339 UTC with microseconds; ``None`` if outside the years 1 to 9999.

    >>> rfc3339(1795234871.206692)
    '2026-11-21T04:21:11.206692Z'
    """
    if type(timestamp) is not float and type(timestamp) is not int:
        return None
    try:
        fraction, whole = modf(timestamp)
        microseconds = round(fraction * 1e6)  # as datetime.fromtimestamp has it
        if not 0 <= microseconds < 1_000_000:
            whole, microseconds = whole + microseconds // 1_000_000, microseconds % 1_000_000
        return f"{_second(whole)}.{microseconds:06}Z"
    except (OverflowError, ValueError, OSError):
        return None


@lru_cache(maxsize=1_000)
def _second(timestamp: float) -> str:
    """Return the date and time of a whole second; cached, since most events are of the same few seconds."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat()[:19]


def pick(json: bytes, fields: Container[str]) -> bytes:
    """Return an encoded object with only the given fields.

    >>> pick(b'{"type":"task-sent","uuid":"a","clock":7}', frozenset({"uuid"}))
    b'{"uuid":"a"}'
    """
    return encode({field: value for field, value in decode_object(json).items() if field in fields})


def encode(value: Any) -> bytes:
    """Return a JSON value as compact UTF-8 JSON on one line.

    U+0085, U+2028 and U+2029 are escaped, because many readers split lines there (Python's ``splitlines``,
    and so httpx and requests).

    Args:
        value: as ``normalize`` leaves it: plain JSON types, no lone surrogates. NaN becomes ``null``.
    """
    text = _encode_json(value)
    if b"\xe2\x80" in text or b"\xc2\x85" in text:
        for character, escape in _LINE_ENDS.items():
            text = text.replace(character, escape)
    return text
