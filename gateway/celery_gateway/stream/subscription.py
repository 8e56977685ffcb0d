"""Subscriptions: one client's stream, from ``gateway-open`` to ``gateway-close``.

Rules:

- A live subscription gets the bytes that its whole cohort gets. There is no queue per client.
- A subscription that begins in the past, or whose client is slow, lags: it reads for itself what comes
  next, in turn with others (``catch_up``), until it is live. ``stream_reader`` draws these phases.
- A transport uses it in one of two ways. Pulled: it awaits ``pull``. Pushed: it passes its ``write`` to
  ``attach``, then calls ``pause`` and ``resume`` as its buffer fills and drains.
- A stream that the gateway ends gets what is left for it, then ``gateway-close``. One whose transport is
  full is cut off: the close message has the id to resume from. Not so with a final reason, since the
  resumed stream would end in the same way.
- An unexpected error closes its own stream only.
"""

import asyncio
from collections.abc import Callable, Mapping

from celery_gateway.errors import OverLimit
from celery_gateway.stream import messages
from celery_gateway.stream.catch_up import CatchUpScheduler
from celery_gateway.stream.cohort import Cohort
from celery_gateway.stream.initial_snapshot import InitialSnapshot
from celery_gateway.stream.limits import Limits
from celery_gateway.stream.pulled import PullBuffer
from celery_gateway.stream.pushed import PushTransport
from celery_gateway.stream.reports import Reports
from celery_gateway.stream.stream_progress import StreamProgress
from celery_gateway.stream.stream_rate import StreamRate
from celery_gateway.stream.stream_reader import CLOSING, ENDED, LIVE, StreamReader
from celery_gateway.stream.unexpected_errors import contained, report

SUBSCRIPTION_BYTES = 4_000
"""What a client is charged for each subscription. (Measured: 1,000, and 3,100 with a cohort of its own.)"""
FREE_CHUNK_BYTES = 2_000  # a pulled chunk up to this size is part of that
_NOT_PULLED = PullBuffer()  # of all pushed subscriptions: it stays empty


class Subscription(StreamProgress):
    """One client's stream. Made by ``Hub.subscribe``; ``close`` it when the client has disconnected.

    Order: ``gateway-open``, the initial snapshot if there is one, then every matching entry once, in order.
    """

    __slots__ = (
        "client",
        "_pull",
        "_push",
        "_scheduler",
        "_limits",
        "_memory",
        "_on_close",
        "__weakref__",
    )

    def __init__(
        self,
        cohort: Cohort,
        on_close: Callable[["Subscription"], None],
        resume: messages.Resume,
        position: int,
        snapshot: InitialSnapshot | None = None,
        *,
        scheduler: CatchUpScheduler,
        limits: Limits,
        client: str = "",
        rate: StreamRate | None = None,
    ) -> None:
        is_resumed = resume == "resumed"
        super().__init__(StreamReader(cohort, position, snapshot, is_resumed=is_resumed, rate=rate))
        self.client = client
        self._pull = PullBuffer()
        self._push: PushTransport | None = None
        self._scheduler = scheduler
        self._limits = limits
        self._memory = limits.memory.reserve(client)
        self._memory.grow(SUBSCRIPTION_BYTES)
        self._on_close = on_close
        cohort.size += 1
        self.send(messages.open_message(self.id, resume))

    @property
    def is_paused(self) -> bool:
        """True while the transport of a pushed subscription is full."""
        return self._push is not None and self._push.is_full

    @property
    def unread_bytes(self) -> int:
        """The number of bytes that wait to be pulled."""
        return len(self._pull.chunk)

    @contained
    def send(self, message: messages.ControlMessage) -> None:
        """Send a control message to this client only, before its unread entries."""
        if self.is_ended or self.closing is not None:
            return
        chunk = self._reader.control_chunk(message)
        if self._push is None:
            self._buffer(chunk)
        else:
            self._push.write(chunk)

    def read(self) -> bytes:
        """Return the next bytes for the client, or nothing if there are none for now.

        After the last bytes ``is_ended`` is true. One that lags should read in turn only: see ``pull``.

        Raises:
            OverLimit: the initial snapshot needs more memory than the client may have.
        """
        if self._pull.chunk:
            self.charge(0)
            return self._pull.read()
        reader = self._reader
        if reader.reports is not None and ((chunk := reader.read_reports()) or reader.is_waiting):
            return chunk
        if reader.phase is LIVE or reader.phase is ENDED:
            return b""
        chunk = reader.read()
        if reader.phase is LIVE:
            reader.cohort.live[self] = self._buffer_live if self._push is None else self._push.write
        elif reader.phase is ENDED:
            self._release()
        elif reader.is_waiting:
            reader.wait(self)
        return chunk

    @property
    def reports(self) -> Reports | None:
        """What the client gets beside the entries (``report_timer``); ``None``: nothing."""
        return self._reader.reports

    @reports.setter
    def reports(self, reports: Reports | None) -> None:
        self._reader.reports = reports

    def request_reports(self) -> None:
        """Ask for a turn if reports are due. A pulled stream reads them once its chunk was pulled."""
        if self._push is not None:
            self._request_turn()
        elif not self._pull.chunk and self._reader.has_reports:
            self._scheduler.add(self)

    def on_ready(self) -> None:
        """Read on: what it has waited for is there (see ``stream_reader``)."""
        self._reader.is_waiting = False
        self._pull.wake()
        self._request_turn()

    def catch_up(self) -> int:
        """Read once and return the number of bytes; ask for another turn if there is more. Never raises."""
        try:
            return self._fill_buffer() if self._push is None else self._fill_transport(self._push)
        except OverLimit as error:
            self._end_over_limit(error)
            if self.closing != "limit":
                self.fail(error)  # it was to end for a final reason, after what it cannot read now
        except Exception as error:
            self.fail(error)
        return 0

    async def pull(self) -> bytes:
        """Return the next bytes, once there are some; nothing after the end.

        For one task at a time. Nothing is lost if the wait is cancelled.
        """
        reader = self._reader
        while not self._pull.chunk and reader.phase is not ENDED and not reader.is_close_due:
            if reader.has_more:
                self._scheduler.add(self)
            await self._pull.wait()
        return self.read()

    def _fill_buffer(self) -> int:
        if not self._pull.chunk:
            self._buffer(self.read())
        if not self._pull.chunk and self.has_more:
            self._scheduler.add(self)
        return self.unread_bytes

    def _buffer_live(self, chunk: bytes) -> None:
        """Buffer one chunk of the cohort. What comes before it is pulled is read from the history."""
        self.lag()
        self._buffer(chunk)

    def _buffer(self, chunk: bytes) -> None:
        """Add bytes to those that wait to be pulled."""
        buffered_bytes = self._pull.add(chunk)
        if buffered_bytes > FREE_CHUNK_BYTES:
            self.charge(buffered_bytes)
        if buffered_bytes or self.is_ended:
            self._pull.wake()

    @contained
    def attach(
        self,
        write: Callable[[bytes], None],
        on_end: Callable[[messages.CloseReason], None],
        abort: Callable[[], None],
        *,
        buffered_bytes: Callable[[], int] = lambda: 0,
        is_paused: bool = False,
    ) -> None:
        """Push to a transport from now on. For one transport, before anything was pulled.

        Args:
            write, on_end, abort, buffered_bytes: see ``PushTransport``.
            is_paused: the buffer is full already; only the beginning of the stream is written.
        """
        self.lag()
        chunk, self._pull = self._pull.read(), _NOT_PULLED
        self._push = PushTransport(write, on_end, abort, buffered_bytes, is_full=is_paused)
        write(chunk)
        if is_paused:
            self._charge_full_buffer()
        else:
            # Not at once: a client may replace it with the next of many messages that it sent together.
            self._request_turn()

    def pause(self) -> None:
        """Write no more for now: the transport's buffer is full."""
        if self._push is not None:
            self._push.is_full = True
            self.lag()
            call_soon = asyncio.get_running_loop().call_soon
            call_soon(self._charge_full_buffer)  # not at once: a write is under way

    @contained
    def resume(self) -> None:
        """Write again, first what was missed, when the subscription has its turn."""
        if self._push is not None:
            self._push.is_full = False
            self.charge(0)
            self._request_turn()

    def keepalive(self) -> bytes:
        """Return the message that moves the position of the client of a silent stream."""
        return self._reader.keepalive()

    def push_keepalive(self) -> None:
        """Write that message to the transport."""
        if self._push is not None:
            self._push.write(self.keepalive())

    def _fill_transport(self, push: PushTransport) -> int:
        if push.is_full or self.is_ended:
            return 0
        chunk = self.read()
        if chunk:
            push.write(chunk)
        self._finish(push)
        self._request_turn()
        return len(chunk)

    def _finish(self, push: PushTransport) -> None:
        """Cut off a closing stream whose transport is full; report the end of the stream to the transport."""
        reader = self._reader
        if push.is_full and reader.phase is CLOSING and reader.closing not in messages.FINAL_REASONS:
            chunk = reader.read_close()
            self._release()
            push.write(chunk)
        if reader.phase is ENDED and reader.closing is not None:
            push.on_end(reader.closing)

    def _request_turn(self) -> None:
        """Ask for a turn of a pushed subscription, if it can use one."""
        if self._push is not None and not self._push.is_full and self.has_more:
            self._scheduler.add(self)

    @contained
    def move(self, cohort: Cohort) -> None:
        """Go on at the same position in another cohort, and send ``gateway-filter``. For the hub."""
        self.lag()
        self.cohort.size -= 1
        self._reader.move_to(cohort)
        cohort.size += 1
        self.send(messages.filter_message(self.id))
        self._request_turn()  # not at once, as in ``attach``

    @contained
    def end(self, reason: messages.CloseReason, details: Mapping[str, object] | None = None) -> None:
        """End the stream with ``gateway-close``, after the bytes that are left for it.

        Args:
            details: more fields of that message.
        """
        if self.is_ended or (self.closing in messages.FINAL_REASONS and reason != "expired"):
            return
        was_live = self._reader.phase is LIVE
        self.lag()
        self._reader.stop_waiting(self)
        self._reader.end(reason, details)
        if self._push is None:
            self._pull.wake()
        elif self._push.is_full:
            self._finish(self._push)
        elif was_live or reason in messages.AT_ONCE_REASONS:
            self._fill_transport(self._push)
        else:
            self._scheduler.add(self)

    def fail(self, error: Exception) -> None:
        """Close the subscription and its connection after an unexpected error; others are not affected."""
        report("a stream failed and was closed; its client can resume", error)
        self._reader.closing = None
        self.close()
        if self._push is not None:
            self._push.abort()

    def close(self) -> None:
        """End the subscription without a message, and release what it uses. May be called again."""
        if not self.is_ended:
            self.lag()
            self._reader.close()
            self._release()

    def _release(self) -> None:
        self._scheduler.discard(self)
        self._reader.stop_waiting(self)
        self._memory.release()
        self.cohort.size -= 1
        self._on_close(self)
        self._pull.wake()

    def lag(self, position: int | None = None) -> None:
        """Get no more chunks of the cohort: read for itself, after a position (by default the cohort's)."""
        reader = self._reader
        if reader.phase is LIVE:
            reader.lag(position)
            del reader.cohort.live[self]
            if position is not None:  # a flush was cut short
                self._pull.wake()
                self._request_turn()

    def charge(self, buffered_bytes: int) -> None:
        """Charge the client for the bytes that wait for it; end the stream if they are too many."""
        size_bytes = SUBSCRIPTION_BYTES + buffered_bytes + self._reader.held_bytes
        if self._memory.amount != size_bytes and not self.is_ended and not self._memory.resize(size_bytes):
            self._end_over_limit(self._memory.over_limit(size_bytes))

    def _charge_full_buffer(self) -> None:
        if self._push is not None and self._push.is_full:
            self.charge(self._push.buffered_bytes())

    def _end_over_limit(self, error: OverLimit) -> None:
        if self.closing != "limit":
            self._limits.count_error(error, f"a stream to {self.client or 'an unknown address'}")
            self.end("limit")
