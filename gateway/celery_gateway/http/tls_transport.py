"""TLS between a connection of the server and its transport, by the ``ssl`` module's own objects.

Rules: nothing is buffered here, so flow control, deadlines and memory of a connection work over TLS as
without it: ``get_write_buffer_size`` is all that is not sent, and a paused connection receives nothing more.
(The transports of asyncio and uvloop hold up to 512 KiB beside what they report.) A connection has its place
and its memory from the first moment, and a deadline for the handshake. Handshakes take turns by address.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

from celery_gateway.http.guard import Guard, ServerLimits
from celery_gateway.http.request_limits import as_http1, https_required

RECORD_BYTES: Final = 16 << 10
"""Maximum text of a record (RFC 8446 section 5.1), and of what OpenSSL's buffers get: they never shrink."""
TLS_BYTES: Final = 20_000
"""Memory of the TLS state of a connection, an estimate: 18,400 for an idle stream with OpenSSL 3.0."""
HANDSHAKE_BYTES: Final = 50_000
"""The same during the handshake: 44,500."""
HANDSHAKE_SECONDS: Final = 0.001
"""CPU time of a handshake, an estimate: most of it is a signature."""
MAX_HANDSHAKE_INPUT_BYTES: Final = 64 << 10
"""Maximum length of a client's part of the handshake."""


class TlsTransport(asyncio.Protocol, asyncio.Transport):
    """The protocol of the transport below, and the transport of the connection above.

    Args:
        context: has the certificate.
        limits: those of the server.
        make: returns the connection above; it is called after the handshake.
        connections: those of the server; the handshake is one of them.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        limits: ServerLimits,
        make: Callable[[], asyncio.Protocol],
        connections: set[Any],
    ) -> None:
        super().__init__()
        self._context = context
        self._limits = limits
        self._make = make
        self._connections = connections
        self._below: asyncio.Transport
        self._tls: ssl.SSLObject
        self._above: asyncio.BaseProtocol | None = None
        self._guard: Guard | None = None
        self._unread = b""
        """Input of the handshake that waits for its turn."""
        self._handshake_bytes = 0
        self._is_scheduled = False
        self._is_closing = False
        """Nothing more is written: the end is sent."""

    # ---- the handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below = cast(asyncio.Transport, transport)  # uvloop's have no base class
        peer = transport.get_extra_info("peername")
        self._guard = Guard(
            self._limits, peer[0] if isinstance(peer, tuple) else "", self._below.abort, HANDSHAKE_BYTES
        )
        reason = self._guard.admit()
        if reason is not None:  # there is no response without a handshake
            self._guard.count(reason)
            self._below.abort()
            return
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._connections.add(self)
        self._guard.expect_request(self._on_late)

    def shutdown(self) -> None:
        """End the handshake, as a connection of uvicorn ends when its server shuts down."""
        self._below.abort()

    def _on_late(self) -> None:
        if self._handshake_bytes and self._guard is not None:
            self._guard.count("slow-request")
        self._below.abort()

    def _shake_hands(self) -> float:
        """Continue the handshake; return an estimate of its CPU time in seconds."""
        self._is_scheduled = False
        data, self._unread = self._unread, b""
        if self._is_closing or self._below.is_closing():
            return 0.0
        for start in range(0, len(data), RECORD_BYTES):
            end = start + RECORD_BYTES
            self._incoming.write(data[start:end])
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                self._refuse(error)
            else:
                self._send()
                self._start(data[end:])
            return HANDSHAKE_SECONDS
        self._send()
        if self._handshake_bytes > MAX_HANDSHAKE_INPUT_BYTES:
            self._below.abort()
        elif not self._below.is_closing():
            self._below.resume_reading()
        return HANDSHAKE_SECONDS

    def _refuse(self, error: ssl.SSLError) -> None:
        """End the connection after an error of the handshake."""
        self._send()  # the alert
        if error.reason == "HTTP_REQUEST":
            self._below.write(as_http1(https_required().response()))
        self._is_closing = True
        self._below.close()

    def _start(self, data: bytes) -> None:
        """Start the connection above; ``data`` has followed the handshake."""
        assert self._guard is not None
        self._guard.release()  # it takes its own place
        self._guard = None
        self._connections.discard(self)
        above = self._make()
        self._above = above
        above.connection_made(self)
        if not (self._is_closing or self._below.is_closing()):
            self._below.resume_reading()
        self._receive(data)

    # ---- the protocol of the transport below

    def data_received(self, data: bytes) -> None:
        if self._guard is None:
            self._receive(data)
            return
        self._handshake_bytes += len(data)
        self._unread += data
        self._below.pause_reading()
        if not self._is_scheduled:
            self._is_scheduled = True
            self._limits.input.add(self._guard.client, self._shake_hands)

    def _receive(self, data: bytes) -> None:
        """Pass on the text of some input."""
        if self._is_closing:
            return  # the connection above waits for the end only
        texts: list[bytes] = []
        is_end = is_broken = False
        try:
            for start in range(0, len(data) or 1, RECORD_BYTES):
                self._incoming.write(data[start : start + RECORD_BYTES])
                with suppress(ssl.SSLWantReadError):
                    while text := self._tls.read(RECORD_BYTES):
                        texts.append(text)
                    is_end = True
        except ssl.SSLZeroReturnError:
            is_end = True
        except ssl.SSLError:
            is_broken = True
        self._send()  # alerts, and answers to updates of keys
        if texts and isinstance(self._above, asyncio.Protocol):
            self._above.data_received(b"".join(texts) if len(texts) > 1 else texts[0])
        if is_broken:
            self._below.abort()
        elif is_end and isinstance(self._above, asyncio.Protocol):
            self._above.eof_received()
            self.close()

    def eof_received(self) -> None:
        if isinstance(self._above, asyncio.Protocol):
            self._above.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._connections.discard(self)
        if self._guard is not None:
            self._guard.release()
        above, self._above = self._above, None
        self._unread = b""
        if above is not None:
            above.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        if self._above is not None:
            self._above.resume_writing()

    # ---- the transport of the connection above

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or not data:
            return
        try:
            if len(data) <= RECORD_BYTES:
                self._tls.write(data)
                self._below.write(self._outgoing.read())
            else:
                view = memoryview(data)
                self._below.writelines(
                    [self._encrypted(view, at) for at in range(0, len(view), RECORD_BYTES)]
                )
        except ssl.SSLError:  # the peer has broken the protocol before
            self._below.abort()

    def _encrypted(self, text: memoryview, start: int) -> bytes:
        self._tls.write(text[start : start + RECORD_BYTES])
        return self._outgoing.read()

    def _send(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())

    def _end(self) -> None:
        """Send the end of the text (``close_notify``); the peer's is not awaited."""
        self._is_closing = True
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        if not self._below.is_closing():
            self._send()

    def write_eof(self) -> None:
        if not self._is_closing:
            self._end()
            self._below.write_eof()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self._is_closing:
            self._end()
        self._below.close()

    def abort(self) -> None:
        self._is_closing = True
        self._below.abort()

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def is_reading(self) -> bool:
        return self._below.is_reading()

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._below.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._above = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._above is not None
        return self._above

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        if name == "sslcontext":
            return self._context
        return self._below.get_extra_info(name, default)
