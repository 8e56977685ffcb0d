"""The hub: events in, subscriptions out. It knows no broker and no transport.

Every event is appended once to the history. A flush lets each group of subscriptions read what is new. The
flushes are paced by what they cost: at once when idle, and after a flush a pause of twice the time that it
took, at most 50 ms; so fan-out never takes more than a third of the loop, and a costly flush carries more
events.
"""

import asyncio
import time
from typing import NamedTuple

from gateway import control
from gateway.cursor import Cursor, Framing, Matcher
from gateway.event import Event, encode, keys
from gateway.history import Entry, History
from gateway.subscription import Group, Subscription

PAUSE_PER_FLUSH = 2
MAX_PAUSE_SECONDS = 0.05


class HubStatistics(NamedTuple):
    """Counts of the hub; ``events`` and ``evicted`` only grow."""

    events: int
    evicted: int
    history_bytes: int
    subscriptions: int
    groups: int


class Hub:
    """Fans events out to subscriptions. All calls belong to one running event loop.

    Args:
        history_bytes: how much of the stream is kept for those who fall behind.
    """

    def __init__(self, *, history_bytes: int = 64 << 20) -> None:
        self._history = History(max_bytes=history_bytes)
        self._groups: dict[tuple[Matcher, Framing], Group] = {}
        self._flushed = 0
        self._subscriptions = 0
        self._flush_handle: asyncio.Handle | None = None
        self._flush_not_before = 0.0
        self._is_closed = False

    def statistics(self) -> HubStatistics:
        """Return the hub's counts."""
        return HubStatistics(
            events=self._history.position,
            evicted=self._history.evicted,
            history_bytes=self._history.size_bytes,
            subscriptions=self._subscriptions,
            groups=len(self._groups),
        )

    def append(self, event: Event) -> None:
        """Give an event its position and make it known to all that it matches. Keeps order."""
        id = self._history.id_of(self._history.position + 1)
        json = b'{"id":"%b",%b' % (id, encode(event)[1:])
        self._append(Entry(id, keys(event), None, json))

    def gap(self, reason: control.GapReason, lost: int | None = None) -> None:
        """Tell every subscriber that events were, or may have been, lost at this place."""
        id = self._history.id_of(self._history.position + 1)
        message = control.gap(id, reason, lost)
        self._append(Entry(id, (), message.type, message.json))

    def subscribe(self, filter: Matcher, framing: Framing, last_event_id: str | None = None) -> Subscription:
        """Return a subscription that begins here and now, or goes on where an earlier one ended.

        Args:
            filter: hashable; equal ones share their work.
            framing: how the events are written.
            last_event_id: the id of the last message that the client saw. One that is not of this log, or
                whose successors are evicted, is answered by ``reset`` and a ``gateway-gap``.
        """
        key = filter, framing
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(self._history, filter, framing, self._flushed)

        def leave(subscription: Subscription) -> None:
            group.members.remove(subscription)
            self._subscriptions -= 1
            if not group.members:
                self._groups.pop(key, None)

        resume: control.Resume = "live"
        cursor: Cursor | None = None
        if last_event_id is not None:
            position = self._history.position_of(last_event_id)
            if position is None or position < self._history.evicted:
                resume = "reset"
            else:
                resume = "resumed"
                cursor = group.cursor_at(position)
        subscription = Subscription(group, leave, resume, cursor)
        if resume == "reset":
            subscription.lose("unknown-id" if position is None else "evicted")
        group.members.add(subscription)
        self._subscriptions += 1
        if self._is_closed:
            subscription.end("drain")
        return subscription

    def close(self) -> None:
        """Deliver what there is, then end every stream with ``gateway-close: drain``. May be called again."""
        self._is_closed = True
        self._flush()
        for group in self._groups.values():
            for member in group.members:
                member.end("drain")

    def _append(self, entry: Entry) -> None:
        self._history.append(entry)
        if self._flush_handle is None and not self._is_closed:
            loop = asyncio.get_running_loop()
            if self._flush_not_before > loop.time():
                self._flush_handle = loop.call_at(self._flush_not_before, self._flush)
            else:
                self._flush_handle = loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        started = time.perf_counter()
        self._flushed = self._history.position
        for group in self._groups.values():
            group.flush(self._flushed)
        took_seconds = time.perf_counter() - started
        pause_seconds = min(PAUSE_PER_FLUSH * took_seconds, MAX_PAUSE_SECONDS)
        self._flush_not_before = asyncio.get_running_loop().time() + pause_seconds
