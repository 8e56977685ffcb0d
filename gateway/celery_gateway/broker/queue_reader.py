"""The sizes of the queues of one broker, read when they are asked for.

- A queue is read at most once in ``FRESH_SECONDS``; requests at the same time share one reading.
- A request waits at most ``WAIT_SECONDS``. After that, and after an error, it gets the last reading, with the
  error. After an error nothing is read for a while, ever longer.
- The connection is closed after ``IDLE_SECONDS`` without a request.
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from celery_gateway.broker.daemon_thread import started
from celery_gateway.broker.diagnosis import Phase, diagnose
from celery_gateway.broker.kombu_queues import KombuQueues
from celery_gateway.broker.queue_names import MAX_QUEUES
from celery_gateway.broker.queue_reading import QueueBackend, QueueReading, QueueSize
from celery_gateway.broker.redis_queues import RedisQueues
from celery_gateway.broker.source import Status
from celery_gateway.broker.url_syntax import is_recording, is_redis
from celery_gateway.broker.urls import Access, Broker

FRESH_SECONDS: Final = 2.0
WAIT_SECONDS: Final = 5.0
READ_SECONDS: Final = 4.0
"""After this time no further queue is asked for in one reading."""
IDLE_SECONDS: Final = 30.0
MAX_PAUSE_SECONDS: Final = 30.0
"""The longest pause after an error."""
MAX_READINGS: Final = 1_000
LOG_SECONDS: Final = 60.0
CLOSE_SECONDS: Final = 1.0
_SLOW: Final = f"the broker has not answered within {WAIT_SECONDS:.0f} s"
_NOT_REACHED: Final = "the broker is slow: this queue was not read in time"
_UNSUPPORTED: Final = "this broker does not report queue lengths"

log = logging.getLogger(__name__)


class QueueReader:
    """Reads the queues of one broker. All calls belong to one running event loop.

    Args:
        broker: the next of its URLs is used after an error.
        verbose: whether errors have the broker's address, vhost and user.
        backend: makes the part that asks the broker; by default the one for its URL.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        verbose: bool = False,
        backend: Callable[[str, Access], QueueBackend] | None = None,
    ) -> None:
        self._title = f"queues of {broker.name}" if broker.name else "queues"
        self._urls = list(broker.urls)
        self._access = broker.access
        self._verbose = verbose
        self._make = backend or (RedisQueues if is_redis(self._urls[0]) else KombuQueues)
        self._is_supported = not is_recording(self._urls[0])
        self._backend: QueueBackend | None = None
        self._lock = threading.Lock()  # of the backend
        self._readings: OrderedDict[str, tuple[float, QueueReading]] = OrderedDict()  # with their loop time
        self._flight: asyncio.Task[None] | None = None
        self._flight_at = 0.0  # loop time of its start
        self._phase = Phase.CONNECT  # of the last attempt
        self._idle: asyncio.TimerHandle | None = None
        self._error: str | None = None
        self._failures = 0  # in a row
        self._retry_at = 0.0  # loop time
        self._logged_at: dict[str, float] = {}
        self._is_closed = False

    @property
    def error(self) -> str | None:
        """Why the last reading of the broker has failed, or takes too long; ``None``: it has not."""
        return self._error if self._is_supported else _UNSUPPORTED

    async def read(self, names: Sequence[str]) -> list[QueueReading]:
        """Return what is known of some queues, ``MAX_QUEUES`` of them at most, in their order."""
        names = names[:MAX_QUEUES]
        if not self._is_supported:
            return [_unknown(name, _UNSUPPORTED) for name in names]
        loop = asyncio.get_running_loop()
        end_at = loop.time() + WAIT_SECONDS
        problem: str | None = None
        while due := self._due(names):
            if self._flight is None:
                self._flight_at = loop.time()
                self._flight = asyncio.create_task(self._read(due), name=self._title)
            left_seconds = min(end_at, self._flight_at + WAIT_SECONDS) - loop.time()
            done, _ = await asyncio.wait([self._flight], timeout=max(0.0, left_seconds))
            if not done:
                problem = self._error = _SLOW  # until a reading ends
                break
        return [self._reading(name, problem) for name in names]

    async def close(self) -> None:
        """Close the connection, and read nothing more. May be called again."""
        self._is_closed = True
        self._cancel_idle()
        if self._flight is not None:
            self._flight.cancel()
            with suppress(asyncio.CancelledError):
                await self._flight
        if self._backend is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await started(self._close_backend, "celery-gateway-queues")

    def _due(self, names: Sequence[str]) -> list[str]:
        now = asyncio.get_running_loop().time()
        if self._is_closed or now < self._retry_at:
            return []
        known = self._readings
        return [name for name in names if name not in known or now - known[name][0] >= FRESH_SECONDS]

    def _reading(self, name: str, problem: str | None) -> QueueReading:
        found = self._readings.get(name)
        if found is None:
            return _unknown(name, problem or self._error or _NOT_REACHED)
        age = asyncio.get_running_loop().time() - found[0]
        if age < FRESH_SECONDS:
            return found[1]
        return found[1]._replace(error=problem or self._error or _NOT_REACHED)

    async def _read(self, names: Sequence[str]) -> None:
        """Read some queues, and record the result. Raises nothing."""
        loop = asyncio.get_running_loop()
        self._cancel_idle()
        try:
            sizes = await started(lambda: self._ask(names), "celery-gateway-queues")
        except Exception as error:
            self._on_error(error)
        else:
            self._failures, self._error = 0, None
            now, wall = loop.time(), round(time.time(), 3)
            for name in names:
                size = sizes.get(name) or QueueSize(exists=False, error=_NOT_REACHED)
                self._keep(name, now, size, wall)
        finally:
            self._flight = None
            if not self._is_closed:
                self._idle = loop.call_later(IDLE_SECONDS, self._on_idle)

    def _keep(self, name: str, now: float, size: QueueSize, wall: float) -> None:
        exists = size.exists or (name in self._readings and self._readings[name][1].exists)
        reading = QueueReading(
            name, size.depth, None, size.consumers, None, size.priorities, wall, size.error, exists
        )
        self._readings[name] = now, reading
        self._readings.move_to_end(name)
        if len(self._readings) > MAX_READINGS:
            self._readings.popitem(last=False)

    def _ask(self, names: Sequence[str]) -> dict[str, QueueSize]:
        """Ask the broker, in a thread; once more over a new connection if the old one has ended."""
        with self._lock:
            deadline = time.monotonic() + READ_SECONDS
            if self._backend is None:
                self._backend = self._make(self._urls[0], self._access)
            while True:
                was_connected = self._backend.is_connected
                try:
                    return dict(self._backend.read(names, deadline))
                except Exception:
                    self._phase = Phase.LOST if self._backend.is_connected else Phase.CONNECT
                    self._backend.close()
                    if not was_connected or time.monotonic() >= deadline:
                        raise

    def _on_error(self, error: Exception) -> None:
        loop = asyncio.get_running_loop()
        self._backend = None
        url = self._urls[0]
        diagnosis = diagnose(error, url, phase=self._phase, access=self._access)
        status = Status(False, diagnosis.what, diagnosis.code)
        self._error = status.reason if self._verbose else status.brief
        self._failures += 1
        self._urls = [*self._urls[1:], url]
        pause_seconds = min(FRESH_SECONDS * 2.0 ** min(self._failures, 10), MAX_PAUSE_SECONDS)
        self._retry_at = loop.time() + pause_seconds
        if loop.time() - self._logged_at.get(diagnosis.code, -LOG_SECONDS) >= LOG_SECONDS:
            self._logged_at[diagnosis.code] = loop.time()
            log.warning("%s: they cannot be read: %s. %s", self._title, diagnosis.what, diagnosis.remedy)

    def _on_idle(self) -> None:
        if self._flight is None and self._backend is not None:
            self._idle = None
            started(self._close_backend, "celery-gateway-queues")

    def _cancel_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _close_backend(self) -> None:
        with self._lock:
            if self._backend is not None:
                self._backend.close()


def _unknown(name: str, error: str) -> QueueReading:
    return QueueReading(name, None, None, None, None, None, round(time.time(), 3), error)
