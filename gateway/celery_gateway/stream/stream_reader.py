"""What comes next for one subscription: its initial snapshot, the history, and the close message.

Rules:

- A live stream reads nothing itself: it gets what its cohort gets. In all other phases it reads for itself.
- The initial snapshot of a new stream comes before all entries. The position is then that of its last page.
- The initial snapshot of a resumed stream comes among the entries: first its pages but the last, then the
  entries up to the position of the last page, then that page.
- Entries that are gone before they were read are reported by ``gateway-gap``, at their place.
- A stream whose next entries must be read from the log first, or whose snapshot is ahead of the last flush,
  *waits*: it has no more to read until ``Waiter.on_ready`` is called.
- Reports (``reports``) come in turn with the entries. A stream that closes has none.
- With a maximum rate (``stream_rate``), a stream that reads for itself holds the newest entries until it has
  read all. Its position is before them.
- The close message comes after everything that is left. A stream that is cut off, or that ends with the
  reason ``limit``, gets it at once; so does one that would have to read from the log, unless the reason is
  final.

Phases::

    call        LAGGING (the first)    LIVE        CLOSING                              ENDED
    ----------  ---------------------  ----------  -----------------------------------  ---------
    read        the next bytes;        no bytes    the next bytes;                      no bytes
                all was read: LIVE                 all was read, or the reason is
                                                   ``limit``: the close message, ENDED
    read_close  no bytes               no bytes    the close message, ENDED             no bytes
    lag         -                      LAGGING     -                                    -
    move_to     another cohort         (lag)       another cohort                       -
    end         CLOSING                CLOSING     CLOSING, with another reason         -
    close       ENDED                  ENDED       ENDED                                -

Causes, in ``subscription``::

    LAGGING -> LIVE      a turn, or ``read``: nothing is left to read
    LIVE -> LAGGING      ``pause``; ``move``; pulled: a chunk of the cohort was buffered
    any -> CLOSING       ``end``; there is no memory for what waits for the client
    CLOSING -> ENDED     a turn, or ``read``: only the close message is left; the stream is cut off
    any -> ENDED         ``close``; ``fail``

Pure: no event loop, no transport.
"""

import random
import sys
from collections.abc import Mapping
from enum import Enum

from celery_gateway.stream.cohort import Cohort
from celery_gateway.stream.initial_snapshot import NO_RESUME, InitialSnapshot, SnapshotPage
from celery_gateway.stream.messages import (
    AT_ONCE_REASONS,
    FINAL_REASONS,
    CloseReason,
    ControlMessage,
    close_message,
)
from celery_gateway.stream.older import Waiter
from celery_gateway.stream.reports import Reports
from celery_gateway.stream.stream_rate import HeldEntries, StreamRate

CHUNK_BYTES = 64 << 10
"""A read ends with the entry that reaches this size, in bytes."""
CHUNK_ENTRIES = 500
"""Maximum number of entries that a read passes."""
READ_SECONDS = 0.001
"""A read ends some entries after this time."""
RETRY_MS = (500, 5_000)
"""Range of the delay after which clients of a stopping gateway reconnect; each draws its own."""


class Phase(Enum):
    """What a subscription does: see the table of the module."""

    LAGGING = "lagging"
    LIVE = "live"
    CLOSING = "closing"
    ENDED = "ended"


LAGGING, LIVE, CLOSING, ENDED = Phase  # an attribute of an Enum is slow to look up in Python 3.11


class StreamReader:
    """Reads what a subscription gets next.

    Args:
        cohort: whose filter, framing and history it uses.
        position: where it begins.
        snapshot: the initial snapshot, which the reader closes.
        is_resumed: the stream was resumed, so the initial snapshot comes among the entries.
        rate: its maximum rate; ``None``: it gets all events.

    Attributes:
        rate: the same.
        reports: what the stream gets beside its entries; ``None``: nothing.
        cohort: the same, or another one after ``move_to``.
        phase: what the stream does now.
        closing: the reason of its end, once ``end`` was called.
        is_waiting: it waits, see the module; call ``wait``.
    """

    __slots__ = (
        "cohort",
        "phase",
        "closing",
        "is_waiting",
        "_close_fields",
        "_closes_at",
        "_cursor",
        "_snapshot",
        "_last_page",
        "_is_resumed",
        "_goal",
        "rate",
        "reports",
        "_held",
        "_had_reports",
    )

    def __init__(
        self,
        cohort: Cohort,
        position: int,
        snapshot: InitialSnapshot | None,
        *,
        is_resumed: bool,
        rate: StreamRate | None = None,
    ) -> None:
        self.cohort = cohort
        self.phase = LAGGING
        self.closing: CloseReason | None = None
        self.is_waiting = False
        self._close_fields: Mapping[str, object] | None = None
        self._closes_at = 0
        self._cursor = cohort.cursor_at(position)
        self._snapshot = snapshot
        self._last_page: SnapshotPage | None = None  # read, and due once the entries before it are read
        self._is_resumed = is_resumed
        self._goal = 0  # of its wait: the position that must be flushed
        self.rate = rate
        self.reports: Reports | None = None
        self._held = None if rate is None else HeldEntries(rate)
        self._had_reports = False  # at the last read

    @property
    def has_more(self) -> bool:
        """True if there is more to read at once, even if ``read`` has just returned nothing."""
        return (self.phase in (LAGGING, CLOSING) and not self.is_waiting) or self.has_reports

    @property
    def has_reports(self) -> bool:
        """Whether reports are due."""
        return self.reports is not None and self.phase in (LIVE, LAGGING) and self.reports.has_more

    @property
    def has_snapshot(self) -> bool:
        """Whether the initial snapshot is still to be read."""
        return self._snapshot is not None

    @property
    def held_bytes(self) -> int:
        """Memory of the entries that it has read and holds, by estimate."""
        return 0 if self._held is None else self._held.size_bytes

    @property
    def position(self) -> int:
        """Up to where the client got everything."""
        if self.phase is LIVE:
            return self.cohort.position
        return self._held.position if self._held else self._cursor.position

    @property
    def id(self) -> bytes:
        """The id of ``position``; not to be resumed from while an initial snapshot is due before it."""
        id = self.cohort.id_of(self.position)
        return id if self._snapshot is None or self._is_resumed else id + NO_RESUME

    @property
    def backlog(self) -> int:
        """How many entries it may have to read; a huge number while there is an initial snapshot."""
        if self.phase is LIVE:
            return 0
        entries = self.cohort.position - self._cursor.position
        return entries if self._snapshot is None else entries + sys.maxsize

    @property
    def progress(self) -> tuple[int, int]:
        """A value that changes with each read of a lagging stream that has made progress."""
        return self._cursor.position, 0 if self._snapshot is None else self._snapshot.read_count

    def control_chunk(self, message: ControlMessage) -> bytes:
        """Return a control message, framed."""
        framing = self.cohort.framing
        return framing.batch([framing.control(self.id, message)])

    def keepalive(self) -> bytes:
        """Return the message that moves the position of the client of a silent stream."""
        if self.phase is LIVE:
            return self.cohort.keepalive()
        framing = self.cohort.framing
        return framing.batch([framing.keepalive(self.id)])

    def read_reports(self) -> bytes:
        """Return the reports that are due; nothing if there are none, or if it is the turn of the entries.

        Raises:
            OverLimit: they need more memory than the client may have.
        """
        had_reports, self._had_reports = self._had_reports, False
        is_turn = not had_reports or self.phase is LIVE or self.is_waiting
        if self.reports is None or not self.has_reports or not is_turn:
            return b""
        id, framing = self.id, self.cohort.framing
        self._had_reports = True
        frames = [framing.control(id, message) for message in self.reports.read(id)]
        return framing.batch(frames) if frames else b""

    def read(self) -> bytes:
        """Return the next bytes, possibly none, and move on.

        Raises:
            OverLimit: the initial snapshot needs more memory than the client may have.
        """
        if self.phase is CLOSING and self.is_close_due:
            return self.read_close()
        if self.phase is LIVE or self.phase is ENDED:
            return b""
        chunk = b""
        self.is_waiting = False
        if self._snapshot is not None:
            chunk = self._read_snapshot(self._snapshot)
        elif self._cursor.position < self._last_position:
            chunk = self._read_history(self._last_position)
        if self.phase is LAGGING and self._is_all_read:
            if self._cursor.position <= self.cohort.position:
                self.phase = LIVE
            else:
                self._wait_for(self._cursor.position)
        return chunk

    def _wait_for(self, goal: int) -> None:
        self.is_waiting, self._goal = True, goal

    def wait(self, waiter: Waiter) -> None:
        """Let ``on_ready`` be called when there is more to read."""
        self.cohort.wait(waiter, self._cursor.position, self._goal)

    def stop_waiting(self, waiter: Waiter) -> None:
        """Wait no more."""
        if self.is_waiting:
            self.is_waiting = False
            self.cohort.stop_waiting(waiter)

    @property
    def is_close_due(self) -> bool:
        """Whether the next read returns the close message."""
        return self.phase is CLOSING and (
            self._is_all_read
            or self.closing in AT_ONCE_REASONS
            or (self.closing not in FINAL_REASONS and self.cohort.is_in_log(self._cursor.position))
        )

    @property
    def _is_all_read(self) -> bool:
        return self._snapshot is None and self._cursor.position >= self._last_position

    @property
    def _last_position(self) -> int:
        """The position up to which it reads: a stream that closes gets nothing that came later."""
        return self._closes_at if self.phase is CLOSING else self.cohort.position

    def read_close(self) -> bytes:
        """Return the close message, whatever else is left, and end."""
        if self.phase is not CLOSING or self.closing is None:
            return b""
        message = close_message(self.id, self.closing, random.randint(*RETRY_MS), self._close_fields)
        chunk = self.control_chunk(message)
        if self.rate is not None and self.rate.skipped:
            chunk = self.control_chunk(self.rate.report(self.id)) + chunk
        self.close()
        return chunk

    def lag(self, position: int | None = None) -> None:
        """Read the history again, after a position; by default after what the cohort has got until now."""
        if self.phase is LIVE:
            self.phase = LAGGING
            self._cursor.position = self.cohort.position if position is None else position

    def move_to(self, cohort: Cohort) -> None:
        """Go on at the same position in another cohort. Not while the stream is live."""
        if self._snapshot is not None:
            self._snapshot.refilter(cohort.filter)
        self._cursor = cohort.cursor_at(self.position)
        if self._held is not None:
            self._held.clear()
        self.cohort = cohort

    def end(self, reason: CloseReason, fields: Mapping[str, object] | None) -> None:
        """Let the stream end with a close message after what is left.

        Args:
            fields: more fields of that message.
        """
        self.lag()
        if self.phase is not CLOSING:
            self._closes_at = self.cohort.position
        self.phase, self.closing, self._close_fields = CLOSING, reason, fields

    def close(self) -> None:
        """End, and release the initial snapshot. May be called again."""
        self.lag()
        self.phase = ENDED
        self._close_snapshot()

    def _read_snapshot(self, snapshot: InitialSnapshot) -> bytes:
        page = self._last_page or snapshot.read()
        if page is None:
            return b""
        if page.position is None:
            return page.chunk
        if not self._is_resumed:
            self._cursor.position = page.position
            self._close_snapshot()
            return page.chunk
        entries = self._read_history(page.position)
        if self._cursor.position < page.position:
            self._last_page = page
            if self._cursor.position >= self.cohort.newest:
                self._wait_for(page.position)
            return entries
        self._close_snapshot()
        # Beyond the page there is a gap and nothing else: these entries were lost after the page's position.
        return entries + page.chunk if self._cursor.position == page.position else page.chunk + entries

    def _read_history(self, up_to: int) -> bytes:
        cursor, limits = self._cursor, (CHUNK_BYTES, CHUNK_ENTRIES, READ_SECONDS)
        if self._held is None:
            chunk = cursor.read(up_to, *limits)
        else:
            entries = cursor.read_entries(up_to, *limits)
            is_last = cursor.position >= min(up_to, self.cohort.newest)
            chunk = self._held.read(entries, self.cohort.framing, self.cohort.id_of, is_last=is_last)
        self.is_waiting = cursor.is_blocked
        return chunk

    def _close_snapshot(self) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
        self._snapshot = self._last_page = None
