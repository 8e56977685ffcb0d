"""Reports of statistics: ``gateway-statistics`` with all names, then with those that have changed.

Rules:

- Streams with equal scopes and windows share one reader, and each encoded item.
- A reader reads in steps of a millisecond, in the turns of the streams that wait for it.
- A stream gets the newest item of each name that has changed since its last report. Long reports are divided.
- The memory of the items, and the work of the reader as the cost of a filter, are charged to the client of
  the first stream, as long as they are shared.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from celery_gateway.events.event import encode
from celery_gateway.state.numbered_changes import NumberedChanges
from celery_gateway.stream.limits import Limits, Reservation
from celery_gateway.stream.messages import ControlMessage, statistics_message
from celery_gateway.stream.reports import REPORTS_BYTES

READ_SECONDS = 0.001
SHARED_SECONDS = 0.5
"""Statistics of less than this age are not read again for another stream."""
READER_COST = 1_000
"""What a client is charged for a reader, in units of ``Filter.cost``: with 1,000 names a read takes 50 ms."""
MAX_ITEMS = 2_000
"""Above it, names without any activity are forgotten."""
ITEM_OVERHEAD_BYTES = 500
"""Memory of an item beside its JSON. (Measured: 490.)"""
_ACTIVITY = (
    *("running", "waiting", "lost", "received", "started", "succeeded", "failed", "retried", "revoked"),
    "rejected",
)
_Key = tuple[str | None, str | None]

Times = Callable[[], tuple[float, float]]


class StatisticsReader(Protocol):
    """Reads statistics again and again (``state.activity_report``)."""

    names: list[Any]
    other: dict[str, Any] | None
    total: dict[str, Any]
    head: dict[str, float | None]
    is_changed: bool

    def may_have_changed(self, now: float) -> bool:
        """Return whether the next read can find a change; ``now``: epoch seconds."""

    def read(self, now: float, make: Callable[[dict[str, Any]], Any]) -> Iterator[None]:
        """Read in steps; the attributes are set after the last one. ``names`` has what ``make`` returned."""


class StatisticsRequest(NamedTuple):
    """Which statistics a stream reports.

    ``key``: equal for streams that may share them. ``reader``: makes the reader. ``interval_seconds``: from
    report to report.
    """

    key: Hashable
    reader: Callable[[], StatisticsReader]
    interval_seconds: float


class SharedStatistics:
    """The statistics of one scope and window, for all their streams.

    Args:
        times: returns loop time, and epoch seconds.
        memory: is charged for the items.
        cost: is charged for the reader.

    Attributes:
        readers: how many streams use it.
        items: the newest item of each name, encoded, and whether it has any activity.
        version: counts the reads that have found a change.
        head, rest: the other fields of a report, encoded, without braces.
    """

    def __init__(
        self, reader: StatisticsReader, times: Times, memory: Reservation, cost: Reservation
    ) -> None:
        cost.grow(READER_COST)
        self._cost = cost
        self.readers = 0
        self.items: NumberedChanges[_Key, tuple[bytes, bool]] = NumberedChanges()
        self.version = 0
        self.head = self.rest = b""
        self._reader = reader
        self._times = times
        self._memory = memory
        self._size_bytes = 0
        self._reading: Iterator[None] | None = None
        self._began_at = self._read_at = float("-inf")  # loop time

    def refresh(self, at: float) -> bool:
        """Read on for a millisecond; return whether the statistics are as of a time, or almost.

        Args:
            at: loop time.

        Raises:
            OverLimit: they need more memory than the client may have.
        """
        if self._reading is None:
            if self._read_at > at - SHARED_SECONDS:
                return True
            self._began_at, now = self._times()
            if not self._reader.may_have_changed(now):
                self._read_at = self._began_at
                self._put_head(now)
                return True
            self._reading = self._read(now)
        deadline = perf_counter() + READ_SECONDS
        try:
            for _ in self._reading:
                if perf_counter() >= deadline:
                    return False
        except BaseException:
            self._reading = None
            self._memory.resize(self._size_bytes)
            raise
        self._reading, self._read_at = None, self._began_at
        return True

    def _read(self, now: float) -> Iterator[None]:
        reader = self._reader
        yield from reader.read(now, self._made)
        self._put_head(now)
        if not reader.is_changed:
            return
        for key, json, has_activity in reader.names:
            self._discard(key)
            self._size_bytes += len(json) + ITEM_OVERHEAD_BYTES
            self.items.put(key, (json, has_activity))
            yield
        reader.names = []
        if len(self.items) > MAX_ITEMS:
            for key in self.items.known():
                if not self._has_activity(key):
                    self._discard(key)
        self.rest = encode({"other": reader.other, "total": reader.total})[1:-1]
        self.version += 1
        if not self._memory.resize(self._size_bytes):
            raise self._memory.over_limit(self._size_bytes)

    def _put_head(self, now: float) -> None:
        """Note that the statistics are as of this time, also if nothing has changed: a stream may begin."""
        self.head = encode(self._reader.head | {"time": round(now, 3)})[1:-1]

    def _made(self, item: Mapping[str, Any]) -> tuple[_Key, bytes, bool]:
        """Return what is kept of an item, and charge it beside the older one, which it will replace."""
        json = encode(item)
        self._memory.grow(len(json) + ITEM_OVERHEAD_BYTES)
        return (item["name"], item.get("cluster")), json, any([item[field] for field in _ACTIVITY])

    def _has_activity(self, key: _Key) -> bool:
        found = self.items.get(key)
        return found is not None and found[1]

    def _discard(self, key: _Key) -> None:
        found = self.items.get(key)
        if found is not None:
            self._size_bytes -= len(found[0]) + ITEM_OVERHEAD_BYTES
            self.items.discard(key)

    def release(self) -> None:
        """Release what it is charged for: no stream uses it."""
        self._memory.release()
        self._cost.release()


class StatisticsShares:
    """The statistics that open streams share.

    Args:
        times: returns loop time, and epoch seconds.
        limits: what the items are charged to.
    """

    def __init__(self, times: Times, limits: Limits) -> None:
        self.times = times
        self._limits = limits
        self._shared: dict[Hashable, SharedStatistics] = {}

    def enter(self, request: StatisticsRequest, client: str) -> SharedStatistics:
        """Return the statistics for a stream that begins.

        Raises:
            OverLimit: the client may have no more readers now.
        """
        shared = self._shared.get(request.key)
        if shared is None:
            memory, cost = self._limits.memory.reserve(client), self._limits.filters.reserve(client)
            shared = SharedStatistics(request.reader(), self.times, memory, cost)
            self._shared[request.key] = shared
        shared.readers += 1
        return shared

    def leave(self, request: StatisticsRequest) -> None:
        """Count a stream that has ended."""
        shared = self._shared[request.key]
        shared.readers -= 1
        if not shared.readers:
            del self._shared[request.key]
            shared.release()


class StatisticsReports:
    """The reports of statistics of one stream.

    Args:
        client: who is charged, if no other stream has the same statistics.
    """

    def __init__(self, shares: StatisticsShares, request: StatisticsRequest, client: str) -> None:
        self.has_more = False
        self._shares = shares
        self._request = request
        self._shared: SharedStatistics | None = shares.enter(request, client)
        self._due_at = self._next_at = shares.times()[0]
        self._version = 0  # of the last report
        self._number = 0  # of the last item that was sent
        self._is_first = True

    def tick(self) -> None:
        now = self._shares.times()[0]
        if now >= self._next_at and self._shared is not None:
            self.has_more, self._due_at = True, now
            self._next_at = max(self._next_at + self._request.interval_seconds, now)

    def read(self, id: bytes) -> Sequence[ControlMessage]:
        shared = self._shared
        if shared is None or not shared.refresh(self._due_at):
            return ()
        if shared.version == self._version:
            self.has_more = False
            return ()
        names: list[bytes] = []
        size_bytes = 0
        for number, _, (json, has_activity) in shared.items.after(self._number):
            if size_bytes >= REPORTS_BYTES:
                break
            self._number = number
            if has_activity or not self._is_first:
                names.append(json)
                size_bytes += len(json)
        else:
            self._version, self._number = shared.version, shared.items.number
            self.has_more = self._is_first = False
        return (statistics_message(id, shared.head, names, shared.rest, is_last=not self.has_more),)

    def close(self) -> None:
        if self._shared is not None:
            self._shared = None
            self.has_more = False
            self._shares.leave(self._request)
