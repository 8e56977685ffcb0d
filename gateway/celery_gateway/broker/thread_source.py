"""A source whose library blocks: it runs in a thread of its own, and reconnects there.

- Messages are handed over to the event loop, in order. At most ``MAX_IN_FLIGHT_MESSAGES`` wait for it: a busy
  event loop makes the thread wait, not the other way round.
- The event loop processes them for about ``SLICE_SECONDS`` in one turn; the rest waits for the next turns.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, takewhile
from time import perf_counter
from typing import Protocol

from celery_gateway.broker.backoff import Backoff
from celery_gateway.broker.diagnosis import Phase, diagnose
from celery_gateway.broker.source import NOT_CONNECTED, Sink, Status
from celery_gateway.broker.urls import Access
from celery_gateway.events.message import Message

MAX_IN_FLIGHT_MESSAGES = 1_000
SLICE_SECONDS = 0.02
"""How long messages are processed in one turn of the event loop, plus at most one message."""
STOP_SECONDS = 3.0


class Session(Protocol):
    """One connection, as the function that consumes it sees it.

    Attributes:
        phase: how far the connection has come; set by that function until ``begin``.
    """

    phase: Phase

    def is_stopping(self) -> bool:
        """Return whether to stop consuming."""

    def begin(self, where: str) -> None:
        """Record that consuming has begun: messages since the last session may be lost.

        Args:
            where: the broker's address, for the log.
        """

    def message(self, message: Message) -> None:
        """Hand a message over; wait while too many messages are in flight."""


Consume = Callable[[str, Session], None]
"""Consumes a URL until the session is stopping; raises any error that ends it before."""


class ThreadSource:
    """A source that consumes one of its URLs at a time, in a thread.

    Args:
        urls: after a failure the next one is tried.
        consume: called in the thread with a URL.
        exchange: Celery's ``event_exchange``.
        name: the broker's, for the log.
        access: how the gateway connects.
    """

    def __init__(
        self, urls: Sequence[str], consume: Consume, *, exchange: str, name: str | None, access: Access
    ) -> None:
        self.exchange = exchange
        self.access = access
        self._urls = list(urls)
        self._consume = consume
        self._name = name
        self._status = NOT_CONNECTED
        self._stopping = threading.Event()

    @property
    def status(self) -> Status:
        return self._status

    async def run(self, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        handover = _Handover(loop)

        def consume() -> None:
            try:
                self._run_thread(handover, sink)
            finally:
                handover.put(partial(ended.set_result, None))

        thread = threading.Thread(target=consume, name="celery-gateway-source", daemon=True)
        thread.start()
        try:
            await asyncio.shield(ended)
        finally:
            self._stopping.set()
            await asyncio.wait({ended}, timeout=STOP_SECONDS)  # the thread is a daemon

    def _run_thread(self, handover: "_Handover", sink: Sink) -> None:
        backoff = Backoff(self._name, len(self._urls))
        has_failed = False
        for url in cycle(self._urls):
            if self._stopping.is_set():
                return
            session = _Session(handover, sink, self, backoff, has_failed)
            try:
                self._consume(url, session)
                return
            except Exception as error:
                diagnosis = diagnose(
                    error, url, phase=session.phase, exchange=self.exchange, access=self.access
                )
                pause_seconds = backoff.record_failure(diagnosis, error)
            has_failed = True
            reason = f"{diagnosis.what}. {diagnosis.remedy}"
            self.set_status(handover, sink, Status(False, reason, diagnosis.code))
            self._stopping.wait(pause_seconds)

    def set_status(self, handover: "_Handover", sink: Sink, status: Status) -> None:
        """Change the status, and report it to the sink."""
        self._status = status
        handover.put(partial(sink.status, status))

    def is_stopping(self) -> bool:
        """Return whether to stop consuming."""
        return self._stopping.is_set()


_END = object()


class _Handover:
    """Calls from the thread that are made in the event loop, in order, some in each turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], Iterator[None] | None]] = deque()
        self._rest: Iterator[None] | None = None  # of the last call
        self._lock = threading.Lock()
        self._is_scheduled = False

    def put(self, call: Callable[[], Iterator[None] | None]) -> None:
        """Schedule a call, and the rest of the work that it returns. Called in the thread."""
        with self._lock:
            self._waiting.append(call)
            if self._is_scheduled:
                return
            self._is_scheduled = True
        self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        deadline = perf_counter() + SLICE_SECONDS
        try:
            while self._rest is not None or self._waiting:
                if self._rest is None:
                    self._rest = self._waiting.popleft()()
                elif next(self._rest, _END) is _END:
                    self._rest = None
                if perf_counter() >= deadline:
                    break
        finally:
            with self._lock:
                self._is_scheduled = self._rest is not None or bool(self._waiting)
            if self._is_scheduled:
                self._loop.call_soon(self._run)


class _Session:
    def __init__(
        self,
        handover: _Handover,
        sink: Sink,
        source: ThreadSource,
        backoff: Backoff,
        has_failed: bool,
    ) -> None:
        self.phase = Phase.CONNECT
        self.is_stopping = source.is_stopping
        self._handover = handover
        self._sink = sink
        self._source = source
        self._backoff = backoff
        self._has_failed = has_failed
        self._credit = threading.BoundedSemaphore(MAX_IN_FLIGHT_MESSAGES)

    def begin(self, where: str) -> None:
        self.phase = Phase.LOST
        if self._has_failed:
            self._handover.put(self._sink.lost)
        exchange = self._source.exchange
        self._backoff.record_success(f"consuming {exchange} of {where}")
        self._source.set_status(self._handover, self._sink, Status(True, f"consuming {exchange}"))

    def message(self, message: Message) -> None:
        self._credit.acquire()
        self._handover.put(partial(self._hand_over, message))

    def _hand_over(self, message: Message) -> Iterator[None] | None:
        self._credit.release()
        if self.is_stopping():
            return None
        rest = self._sink.message(message)
        return None if rest is None else takewhile(lambda _: not self.is_stopping(), rest)
