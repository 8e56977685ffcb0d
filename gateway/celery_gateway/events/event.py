"""An event: one flat JSON object, and what the gateway reads of it.

An event is a plain ``dict`` from the wire to the history. ``normalize`` makes it, ``tasks`` adds what it
joined, and ``encode`` turns it into bytes once its position is known. Nothing here changes an event.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from math import modf
from typing import Any, TypeGuard

import msgspec

Event = dict[str, Any]

FILTER_FIELDS = ("type", "name", "root_id", "parent_id", "uuid", "hostname", "state", "queue", "cluster")
"""The fields that a filter can look at, in the order of ``Keys``."""

Keys = tuple[str | None, ...]
"""An event's values of ``FILTER_FIELDS``; ``None`` where it has none, or one that is not a string.

Ids may be of any type (``apply_async(task_id=12345)`` on Redis): here they are texts, see ``id_text``.
"""

_ID_FIELDS = frozenset({"root_id", "parent_id", "uuid"})
MAX_NUMBER = 1 << 53
_CLIENT_NODE = re.compile(r"gen\d+@")
_LINE_ENDS = {"\x85".encode(): b"\\u0085", "\u2028".encode(): b"\\u2028", "\u2029".encode(): b"\\u2029"}
_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder(dict[str, Any]).decode


def keys(event: Event) -> Keys:
    """Return the values of ``FILTER_FIELDS``, in that order."""
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
    """Return a task's id as the text by which it is found: a string as it is, anything else as JSON.

    >>> id_text("a"), id_text(12345), id_text(True), id_text(["a"]), id_text(None)
    ('a', '12345', 'true', '["a"]', None)
    """
    if type(value) is str:
        return value
    return None if value is None else _encode_json(value).decode()


def is_client(hostname: str) -> bool:
    """Tell whether a node name is that of a client, not of a worker (celery/utils/nodenames.py)."""
    return _CLIENT_NODE.match(hostname) is not None


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value is a number that every JSON reader holds exactly, and not a truth value."""
    return (type(value) is float or type(value) is int) and -MAX_NUMBER < value < MAX_NUMBER


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
    """Most events are of the same few seconds."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat()[:19]


def pick(json: bytes, fields: frozenset[str]) -> bytes:
    """Return an encoded object with only those of its fields."""
    return encode({field: value for field, value in _decode_json(json).items() if field in fields})


def encode(value: Any) -> bytes:
    """Return a JSON value as compact UTF-8 JSON on one line.

    One line for every reader: what else many take for a line's end (U+0085, U+2028, U+2029, as Python's
    ``splitlines`` and so httpx and requests do) is escaped. The value must be what ``normalize`` leaves:
    plain JSON types, no lone surrogates; NaN becomes ``null``.
    """
    text = _encode_json(value)
    if b"\xe2\x80" in text or b"\xc2\x85" in text:
        for character, escape in _LINE_ENDS.items():
            text = text.replace(character, escape)
    return text
