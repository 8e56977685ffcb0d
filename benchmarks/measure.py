"""One measurement: subscribers on a server, events through it, and what that cost the server.

The cost is the server's CPU time from the moment all are connected until the last event has arrived, so
neither connecting nor leaving is in it; taking the events in is.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.dialogue import Dialogue
from benchmarks.lab import ROOT, Lab
from benchmarks.servers import Server, Unavailable
from benchmarks.usage import cpu_seconds

CONNECT_SECONDS = 60
QUIET_SECONDS = 0.25
SETTLE_SECONDS = 10


class Load(NamedTuple):
    """What is put on a server.

    Attributes:
        connections: subscribers.
        rate: events a second.
        seconds: for how long.
        batch: events a message, where the server takes Celery's messages.
        roots: different root ids, taken in turn.
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
    """What came of a load. Sizes are in bytes on the wire, framing included; lateness in seconds.

    Attributes:
        json_bytes: of an event as the gateway delivers it, on average.
        expected: how many deliveries there should have been; ``deliveries`` is how many came in time.
        fewest, most: on one connection.
        closed: connections that the server ended.
        span_seconds: from the first arrival to the last.
        published_seconds: what the publisher needed; more than the load's when the server held it back.
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
        # An event a connection is where the span begins.
        return max(0, self.deliveries - self.connections) / self.span_seconds if self.span_seconds else 0.0

    @property
    def bytes_per_delivery(self) -> float:
        return self.bytes / max(1, self.deliveries)


class Subscribers:
    """Connections held by subscribers.c. Made by ``subscribers``."""

    def __init__(self, dialogue: Dialogue, connections: int, connect_seconds: float) -> None:
        self._dialogue = dialogue
        self.connections = connections
        self.connect_seconds = connect_seconds

    def go(self) -> None:
        """Count from zero, from now on."""
        self._dialogue.say("go")

    def report(self, timeout_seconds: float) -> dict[str, Any]:
        """Return what was counted: when all that was expected is there, or when the time is up."""
        said = self._dialogue.hear_if_any(timeout_seconds)
        if said is None:
            self._dialogue.say("stop")
            said = self._dialogue.hear(CONNECT_SECONDS)
        return said


@contextmanager
def subscribers(
    lab: Lab, server: Server, connections: int, options: Sequence[str] = ()
) -> Iterator[Subscribers]:
    """Connections that are open within the block; ``options`` are further ones of subscribers.c.

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
    with Dialogue(args, log=lab.folder / "subscribers.log") as dialogue:
        said = dialogue.hear(CONNECT_SECONDS)
        if said["refused"]:
            raise Unavailable(
                f"{said['refused']} of {connections} connections were refused: {said['refusal']}"
            )
        yield Subscribers(dialogue, connections, said["seconds"])


class Publisher:
    """``benchmarks.publish``, connected. Made by ``publisher``."""

    def __init__(self, dialogue: Dialogue, load: Load, json_bytes: float) -> None:
        self._dialogue = dialogue
        self._load = load
        self.json_bytes = json_bytes

    def publish(self) -> float:
        """Publish the load, and return the seconds that it took.

        Raises:
            DialogueError: the server took the events much too slowly, or not at all.
        """
        self._dialogue.say("go")
        seconds: float = self._dialogue.hear(self._load.seconds * 3 + 10)["seconds"]
        return seconds


@contextmanager
def publisher(lab: Lab, server: Server, load: Load) -> Iterator[Publisher]:
    """A publisher that has everything encoded and waits for ``go``."""
    args = [
        *(sys.executable, "-m", "benchmarks.publish", *server.publish, "--events", str(load.events)),
        *("--rate", str(load.rate), "--batch", str(load.batch), "--roots", str(load.roots)),
    ]
    with Dialogue(args, log=lab.folder / "publisher.log", cwd=ROOT) as dialogue:
        yield Publisher(dialogue, load, dialogue.hear(CONNECT_SECONDS)["json_bytes"])


def settle(server: Server) -> None:
    """Return when the server has nothing left to do: at most a tick of CPU time in ``QUIET_SECONDS``."""
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
    """Put a load on a server and return what came of it.

    A server that cannot keep up gets as long again as the load lasted, and what has not come by then is
    counted as lost.

    Args:
        options: further ones of subscribers.c.
        expected: deliveries; by default every event on every connection.

    Raises:
        Unavailable: the server refused connections.
        DialogueError: the server took the events much too slowly, or not at all.
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
        said = clients.report(load.seconds if expected else QUIET_SECONDS)
        cpu_after = cpu_seconds(server.pid)
    return Delivery(
        events=load.events,
        json_bytes=source.json_bytes,
        connections=load.connections,
        expected=expected,
        deliveries=said["deliveries"],
        fewest=said["fewest"],
        most=said["most"],
        closed=said["closed"],
        bytes=said["bytes"],
        cpu_seconds=cpu_after - cpu_before,
        span_seconds=said["span_seconds"],
        published_seconds=published_seconds,
        p50_seconds=said["p50_seconds"],
        p99_seconds=said["p99_seconds"],
    )
