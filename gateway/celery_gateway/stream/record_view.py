"""A framing that adds to each event the current record of its task (``view=record``). Pure.

Rules: the record is looked up when the event is written, not when it arrived. So it is at least as new as the
event, and the same for all clients of a cohort. Other streams have no cost.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from celery_gateway.events.event import encode, id_text
from celery_gateway.events.fields import Fields
from celery_gateway.events.truncate import shorten
from celery_gateway.stream.framing import KEPT_FIELDS, PlainFraming, project, projection_cost

RECORD_COST = 6
"""In units of ``Filter.cost``: a record takes about 5 µs and has about 700 bytes more than its event."""
_KEY = b',"record":'
_NULL = b"null"

RecordOf = Callable[[str, str | None, Fields], bytes | None]
"""Returns a task's record, encoded, by its uuid, its cluster and the wanted fields; ``None`` without one."""


class _Ids(msgspec.Struct, gc=False):
    """The fields of an event that lead to its task, and the one that the record replaces."""

    uuid: Any = None
    cluster: Any = None
    record: Any = msgspec.UNSET


_decode_ids = msgspec.json.Decoder(_Ids).decode
_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class RecordView:
    """A framing of events with the records of their tasks.

    An event with a ``uuid`` gets the field ``record``: the task's current record, or ``null`` if the task is
    not in the table. It replaces a field of this name that the application has set.

    Args:
        framing: how messages are written.
        fields: those of the event, and of the record, that are kept. ``record`` itself, and its ``uuid``, are
            always kept.
        max_event_bytes: longer events are truncated, the record like an event of its own; 0: no limit.
        record_of: returns the record of a task.

    Attributes:
        cost: beside that of the filter, in units of ``Filter.cost``.
    """

    def __init__(
        self, framing: PlainFraming, fields: Fields, max_event_bytes: int, record_of: RecordOf
    ) -> None:
        self._fields = fields
        self._kept = None if fields.are_all else fields.including(KEPT_FIELDS).without(frozenset({"record"}))
        self._max_event_bytes = max_event_bytes
        self._record_of = record_of
        self.cost = RECORD_COST + projection_cost(fields)
        self.control = framing.control
        self.keepalive = framing.keepalive
        self.batch = framing.batch
        self._event = framing.event

    def event(self, id: bytes, json: bytes) -> bytes:
        ids = _decode_ids(json)
        uuid = id_text(ids.uuid)
        limit = self._max_event_bytes
        event = json if self._kept is None else project(json, self._kept)
        if uuid is None:
            return self._event(id, shorten(event, limit))
        if ids.record is not msgspec.UNSET and self._kept is None:
            event = encode({name: value for name, value in _split(json).items() if name != "record"})
        cluster = ids.cluster if type(ids.cluster) is str else None
        record = self._record_of(uuid, cluster, self._fields) or _NULL
        if 0 < limit < len(event) + len(_KEY) + len(record):
            record = shorten(record, max(limit // 2, limit - len(_KEY) - len(event)))
            event = shorten(event, limit - len(_KEY) - len(record))
        return self._event(id, b"%b%b%b}" % (event[:-1], _KEY, record))


_views: WeakValueDictionary[tuple[PlainFraming, Fields, int, RecordOf], RecordView] = WeakValueDictionary()


def record_view(
    framing: PlainFraming, fields: Fields, max_event_bytes: int, record_of: RecordOf
) -> RecordView:
    """Return a framing with records; the same for the same arguments, so that clients can share it."""
    key = framing, fields, max_event_bytes, record_of
    found = _views.get(key)
    if found is None:
        found = _views[key] = RecordView(*key)
    return found
