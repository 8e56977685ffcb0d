"""The events a second that a stream may have at most (``max_rate``), and the events that it skips.

Rules:

- A token bucket: ``per_second`` tokens a second, and at most so many at a time. Each event takes one.
- Of events that come together, the newest ones are sent. Those before them are skipped.
- Skipped events count as delivered. ``gateway-skipped`` reports how many there were: before the next event,
  or alone, but at most once in ``REPORT_SECONDS``; and before the end of the stream.
- Control messages are never skipped, and take no token.

Pure, but for the clock that is passed.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence

from celery_gateway.stream.cursor import Framing, frame
from celery_gateway.stream.history import Entry
from celery_gateway.stream.messages import ControlMessage, skipped_message

REPORT_SECONDS = 1.0
MAX_HELD = 500
MAX_HELD_BYTES = 64 << 10

Clock = Callable[[], float]


class StreamRate:
    """The tokens of one stream, and the events that it has skipped.

    Args:
        per_second: how many events a second.
        clock: returns seconds that only go forward.

    Attributes:
        skipped: events that were skipped since the last report.
    """

    __slots__ = ("per_second", "skipped", "_clock", "_tokens", "_at", "_reported_at")

    def __init__(self, per_second: int, clock: Clock = time.monotonic) -> None:
        self.per_second = per_second
        self.skipped = 0
        self._clock = clock
        self._tokens = float(per_second)
        self._at = clock()
        self._reported_at = float("-inf")

    def tokens(self) -> int:
        """Return how many events may be sent now."""
        now = self._clock()
        self._tokens = min(self.per_second, self._tokens + (now - self._at) * self.per_second)
        self._at = now
        return int(self._tokens)

    def spend(self, events: int) -> None:
        """Take tokens for events; they must be there."""
        self._tokens -= events

    @property
    def is_report_due(self) -> bool:
        """Whether skipped events are to be reported now."""
        return bool(self.skipped) and self._clock() - self._reported_at >= REPORT_SECONDS

    def report(self, id: bytes) -> ControlMessage:
        """Return the report of the skipped events, which are no longer counted then.

        Args:
            id: that of the position where it is sent.
        """
        count, self.skipped, self._reported_at = self.skipped, 0, self._clock()
        return skipped_message(id, count)


class Together:
    """Events that come together, for all live streams of a cohort: each is framed once.

    Args:
        entries: those that match, in order.
        id_before: returns the id of the position before an entry.
    """

    __slots__ = ("_entries", "_framing", "_id_before", "_frames", "_events", "_controls", "_size_bytes")

    def __init__(
        self, entries: Sequence[Entry], framing: Framing, id_before: Callable[[Entry], bytes]
    ) -> None:
        self._entries = entries
        self._framing = framing
        self._id_before = id_before
        self._frames: dict[int, bytes] = {}
        self._events = [index for index, entry in enumerate(entries) if entry.control_type is None]
        self._controls = [index for index, entry in enumerate(entries) if entry.control_type is not None]
        self._size_bytes = sum([len(entry.json) for entry in entries])

    def is_longer(self, limit_bytes: int, tokens: int) -> bool:
        """Return whether a stream with so many tokens would get more than ``limit_bytes`` of JSON."""
        if self._size_bytes <= limit_bytes:
            return False
        return sum([len(entry.json) for entry in self._entries[self._first(tokens) :]]) > limit_bytes

    def chunk(self, rate: StreamRate) -> bytes:
        """Return what a stream gets, possibly nothing; the other events are skipped."""
        tokens, events = rate.tokens(), self._events
        first = self._first(tokens)
        sent = min(tokens, len(events))
        rate.spend(sent)
        rate.skipped += len(events) - sent
        frames = [self._frame(index) for index in self._controls if index < first]
        if sent and rate.is_report_due:
            id = self._id_before(self._entries[first])
            frames.append(self._framing.control(id, rate.report(id)))
        frames += [self._frame(index) for index in range(first, len(self._entries))]
        return self._framing.batch(frames) if frames else b""

    def _first(self, tokens: int) -> int:
        """Return the index of the first event that is sent."""
        events = self._events
        if len(events) <= tokens:
            return events[0] if events else len(self._entries)
        return events[-tokens] if tokens else len(self._entries)

    def _frame(self, index: int) -> bytes:
        framed = self._frames.get(index)
        if framed is None:
            framed = self._frames[index] = frame(self._framing, self._entries[index])
        return framed


class HeldEntries:
    """The newest entries that a stream has read from the past, while there are more to read.

    They are sent once all is read, so that a stream which resumes far behind gets the newest events. What the
    tokens allow beyond ``MAX_HELD`` entries or ``MAX_HELD_BYTES`` is sent earlier.

    Attributes:
        size_bytes: the memory of the entries, by estimate.
    """

    __slots__ = ("size_bytes", "_rate", "_held", "_events")

    def __init__(self, rate: StreamRate) -> None:
        self.size_bytes = 0
        self._rate = rate
        self._held: deque[tuple[int, Entry]] = deque()
        self._events = 0

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._held)

    @property
    def position(self) -> int:
        """The position before the first entry. There must be one."""
        return self._held[0][0] - 1

    def clear(self) -> None:
        """Forget the entries: they are read again."""
        self._held.clear()
        self.size_bytes = self._events = 0

    def read(
        self,
        entries: Sequence[tuple[int, Entry]],
        framing: Framing,
        id_of: Callable[[int], bytes],
        *,
        is_last: bool,
    ) -> bytes:
        """Take entries, and return the bytes of those that are sent now.

        Args:
            entries: the next ones that match, each with its position.
            id_of: returns the id of a position.
            is_last: there is nothing more to read for now: hold nothing.
        """
        rate, held = self._rate, self._held
        frames: list[bytes] = []
        tokens = rate.tokens()
        for position, entry in entries:
            held.append((position, entry))
            self.size_bytes += entry.size_bytes
            self._events += entry.control_type is None
            while self._events > tokens:
                _, first = self._pop()
                if first.control_type is None:
                    rate.skipped += 1
                else:
                    frames.append(frame(framing, first))
            while len(held) > MAX_HELD or (self.size_bytes > MAX_HELD_BYTES and held):
                tokens -= self._send(frames, framing, id_of)
        while is_last and held:
            self._send(frames, framing, id_of)
        return framing.batch(frames) if frames else b""

    def _pop(self) -> tuple[int, Entry]:
        position, entry = self._held.popleft()
        self.size_bytes -= entry.size_bytes
        self._events -= entry.control_type is None
        return position, entry

    def _send(self, frames: list[bytes], framing: Framing, id_of: Callable[[int], bytes]) -> int:
        """Add the frame of the first entry; return how many tokens it has taken."""
        position, entry = self._pop()
        if entry.control_type is not None:
            frames.append(frame(framing, entry))
            return 0
        rate = self._rate
        if rate.is_report_due:
            id = id_of(position - 1)
            frames.append(framing.control(id, rate.report(id)))
        rate.spend(1)
        frames.append(frame(framing, entry))
        return 1
