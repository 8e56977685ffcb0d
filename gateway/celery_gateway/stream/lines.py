"""Entries from the lines of a shared log: the same entry on every gateway. Pure."""

from operator import itemgetter

from celery_gateway.events.event import (
    FILTER_FIELDS,
    ORIGIN_FIELDS,
    Event,
    Keys,
    decode_object,
    encode,
    keys,
)
from celery_gateway.events.truncate import truncate
from celery_gateway.log.batch import Line
from celery_gateway.stream.history import Entry

_origin_of = itemgetter(*(FILTER_FIELDS.index(field) for field in ORIGIN_FIELDS))


def with_id(id: bytes, json: bytes) -> bytes:
    """Return an encoded object, which must not be empty, with its id."""
    return b'{"id":"%b",%b' % (id, json[1:])


def origin_of(own: Keys) -> Keys:
    """Return an event's own values of ``ORIGIN_FIELDS``, as ``keys`` has made them."""
    origin: Keys = _origin_of(own)
    return origin


def line_keys(line: Line, event: Event, *, keeps_origins: bool) -> Keys:
    """Return the keys of a line's entry; none for a control message.

    Args:
        event: the line's object.
        keeps_origins: whether keys have the values of ``ORIGIN_FIELDS``, too (``TaskTable.keeps_origins``).
    """
    if control_type(line, event) is not None:
        return ()
    own = keys(event)
    if not keeps_origins:
        return own
    return own + (origin_of(own) if line.origin is None else tuple(line.origin))


def control_type(line: Line, event: Event) -> str | None:
    """Return the type of a line's control message; ``None`` if it is an event."""
    return str(event["type"]) if line.own == 0 else None


def committed_entry(
    id: bytes, json: bytes, keys: Keys, control_type: str | None, appended_at: float, max_event_bytes: int
) -> Entry:
    """Return an entry that is in the log.

    Args:
        json: without its id.
        keys, control_type, appended_at: see ``Entry``.
        max_event_bytes: longer events are truncated; 0: no limit.
    """
    whole = with_id(id, json)
    if control_type is None and 0 < max_event_bytes < len(whole):
        cut = truncate(decode_object(json), max_event_bytes - len(id) - 8)
        return Entry(id, keys, None, with_id(id, encode(cut)), appended_at, whole)
    return Entry(id, keys, control_type, whole, appended_at)
