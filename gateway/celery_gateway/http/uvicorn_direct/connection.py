"""The part common to HTTP and WebSocket: a connection that writes a subscription directly, within limits.

Rules: input is queued and processed in turn (``input_turns``); reading is paused meanwhile. What a connection
holds is charged to its client (``guard``). With a subscription attached, uvicorn's flow control is out of
use: the transport's callbacks pause and resume the subscription.
"""

import asyncio

import uvicorn

from celery_gateway.http.guard import Guard
from celery_gateway.http.input_turns import MAX_INPUT_SECONDS, InputMeter
from celery_gateway.http.request_limits import (
    RequestRejected,
    as_http1,
    client_over_limit,
    too_many_connections,
)
from celery_gateway.http.tls_transport import TLS_BYTES
from celery_gateway.http.uvicorn_direct.config import hsts_seconds, server_limits
from celery_gateway.stream.keepalive import KeepaliveTimer
from celery_gateway.stream.messages import CloseReason
from celery_gateway.stream.subscription import Subscription

CLOSE_SECONDS = 5.0
"""Maximum time to flush a closing connection, in seconds."""
LINGER_SECONDS = 1.0
"""How long a rejected connection still reads, in seconds: a reset could destroy the response on its way."""
PARSE_BYTES = 4 << 10
"""How much input is parsed between two looks at the clock."""


class DirectConnection:
    """The first base class of a connection, before uvicorn's protocol."""

    transport: asyncio.Transport
    config: uvicorn.Config
    client: tuple[str, int] | None

    _guard: Guard
    _meter: InputMeter | None = None
    _is_rejected = False
    _unread = b""
    """Input that waits for its turn."""
    _is_scheduled = False
    """A turn for the input has been requested."""
    _is_reading_paused = False
    """Reading is paused until the input has had its turn."""
    _subscription: Subscription | None = None
    _keepalive_timer: KeepaliveTimer
    _abort_timer: asyncio.TimerHandle | None = None

    # ---- admission and rejection

    def _admit(self) -> bool:
        """Take a place for the connection; reject the connection if there is none."""
        client = self.client[0] if self.client else ""
        tls_bytes = TLS_BYTES if self._is_tls() else 0
        self._guard = Guard(server_limits(self.config), client, self.transport.abort, tls_bytes)
        reason = self._guard.admit()
        if reason is not None:
            self._reject(too_many_connections(reason))
        return reason is None

    def _reject(self, error: RequestRejected) -> None:
        """Respond to a request that is not read to its end, and end the connection."""
        if error.reason is not None:
            self._guard.count(error.reason)
        if not self.transport.is_closing():
            self.transport.write(as_http1(error.response(), self._hsts_seconds()))
            if error.reason == "connections":
                self.transport.close()  # its descriptor is needed
            else:
                self._linger()

    def _is_tls(self) -> bool:
        return self.transport.get_extra_info("sslcontext") is not None

    def _hsts_seconds(self) -> int:
        """Return ``hsts_seconds`` of the configuration, for a connection with TLS of its own; else 0."""
        return hsts_seconds(self.config) if self._is_tls() else 0

    def _linger(self) -> None:
        """End the connection after a response, and drop what the client still sends.

        Closing at once would reset the connection, and the client could miss the response.
        """
        self.transport.write_eof()
        self.transport.resume_reading()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self.transport.abort)

    def _end_flood(self, reason: str) -> None:
        """End the connection of a client that sends more than it may.

        Args:
            reason: one of ``limits.REASONS``.
        """
        self._reject(client_over_limit(reason, MAX_INPUT_SECONDS))

    # ---- input

    def data_received(self, data: bytes) -> None:
        """Queue input, to be processed in turn."""
        self._unread = self._unread + data if self._unread else data
        if not self._is_scheduled:
            self._is_scheduled = True
            self._guard.server.input.add(self._guard.client, self._process_input)
        if self._unread and not self.transport.is_closing():
            self._is_reading_paused = True
            self.transport.pause_reading()

    def _process_input(self) -> float:
        """Process some of the input; return the CPU time that it took, in seconds."""
        self._is_scheduled = False
        unread, self._unread = self._unread, b""
        meter = self._meter = self._meter or InputMeter()
        meter.start()
        try:
            while unread and self._may_parse():
                size_bytes = self._part_bytes(unread)
                part, unread = unread[:size_bytes], unread[size_bytes:]
                self._parse(part)
                if unread and meter.is_over():
                    break
        except Exception as error:
            self._guard.server.on_error(error)
            self.transport.abort()
        used_seconds = meter.stop()
        if self._is_rejected or self.transport.is_closing():
            return used_seconds
        self._unread = unread
        if self._is_reading_paused and not unread:
            self._is_reading_paused = False
            self._resume_reading()
        if meter.is_exhausted:
            self._end_flood("input-rate")
        elif not self._charge():
            self._end_flood("memory")
        elif unread and self._may_parse():
            self._schedule_rest()
        return used_seconds

    def _process_waiting(self) -> None:
        """Process the input that waits, if it may be processed again."""
        if self._unread and not self._is_scheduled and self._may_parse():
            self._schedule_rest()

    def _schedule_rest(self) -> None:
        self._is_scheduled = True
        self._guard.server.input.add(self._guard.client, self._process_input, is_more=True)

    def _may_parse(self) -> bool:
        return not (self._is_rejected or self.transport.is_closing())

    def _part_bytes(self, unread: bytes) -> int:
        """Return how much of the input is parsed before ``_may_parse`` and the clock are asked again."""
        return PARSE_BYTES

    def _parse(self, part: bytes) -> None:
        """Pass some input to the parser."""
        raise NotImplementedError

    def _resume_reading(self) -> None:
        """Resume the transport's reading, unless it is paused for another reason, too."""
        raise NotImplementedError

    # ---- the subscription

    def _attach(self, subscription: Subscription, keepalive_timer: KeepaliveTimer) -> None:
        """Write a subscription from now on, in place of the one before."""
        if self.transport.is_closing():
            subscription.close()
            return
        before, self._subscription = self._subscription, subscription
        is_paused = before is not None and before.is_paused
        if before is None:
            self._meter = None  # most clients send nothing from now on
        else:
            keepalive_timer.remove(before)
            before.close()  # now: a flush on behalf of the new one would write this one, too
        self._keepalive_timer = keepalive_timer
        keepalive_timer.add(subscription, self.transport.get_write_buffer_size)
        subscription.attach(
            self.transport.write,
            self._end_stream,
            self.transport.abort,
            is_paused=is_paused,
            buffered_bytes=self._unwritten_bytes,
        )

    def _end_stream(self, reason: CloseReason) -> None:
        """End the connection after the last bytes of the subscription."""
        raise NotImplementedError

    def _detach(self) -> None:
        """Close the subscription, and drop the connection soon if its buffer does not drain."""
        if self._subscription is not None:
            self._keepalive_timer.remove(self._subscription)
            self._subscription.close()
            self._abort_later()

    def _abort_later(self) -> None:
        if self._abort_timer is None:
            loop = asyncio.get_running_loop()
            self._abort_timer = loop.call_later(CLOSE_SECONDS, self.transport.abort)

    # ---- callbacks of the transport

    def pause_writing(self) -> None:
        if self._subscription is None:
            super().pause_writing()  # type: ignore[misc]
            self._guard.expect_reading(self._unwritten_bytes)
            if not self._charge():
                self._guard.count("memory")
                self.transport.abort()
        else:
            # Pause reading from a slow client: responses to its messages would accumulate.
            if not self.transport.is_closing():
                self.transport.pause_reading()
            self._subscription.pause()

    def resume_writing(self) -> None:
        self._guard.reading_resumed()
        if self._subscription is None:
            super().resume_writing()  # type: ignore[misc]
            self._charge()
        else:
            if not self.transport.is_closing():
                self.transport.resume_reading()
            self._subscription.resume()
        self._process_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.release()
        if self._subscription is not None:
            self._keepalive_timer.remove(self._subscription)
            self._subscription.close()
            self._subscription = None
        if self._abort_timer is not None:
            self._abort_timer.cancel()  # a transport of asyncio cannot be aborted any more
        super().connection_lost(exc)  # type: ignore[misc]

    # ---- memory

    def _unwritten_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def _charge(self) -> bool:
        """Charge what the connection holds to its client; return whether the memory suffices."""
        raise NotImplementedError
