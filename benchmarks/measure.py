"""One measurement: subscribers on a server, events through it, and the CPU time of the server.

The CPU time is counted from when all subscribers are connected until the last event has arrived. It includes
the intake of the events, but not connecting and disconnecting.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.child import Child
from benchmarks.lab import ROOT, Lab
from benchmarks.servers import Server, Unavailable
from benchmarks.usage import cpu_seconds

CONNECT_SECONDS = 60
QUIET_SECONDS = 0.25
SETTLE_SECONDS = 10


class Load(NamedTuple):
    """The load on a server.

    Attributes:
        connections: subscribers.
        rate: events per second.
        seconds: the duration.
        batch: events per message, where the server reads Celery's messages.
        roots: the number of different root ids, used in turn.
    """

    connections: int
    rate: int
    seconds: float
    batch: int = 1
    roots: int = 5000

    @property
    def events(self) -> int:
        return round(self.rate * self.seconds)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The result of a load. Sizes are in bytes on the wire, framing included; latencies in seconds.

    Attributes:
        json_bytes: mean size of an event as the gateway delivers it.
        expected: the number of deliveries without loss; ``deliveries`` is the number before the timeout.
        fewest, most: deliveries on one connection.
        closed: connections that the server ended.
        span_seconds: from the first arrival to the last.
        published_seconds: the time of the publisher; longer than the load if the server slowed it down.
        p50_seconds, p99_seconds: from an event's ``timestamp`` to its arrival.
    """

    events: int
    json_bytes: float
    connections: int
    expected: int
    deliveries: int
    fewest: int
    most: int
    closed: int
    bytes: int
    cpu_seconds: float
    span_seconds: float
    published_seconds: float
    p50_seconds: float
    p99_seconds: float

    @property
    def lost(self) -> int:
        return self.expected - self.deliveries

    @property
    def cpu_us_per_delivery(self) -> float:
        return self.cpu_seconds / max(1, self.deliveries) * 1e6

    @property
    def cpu_us_per_event(self) -> float:
        return self.cpu_seconds / self.events * 1e6

    @property
    def deliveries_per_second(self) -> float:
        # The first event of each connection begins the span.
        return max(0, self.deliveries - self.connections) / self.span_seconds if self.span_seconds else 0.0

    @property
    def bytes_per_delivery(self) -> float:
        return self.bytes / max(1, self.deliveries)


class Subscribers:
    """Connections of subscribers.c. Created by ``subscribers``."""

    def __init__(self, child: Child, connections: int, connect_seconds: float) -> None:
        self._child = child
        self.connections = connections
        self.connect_seconds = connect_seconds

    def go(self) -> None:
        """Reset the counts, and count from now on."""
        self._child.send("go")

    def report(self, timeout_seconds: float) -> dict[str, Any]:
        """Return the counts, when all expected deliveries have arrived or at the timeout."""
        reply = self._child.receive_if_any(timeout_seconds)
        if reply is None:
            self._child.send("stop")
            reply = self._child.receive(CONNECT_SECONDS)
        return reply


@contextmanager
def subscribers(
    lab: Lab, server: Server, connections: int, options: Sequence[str] = ()
) -> Iterator[Subscribers]:
    """Open connections for the block; ``options`` are further options of subscribers.c.

    Raises:
        Unavailable: the server refused some.
    """
    args: list[str | Path] = [
        lab.subscribers,
        *server.subscribe,
        "-n",
        str(connections),
        *options,
        str(server.port),
    ]
    with Child(args, log=lab.folder / "subscribers.log") as child:
        reply = child.receive(CONNECT_SECONDS)
        if reply["refused"]:
            raise Unavailable(
                f"{reply['refused']} of {connections} connections were refused: {reply['refusal']}"
            )
        yield Subscribers(child, connections, reply["seconds"])


class Publisher:
    """``benchmarks.publish``, connected. Created by ``publisher``."""

    def __init__(self, child: Child, load: Load, json_bytes: float) -> None:
        self._child = child
        self._load = load
        self.json_bytes = json_bytes

    def publish(self) -> float:
        """Publish the load, and return the duration in seconds.

        Raises:
            ChildError: the server accepted the events much too slowly, or not at all.
        """
        self._child.send("go")
        seconds: float = self._child.receive(self._load.seconds * 3 + 10)["seconds"]
        return seconds


@contextmanager
def publisher(lab: Lab, server: Server, load: Load) -> Iterator[Publisher]:
    """Start a publisher that has encoded everything and waits for ``go``."""
    args = [
        *(sys.executable, "-m", "benchmarks.publish", *server.publish, "--events", str(load.events)),
        *("--rate", str(load.rate), "--batch", str(load.batch), "--roots", str(load.roots)),
    ]
    with Child(args, log=lab.folder / "publisher.log", cwd=ROOT) as child:
        yield Publisher(child, load, child.receive(CONNECT_SECONDS)["json_bytes"])


def settle(server: Server) -> None:
    """Wait until the server is idle: at most one tick of CPU time in ``QUIET_SECONDS``."""
    deadline = time.monotonic() + SETTLE_SECONDS
    used = cpu_seconds(server.pid)
    while time.monotonic() < deadline:
        time.sleep(QUIET_SECONDS)
        before, used = used, cpu_seconds(server.pid)
        if used - before < 0.015:
            return


def deliver(
    lab: Lab, server: Server, load: Load, *, options: Sequence[str] = (), expected: int | None = None
) -> Delivery:
    """Put a load on a server and return the result.

    A server that cannot keep up gets the duration of the load once more. Events that have not arrived by then
    count as lost.

    Args:
        options: further options of subscribers.c.
        expected: deliveries; by default every event on every connection.

    Raises:
        Unavailable: the server refused connections.
        ChildError: the server accepted the events much too slowly, or not at all.
    """
    if expected is None:
        expected = load.events * load.connections
    options = [*options, "-e", str(expected)]
    with (
        subscribers(lab, server, load.connections, options) as clients,
        publisher(lab, server, load) as source,
    ):
        settle(server)
        cpu_before = cpu_seconds(server.pid)
        clients.go()
        published_seconds = source.publish()
        reply = clients.report(load.seconds if expected else QUIET_SECONDS)
        cpu_after = cpu_seconds(server.pid)
    return Delivery(
        events=load.events,
        json_bytes=source.json_bytes,
        connections=load.connections,
        expected=expected,
        deliveries=reply["deliveries"],
        fewest=reply["fewest"],
        most=reply["most"],
        closed=reply["closed"],
        bytes=reply["bytes"],
        cpu_seconds=cpu_after - cpu_before,
        span_seconds=reply["span_seconds"],
        published_seconds=published_seconds,
        p50_seconds=reply["p50_seconds"],
        p99_seconds=reply["p99_seconds"],
    )
