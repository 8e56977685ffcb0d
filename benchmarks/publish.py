"""The publisher: Celery's events at a steady rate, for all servers of the comparison.

    python -m benchmarks.publish amqp URL --events 5000 --rate 1000 [--batch 10] [--roots 5000]
    python -m benchmarks.publish nchan|nats|lines PORT --events 5000 --rate 1000

Rules:
- The pace is the same for all servers. Messages are encoded in advance and sent in at most 100 steps per
  second. Only the ``timestamp`` of each event is written when it is sent.
- A server that does not consume Celery's events itself gets them as the gateway would deliver them (joined,
  with ``id``, ``state``, ``attempt`` and ``time``). So all servers fan out the same number of bytes.
- It prints ``{"ready": ...}`` when it is connected and has encoded the events. It begins at a line on
  standard input. It ends with a line of figures when the server has accepted the last event.
"""

import argparse
import json
import re
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import pamqp.body
import pamqp.commands
import pamqp.frame
import pamqp.header
from celery.events.event import event_exchange
from kombu import Connection

Event = dict[str, Any]

STEPS_PER_SECOND = 100
UNPACED_MESSAGES = 50
TIMEOUT_SECONDS = 20
NCHAN_CONNECTIONS = 16
HTTP_ANSWER = re.compile(rb"HTTP/1.1 (\d+) .*?\r\nContent-Length: (\d+)\r\n.*?\r\n\r\n", re.DOTALL)
NAMES = ("shop.charge", "shop.ship", "mail.send", "users.sync", "feed.index", "cart.merge", "media.cut")
STATES = {"task-received": "RECEIVED", "task-started": "STARTED", "task-succeeded": "SUCCESS"}

# Placeholder for the time of sending in encoded messages: a JSON number of the same width.
UNSTAMPED = 1111111111.111111
_PLACEHOLDER = b"1111111111.111111"


def events(count: int, roots: int) -> Iterator[Event]:
    """Yield the events that a worker sends for each task: received, started, succeeded.

    The tasks have the root ids ``root-0`` to ``root-<roots - 1>`` in turn.
    """
    for number in range(count):
        task, step = divmod(number, 3)
        if step == 0:
            uid = str(uuid.uuid4())
        event = {
            "hostname": f"w{task % 4}@web",
            "utcoffset": 0,
            "pid": 1000 + task % 4,
            "clock": number + 1,
            "uuid": uid,
            "timestamp": UNSTAMPED,
        }
        if step == 0:
            event |= {"type": "task-received"} | _about(task, roots)
            event |= {"args": "()", "kwargs": "{}", "retries": 0, "eta": None, "expires": None}
        elif step == 1:
            event |= {"type": "task-started"}
        else:
            event |= {"type": "task-succeeded", "result": "None", "runtime": 0.0123}
        yield event


def delivered(event: Event, roots: int) -> Event:
    """Return an event as the gateway delivers it."""
    number = event["clock"] - 1
    moment = datetime.fromtimestamp(UNSTAMPED, UTC).isoformat(timespec="microseconds")
    joined = _about(number // 3, roots) | {"queue": None, "state": STATES[event["type"]], "attempt": 1}
    return {"id": f"be9c8a52-{number + 1}"} | event | joined | {"time": f"{moment[:26]}Z"}


def _about(task: int, roots: int) -> Event:
    return {"name": NAMES[task % len(NAMES)], "root_id": f"root-{task % roots}", "parent_id": None}


def compact(event: Event) -> bytes:
    """Return an event as JSON without spaces."""
    return json.dumps(event, separators=(",", ":")).encode()


class Destination(Protocol):
    """The server that messages are sent to."""

    def encode(self, group: Sequence[Event]) -> bytes:
        """Return the message that has these events; several events in AMQP only."""

    def send(self, messages: Sequence[bytes]) -> None:
        """Send encoded messages; wait while the server does not accept them."""

    def finish(self) -> None:
        """Wait until the server has accepted everything. Raise OSError if it has refused any."""


class AMQP:
    """The exchange ``celeryev``, as Celery declares it. Several events of a message are one list."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(url)
        self._channel = self._connection.channel()
        self._exchange = event_exchange(self._channel)
        self._exchange.declare()
        # Frames are written directly: kombu is too slow for this rate.
        self._socket: socket.socket = self._connection.connection.transport.sock
        self._socket.setblocking(True)

    def encode(self, group: Sequence[Event]) -> bytes:
        single = len(group) == 1
        key = group[0]["type"].replace("-", ".") if single else "task.multi"
        body = json.dumps(group[0] if single else group).encode()
        properties = pamqp.commands.Basic.Properties(
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=1,
            headers={"hostname": group[0]["hostname"]},
        )
        frames = (
            pamqp.commands.Basic.Publish(exchange=self._exchange.name, routing_key=key),
            pamqp.header.ContentHeader(body_size=len(body), properties=properties),
            pamqp.body.ContentBody(body),
        )
        return b"".join(pamqp.frame.marshal(frame, self._channel.channel_id) for frame in frames)

    def send(self, messages: Sequence[bytes]) -> None:
        self._socket.sendall(b"".join(messages))

    def finish(self) -> None:
        self._channel.close()  # the broker replies after everything before it
        self._connection.release()


class Nchan:
    """HTTP POST to Nchan's publisher location, on several connections in turn, one request at a time on each.

    (Nchan stops responding after some pipelined requests on one connection.)
    """

    def __init__(self, port: int, roots: int) -> None:
        self._roots = roots
        self._idle = deque(_connect(port) for _ in range(NCHAN_CONNECTIONS))
        self._busy: deque[socket.socket] = deque()

    def encode(self, group: Sequence[Event]) -> bytes:
        body = compact(delivered(group[0], self._roots))
        head = b"POST /publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)

    def send(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            if not self._idle:
                self._take_answer()
            connection = self._idle.popleft()
            connection.sendall(message)
            self._busy.append(connection)

    def finish(self) -> None:
        while self._busy:
            self._take_answer()

    def _take_answer(self) -> None:
        """Read the response to the oldest request."""
        connection = self._busy.popleft()
        answer = b""
        while not (whole := HTTP_ANSWER.match(answer)) or len(answer) < whole.end() + int(whole[2]):
            more = connection.recv(1 << 16)
            if not more:
                raise ConnectionError("Nchan has closed a connection")
            answer += more
        if whole[1] not in (b"201", b"202"):
            raise ConnectionError(f"Nchan has refused a message: {answer!r}")
        self._idle.append(connection)


class NATS:
    """PUB on the subject ``events``, in the client protocol of NATS."""

    def __init__(self, port: int, roots: int) -> None:
        self._roots = roots
        self._socket = _connect(port)
        self._socket.sendall(b'CONNECT {"verbose":false}\r\n')
        self.finish()

    def encode(self, group: Sequence[Event]) -> bytes:
        body = compact(delivered(group[0], self._roots))
        return b"PUB events %d\r\n%b\r\n" % (len(body), body)

    def send(self, messages: Sequence[bytes]) -> None:
        self._socket.sendall(b"".join(messages))

    def finish(self) -> None:
        self._socket.sendall(b"PING\r\n")
        answer = b""
        while b"PONG\r\n" not in answer:
            more = self._socket.recv(1 << 16)
            if not more or b"-ERR" in more:
                raise ConnectionError(f"nats-server has refused: {answer + more!r}")
            answer += more
        # After the first ping, the server sends one every two minutes: later than the end of a run.
        if b"PING\r\n" in answer:
            self._socket.sendall(b"PONG\r\n")


class Lines:
    """One event per line, for floor.c."""

    def __init__(self, port: int, roots: int) -> None:
        self._roots = roots
        self._socket = _connect(port)

    def encode(self, group: Sequence[Event]) -> bytes:
        return compact(delivered(group[0], self._roots)) + b"\n"

    def send(self, messages: Sequence[bytes]) -> None:
        self._socket.sendall(b"".join(messages))

    def finish(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)
        while self._socket.recv(1 << 16):
            pass


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


BY_PORT: dict[str, Callable[[int, int], Destination]] = {"nchan": Nchan, "nats": NATS, "lines": Lines}


def publish(
    destination: Destination, steps: Sequence[Sequence[bytes]], step_seconds: float
) -> tuple[float, float]:
    """Send the steps at their times. Return the duration, and the longest delay of a step."""
    started = time.monotonic()
    latest = 0.0
    for number, step in enumerate(steps):
        ahead = started + number * step_seconds - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        elif step_seconds:
            latest = max(latest, -ahead)
        stamp = b"%.6f" % time.time()
        destination.send([message.replace(_PLACEHOLDER, stamp) for message in step])
    return time.monotonic() - started + step_seconds, latest


def _mean_size(made: Sequence[Event], roots: int) -> float:
    """Return the mean size of an event's JSON as it is delivered."""
    sizes = [len(compact(delivered(event, roots))) for event in made[:300]]
    return sum(sizes) / len(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("protocol", choices=("amqp", *BY_PORT))
    parser.add_argument("address", help="a URL for amqp, a port of 127.0.0.1 for the others")
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=0, help="events a second; 0: as they are taken")
    parser.add_argument("--batch", type=int, default=1, help="events a message")
    parser.add_argument("--roots", type=int, default=5000, help="different root ids")
    options = parser.parse_args()
    if options.batch > 1 and options.protocol != "amqp":
        parser.error("only Celery's messages hold more than one event")

    destination: Destination
    if options.protocol == "amqp":
        destination = AMQP(options.address)
    else:
        destination = BY_PORT[options.protocol](int(options.address), options.roots)
    made = list(events(options.events, options.roots))
    messages = [
        destination.encode(made[first : first + options.batch])
        for first in range(0, len(made), options.batch)
    ]
    size = UNPACED_MESSAGES
    if options.rate:
        size = max(1, round(options.rate / options.batch / STEPS_PER_SECOND))
    steps = [messages[first : first + size] for first in range(0, len(messages), size)]
    print(json.dumps({"ready": len(made), "json_bytes": _mean_size(made, options.roots)}), flush=True)

    if not sys.stdin.readline():
        return
    step_seconds = size * options.batch / options.rate if options.rate else 0.0
    seconds, late_seconds = publish(destination, steps, step_seconds)
    destination.finish()
    print(json.dumps({"events": len(made), "seconds": seconds, "late_seconds": late_seconds}), flush=True)


if __name__ == "__main__":
    main()
