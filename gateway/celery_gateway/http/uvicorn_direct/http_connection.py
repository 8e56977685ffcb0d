"""The HTTP/1 connection: uvicorn's, with a direct transport, limits on requests, and deadlines.

Rules: requests are parsed in turn and start in turn; responses keep the order of their requests. Each request
has a deadline (``guard.REQUEST_SECONDS``) that does not run while an earlier response is due. After a stream
has started, nothing that the client sends is answered any more. A connection and its requests refer to each
other, so both are released explicitly rather than by the garbage collector.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from celery_gateway.http.direct_transport import EXTENSION
from celery_gateway.http.guard import FREE_INPUT_BYTES, QUEUED_REQUEST_BYTES, START_SECONDS
from celery_gateway.http.request_limits import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_PIPELINED,
    MAX_URL_BYTES,
    RequestRejected,
    body_too_long,
    check_handshake,
    head_too_long,
    invalid_handshake,
    invalid_request,
    too_many_pipelined,
    url_too_long,
)
from celery_gateway.http.uvicorn_direct.connection import DirectConnection
from celery_gateway.stream.framing import CHUNKED_FORMATS, FORMATS, LAST_CHUNK, NDJSON, SSE
from celery_gateway.stream.keepalive import KeepaliveTimer
from celery_gateway.stream.messages import CloseReason
from celery_gateway.stream.subscription import Subscription

MAX_LINGER_BYTES = 4 << 20
"""Maximum amount of dropped input: after a rejection, or beside a stream."""


class ResponseTransport:
    """The direct transport of the response that its connection is sending.

    The response is chunked, or lasts until the connection closes (HTTP/1.0).
    """

    def __init__(self, connection: "DirectHTTP", is_chunked: bool) -> None:
        self._connection = connection
        self._is_chunked = is_chunked

    @property
    def formats(self) -> Mapping[str, SSE | NDJSON]:
        return CHUNKED_FORMATS if self._is_chunked else FORMATS

    def prepare(self) -> None:
        if not self._is_chunked:
            self._connection.disable_chunking()

    def attach(self, subscription: Subscription, keepalive_timer: KeepaliveTimer) -> None:
        last_bytes = LAST_CHUNK if self._is_chunked else b""
        self._connection.attach_response(subscription, keepalive_timer, last_bytes)


class DirectHTTP(DirectConnection, HttpToolsProtocol):
    """uvicorn's HTTP/1 connection with a direct transport.

    Attributes:
        responding_cycle: the request whose response is due or under way; ``cycle`` is the last one received.
    """

    responding_cycle: RequestResponseCycle | None = None
    _last_bytes = b""
    _is_request_complete = False
    """The last request has been received to its end."""
    _is_head_complete = False
    _is_upgraded = False
    """The connection has become a WebSocket's, which has its own object."""
    _early = b""
    """Input behind the request for that."""
    _head_bytes = _headers = _body_bytes = 0
    """Of the request that is being received."""
    _unparsed_bytes = 0
    """Received since the parser last recognized something: an element without an end so far."""
    _dropped_bytes = 0
    """Received and dropped: after a rejection, or beside a stream."""

    # ---- input

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        if self._admit():
            self._guard.expect_request(self._on_late_request)

    def data_received(self, data: bytes) -> None:
        if self._is_rejected or self._subscription is not None:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > MAX_LINGER_BYTES and not self.transport.is_closing():
                if self._subscription is not None:  # a rejection is counted by then
                    self._guard.count("input-rate")
                self.transport.abort()
            return
        super().data_received(data)

    def _process_input(self) -> float:
        used_seconds = super()._process_input()
        if self._is_upgraded:
            self.parser = None  # type: ignore[assignment]  # it refers to this object
            unread, self._early, self._unread = self._early + self._unread, b"", b""
            if unread:
                self.transport.get_protocol().data_received(unread)  # type: ignore[attr-defined]
        else:
            self._expect_request()
        return used_seconds

    def _expect_request(self) -> None:
        """Start the deadline of the request that is being received, unless an earlier response is due.

        Reading is paused until then.
        """
        is_next = self.responding_cycle is None or (self._is_head_complete and not self.pipeline)
        if is_next and self._may_parse() and not self._is_request_complete and not self.flow.read_paused:
            self._guard.expect_request(self._on_late_request)

    def _on_late_request(self) -> None:
        if self._is_head_complete or self._head_bytes or self._unparsed_bytes:
            self._guard.count("slow-request")
            self.transport.abort()
        else:
            self.transport.close()  # an unused connection, such as a browser opens in advance

    def _resume_reading(self) -> None:
        # uvicorn pauses it while requests wait, or a body is not read.
        if self._may_parse() and not self.flow.read_paused:
            self.transport.resume_reading()

    def _may_parse(self) -> bool:
        return super()._may_parse() and self._subscription is None and not self._is_upgraded

    def _parse(self, part: bytes) -> None:
        self._unparsed_bytes += len(part)
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade as upgrade:
            self._early = part[upgrade.args[0] :]
            self._upgrade()
        except httptools.HttpParserError as error:
            self._on_parser_error(error.__context__ or error)  # that of a callback
        else:
            if self._is_request_complete:
                self._unparsed_bytes = 0
            elif self._unparsed_bytes > MAX_HEAD_BYTES:
                self._reject(head_too_long())

    def _on_parser_error(self, error: BaseException) -> None:
        if isinstance(error, RequestRejected):
            self._reject(error)
        elif isinstance(error, httptools.HttpParserError | UnicodeError):
            self._reject(invalid_request(error))
        else:
            raise error
        error.__traceback__ = None  # the parser keeps the error, and so would keep all frames

    # ---- callbacks of the parser

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()  # not by line ends between requests
        super().on_message_begin()
        self._is_request_complete = self._is_head_complete = False
        self._head_bytes = self._headers = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._unparsed_bytes = 0
        self._head_bytes += len(url)
        if self._head_bytes > MAX_URL_BYTES:
            raise url_too_long()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._unparsed_bytes = 0
        self._head_bytes += len(name) + len(value) + 4
        self._headers += 1
        if self._head_bytes > MAX_HEAD_BYTES or self._headers > MAX_HEADERS:
            raise head_too_long()
        if not self._is_head_complete:  # trailers are dropped
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_head_complete = True
        if len(self.pipeline) >= MAX_PIPELINED:
            raise too_many_pipelined()
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:  # a WebSocket's handshake makes none
            scope: Any = self.scope
            scope["extensions"] = {EXTENSION: ResponseTransport(self, self.scope["http_version"] != "1.0")}

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY_BYTES:
            raise body_too_long()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_request_complete = True
        self._guard.request_received()
        if self._meter is not None:
            self._meter.refill()
        super().on_message_complete()

    # ---- responses

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.responding_cycle = cycle
        self._guard.server.input.add(self._guard.client, partial(self._start, cycle, app))

    def _start(self, cycle: RequestResponseCycle, app: Any) -> float:
        if self.responding_cycle is cycle:  # not if the connection was lost meanwhile
            super()._start_asgi_task(cycle, app)
        return START_SECONDS

    def on_response_complete(self) -> None:
        self.responding_cycle = None
        super().on_response_complete()
        self._charge()
        if not self._is_request_complete:  # another is being received
            self._unset_keepalive_if_required()
            self._expect_request()
        self._watch_closing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_closing()

    def shutdown(self) -> None:
        super().shutdown()
        self._watch_closing()

    def _watch_closing(self) -> None:
        """Drop a connection that is closing if its client does not read the rest."""
        if self.transport.is_closing() and self._unwritten_bytes():
            self._guard.expect_reading(self._unwritten_bytes)

    def disable_chunking(self) -> None:
        """Send the next response without the chunked coding, and without its header."""
        if self.responding_cycle is not None:  # the connection is not lost
            self.responding_cycle.chunked_encoding = False

    def attach_response(
        self, subscription: Subscription, keepalive_timer: KeepaliveTimer, last_bytes: bytes
    ) -> None:
        """Write a subscription as the body of the response; ``last_bytes`` end it."""
        if self.responding_cycle is None:  # the connection is lost
            subscription.close()
            return
        self._last_bytes = last_bytes
        self._attach(subscription, keepalive_timer)
        self.responding_cycle.response_complete = True  # as far as uvicorn is concerned
        self._unread = b""
        if not self.transport.is_closing():
            self.transport.resume_reading()  # only to detect the end of the connection
        self._guard.request_received()
        self._release_requests()
        this: Any = self
        this.flow = this.parser = None

    def _end_stream(self, reason: CloseReason) -> None:
        self.transport.write(self._last_bytes)
        self.transport.close()
        self._abort_later()

    def connection_lost(self, exc: Exception | None) -> None:
        responding = self.responding_cycle
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if responding is not None and not responding.response_complete:
            responding.disconnected = True
            responding.message_event.set()
        self._release_requests()

    def _release_requests(self) -> None:
        """Release all requests. They refer to the connection, which refers to them."""
        for cycle in (self.cycle, self.responding_cycle, *[cycle for cycle, _ in self.pipeline]):
            if cycle is not None:
                cycle.on_response = _do_nothing
                cycle.scope.get("extensions", {}).pop(EXTENSION, None)
        self.pipeline.clear()
        self.responding_cycle = None
        this: Any = self
        this.cycle = this.scope = this.headers = None

    # ---- upgrades and rejections

    def _upgrade(self) -> None:
        self._guard.request_received()
        if not self._should_upgrade():
            self._unsupported_upgrade_warning()
            return
        if self.responding_cycle is not None:
            self._reject(invalid_handshake("an earlier response is not complete; use a new connection"))
            return
        self.cycle = None  # type: ignore[assignment]  # of the request before
        try:
            check_handshake(self.url, self.scope["headers"])
        except RequestRejected as error:
            self._reject(error)
            return
        self._guard.release()  # the WebSocket takes its own place
        self.handle_websocket_upgrade()
        self._release_requests()
        self._is_upgraded = True

    def _reject(self, error: RequestRejected) -> None:
        self._is_rejected = True
        self._guard.request_received()
        responding = self.responding_cycle
        if responding is None and self._is_head_complete and self.cycle is not None:
            if error.reason is not None:
                self._guard.count(error.reason)
            if not self.transport.is_closing():
                self._linger()  # the request has had its response
        elif responding is not None and not responding.response_complete:
            # Responses keep the order of their requests: the connection ends after those that are due.
            if error.reason is not None:
                self._guard.count(error.reason)
            last = self.pipeline[0][0] if self.pipeline else responding
            last.keep_alive = False
            if not self.transport.is_closing():
                self.transport.resume_reading()  # input that is unread at the end would reset the connection
        else:
            super()._reject(error)

    def _charge(self) -> bool:
        held = len(self._unread)
        if self.responding_cycle is not None:
            held += len(self.responding_cycle.body)
        for cycle, _ in self.pipeline:
            held += QUEUED_REQUEST_BYTES + len(cycle.body)
            held += sum(len(name) + len(value) for name, value in cycle.scope["headers"])
        for size_bytes in (self._unwritten_bytes(), self._head_bytes + self._unparsed_bytes):
            held += size_bytes if size_bytes > FREE_INPUT_BYTES else 0
        return self._guard.charge(held)


def _do_nothing() -> None: ...
