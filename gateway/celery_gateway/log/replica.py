"""One gateway's part in a shared log: it reads everything, and leads if no other gateway does.

Rules:

- The log decides who leads. A gateway that has read nothing from the leader for a while appends a claim
  (``election``); the last claim in the log counts, for every reader (``order``).
- A leader writes at least once in ``HEARTBEAT_TICKS``.
- A gateway is warm once it has read its own ``seen`` message: it has then read everything before that.
- What a leader has processed is in its tables before it is in the log. If another gateway leads in the
  meantime, these tables are wrong: ``Restart`` tells the caller to begin again with empty ones.

States of a gateway::

    cold --own "seen" read--> following --silence, or the leader resigned--> claiming
    claiming --own claim read--> leading       claiming --another claim read--> following
    leading --another claim read--> following, or Restart if something is not read back
"""

import asyncio
import logging
import time
from collections.abc import Callable

from celery_gateway.log.batch import Head, NewerFormat, Reached, decode, encode
from celery_gateway.log.election import TICK_SECONDS, Election
from celery_gateway.log.engine import FIRST, Engine, LogError, LogGone, Stored
from celery_gateway.log.follower import Follower, Restart
from celery_gateway.log.foreign import ForeignMessages
from celery_gateway.log.markers import Markers
from celery_gateway.log.order import Forked, Order
from celery_gateway.log.outage import Outage
from celery_gateway.log.peers import Peers
from celery_gateway.log.search import find_start
from celery_gateway.log.timers import Timers
from celery_gateway.log.writer import Writer

HEARTBEAT_TICKS = 4
"""After so many ticks without a batch a leader writes an empty one: 1 s."""
SETTLE_SECONDS = 0.05
"""A new leader waits so long for a claim that followed its own, before it begins."""
SEEN_SECONDS = 10.0
"""The interval at which a gateway that does not lead writes how far it has read."""
READ_BACK_SECONDS = 10.0
"""Batches that were not read back in this time are sent again."""
MISSING_SECONDS = 30.0
"""A hole in the log that is not filled in this time was made by retention."""
STALLED_SECONDS = 6.0
"""If nothing is read for this time, the server of the log takes no messages."""
WARM_ENTRIES = 500_000

log = logging.getLogger(__name__)


class Replica:
    """A replica: ``run`` it, and ``resign`` in the end.

    Args:
        engine: the log.
        name: that of this gateway, unique among all.
        follower: gets the entries.
        reached: how far the sources were processed, if an earlier log had that.
        warm_entries: how many entries are read at the start at most.
        wall: returns the present in epoch seconds.

    Attributes:
        order: what was read.
        writer: for the leader.
        is_leading: whether this gateway leads, and has begun to.
        is_warm: see ``on_warm``.
        peers: the other gateways that do not lead.
        foreign: the messages that no gateway has written.
        goal: the position of the last entry at the start; 0 if it is not known.
        outage: whether the log can be reached.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        follower: Follower,
        *,
        reached: dict[str, Reached] | None = None,
        warm_entries: int = WARM_ENTRIES,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.order = Order()
        self.order.reached = dict(reached or {})
        self.writer = Writer(engine, name)
        self.is_leading = self.is_warm = False
        self.peers = Peers()
        self.goal = 0
        self.outage = Outage(engine.place, follower.on_connection)
        self.claims = 0
        self.offset = FIRST
        self._engine = engine
        self._follower = follower
        self._warm_entries = warm_entries
        self._wall = wall
        self._is_tailing = False
        self.foreign = ForeignMessages()
        self._election = Election()
        self._idle_ticks = self._batches = 0
        self._markers = Markers(self._append_seen)
        self._first_marker = 0  # of the present connection
        self._missing_since: float | None = None
        self._started_at = self._seen_at = self._read_back_at = self._batch_at = 0.0
        self._failure: Exception | None = None
        self._tail: asyncio.Task[None] | None = None
        self._timers = Timers()

    async def run(self) -> None:
        """Follow the log, and lead, until cancelled.

        Raises:
            Restart: see there.
        """
        self._started_at = _now()
        try:
            while True:
                try:
                    await self._follow()
                except LogGone as error:
                    await self._engine.close()
                    raise Restart(str(error), self.order.reached) from None
                except Restart:
                    raise
                except Exception as error:
                    self.writer.on_disconnect()
                    await asyncio.sleep(self.outage.on_error(error))
        finally:
            self._timers.stop()
            await self._engine.close()

    def resign(self) -> None:
        """Claim no more; if this gateway leads, write that it does not any more, so that another one can."""
        self._election.end()
        self._timers.stop()
        if self.is_leading:
            self._leave()

    def step_down(self) -> None:
        """Let another gateway lead, unless something is not read back; claim only if none does."""
        if self.is_leading and not self.writer.has_unread:
            self._election.wait(_now())
            self._leave()
            self._follower.on_follow()

    def _leave(self) -> None:
        self.writer.flush(self._wall(), force=True)
        self._append("resign")
        self.is_leading = False
        self.writer.end()

    async def catch_up(self) -> None:
        """Return once everything was read that is in the log now.

        Raises:
            LogError: that takes too long, or the log cannot be reached.
        """
        if self.outage.reason:
            raise LogError(self.outage.reason)
        await self._markers.catch_up()

    async def _follow(self) -> None:
        await self._engine.open()
        if self.order.position is None:
            self.offset, self.goal = await find_start(self._engine, self._warm_entries)
        tail = asyncio.ensure_future(self._engine.tail(self.offset, self._on_message))
        self._tail = tail
        self._is_tailing = True
        self._missing_since = None
        self._election.begin()
        self._read_back_at = self._batch_at = _now()
        self.writer.resend()
        self._first_marker = self._markers.write()
        self._timers.call_later(TICK_SECONDS, self._tick)
        try:
            await asyncio.wait({tail})
        finally:
            self._is_tailing = False
            self._timers.stop()
            await _ended(tail)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        tail.result()
        raise LogError("reading the log has ended")

    # ---- reading

    def _on_message(self, stored: Stored) -> None:
        if self._failure is not None:
            return
        try:
            self._process(stored)
        except Exception as error:
            self._fail(error)

    def _process(self, stored: Stored) -> None:
        try:
            batch = decode(stored.data)
        except NewerFormat as error:
            raise LogError(str(error)) from None  # it is read again until it can be, or the log is deleted
        except ValueError as error:
            self.offset = stored.offset + 1
            self.foreign.skip(stored.offset, error)
            return
        self.offset = stored.offset + 1
        head, order = batch.head, self.order
        before = order.position
        try:
            counts = order.on_batch(batch)
        except Forked as error:
            raise Restart(str(error)) from None
        if head.kind == "claim":
            self._on_claim(head)
        elif head.kind == "seen":
            self._on_seen(head)
        elif head.kind == "batch" and head.term == order.term:
            self._election.on_leader()
            self.outage.on_batch()
            self.peers.on_batch(head)
            if before is None:
                self._follower.on_begin(head.first - 1, order.terms)
        if counts:
            self._missing_since = None
            self._read_back_at = self._batch_at = _now()
            is_own = bool(self.writer.term) and head.term == self.writer.term
            if is_own:
                self.writer.on_read(head.first, len(batch.lines))
            self._follower.on_batch(batch, is_own=is_own)
            if is_own:
                self.writer.flush(self._wall())
        elif head.kind == "batch" and head.term == order.term and head.first > (order.position or 0) + 1:
            self._missing_since = self._missing_since or _now()

    def _on_claim(self, head: Head) -> None:
        if self.order.position is None and head.gateway == self.name:
            self.order.begin_empty()
            self._follower.on_begin(0, self.order.terms)
        elif self.order.position is not None:
            self._follower.on_term(head.term)
        if self.writer.term:
            self._stop_leading(head.gateway)
        if self._election.on_claim(head.term):
            self._timers.call_later(SETTLE_SECONDS, lambda: self._lead(head.term))

    def _on_seen(self, head: Head) -> None:
        if head.gateway != self.name:
            self.peers.on_seen(head)
            return
        if head.number >= self._first_marker:
            self.outage.on_connected()
        self._markers.on_read(head.number)
        if not self.is_warm:
            self.is_warm = True
            seconds = _now() - self._started_at
            log.info("log: read up to entry %d in %.1f s", self.order.position or 0, seconds)
            self._follower.on_warm()

    # ---- leading

    def _lead(self, term: str) -> None:
        if self.order.term != term or not self._is_tailing:
            return
        self.claims += 1
        log.info("log: this gateway (%s) leads, from entry %d on", self.name, (self.order.position or 0) + 1)
        self.writer.begin(self.order)
        self.is_leading = True
        self.writer.flush(self._wall(), force=True)
        self._follower.on_lead()

    def _stop_leading(self, leader: str) -> None:
        has_unread = self.writer.has_unread
        self.is_leading = False
        self.writer.end()
        self._follower.on_follow()
        log.warning("log: %s leads now", leader)
        if has_unread:
            raise Restart("another gateway leads, and has not got what this one had processed")

    # ---- time

    def _tick(self) -> None:
        self._timers.call_later(TICK_SECONDS, self._tick)
        now = _now()
        if self._missing_since is not None and now - self._missing_since > MISSING_SECONDS:
            self._fail(Restart("the log has lost entries that this gateway has not read"))
        is_waiting = self.writer.is_waiting if self.is_leading else self.is_warm
        if is_waiting and now - self._batch_at > STALLED_SECONDS:
            self.outage.on_stalled()
        if self.is_leading:
            self._beat(now)
            return
        if self.is_warm and now - self._seen_at > SEEN_SECONDS:
            self._markers.write()
        if self.is_warm and (seconds := self._election.on_tick(self.order.leader, now)) is not None:
            self._timers.call_later(seconds, self._claim)

    def _beat(self, now: float) -> None:
        """Show that this gateway is alive; send again what was not read back."""
        if now - self._read_back_at > READ_BACK_SECONDS:
            self._read_back_at = now
            self.writer.resend()
        self._idle_ticks = self._idle_ticks + 1 if self.writer.batches == self._batches else 0
        if self._idle_ticks >= HEARTBEAT_TICKS:
            self.writer.flush(self._wall(), force=True)
            self._idle_ticks = 0
        self._batches = self.writer.batches

    def _claim(self) -> None:
        if self._is_tailing and (term := self._election.claim(self.order.leader)):
            self._append("claim", term)

    def _append_seen(self, number: int) -> None:
        self._seen_at = _now()
        self._append("seen", number=number)

    def _append(self, kind: str, term: str | None = None, number: int = 0) -> None:
        term = self.order.term if term is None else term
        head = Head(kind, term, self.name, self._wall(), first=self.order.position or 0, number=number)
        try:
            self._engine.append(encode(head))
        except LogError:
            log.debug("log: a message could not be sent", exc_info=True)  # ``tail`` ends, too

    def _fail(self, error: Exception) -> None:
        self._failure = error
        if self._tail is not None:
            self._tail.cancel()


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended: a client library may swallow a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
    if not task.cancelled():
        task.exception()  # so that it does not count as forgotten


def _now() -> float:
    return asyncio.get_running_loop().time()
