"""Framings: how an entry's JSON is written on a stream. Pure bytes in, bytes out.

Server-Sent Events: https://html.spec.whatwg.org/multipage/server-sent-events.html (section 9.2.6 for the
fields). Events carry no ``event:`` line, so ``EventSource.onmessage`` gets every one of them; control
messages carry their type there. NDJSON: one object a line, https://github.com/ndjson/ndjson-spec.
"""

from gateway.control import Control, bookmark


class SSE:
    """Server-Sent Events."""

    media_type = "text/event-stream"

    def event(self, id: bytes, json: bytes) -> bytes:
        return b"id: %b\ndata: %b\n\n" % (id, json)

    def control(self, id: bytes, message: Control) -> bytes:
        return b"event: %b\nid: %b\ndata: %b\n\n" % (message.type.encode(), id, message.json)

    def keepalive(self, id: bytes) -> bytes:
        """An id without data moves the client's Last-Event-ID and dispatches nothing (section 9.2.6)."""
        return b"id: %b\n\n" % id


class NDJSON:
    """One JSON object a line."""

    media_type = "application/x-ndjson"

    def event(self, id: bytes, json: bytes) -> bytes:
        return json + b"\n"

    def control(self, id: bytes, message: Control) -> bytes:
        return message.json + b"\n"

    def keepalive(self, id: bytes) -> bytes:
        return bookmark(id).json + b"\n"


FRAMINGS: dict[str, SSE | NDJSON] = {"sse": SSE(), "ndjson": NDJSON()}
"""By the value of the ``format`` parameter."""
