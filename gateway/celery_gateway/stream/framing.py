"""Framings: how entries are written on a stream. Pure: bytes in, bytes out.

- Server-Sent Events (WHATWG, https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6
  for the fields). Events have no ``event:`` field, so ``EventSource.onmessage`` gets all of them; control
  messages have their type there.
- NDJSON: one object a line (https://github.com/ndjson/ndjson-spec).
- WebSocket: one object a text message (RFC 6455 section 5). The frames of a server are not masked, so all
  clients get the same bytes.

``event``, ``control`` and ``keepalive`` return one frame. ``batch`` joins frames that leave together; in
HTTP/1.1's chunked coding it makes them one chunk.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import msgspec

from celery_gateway.events.event import encode
from celery_gateway.events.fields import Fields
from celery_gateway.events.truncate import shorten
from celery_gateway.stream.messages import ControlMessage, bookmark_message


class SSE:
    """Server-Sent Events."""

    cost: ClassVar[int] = 0
    media_type = "text/event-stream"

    def event(self, id: bytes, json: bytes) -> bytes:
        return b"id: %b\ndata: %b\n\n" % (id, json)

    def control(self, id: bytes, message: ControlMessage) -> bytes:
        retry = b"" if message.retry_ms is None else b"retry: %d\n" % message.retry_ms
        return b"%bevent: %b\nid: %b\ndata: %b\n\n" % (retry, message.type.encode(), id, message.json)

    def keepalive(self, id: bytes) -> bytes:
        """Return an event with a name and data: many parsers report a block without data as empty text."""
        return self.control(id, bookmark_message(id))

    def batch(self, frames: Sequence[bytes]) -> bytes:
        return b"".join(frames)


class NDJSON:
    """One JSON object a line."""

    cost: ClassVar[int] = 0
    media_type = "application/x-ndjson"

    def event(self, id: bytes, json: bytes) -> bytes:
        return json + b"\n"

    def control(self, id: bytes, message: ControlMessage) -> bytes:
        return message.json + b"\n"

    def keepalive(self, id: bytes) -> bytes:
        return bookmark_message(id).json + b"\n"

    def batch(self, frames: Sequence[bytes]) -> bytes:
        return b"".join(frames)


class ChunkedSSE(SSE):
    """Server-Sent Events in HTTP/1.1's chunked coding (RFC 9112 section 7.1), for the transport."""

    def batch(self, frames: Sequence[bytes]) -> bytes:
        return chunk(b"".join(frames))


class ChunkedNDJSON(NDJSON):
    """NDJSON in HTTP/1.1's chunked coding, for the transport."""

    def batch(self, frames: Sequence[bytes]) -> bytes:
        return chunk(b"".join(frames))


class WebSocket:
    """WebSocket text messages, for the transport."""

    cost: ClassVar[int] = 0

    def event(self, id: bytes, json: bytes) -> bytes:
        return text_message(json)

    def control(self, id: bytes, message: ControlMessage) -> bytes:
        return text_message(message.json)

    def keepalive(self, id: bytes) -> bytes:
        return text_message(bookmark_message(id).json)

    def batch(self, frames: Sequence[bytes]) -> bytes:
        return b"".join(frames)


MAX_CACHED_BYTES = 4 << 10
"""Maximum size of an event that is cached projected or split: all of them together take 25 MB at most."""
PROJECTION_COST = 4
KEPT_FIELDS = frozenset({"id", "type", "truncated"})
"""Fields of an event that a projection never removes."""
PlainFraming = SSE | NDJSON | WebSocket


class FieldProjection:
    """A framing of events with fewer fields, or truncated to a smaller size.

    Args:
        framing: how the smaller events are written.
        fields: the fields to keep beside ``id``, ``type`` and ``truncated``.
        max_event_bytes: larger events are truncated; 0: no limit.

    Attributes:
        cost: beside that of the filter, in units of ``Filter.cost``: about 1 µs for an event, or 500 bytes.
    """

    def __init__(self, framing: PlainFraming, fields: Fields, max_event_bytes: int) -> None:
        self._fields = None if fields.are_all else fields.including(KEPT_FIELDS)
        self._max_event_bytes = max_event_bytes
        self.cost = projection_cost(fields)
        self.control = framing.control
        self.keepalive = framing.keepalive
        self.batch = framing.batch
        self._event = framing.event

    def event(self, id: bytes, json: bytes) -> bytes:
        projected = json if self._fields is None else project(json, self._fields)
        return self._event(id, shorten(projected, self._max_event_bytes))


_projections: WeakValueDictionary[tuple[PlainFraming, Fields, int], FieldProjection] = WeakValueDictionary()


def projected_framing(
    framing: PlainFraming, fields: Fields, max_event_bytes: int
) -> PlainFraming | FieldProjection:
    """Return a framing of smaller events; the same object for equal arguments, so that clients share it.

    Args:
        fields, max_event_bytes: see ``FieldProjection``. With all fields and 0 the result is ``framing``
            itself.
    """
    if fields.are_all and not max_event_bytes:
        return framing
    key = framing, fields, max_event_bytes
    found = _projections.get(key)
    if found is None:
        found = _projections[key] = FieldProjection(framing, fields, max_event_bytes)
    return found


def projection_cost(fields: Fields) -> int:
    """Return the cost of keeping some fields, in units of ``Filter.cost``."""
    names = (*(fields.wanted or ()), *fields.hidden)
    return PROJECTION_COST + sum([100 + len(name) for name in names]) // 500


def project(json: bytes, fields: Fields) -> bytes:
    """Return an event with some of its fields, computed once for all cohorts.

    A large event is not cached: the cache must not take more memory than the history.
    """
    if len(json) <= MAX_CACHED_BYTES:
        return _project_cached(json, fields)
    return _projected(_decode(json), fields)


@lru_cache(maxsize=2_000)
def _project_cached(json: bytes, fields: Fields) -> bytes:
    return _projected(_split(json), fields)


def _projected(values: Mapping[str, Any], fields: Fields) -> bytes:
    picked = {field: value for field, value in values.items() if field in fields}
    if fields.hidden and "truncated" in picked:  # it would show which hidden fields are long
        names = [name for name in msgspec.json.decode(picked.pop("truncated")) if name not in fields.hidden]
        if names:
            picked["truncated"] = names
    return encode(picked)


_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_split = lru_cache(maxsize=200)(_decode)
"""Split an event into its fields, once for all projections. A result can take 100 kB."""


def chunk(data: bytes) -> bytes:
    """Return data as one chunk of HTTP/1.1's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def text_message(text: bytes) -> bytes:
    """Return UTF-8 text as a WebSocket message of one frame, not masked (RFC 6455 section 5.2)."""
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size < 1 << 16:
        return b"\x81\x7e%b%b" % (size.to_bytes(2), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8), text)


FORMATS: dict[str, SSE | NDJSON] = {"sse": SSE(), "ndjson": NDJSON()}
"""The framings by the value of the ``format`` parameter."""

CHUNKED_FORMATS: dict[str, SSE | NDJSON] = {"sse": ChunkedSSE(), "ndjson": ChunkedNDJSON()}
"""The same in HTTP/1.1's chunked coding, for bytes that are written directly to the transport."""

WEBSOCKET = WebSocket()
