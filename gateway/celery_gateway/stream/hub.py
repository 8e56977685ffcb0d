"""The hub: events in, subscriptions out. It depends on no broker and on no transport.

Rules:

- Every event is appended once to the history, and to the entries of each cohort whose filter matches it.
- A flush writes the entries of those cohorts for their live members. Other cohorts cost nothing.
- Flushes are paced by their cost (``flush_timer``).
- The *position* of the hub is that of the last flush. A subscription that begins, begins there or earlier.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from celery_gateway.access.quota import Place
from celery_gateway.errors import OverLimit
from celery_gateway.events.event import Event, Keys, encode, keys
from celery_gateway.events.matcher import Matcher
from celery_gateway.events.truncate import truncate
from celery_gateway.stream import messages
from celery_gateway.stream.catch_up import CatchUpScheduler
from celery_gateway.stream.cohort import Cohort
from celery_gateway.stream.cursor import Framing
from celery_gateway.stream.filter_index import FilterIndex
from celery_gateway.stream.flush_timer import FlushTimer
from celery_gateway.stream.history import Entry, History
from celery_gateway.stream.initial_snapshot import InitialSnapshot
from celery_gateway.stream.limits import Limits
from celery_gateway.stream.subscription import Subscription


def _with_id(id: bytes, json: bytes) -> bytes:
    return b'{"id":"%b",%b' % (id, json[1:])


class HubStatistics(NamedTuple):
    """Counts of the hub. ``events`` and ``evicted`` only grow."""

    events: int
    evicted: int
    history_bytes: int
    subscriptions: int
    cohorts: int


class Hub:
    """Fans events out to subscriptions. All calls belong to one running event loop.

    Args:
        history_bytes: how much of the stream is kept for subscriptions that lag or resume.
        max_event_bytes: maximum size of an event on a stream; a larger one is truncated. 0: no limit.
        limits: what streams and their filters are charged to; by default limits of its own.

    Attributes:
        limits: the same.
        scheduler: gives turns to the subscriptions that lag.
    """

    def __init__(
        self, *, history_bytes: int = 64 << 20, max_event_bytes: int = 0, limits: Limits | None = None
    ) -> None:
        self.max_event_bytes = max_event_bytes
        self.scheduler = CatchUpScheduler()
        self.limits = limits or Limits()
        self._history = History(max_bytes=history_bytes)
        self._cohorts: dict[tuple[Matcher, Framing], Cohort] = {}
        self._index: FilterIndex[Cohort] = FilterIndex()
        self._dirty: dict[Cohort, None] = {}  # with new entries, in the order of the first
        self._flushed = 0
        self._unflushed_bytes = 0
        self._max_unflushed_bytes = history_bytes // 4
        self._timer = FlushTimer(self._flush)
        self._after_flush: list[Callable[[], None]] = []
        self._subscriptions: dict[Subscription, Place] = {}
        self._is_closed = False

    def statistics(self) -> HubStatistics:
        """Return the hub's counts."""
        return HubStatistics(
            events=self._history.position,
            evicted=self._history.evicted,
            history_bytes=self._history.size_bytes,
            subscriptions=len(self._subscriptions),
            cohorts=len(self._cohorts),
        )

    def append(self, event: Event, origin_keys: Keys = ()) -> None:
        """Append an event to the stream: it gets the next position, and goes to all subscriptions that match
        it.

        Args:
            origin_keys: the values of ``ORIGIN_FIELDS`` of its task; required if there are scopes.
        """
        id = self._history.id_of(self._history.position + 1)
        full_json = None
        json = _with_id(id, encode(event))
        if 0 < self.max_event_bytes < len(json):
            full_json, json = json, _with_id(id, encode(truncate(event, self.max_event_bytes - len(id) - 8)))
        entry = Entry(id, keys(event) + origin_keys, None, json, time.monotonic(), full_json)
        self._append(entry, self._index.find(entry.keys))

    def gap(self, reason: messages.GapReason, lost: int | None = None, cluster: str | None = None) -> None:
        """Report to every subscriber that events were, or may have been, lost at this position.

        Args:
            lost: how many, where that is known.
            cluster: the broker of the lost events, if brokers have names.
        """
        self.broadcast(lambda id: messages.gap_message(id, reason, lost, cluster))

    def broadcast(self, message_at: Callable[[bytes], messages.ControlMessage]) -> None:
        """Append a control message to the stream of every subscriber.

        Args:
            message_at: makes it, given its id.
        """
        id = self._history.id_of(self._history.position + 1)
        message = message_at(id)
        self._append(Entry(id, (), message.type, message.json, time.monotonic()), self._cohorts.values())

    def subscribe(
        self,
        filter: Matcher,
        framing: Framing,
        last_event_id: str | None = None,
        since: float | None = None,
        initial_snapshot: Callable[[], InitialSnapshot] | None = None,
        *,
        snapshot_when_resumed: bool = False,
        client: str = "",
        replaces: Subscription | None = None,
    ) -> Subscription:
        """Return a subscription that begins here and now, or earlier where the history allows.

        Args:
            filter: hashable; subscriptions with equal filters share their work.
            framing: how the events are written.
            last_event_id: the id of the last message that the client got: resume after it. If the id is not
                one of this log, or entries after it are evicted, the stream begins with ``reset`` and a
                ``gateway-gap``.
            since: begin with the entries appended at this time or later (epoch seconds, see
                ``history.Moment``), unless ``last_event_id`` can be resumed from. 0: all entries in the
                history.
            initial_snapshot: makes the initial snapshot of a stream that is not resumed.
            snapshot_when_resumed: a resumed stream has it, too.
            client: the address of the client or the name of its principal, to charge it.
            replaces: the caller will close this subscription of the client. The new one has its place.

        Raises:
            OverLimit: the limits do not allow it now.
        """
        resume, position, gap_reason = self._beginning(last_event_id, since)
        has_snapshot = resume != "resumed" or snapshot_when_resumed
        with self._replaced(replaces):
            place = self.limits.quotas.find(client).reserve("streams")
            snapshot = None
            try:
                if initial_snapshot is not None and has_snapshot:
                    snapshot = initial_snapshot()
                subscription = self._open(filter, framing, resume, position, snapshot, client)
            except BaseException:
                place.release()
                if snapshot is not None:
                    snapshot.close()
                raise
        self._subscriptions[subscription] = place
        if gap_reason is not None:
            subscription.send(messages.gap_message(subscription.id, gap_reason, None))
        if self._is_closed:
            subscription.end("drain")
        return subscription

    def _open(
        self,
        filter: Matcher,
        framing: Framing,
        resume: messages.Resume,
        position: int,
        snapshot: InitialSnapshot | None,
        client: str,
    ) -> Subscription:
        cohort = self._cohort(filter, framing, client)
        try:
            return Subscription(
                cohort,
                self._on_close,
                resume,
                position,
                snapshot,
                scheduler=self.scheduler,
                limits=self.limits,
                client=client,
            )
        except OverLimit:
            self._remove_if_empty(cohort)
            raise

    def _replaced(self, subscription: Subscription | None) -> AbstractContextManager[None]:
        place = None if subscription is None else self._subscriptions.get(subscription)
        return nullcontext() if place is None else place.replaced()

    def refilter(self, subscription: Subscription, filter: Matcher) -> None:
        """Replace the filter of a subscription at its position, and send ``gateway-filter``.

        Raises:
            OverLimit: the limits do not allow the new filter now; the old one stays.
        """
        if subscription.is_ended:
            return
        old = subscription.cohort
        subscription.move(self._cohort(filter, old.framing, subscription.client))
        self._remove_if_empty(old)

    @property
    def position(self) -> int:
        """The position of the last flush."""
        return self._flushed

    def position_of(self, id: str) -> int | None:
        """Return the position of an id; ``None`` if the id is not one of this log."""
        return self._history.position_of(id)

    def entry(self, id: str) -> Entry | None:
        """Return the event with this id; its ``full_json`` is not truncated.

        Returns:
            ``None`` if there is no event with this id in this log.

        Raises:
            Evicted: the event was evicted.
        """
        position = self._history.position_of(id)
        if not position:
            return None
        entry = self._history.entry(position)
        return entry if entry.control_type is None else None

    def flush(self) -> int:
        """Write all entries for the live subscriptions now; return the position, that of the newest entry."""
        self._flush()
        return self._flushed

    def id_of(self, position: int) -> bytes:
        """Return the id of a position."""
        return self._history.id_of(position)

    @property
    def id(self) -> bytes:
        """The id of the newest entry."""
        return self._history.id_of(self._history.position)

    def after_flush(self, call: Callable[[], None]) -> None:
        """Call a function once everything that was appended so far has been flushed."""
        self._after_flush.append(call)
        self._timer.schedule()

    def close(self) -> None:
        """Flush, then end every stream with the reason ``drain``. May be called again."""
        self._is_closed = True
        self._flush()
        for subscription in tuple(self._subscriptions):
            subscription.end("drain")

    def _beginning(
        self, last_event_id: str | None, since: float | None
    ) -> tuple[messages.Resume, int, messages.GapReason | None]:
        """Return how a new stream begins: its ``resume`` value, its position, and the reason of a gap."""
        history = self._history
        resume: messages.Resume = "live"
        gap_reason: messages.GapReason | None = None
        if last_event_id is not None:
            position = history.position_of(last_event_id)
            if position is not None and position > self._flushed:
                self._flush()  # the client has the id from a lookup, and it was not flushed yet
            if position is not None and position >= history.evicted:
                return "resumed", min(position, self._flushed), None
            resume, gap_reason = "reset", "unknown-id" if position is None else "evicted"
        if since is None:
            return resume, self._flushed, gap_reason
        position = min(history.position_since(since, time.monotonic(), time.time()), self._flushed)
        if gap_reason is None:
            resume = "resumed"
            # 0 asks for the oldest entry there is. With a time, an evicted entry may have been younger than
            # that.
            if since and position == history.evicted > 0:
                gap_reason = "evicted"
        return resume, position, gap_reason

    def _cohort(self, filter: Matcher, framing: Framing, client: str) -> Cohort:
        key = filter, framing
        cohort = self._cohorts.get(key)
        if cohort is None:
            # Charged to the first client as long as the cohort exists, even after that client has left: the
            # other clients share its work and add nothing to the cost.
            cost = self.limits.filters.reserve(client)
            cost.grow(filter.cost + framing.cost)
            cohort = self._cohorts[key] = Cohort(self._history, filter, framing, lambda: self._flushed, cost)
            self._index.add(filter, cohort)
            begin = max(self._flushed, self._history.evicted)
            for entry in self._history.after(begin, self._history.position - begin):
                if entry.control_type is not None or filter.matches(entry.keys):
                    cohort.entries.append(entry)
                    self._dirty[cohort] = None
        return cohort

    def _on_close(self, subscription: Subscription) -> None:
        place = self._subscriptions.pop(subscription, None)
        if place is not None:
            place.release()
        self._remove_if_empty(subscription.cohort)

    def _remove_if_empty(self, cohort: Cohort) -> None:
        if not cohort.size and self._cohorts.get((cohort.filter, cohort.framing)) is cohort:
            del self._cohorts[cohort.filter, cohort.framing]
            self._index.remove(cohort.filter, cohort)
            self._dirty.pop(cohort, None)
            cohort.cost.release()

    def _append(self, entry: Entry, cohorts: Iterable[Cohort]) -> None:
        self._history.append(entry, time.time())
        if self._is_closed:
            return
        for cohort in cohorts:
            cohort.entries.append(entry)
            self._dirty[cohort] = None
        self._unflushed_bytes += entry.size_bytes
        if self._unflushed_bytes > self._max_unflushed_bytes:
            self._flush()  # before entries are evicted that were not written yet
        elif not self._timer.is_scheduled:
            self._timer.schedule()

    def _flush(self) -> None:
        self._timer.start()
        loop = asyncio.get_running_loop()
        self._flushed = self._history.position
        self._unflushed_bytes = 0
        dirty, self._dirty = self._dirty, {}
        for cohort in dirty:
            cohort.flush(loop.time())
        calls, self._after_flush = self._after_flush, []
        for call in calls:
            loop.call_soon(call)  # not at once: the caller of this flush is not done
        self._timer.stop(loop.time())
