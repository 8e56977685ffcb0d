"""Transport of the simulated cluster: true time, the clocks of hosts, connections, delays and losses.

True time is in seconds from 0; no process of the cluster can read it. An event bears the wall time of its
sender's host (``timestamp``) and its sender's counter (``clock``). It arrives at the gateway some time after
it was sent; arrival times are true times.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.support.simulated_worker import Process

Event = dict[str, Any]

EPOCH = 1_700_000_000.0
"""Wall time, epoch seconds, at true time 0 on a host whose clock is right."""
CLOCK_ERRORS = (0.0, 0.0, 0.03, -0.03, 3.0, -3.0, 7200.0, -7200.0)
"""Seconds by which a host's clock may be wrong."""
DELAY_SCALES = (0.002, 0.05, 0.3)
"""The longest delay of an event, in seconds. Each connection has one of these."""
PROMPT_SECONDS = 0.001
MAX_LATE_SECONDS = 2.0
"""How late a client's ``task-sent`` may be."""
LATE_SHARE, LOST_SHARE, DUPLICATE_SHARE = 0.15, 0.03, 0.05


@dataclass(frozen=True)
class Trouble:
    """The kinds of trouble that a history may have. Each can be switched off to narrow a failure down.

    Attributes:
        skew: clocks of hosts are wrong by up to 2 h.
        steps: clocks are set by up to 2 h in mid-life.
        restarts: workers are killed (SIGKILL) or stopped (SIGTERM), and most of them restart.
        same_pid: some of the restarted ones have the pid of the life before.
        reconnects: workers lose the broker for up to 2 s; tasks not begun are received again.
        redelivery: a message whose worker is gone is delivered again; if False it is dropped.
        reruns: an id is sent again after its run has ended.
        retries, replaces, rejects, revokes, ignores: ends of attempts other than success and failure.
        progress: custom ``task-progress`` events.
        threads: some workers have a pool of threads: custom events have the main process's pid and counter,
            but come by another connection.
        late: events of different processes overtake each other. If False all arrive in true order.
        races: the main process reports an end up to 0.3 s after its child sent the retry or the next link.
        sent_events: some clients and workers send ``task-sent``; if False none does.
        unreceived: some messages never reach a worker (expired, purged, no consumer).
        lost: each event is lost with a small probability. The truth is weaker then.
        duplicates: some events are delivered twice in immediate succession.
        rerun_seconds: the shortest pause between the end of a run and the next message with its id. All
            events of a run arrive within 3 s after its end.
    """

    skew: bool = True
    steps: bool = True
    restarts: bool = True
    same_pid: bool = True
    reconnects: bool = True
    redelivery: bool = True
    reruns: bool = True
    retries: bool = True
    replaces: bool = True
    rejects: bool = True
    revokes: bool = True
    ignores: bool = True
    progress: bool = True
    threads: bool = True
    late: bool = True
    races: bool = True
    sent_events: bool = True
    unreceived: bool = True
    lost: bool = False
    duplicates: bool = False
    rerun_seconds: float = 3.5


class Arrival(NamedTuple):
    """An event and the time when it arrives at the gateway, in seconds of a monotonic clock."""

    at: float
    event: Event


class Schedule:
    """The heap of what happens next. It ends when nothing is left but background work (heartbeats)."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, bool, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._foreground = 0

    def after(self, seconds: float, action: Callable[..., None], *args: object) -> None:
        """Call an action after some seconds of true time."""
        self._foreground += 1
        self._push(seconds, False, action, args)

    def background(self, seconds: float, action: Callable[..., None], *args: object) -> None:
        """Call an action after some seconds, if the simulation has not ended by then."""
        self._push(seconds, True, action, args)

    def run(self) -> None:
        heap = self._heap
        while self._foreground:
            self.now, _, is_background, action, args = heapq.heappop(heap)
            if not is_background:
                self._foreground -= 1
            action(*args)

    def _push(
        self, seconds: float, is_background: bool, action: Callable[..., None], args: tuple[Any, ...]
    ) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now + seconds, self._count, is_background, action, args))


class Host:
    """A machine and its clock, which is wrong by ``clock_error`` seconds."""

    __slots__ = ("name", "clock_error")

    def __init__(self, name: str, rng: Random, *, has_skew: bool) -> None:
        self.name = name
        self.clock_error = rng.choice(CLOCK_ERRORS) if has_skew else 0.0

    def step(self, rng: Random) -> None:
        """Set the clock, as NTP or an administrator does."""
        self.clock_error = rng.choice(CLOCK_ERRORS) * rng.random()


class Node:
    """The place of a worker: its processes live here one after the other, under one hostname.

    Attributes:
        limit: how many messages a process has at most (prefetch), without those that wait for their ``eta``.
        is_container: each process has the same pid.
        is_needed: it always restarts, so that no message waits forever.
    """

    def __init__(self, hostname: str, host: Host, rng: Random, trouble: Trouble, *, is_needed: bool) -> None:
        self.hostname = hostname
        self.host = host
        self.is_needed = is_needed
        self.concurrency = rng.randint(1, 4)
        self.limit = self.concurrency * (1 + rng.choice((1, 1, 4)))
        self.is_container = trouble.same_pid and rng.random() < 0.6
        self.has_threads = trouble.threads and rng.random() < 0.3
        self.sends_sent = trouble.sent_events and rng.random() < 0.6
        self.lives: list[Process] = []


class Counter:
    """A Lamport clock (kombu.clocks)."""

    __slots__ = ("value",)

    def __init__(self, value: int = 0) -> None:
        self.value = value


class Sender:
    """A process and its connection, on which events keep their order (FIFO).

    Attributes:
        hostname: the node name in its events.
        client_name: the node name in its ``task-sent`` events, ``gen<pid>@<host>``.
        sends_sent: its ``task_send_sent_event`` is set.
        last_at: when its last event arrives. No later event arrives before that.
    """

    __slots__ = ("hostname", "client_name", "pid", "host", "counter", "scale", "sends_sent", "last_at")

    def __init__(
        self, hostname: str, pid: int, host: Host, counter: Counter, scale: float, sends_sent: bool
    ) -> None:
        self.hostname = hostname
        self.client_name = f"gen{pid}@{host.name}"
        self.pid = pid
        self.host = host
        self.counter = counter
        self.scale = scale
        self.sends_sent = sends_sent
        self.last_at = 0.0

    def eta(self, at: float) -> str:
        """Return a true time as this process writes it, by its host's clock."""
        return datetime.fromtimestamp(EPOCH + at + self.host.clock_error, UTC).isoformat()


class Wire:
    """Computes when the events of senders arrive."""

    def __init__(self, schedule: Schedule, rng: Random, trouble: Trouble) -> None:
        self._schedule = schedule
        self._random = rng.random
        self._is_late = trouble.late
        self._sent: list[tuple[float, int, Event]] = []

    def scale(self, rng: Random) -> float:
        """Return the longest delay of a new connection."""
        return rng.choice(DELAY_SCALES)

    def send(
        self,
        sender: Sender,
        event_type: str,
        fields: Event,
        *,
        hostname: str | None = None,
        late_seconds: float = 0.0,
        floor: float = 0.0,
    ) -> Event:
        """Send an event; ``sender.last_at`` is when it arrives.

        Args:
            hostname: the node name, if it is not the sender's own.
            late_seconds: how much longer than usual it may take.
            floor: the earliest arrival that is allowed.
        """
        now, number = self._schedule.now, len(self._sent)
        counter = sender.counter
        counter.value += 1
        event = {
            "type": event_type,
            "timestamp": EPOCH + now + sender.host.clock_error + number * 1e-6,
            "hostname": hostname or sender.hostname,
            "utcoffset": 0,
            "pid": sender.pid,
            "clock": counter.value,
            **fields,
        }
        at = now + PROMPT_SECONDS
        if self._is_late:
            at = now + self._random() * sender.scale + late_seconds
        sender.last_at = max(at, sender.last_at, floor)
        self._sent.append((sender.last_at, number, event))
        return event

    def deliver(self, rng: Random, trouble: Trouble) -> tuple[list[Arrival], set[int]]:
        """Return the arrivals in order, and the ``id()`` of each event that was lost."""
        self._sent.sort()
        if not trouble.lost and not trouble.duplicates:
            return [Arrival(at, event) for at, _, event in self._sent], set()
        arrivals: list[Arrival] = []
        lost: set[int] = set()
        for at, _, event in self._sent:
            if trouble.lost and rng.random() < LOST_SHARE:
                lost.add(id(event))
                continue
            arrivals.append(Arrival(at, event))
            if trouble.duplicates and rng.random() < DUPLICATE_SHARE:
                arrivals.append(Arrival(at, dict(event)))
        return arrivals, lost
