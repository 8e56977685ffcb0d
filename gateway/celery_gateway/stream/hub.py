"""The hub: events in, subscriptions out. It knows no broker and no transport.

Every event is appended once to the history, and put down for the groups of subscriptions that it concerns.
A flush lets those groups hand it out; a group that nothing concerns costs nothing. Flushes are paced by what
they cost: at once when idle, and after a flush a pause of four times what it took, 5 to 50 ms. So fan-out
leaves ingest most of the loop, and a costly flush carries more events.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from gateway import control
from gateway.cursor import Framing
from gateway.event import Event, encode, keys
from gateway.group import Group
from gateway.history import Entry, History
from gateway.index import Index, Matcher
from gateway.subscription import Prologue, Subscription

PAUSE_PER_FLUSH = 4
"""Measured at 500 clients × 1000 events/s, where a bare send() loop cost 0.48 µs a delivery: with 2, 0.87 µs
and a p99 of 44 ms; with 4, 0.53 µs and 52 ms; with 8, 0.43 µs and 69 ms."""
MIN_PAUSE_SECONDS = 0.005
"""A flush is a system call a client, and a wake-up there: what comes right behind it goes together."""
MAX_PAUSE_SECONDS = 0.05
"""So that nobody waits longer than a person notices, however many there are."""


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
        history_bytes: how much of the stream is kept for those who fall behind or come back.
    """

    def __init__(self, *, history_bytes: int = 64 << 20) -> None:
        self._history = History(max_bytes=history_bytes)
        self._groups: dict[tuple[Matcher, Framing], Group] = {}
        self._index: Index[Group] = Index()
        self._dirty: dict[Group, None] = {}  # groups with new entries, in the order of their first
        self._flushed = 0
        self._unflushed_bytes = 0
        self._max_unflushed_bytes = history_bytes // 4
        self._flush_handle: asyncio.Handle | None = None
        self._after_flush: list[Callable[[], None]] = []
        self._flush_not_before = 0.0
        self._subscriptions: set[Subscription] = set()
        self._is_closed = False

    def statistics(self) -> HubStatistics:
        """Return the hub's counts."""
        return HubStatistics(
            events=self._history.position,
            evicted=self._history.evicted,
            history_bytes=self._history.size_bytes,
            subscriptions=len(self._subscriptions),
            groups=len(self._groups),
        )

    def append(self, event: Event) -> None:
        """Give an event its position and make it known to all that it matches. Keeps order."""
        id = self._history.id_of(self._history.position + 1)
        entry = Entry(id, keys(event), None, b'{"id":"%b",%b' % (id, encode(event)[1:]), time.time())
        self._append(entry, self._index.find(entry.keys))

    def gap(self, reason: control.GapReason, lost: int | None = None, cluster: str | None = None) -> None:
        """Tell every subscriber that events (of a cluster) were, or may have been, lost at this place."""
        self.tell_all(lambda id: control.gap(id, reason, lost, cluster))

    def tell_all(self, message_at: Callable[[bytes], control.Control]) -> None:
        """Put a control message into the stream of every subscriber.

        Args:
            message_at: makes it, given its position as clients see it.
        """
        id = self._history.id_of(self._history.position + 1)
        message = message_at(id)
        self._append(Entry(id, (), message.type, message.json, time.time()), self._groups.values())

    def subscribe(
        self,
        filter: Matcher,
        framing: Framing,
        last_event_id: str | None = None,
        since: float | None = None,
        prologue: Callable[[], Prologue] | None = None,
        *,
        is_due_when_resumed: bool = False,
    ) -> Subscription:
        """Return a subscription that begins here and now, or earlier where the history allows.

        Args:
            filter: hashable; equal ones share their work.
            framing: how the events are written.
            last_event_id: the id of the last message that the client saw: go on after it. One that is not
                of this log, or whose successors are evicted, is answered by ``reset`` and a ``gateway-gap``.
            since: begin with what was taken in at this time (epoch seconds) or later, where no id says
                better; 0 for all there is.
            prologue: makes what goes before a stream that is not resumed; it then begins where that ends.
            is_due_when_resumed: the prologue is for a stream that is resumed, too: that first goes on to
                where the prologue ends, which so stands in its place among the events.
        """
        resume, position, gap_reason = self._beginning(last_event_id, since)
        group = self._group(filter, framing)
        is_resumed = resume == "resumed"
        begun = None if prologue is None or (is_resumed and not is_due_when_resumed) else prologue()
        subscription = Subscription(group, self._leave, resume, position, begun, catches_up=is_resumed)
        self._subscriptions.add(subscription)
        if gap_reason is not None:
            subscription.tell(control.gap(subscription.id, gap_reason, None))
        if self._is_closed:
            subscription.end("drain")
        return subscription

    def refilter(self, subscription: Subscription, filter: Matcher) -> None:
        """Give a subscription another filter, from where it is; it is told by ``gateway-filter``."""
        if subscription.is_ended:
            return
        old = subscription.group
        subscription.move(self._group(filter, old.framing))
        self._tidy(old)

    @property
    def position(self) -> int:
        """Up to where everything has been handed out."""
        return self._flushed

    def position_of(self, id: str) -> int | None:
        """Return the position that an id names; ``None`` if it is none of this log's."""
        return self._history.position_of(id)

    def settle(self) -> int:
        """Hand out now what there is; return the position of the newest entry, where everybody now is."""
        self._flush()
        return self._flushed

    def id_of(self, position: int) -> bytes:
        """Return a position as clients see it."""
        return self._history.id_of(position)

    @property
    def id(self) -> bytes:
        """The position of the newest entry, as clients see it."""
        return self._history.id_of(self._history.position)

    def after_flush(self, call: Callable[[], None]) -> None:
        """Call back once all that was appended so far has been handed out."""
        self._after_flush.append(call)
        self._plan_flush()

    def close(self) -> None:
        """Deliver what there is, then end every stream with ``gateway-close: drain``. May be called again."""
        self._is_closed = True
        self._flush()
        for subscription in tuple(self._subscriptions):
            subscription.end("drain")

    def _beginning(
        self, last_event_id: str | None, since: float | None
    ) -> tuple[control.Resume, int, control.GapReason | None]:
        """Return how a new stream begins: its resume word, its position, and whether a gap is to be told."""
        history = self._history
        resume: control.Resume = "live"
        gap_reason: control.GapReason | None = None
        if last_event_id is not None:
            position = history.position_of(last_event_id)
            if position is not None and position > self._flushed:
                self._flush()  # it was answered by a lookup, and not handed out yet
            if position is not None and position >= history.evicted:
                return "resumed", min(position, self._flushed), None
            resume, gap_reason = "reset", "unknown-id" if position is None else "evicted"
        if since is None:
            return resume, self._flushed, gap_reason
        position = min(history.position_at(since), self._flushed)
        if gap_reason is None:
            resume = "resumed"
            # With 0 the oldest held was asked for; with a time, what is gone may have been younger.
            if since and position == history.evicted > 0:
                gap_reason = "evicted"
        return resume, position, gap_reason

    def _group(self, filter: Matcher, framing: Framing) -> Group:
        key = filter, framing
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(self._history, filter, framing, lambda: self._flushed)
            self._index.add(filter, group)
            begin = max(self._flushed, self._history.evicted)
            for entry in self._history.after(begin, self._history.position - begin):
                if entry.control is not None or filter.matches(entry.keys):
                    group.entries.append(entry)
                    self._dirty[group] = None
        return group

    def _leave(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        self._tidy(subscription.group)

    def _tidy(self, group: Group) -> None:
        if not group.size and self._groups.get((group.filter, group.framing)) is group:
            del self._groups[group.filter, group.framing]
            self._index.remove(group.filter, group)
            self._dirty.pop(group, None)

    def _append(self, entry: Entry, groups: Iterable[Group]) -> None:
        self._history.append(entry)
        if self._is_closed:
            return
        for group in groups:
            group.entries.append(entry)
            self._dirty[group] = None
        self._unflushed_bytes += entry.size_bytes
        if self._unflushed_bytes > self._max_unflushed_bytes:
            self._flush()  # before a pause lets events be evicted that nobody was offered
        elif self._flush_handle is None:
            self._plan_flush()

    def _plan_flush(self) -> None:
        if self._flush_handle is None:
            loop = asyncio.get_running_loop()
            if self._flush_not_before > loop.time():
                self._flush_handle = loop.call_at(self._flush_not_before, self._flush)
            else:
                self._flush_handle = loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        self._flushed = self._history.position
        self._unflushed_bytes = 0
        dirty, self._dirty = self._dirty, {}
        for group in dirty:
            group.flush(loop.time())
        calls, self._after_flush = self._after_flush, []
        for call in calls:
            loop.call_soon(call)  # not in the midst of what made us flush
        took_seconds = time.perf_counter() - started
        pause_seconds = max(MIN_PAUSE_SECONDS, min(PAUSE_PER_FLUSH * took_seconds, MAX_PAUSE_SECONDS))
        self._flush_not_before = loop.time() + pause_seconds
