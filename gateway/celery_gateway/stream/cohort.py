"""Cohorts: subscriptions with an equal filter and the same framing, which get the same bytes.

Rules:

- At a flush a cohort frames its new entries once, and writes the same bytes for each live member. If these
  would be more than ``MAX_FLUSH_BYTES`` (a framing can add to entries), its members lag, and read the rest
  as fast as their clients do.
- A cohort of members with a maximum rate (``stream_rate``) writes for each what its tokens allow.
- A member whose write fails, or whose entries cannot be framed, is closed. Other members are not affected.

Pure.
"""

from collections.abc import Callable
from typing import Protocol

from celery_gateway.events.matcher import Matcher
from celery_gateway.stream.cursor import Cursor, Framing, frame
from celery_gateway.stream.flushed import Flushed
from celery_gateway.stream.history import Entry, History
from celery_gateway.stream.limits import Reservation
from celery_gateway.stream.older import Waiter
from celery_gateway.stream.stream_rate import StreamRate, Together

MAX_FLUSH_BYTES = 4 << 20


class Member(Protocol):
    """A subscription, as its cohort uses it."""

    def lag(self, position: int | None = None) -> None:
        """Leave ``live``, and read what comes after a position; ``None``: the cohort's."""

    @property
    def rate(self) -> StreamRate | None:
        """Its maximum rate of events; in a cohort all members have one, or none has."""

    def fail(self, error: Exception) -> None:
        """Close the subscription and its connection after an unexpected error."""


class Cohort:
    """Subscriptions that get the same bytes.

    Args:
        flushed: up to where live members got everything. It is the same for all cohorts of a hub, which moves
            it at each flush.
        cost: what its filter is charged for.
        is_rated: its members have a maximum rate of events.

    Attributes:
        size: the number of members, live or not.
        live: the live members, each with the function that its bytes are written to.
        entries: matching entries, to be written at the next flush.
        written_at: loop time of the last write, in seconds.
    """

    def __init__(
        self,
        history: History,
        filter: Matcher,
        framing: Framing,
        flushed: Flushed,
        cost: Reservation,
        *,
        is_rated: bool = False,
    ) -> None:
        self.cost = cost
        self.is_rated = is_rated
        self.filter = filter
        self.framing = framing
        self.live: dict[Member, Callable[[bytes], None]] = {}
        self.size = 0
        self.entries: list[Entry] = []
        self.written_at = 0.0
        self._keepalive = -1, b""
        self._history = history
        self._flushed = flushed

    @property
    def position(self) -> int:
        """Up to where live members got everything."""
        return self._flushed.position

    def flush(self, now: float) -> None:
        """Write the new entries for the live members.

        Args:
            now: loop time, in seconds.
        """
        framing = self.framing
        entries, self.entries = self.entries, []
        if self.is_rated:
            self._flush_rated(entries, now)
            return
        members = tuple(self.live.items())
        position: int | None = None
        frames: list[bytes] = []
        free_bytes = MAX_FLUSH_BYTES
        try:
            for entry in entries:
                frames.append(framed := frame(framing, entry))
                free_bytes -= len(framed)
                if free_bytes < 0:
                    position = self._history.position_of(entry.id.decode())
                    break
            chunk = framing.batch(frames)
        except Exception as error:
            for member, _ in members:
                member.fail(error)
            return
        self.written_at = now
        for member, write in members:
            try:
                if position is not None:
                    member.lag(position)
                write(chunk)
            except Exception as error:
                member.fail(error)

    def _flush_rated(self, entries: list[Entry], now: float) -> None:
        """Write for each live member the entries that its rate allows."""
        together = Together(entries, self.framing, self._id_before)
        for member, write in tuple(self.live.items()):
            try:
                rate = member.rate
                assert rate is not None
                if together.is_longer(MAX_FLUSH_BYTES, rate.tokens()):
                    member.lag(self._position_before(entries[0]))
                elif chunk := together.chunk(rate):
                    write(chunk)
                    self.written_at = now
            except Exception as error:
                member.fail(error)

    def _id_before(self, entry: Entry) -> bytes:
        return self._history.id_of(self._position_before(entry))

    def _position_before(self, entry: Entry) -> int:
        position = self._history.position_of(entry.id.decode())
        assert position is not None
        return position - 1

    def keepalive(self) -> bytes:
        """Return the keep-alive for live members, made once for each position."""
        position = self._flushed.position
        if self._keepalive[0] != position:
            framing = self.framing
            self._keepalive = position, framing.batch([framing.keepalive(self.id_of(position))])
        return self._keepalive[1]

    def cursor_at(self, position: int) -> Cursor:
        """Return a cursor for a member that reads for itself."""
        return Cursor(self._history, self.filter, self.framing, position)

    def id_of(self, position: int) -> bytes:
        """Return the id of a position."""
        return self._history.id_of(position)

    @property
    def newest(self) -> int:
        """The position of the newest entry, flushed or not."""
        return self._history.position

    def is_in_log(self, position: int) -> bool:
        """Return whether a member that goes on after a position reads from the log, not from memory."""
        return position < self._history.evicted and self._history.older is not None

    def wait(self, waiter: Waiter, position: int, goal: int) -> None:
        """Call a member once when the entries after ``position`` were read from the log, or, if it is not in
        the log, when ``goal`` is flushed."""
        if self._history.older is not None and self.is_in_log(position):
            self._history.older.request(position, waiter)
        else:
            self._flushed.after(goal, waiter.on_ready)

    def stop_waiting(self, waiter: Waiter) -> None:
        """Forget that a member waits."""
        if self._history.older is not None:
            self._history.older.discard(waiter)
        self._flushed.discard(waiter.on_ready)
