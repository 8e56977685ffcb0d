"""Replication: the pipeline's stage between its tables and its hub, if there is a shared log.

Rules:

- An event that this gateway has joined goes into the log first. It goes on to the hub when it is read back:
  what a client has got is in the log, and no other gateway can give it another id.
- An event that another gateway has joined is applied to the tables as it was before the join, and goes on to
  the hub. So each gateway has the same stream, byte for byte, and the same state.
- An event that waits for the name of its task is in the log, too: a new leader goes on with it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from celery_gateway.broker.source import Status
from celery_gateway.events.event import Event, Keys, decode_object, encode, keys
from celery_gateway.log.batch import Batch, Line, Reached
from celery_gateway.log.engine import Engine
from celery_gateway.log.order import held_of
from celery_gateway.log.replica import WARM_ENTRIES, Replica
from celery_gateway.pipeline.clock import Clock
from celery_gateway.pipeline.following import Following
from celery_gateway.pipeline.log_statistics import LogStatistics
from celery_gateway.state.replicated_table import ReplicatedTaskTable
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.completion import Completions
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.lines import origin_of
from celery_gateway.stream.log_entries import LogEntries
from celery_gateway.stream.messages import ControlMessage

RESIGN_SECONDS = 1.0
"""How long a gateway that stops waits for the log to have what it has processed."""

_NO_ID = b',"id":""}'

log = logging.getLogger(__name__)


class Sources(Protocol):
    """The sources of a pipeline: they run at the gateway that leads."""

    def start_sources(self, reached: Mapping[str, Reached]) -> None:
        """Read the sources from where the last leader has ended."""

    def stop_sources(self) -> None:
        """Stop reading them."""

    def process_waiting(self, event: Event, number: int) -> None:
        """Process an event that has waited at the last leader, under a number."""

    def on_log_status(self) -> None:
        """Tell the clients of this gateway that the log can be reached, or cannot."""


class _Pending(NamedTuple):
    """An entry that is not read back yet."""

    json: bytes
    keys: Keys
    control_type: str | None
    event: Event | None
    origin: Keys


class Replication:
    """The stage; ``run`` it.

    Args:
        engine: the log.
        name: that of this gateway, unique among all.
        uncounted: the clusters in which the silence of workers does not count while no gateway leads; empty
            only if there is one broker, which keeps messages: then their arrival is the time of the state.
        reached: how far the sources were processed, if an earlier log had that.
        warm_entries: how many entries are read at the start at most.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        tasks: ReplicatedTaskTable,
        workers: WorkerTable,
        hub: Hub,
        completions: Completions,
        clock: Clock,
        *,
        uncounted: Sequence[str | None] = (),
        reached: dict[str, Reached] | None = None,
        warm_entries: int = WARM_ENTRIES,
    ) -> None:
        self.replica = Replica(
            engine, name, self, reached=reached, warm_entries=warm_entries, wall=clock.wall
        )
        self._older = LogEntries(engine, hub.history, keeps_origins=True, max_event_bytes=hub.max_event_bytes)
        hub.use_log(self._older, self.replica.catch_up)
        self._following = Following(tasks, workers, hub, completions, clock, by_arrival=not uncounted)
        self._engine = engine
        self._tasks = tasks
        self._workers = workers
        self._hub = hub
        self._completions = completions
        self._clock = clock
        self._uncounted = uncounted
        self._pipeline: Sources | None = None
        self._pending: deque[_Pending] = deque()
        self._own: dict[int, tuple[int, int]] = {}  # of events that are joined or wait, by ``id``
        self._flush_handle: asyncio.Handle | None = None
        self._read_back = asyncio.Event()  # everything is
        self._read_back.set()
        self._warm = asyncio.Event()
        self._is_closed = False

    @property
    def is_leading(self) -> bool:
        """Whether this gateway reads the sources."""
        return self.replica.is_leading and not self._is_closed

    @property
    def is_full(self) -> bool:
        """Whether the sources have to wait for the log."""
        return self.replica.writer.is_full

    def statistics(self) -> LogStatistics:
        """Return what is known of the log."""
        replica, order = self.replica, self.replica.order
        return LogStatistics(
            place=self._engine.place,
            name=replica.name,
            leader=order.leader,
            is_leading=replica.is_leading,
            is_warm=replica.is_warm,
            reason=replica.outage.reason,
            position=order.position or 0,
            goal=replica.goal,
            unread=len(self._pending),
            at=order.at,
            claims=replica.claims,
            written_bytes=order.written_bytes,
            silent_seconds=max(0.0, self._clock.wall() - order.at) if order.at else 0.0,
            older=self._older.statistics(),
            peers=replica.peers.by_name,
        )

    async def run(self, pipeline: Sources) -> None:
        """Follow the log, and lead if no other gateway does, until cancelled.

        Raises:
            Restart: begin again, with empty tables.
        """
        self._pipeline = pipeline
        await self.replica.run()

    async def resign(self) -> None:
        """Leave the lead to another gateway, once the log has what was processed.

        What is read from then on is not processed.
        """
        if self.is_leading:
            self.replica.writer.flush(self._clock.wall(), force=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(RESIGN_SECONDS):
                    await self._read_back.wait()
        self._is_closed = True
        self._older.close()
        self.replica.resign()

    @property
    def is_warm(self) -> bool:
        """Whether the tables were read from the log, and the log has begun."""
        return self.replica.is_warm and self.replica.order.position is not None

    async def wait_until_warm(self, seconds: float) -> None:
        """Wait until the tables were read from the log, for some seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._warm.wait()

    async def read_back(self) -> None:
        """Wait until everything that was appended until now is in the log."""
        await self._read_back.wait()

    def page_secret(self) -> str:
        """Return the secret of the page tokens; ``""`` while it is not known."""
        return self.replica.order.secret

    @property
    def last_at(self) -> float:
        """When the last batch was written, in epoch seconds; the present if there is none."""
        return self.replica.order.at or self._clock.wall()

    @property
    def has_entries(self) -> bool:
        """Whether there is an entry in the log, or was."""
        return bool(self.replica.order.position)

    def statuses(self, clusters: Sequence[str | None]) -> dict[str | None, Status] | None:
        """Return the statuses of the sources; ``None`` if this gateway reads them itself."""
        if self.replica.is_leading and not self.replica.outage.reason:
            return None
        return self._following.statuses(self.replica, clusters)

    def since(self, cluster: str | None) -> float | None:
        """Return when the status of a source began, in epoch seconds; ``None`` if this gateway reads it."""
        if self.replica.is_leading and not self.replica.outage.reason:
            return None
        return self._following.since(self.replica, cluster)

    def step_down(self) -> None:
        """Leave the lead to another gateway, if there is one."""
        if self.replica.peers.by_name:
            self.replica.step_down()

    async def catch_up(self) -> None:
        """Return once everything was read that is in the log now; see ``Replica.catch_up``."""
        await self.replica.catch_up()

    # ---- from the tables

    def before_join(self, event: Event, number: int = 0) -> None:
        """Record which fields an event has before it is joined.

        Args:
            number: that of an event which waits already.
        """
        self._own[id(event)] = len(event), number

    def after_join(self, event: Event) -> None:
        """Write an event into the log that was not joined, because it waits."""
        own, number = self._own.get(id(event), (0, 0))
        if own and not number:
            self._own[id(event)] = own, self.replica.writer.hold(encode(event))

    def on_failed_join(self, event: Event) -> None:
        """Forget an event that could not be joined."""
        self._own.pop(id(event), None)

    def append(self, event: Event, origin: Keys) -> None:
        """Append a joined event. (``output.Output``)"""
        own, number = self._own.pop(id(event), (-1, 0))
        self._tasks.set_number(event, self.replica.writer.position + 1)
        event_keys = keys(event)
        differs = origin != origin_of(event_keys)
        json = encode(event)
        self._pending.append(_Pending(json, event_keys + origin, None, event, origin))
        self._add(Line(json, own, self._tasks.arrived or 0.0, number, origin if differs else None))

    def broadcast(self, message_at: Callable[[bytes], ControlMessage]) -> None:
        """Append a control message. (``output.Output``)"""
        message = message_at(b"")
        assert message.json.endswith(_NO_ID)
        json = message.json[: -len(_NO_ID)] + b"}"
        if message.type == "gateway-status":
            self.replica.writer.sources = decode_object(json)["sources"]
        self._pending.append(_Pending(json, (), message.type, None, ()))
        self._add(Line(json, 0, self._clock.time()))

    def on_processed(self, cluster: str | None, reached: Reached | None) -> None:
        """Record that a message, or a part of it, was processed: what it has led to goes into one batch.

        Args:
            reached: how far the source was processed; ``None`` if its broker keeps no messages.
        """
        writer = self.replica.writer
        if reached is not None:
            writer.reached[cluster or ""] = reached
        if writer.is_due:
            writer.flush(self._clock.wall())
        else:
            self._schedule_flush()

    def _add(self, line: Line) -> None:
        writer = self.replica.writer
        self._read_back.clear()
        writer.add(line)
        self._hub.written = writer.position
        self._schedule_flush()

    def _schedule_flush(self) -> None:
        if self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_handle = None
        if self.replica.is_leading:
            self.replica.writer.flush(self._clock.wall())

    # ---- from the log (log.replica.Follower)

    def on_begin(self, position: int, terms: list[tuple[str, int]]) -> None:
        self._hub.begin(position, terms)

    def on_term(self, term: str) -> None:
        self._hub.begin_term(term)
        self._clock.set_back_to(self.last_at)
        for cluster in self._uncounted:  # since the last sign of the last leader
            self._workers.on_disconnect(cluster, self._clock.now())

    def on_batch(self, batch: Batch, *, is_own: bool) -> None:
        if self._is_closed:
            return
        at = batch.head.at
        if batch.head.terms:
            self._hub.set_terms(self.replica.order.terms)
        if batch.lines:
            self._older.remember(batch.head.first, self.replica.offset - 1, at)
        if is_own:
            for _ in batch.lines:
                entry = self._pending.popleft()
                self._hub.commit(entry.json, entry.keys, entry.control_type, at)
                if entry.event is not None:
                    self._completions.on_event(entry.event, entry.origin)
            if not self._pending:
                self._read_back.set()
            return
        self._following.on_batch(batch)

    def on_warm(self) -> None:
        self._clock.set_to_present()
        self._warm.set()

    def on_lead(self) -> None:
        assert self._pipeline is not None
        order = self.replica.order
        self._own.clear()
        self._hub.written = self.replica.writer.position
        self._pipeline.start_sources(order.reached)
        for each in held_of(order):
            self._pipeline.process_waiting(decode_object(each.json), each.number)

    def on_follow(self) -> None:
        assert self._pipeline is not None
        self._pipeline.stop_sources()
        self._tasks.drop_waiting()
        self._own.clear()
        self._hub.written = 0

    def on_connection(self, reason: str) -> None:
        self._following.changed_at = self._clock.wall()
        if self._pipeline is not None:
            self._pipeline.on_log_status()
