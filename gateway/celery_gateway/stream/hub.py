"""The hub: events in, subscriptions out. It depends on no broker and on no transport.

Rules:

- How entries become bytes for subscriptions: see ``fan_out``.
- The *position* of the hub is that of the last flush. A subscription that begins, begins there or earlier.
- Without a shared log, ``append`` makes the entries, and the history is all there is. With one, ``begin`` and
  ``commit`` take what was read from it, and what the history has evicted is read from it again.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from celery_gateway.access.quota import Place
from celery_gateway.errors import OverLimit
from celery_gateway.events.event import Event, Keys, encode, keys
from celery_gateway.events.matcher import Matcher
from celery_gateway.events.truncate import truncate
from celery_gateway.stream import messages
from celery_gateway.stream.audience import is_for, shows_task
from celery_gateway.stream.beginnings import Beginnings
from celery_gateway.stream.catch_up import CatchUpScheduler
from celery_gateway.stream.cursor import Framing
from celery_gateway.stream.fan_out import FanOut
from celery_gateway.stream.history import Entry
from celery_gateway.stream.hub_statistics import HubStatistics
from celery_gateway.stream.initial_snapshot import InitialSnapshot
from celery_gateway.stream.limits import Limits
from celery_gateway.stream.lines import committed_entry, with_id
from celery_gateway.stream.older import OlderEntries
from celery_gateway.stream.stream_rate import StreamRate
from celery_gateway.stream.subscription import Subscription


class Hub(FanOut):
    """Fans events out to subscriptions. All calls belong to one running event loop.

    Args:
        history_bytes: how much of the stream is kept for subscriptions that lag or resume.
        max_event_bytes: maximum size of an event on a stream; a larger one is truncated. 0: no limit.
        limits: what streams and their filters are charged to; by default limits of its own.

    Attributes:
        scheduler: gives turns to the subscriptions that lag.
    """

    def __init__(
        self, *, history_bytes: int = 64 << 20, max_event_bytes: int = 0, limits: Limits | None = None
    ) -> None:
        super().__init__(history_bytes, limits or Limits())
        self.max_event_bytes = max_event_bytes
        self.scheduler = CatchUpScheduler()
        self._subscriptions: dict[Subscription, Place] = {}
        self._beginnings = Beginnings(self.history)
        self._ahead_seconds = 0.0  # by how much the wall clock was ahead of the monotonic clock at ``begin``
        self._appended_at = float("-inf")  # of the newest committed entry

    def statistics(self) -> HubStatistics:
        """Return the hub's counts."""
        return HubStatistics(
            events=self.history.position,
            evicted=self.history.evicted,
            history_bytes=self.history.size_bytes,
            subscriptions=len(self._subscriptions),
            cohorts=len(self._cohorts),
        )

    def append(self, event: Event, origin_keys: Keys = ()) -> None:
        """Append an event to the stream: it gets the next position, and goes to all subscriptions that match
        it.

        Args:
            origin_keys: the values of ``ORIGIN_FIELDS`` of its task; required if there are scopes.
        """
        history = self.history
        id = history.id_of(history.position + 1)
        full_json = None
        json = with_id(id, encode(event))
        if 0 < self.max_event_bytes < len(json):
            full_json, json = json, with_id(id, encode(truncate(event, self.max_event_bytes - len(id) - 8)))
        entry = Entry(id, keys(event) + origin_keys, None, json, time.monotonic(), full_json)
        self._append(entry, self._index.find(entry.keys), time.time())

    def use_log(self, older: OlderEntries, catch_up: Callable[[], Awaitable[None]] | None = None) -> None:
        """Read what the history has evicted from a shared log, from now on. Before ``begin``.

        Args:
            catch_up: see ``Beginnings``.
        """
        self.history.older = older
        self._beginnings.catch_up = catch_up

    def begin(self, position: int, terms: Sequence[tuple[str, int]]) -> None:
        """Begin in a shared log, after a position; then ``commit`` the entries that follow.

        Streams that are open already end with the reason ``drain``.

        Args:
            terms: those that are known, see ``Terms``.
        """
        for subscription in tuple(self._subscriptions):
            subscription.end("drain")
        self._begin(position, terms)
        self._ahead_seconds = time.time() - time.monotonic()
        self._appended_at = float("-inf")

    def begin_term(self, term: str) -> None:
        """Begin a term with the next entry."""
        self.history.begin_term(term)

    def set_terms(self, terms: Sequence[tuple[str, int]]) -> None:
        """Replace the known terms by those that the log has: older ones have become known."""
        self.history.set_terms(terms)

    def commit(self, json: bytes, keys: Keys, control_type: str | None, at: float) -> None:
        """Append an entry that was read from a shared log, at the next position.

        Args:
            json: the object, encoded, without its id.
            keys: those of ``lines.line_keys``.
            control_type: the type of a control message; ``None`` for an event.
            at: when it was written, in epoch seconds.
        """
        id = self.history.id_of(self.history.position + 1)
        # Clocks differ between gateways: the monotonic time must not go back.
        self._appended_at = max(self._appended_at, at - self._ahead_seconds)
        entry = committed_entry(id, json, keys, control_type, self._appended_at, self.max_event_bytes)
        cohorts = self._index.find(keys) if control_type is None else self._cohorts.values()
        self._append(entry, cohorts, at)

    def broadcast(self, message_at: Callable[[bytes], messages.ControlMessage], keys: Keys = ()) -> None:
        """Append a control message to the stream of every subscriber.

        Args:
            message_at: makes it, given its id.
            keys: those of a task: only streams that show the task get it.
        """
        id = self.history.id_of(self.history.position + 1)
        message = message_at(id)
        entry = Entry(id, keys, message.type, message.json, time.monotonic())
        cohorts = [each for each in self._cohorts.values() if is_for(entry, each.filter)]
        self._append(entry, cohorts, time.time())

    def broadcast_local(
        self, message_at: Callable[[bytes], messages.ControlMessage], keys: Keys = ()
    ) -> None:
        """Send a control message about this gateway to the open streams. It is not in the history.

        Args:
            message_at: makes it, given the id up to which a client got everything.
            keys: as for ``broadcast``.
        """
        for subscription in tuple(self._subscriptions):
            if not keys or shows_task(subscription.cohort.filter, keys):
                subscription.send(message_at(subscription.id))

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
        since_position: int | None = None,
        max_rate: int | None = None,
    ) -> Subscription:
        """Return a subscription that begins here and now, or earlier where the history or the log allows.

        With a shared log, await ``find_beginning`` first.

        Args:
            filter: hashable; subscriptions with equal filters share their work.
            framing: how the events are written.
            last_event_id: the id of the last message that the client got: resume after it. If the id is not
                one of this log, or entries after it are gone, the stream begins with ``reset`` and a
                ``gateway-gap``.
            since: begin with the entries appended at this time or later (epoch seconds, see
                ``history.Moment``), unless ``last_event_id`` can be resumed from. 0: all entries in the
                history.
            initial_snapshot: makes the initial snapshot of a stream that is not resumed.
            snapshot_when_resumed: a resumed stream has it, too.
            client: the address of the client or the name of its principal, to charge it.
            replaces: the caller will close this subscription of the client. The new one has its place.
            since_position: the result of ``find_beginning``.
            max_rate: see ``stream_rate``; ``None``: all events.

        Raises:
            OverLimit: the limits do not allow it now.
        """
        rate = None if max_rate is None else StreamRate(max_rate)
        resume, position, gap_reason = self._beginning(last_event_id, since, since_position)
        has_snapshot = resume != "resumed" or snapshot_when_resumed
        with self._replaced(replaces):
            place = self.limits.quotas.find(client).reserve("streams")
            snapshot = None
            try:
                if initial_snapshot is not None and has_snapshot:
                    snapshot = initial_snapshot()
                subscription = self._open(filter, framing, resume, position, snapshot, client, rate)
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
        rate: StreamRate | None,
    ) -> Subscription:
        cohort = self._cohort(filter, framing, client, is_rated=rate is not None)
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
                rate=rate,
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
        cohort = self._cohort(filter, old.framing, subscription.client, is_rated=old.is_rated)
        subscription.move(cohort)
        self._remove_if_empty(old)

    def begins_at_once(self, last_event_id: str | None, since: float | None) -> bool:
        """Return whether a stream can begin without ``find_beginning``, as all do without a shared log."""
        return self.history.older is None or self._beginnings.is_at_once(last_event_id, since)

    async def find_beginning(
        self, last_event_id: str | None, since: float | None, client: str = ""
    ) -> int | None:
        """Wait until a stream can begin: for entries that another gateway has got first, and for the log.

        Args:
            last_event_id, since, client: see ``subscribe``.

        Returns:
            ``since_position`` for ``subscribe``.

        Raises:
            LogError: an id may be ahead of this gateway, which cannot read the log now.
        """
        older = self.history.older
        if older is None or self.begins_at_once(last_event_id, since):
            return None
        position = self._position_since(since)
        return await self._beginnings.position(older, last_event_id, since, position, client)

    async def find_entry(self, id: str, client: str = "") -> Entry | None:
        """Return the event with this id; its ``full_json`` is not truncated.

        Args:
            client: who asks.

        Returns:
            ``None`` if there is no event with this id in this log.

        Raises:
            Evicted: the event was evicted, and is not in the log either.
            LogError: the log cannot be read now.
        """
        entry = await self._beginnings.entry(id, client)
        return entry if entry is not None and entry.control_type is None else None

    def close(self) -> None:
        """Flush, then end every stream with the reason ``drain``. May be called again."""
        self._is_closed = True
        self._flush()
        for subscription in tuple(self._subscriptions):
            subscription.end("drain")

    def _beginning(
        self, last_event_id: str | None, since: float | None, since_position: int | None
    ) -> tuple[messages.Resume, int, messages.GapReason | None]:
        """Return how a new stream begins: its ``resume`` value, its position, and the reason of a gap."""
        history = self.history
        held_after = history.evicted if history.older is None else history.older.first_position
        resume: messages.Resume = "live"
        gap_reason: messages.GapReason | None = None
        if last_event_id is not None:
            position = history.position_of(last_event_id)
            if position is not None and position > self.position:
                self._flush()  # the client has the id from a lookup, and it was not flushed yet
            if position is not None and position >= min(history.evicted, held_after):
                return "resumed", min(position, self.position), None
            resume, gap_reason = "reset", "unknown-id" if position is None else "evicted"
        if since is None:
            return resume, self.position, gap_reason
        position, begin = self._position_since(since), history.evicted
        if since_position is not None:
            position, begin = since_position, min(begin, held_after)
        if gap_reason is None:
            resume = "resumed"
            # 0 asks for the oldest entry there is. With a time, an entry that is gone may have been younger
            # than that.
            if since and position == begin > 0:
                gap_reason = "evicted"
        return resume, position, gap_reason

    def _position_since(self, since: float | None) -> int:
        if since is None:
            return self.position
        return min(self.history.position_since(since, time.monotonic(), time.time()), self.position)

    def _on_close(self, subscription: Subscription) -> None:
        place = self._subscriptions.pop(subscription, None)
        if place is not None:
            place.release()
        self._remove_if_empty(subscription.cohort)
