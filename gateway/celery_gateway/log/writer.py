"""The writer of the leader: entries become batches, which stay here until they are read back.

- An entry goes out with the next batch: at once while few batches are under way, otherwise when one of them
  is read back, or when the batch is large. So a slow server gets large batches.
- What was sent and is not read back after a loss of the connection is sent again, in the same batches.
- Positions and the term are those of ``begin``.

Pure, but for the engine: the caller gives the times and calls ``flush``.
"""

import secrets
from collections import deque
from typing import Any

from celery_gateway.log.batch import Head, Held, Line, Reached, encode
from celery_gateway.log.engine import Engine, LogError
from celery_gateway.log.order import Order, held_of

MAX_UNDER_WAY = 4
"""Up to this number of batches under way, a new one is sent without waiting."""
BATCH_BYTES = 64 << 10
"""A batch of this size is sent without waiting."""
MAX_UNREAD_BYTES = 16 << 20
"""With more than this not read back, the leader stops to read its sources."""
SECRET_BYTES = 32
TERMS_SECONDS = 10.0
"""After this time a batch has the terms and the sources again, for readers that begin later."""


class _Sent:
    """A batch that is not read back yet."""

    __slots__ = ("first", "count", "data")

    def __init__(self, first: int, count: int, data: bytes) -> None:
        self.first = first
        self.count = count
        self.data = data


class Writer:
    """Writes for one gateway, in the terms that it leads.

    Args:
        engine: the log.
        gateway: the name of this gateway.

    Attributes:
        term: the current one; ``""`` while this gateway does not lead.
        position: that of the last entry that was added.
        reached, sources: see ``Head``.
        batches: how many were sent; it only grows.
    """

    def __init__(self, engine: Engine, gateway: str) -> None:
        self._engine = engine
        self._gateway = gateway
        self.term = ""
        self.position = 0
        self.reached: dict[str, Reached] = {}
        self.sources: list[dict[str, Any]] = []
        self.batches = 0
        self._lines: list[Line] = []
        self._held: list[Held] = []
        self._bytes = 0  # of the open batch
        self._sent: deque[_Sent] = deque()
        self._unread_bytes = 0  # of those
        self._written_bytes = 0
        self._at = 0.0
        self._number = 0
        self._terms: list[tuple[str, int]] = []
        self._terms_at = 0.0
        self._secret = ""
        self._is_connected = True

    def begin(self, order: Order) -> list[Held]:
        """Begin the term that was just claimed; return the events that wait."""
        assert order.position is not None
        self.term, self.position, self.reached = order.term, order.position, dict(order.reached)
        self._terms, self._terms_at = list(order.terms), 0.0
        self._secret = order.secret or secrets.token_hex(SECRET_BYTES)
        self._written_bytes, self._at = order.written_bytes, order.at
        self._lines, self._held, self._bytes, self.sources = [], [], 0, []
        self._sent.clear()
        self._unread_bytes = 0
        held = held_of(order)
        self._number = held[-1].number if held else 0
        self._is_connected = True
        return held

    def end(self) -> None:
        """Stop writing."""
        self.term = ""
        self._lines, self._held, self._bytes = [], [], 0
        self._sent.clear()
        self._unread_bytes = 0

    @property
    def has_unread(self) -> bool:
        """Whether there are entries that are not read back."""
        return bool(self._lines) or any(sent.count for sent in self._sent)

    @property
    def is_waiting(self) -> bool:
        """Whether a batch was sent, empty or not, and is not read back."""
        return bool(self._sent)

    @property
    def is_full(self) -> bool:
        """Whether so much is not read back that the sources have to wait."""
        return self._unread_bytes + self._bytes > MAX_UNREAD_BYTES

    @property
    def is_due(self) -> bool:
        """Whether the open batch is large enough to be sent at once."""
        return self._bytes >= BATCH_BYTES

    def add(self, line: Line) -> None:
        """Add an entry, at the next position."""
        self.position += 1
        self._lines.append(line)
        self._bytes += len(line.json) + 8

    def hold(self, json: bytes) -> int:
        """Add an event that waits, encoded; return its number."""
        self._number += 1
        self._held.append(Held(self._number, json))
        self._bytes += len(json) + 8
        return self._number

    def flush(self, now: float, *, force: bool = False) -> bool:
        """Send the open batch, unless many are under way; return whether it was sent.

        Args:
            now: epoch seconds.
            force: send it in any case, even if it is empty.
        """
        if not force:
            if not self._lines and not self._held:
                return False
            if len(self._sent) >= MAX_UNDER_WAY and not self.is_due:
                return False
        lines, held = self._lines, self._held
        self._lines, self._held = [], []
        head = Head("batch", self.term, self._gateway, self._tick(now), reached=self.reached)
        head.first = self.position - len(lines) + 1
        if now - self._terms_at > TERMS_SECONDS:
            self._terms_at = now
            head.terms, head.secret, head.sources = self._terms, self._secret, self.sources
        self._written_bytes += self._bytes
        self._bytes = 0
        head.written_bytes = self._written_bytes
        sent = _Sent(head.first, len(lines), encode(head, lines, held))
        self._sent.append(sent)
        self._unread_bytes += len(sent.data)
        self.batches += 1
        if self._is_connected:
            self._append(sent)
        return True

    def on_read(self, first: int, count: int) -> None:
        """Take out a batch that was read back."""
        while self._sent and self._sent[0].first + self._sent[0].count <= first + count:
            sent = self._sent.popleft()
            self._unread_bytes -= len(sent.data)
            if sent.first == first and sent.count == count:
                return

    def on_disconnect(self) -> None:
        """Stop sending until ``resend``."""
        self._is_connected = False

    def resend(self) -> None:
        """Send everything again that is not read back. Readers drop what they have got already."""
        self._is_connected = True
        for sent in tuple(self._sent):
            self._append(sent)

    def _append(self, sent: _Sent) -> None:
        try:
            self._engine.append(sent.data)
        except LogError:
            self._is_connected = False  # whoever reads the log notices, connects, and calls ``resend``

    def _tick(self, now: float) -> float:
        self._at = max(self._at, now)
        return self._at
