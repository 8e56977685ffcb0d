"""Framings: how entries are written on a stream. Pure bytes in, bytes out.

- Server-Sent Events, https://html.spec.whatwg.org/multipage/server-sent-events.html (section 9.2.6 for the
  fields). Events carry no ``event:`` line, so ``EventSource.onmessage`` gets every one of them; control
  messages carry their type there.
- NDJSON: one object a line, https://github.com/ndjson/ndjson-spec.
- WebSocket: one object a text message, RFC 6455 section 5. A server's frames are not masked, so all clients
  get the same bytes.

``batch`` is what is done once to frames that leave together; HTTP/1.1's chunked coding is that, and nothing
else.
"""

from collections.abc import Sequence
from functools import lru_cache

from gateway.control import Control, bookmark
from gateway.event import pick


class SSE:
    """Server-Sent Events."""

    media_type = "text/event-stream"

    def event(self, id: bytes, json: bytes) -> bytes:
        return b"id: %b\ndata: %b\n\n" % (id, json)

    def control(self, id: bytes, message: Control) -> bytes:
        retry = b"" if message.retry_ms is None else b"retry: %d\n" % message.retry_ms
        return b"%bevent: %b\nid: %b\ndata: %b\n\n" % (retry, message.type.encode(), id, message.json)

    def keepalive(self, id: bytes) -> bytes:
        """An id without data moves the client's Last-Event-ID and dispatches nothing (section 9.2.6)."""
        return b"id: %b\n\n" % id

    def batch(self, frames: Sequence[bytes]) -> bytes:
        return b"".join(frames)


class FetchedSSE(SSE):
    """Server-Sent Events for readers that are no EventSource: they do not see an id without data."""

    def keepalive(self, id: bytes) -> bytes:
        return self.control(id, bookmark(id))


class NDJSON:
    """One JSON object a line."""

    media_type = "application/x-ndjson"

    def event(self, id: bytes, json: bytes) -> bytes:
        return json + b"\n"

    def control(self, id: bytes, message: Control) -> bytes:
        return message.json + b"\n"

    def keepalive(self, id: bytes) -> bytes:
        return bookmark(id).json + b"\n"

    def batch(self, frames: Sequence[bytes]) -> bytes:
        return b"".join(frames)


class ChunkedSSE(SSE):
    """Server-Sent Events ready for the transport, in HTTP/1.1's chunked coding (RFC 9112 section 7.1)."""

    def batch(self, frames: Sequence[bytes]) -> bytes:
        return chunk(b"".join(frames))


class ChunkedFetchedSSE(ChunkedSSE, FetchedSSE):
    """The same for readers that are no EventSource."""


class ChunkedNDJSON(NDJSON):
    """NDJSON ready for the transport, in HTTP/1.1's chunked coding."""

    def batch(self, frames: Sequence[bytes]) -> bytes:
        return chunk(b"".join(frames))


class WebSocket:
    """Text messages ready for the transport."""

    def event(self, id: bytes, json: bytes) -> bytes:
        return text_message(json)

    def control(self, id: bytes, message: Control) -> bytes:
        return text_message(message.json)

    def keepalive(self, id: bytes) -> bytes:
        return text_message(bookmark(id).json)

    def batch(self, frames: Sequence[bytes]) -> bytes:
        return b"".join(frames)


MAX_KEPT_BYTES = 4 << 10
Plain = SSE | NDJSON | WebSocket


class Picked:
    """Another framing, of events that have only some of their fields, and always ``id`` and ``type``."""

    def __init__(self, framing: Plain, fields: frozenset[str]) -> None:
        self._fields = fields | {"id", "type"}
        self.control = framing.control
        self.keepalive = framing.keepalive
        self.batch = framing.batch
        self._event = framing.event

    def event(self, id: bytes, json: bytes) -> bytes:
        return self._event(id, _pick(json, self._fields))


@lru_cache(maxsize=1_000)
def picked(framing: Plain, fields: frozenset[str]) -> Picked:
    """Return a framing that keeps some fields only; the same for the same, so that clients can share it."""
    return Picked(framing, fields)


def _pick(json: bytes, fields: frozenset[str]) -> bytes:
    """Pick once for all groups, whatever their filters; the cache is not to outweigh the history."""
    return _pick_and_keep(json, fields) if len(json) <= MAX_KEPT_BYTES else pick(json, fields)


_pick_and_keep = lru_cache(maxsize=2_000)(pick)


def chunk(data: bytes) -> bytes:
    """Return data as one chunk of HTTP/1.1's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def text_message(text: bytes) -> bytes:
    """Return UTF-8 text as one unmasked WebSocket message of a single frame (RFC 6455 section 5.2)."""
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size < 1 << 16:
        return b"\x81\x7e%b%b" % (size.to_bytes(2), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8), text)


FORMATS: dict[str, SSE | NDJSON] = {"sse": SSE(), "ndjson": NDJSON(), "fetched-sse": FetchedSSE()}
"""For any server, by the value of the ``format`` parameter, or what ``FETCHED`` makes of it."""

FETCHED = {"sse": "fetched-sse", "ndjson": "ndjson"}
"""Which of them is meant where no EventSource asks."""

DIRECT_FORMATS: dict[str, SSE | NDJSON] = {
    "sse": ChunkedSSE(),
    "ndjson": ChunkedNDJSON(),
    "fetched-sse": ChunkedFetchedSSE(),
}
"""The same, for bytes that are written to the transport as they are."""

WEBSOCKET = WebSocket()
