"""The ledger of a stream: what was published, numbered by its authors, against what a subscriber got.

What has to hold (`discrepancies`): of each author nothing comes twice or out of its order, and each hole in
the numbers has a `gateway-gap` between the entries at its two ends, or a little behind where that is allowed.
What was published last has to be there.

As a program it is an author that is cheap enough for thousands of events a second: `python -m
tests.support.ledger URL NAME EVENTS_PER_SECOND BODY_BYTES`, until SIGTERM; it prints how many there were.
"""

import json
import signal
import socket
import sys
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from threading import Event, Thread
from types import FrameType
from typing import NamedTuple, Self

from amqp import Channel
from amqp.basic_message import Message
from celery.events.event import event_exchange
from kombu import Connection

from tests.support.rabbitmq import wait_for
from tests.support.stream_client import NdjsonStream
from tests.support.wire import EventFields

GAP = "gateway-gap"
WALK = ("task-received", "task-started", "task-succeeded")


class Entry(NamedTuple):
    """An event as a subscriber got it; a told gap has the author ``GAP`` and the number -1."""

    author: str
    number: int
    uuid: str | None = None


class LedgerStream(NdjsonStream):
    """A subscriber that notes entries and gaps; anything else is in `events`, as of any stream."""

    def __init__(self, url: str, params: dict[str, str] | None = None) -> None:
        self.entries: list[Entry] = []
        self.latest: dict[str, int] = {}
        self.gaps: list[EventFields] = []
        super().__init__(url, params)

    def append(self, event: EventFields) -> None:
        if "number" in event:
            author, number = event["hostname"], event["number"]
            self.entries.append(Entry(author, number, event.get("uuid")))
            self.latest[author] = max(number, self.latest.get(author, -1))
            return
        if event["type"] == GAP:
            self.entries.append(Entry(GAP, -1))
            self.gaps.append(event)
        super().append(event)


class Author:
    """Publishes numbered events at a steady pace, each confirmed, in a thread; comes back after any outage.

    It is to the broker what a Celery process is: a connection of its own, and the exchange declared whenever
    it connects. With `walks` it is a worker: the events are of tasks, three each, in an order of their own.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        per_second: float = 100.0,
        reconnect_seconds: float = 0.1,
        walks: bool = False,
    ) -> None:
        self.name = name
        self.walks = walks
        self.attempted = 0
        self.confirmed: set[int] = set()
        self._url = url
        self._interval_seconds = 1 / per_second
        self._reconnect_seconds = reconnect_seconds
        self._stopping = Event()
        self._thread = Thread(target=self._run, daemon=True, name=name)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 30) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
            assert not self._thread.is_alive(), f"{self.name} is still publishing"

    def _run(self) -> None:
        while not self._stopping.is_set():
            # confirm_publish makes each publish wait for the broker's acknowledgement.
            with Connection(self._url, transport_options={"confirm_publish": True}) as connection:
                errors = (OSError, *connection.connection_errors, *connection.channel_errors)
                try:
                    channel = connection.channel()
                    event_exchange(channel).declare()
                    while not self._stopping.wait(self._interval_seconds):
                        number, self.attempted = self.attempted, self.attempted + 1
                        publish(channel, json.dumps(self._event(number)).encode())
                        self.confirmed.add(number)
                except errors:
                    connection.collect()  # without a goodbye: there may be nobody to answer it
            self._stopping.wait(self._reconnect_seconds)

    def _event(self, number: int) -> EventFields:
        event = {"type": "ledger-entry", "hostname": self.name, "timestamp": time.time(), "number": number}
        if not self.walks:
            return event
        task, step = divmod(number, len(WALK))
        about = {} if step else {"name": "ledger.walk", "root_id": f"{self.name}-{task}", "parent_id": None}
        return event | about | {"type": WALK[step], "uuid": f"{self.name}-{task}"}


class Ledger:
    """Some authors, to be used with one subscriber or several that were there before the first event."""

    def __init__(self, url: str, *, per_second: float = 100.0, reconnect_seconds: float = 0.1) -> None:
        self.authors = [
            Author(url, name, per_second=per_second, reconnect_seconds=reconnect_seconds, walks=walks)
            for name, walks in (("first@ledger", False), ("second@ledger", False), ("worker@ledger", True))
        ]

    def __enter__(self) -> Self:
        for author in self.authors:
            author.start()
        return self

    def __exit__(self, *exception: object) -> None:
        for author in self.authors:
            author.stop()

    def wait_until_it_flows(self, stream: LedgerStream, timeout_seconds: float = 40) -> None:
        """Until the stream has, of each author, something that was published after this call."""
        since = {author.name: author.attempted for author in self.authors}

        def flows() -> bool:
            return all(stream.latest.get(name, -1) >= number for name, number in since.items())

        assert wait_for(flows, timeout_seconds), f"published since: {since}, received: {stream.latest}"

    def settle(self, *streams: LedgerStream, timeout_seconds: float = 30, late_by: int = 0) -> None:
        """Stop publishing, wait for what is on its way, and find every stream's account correct."""
        for author in self.authors:
            author.stop()
        last = {author.name: max(author.confirmed) for author in self.authors}
        for stream in streams:
            wait_for(lambda stream=stream: _has(stream, last), timeout_seconds)  # type: ignore[misc]
            found = [
                line
                for author in self.authors
                for line in discrepancies(
                    stream.entries,
                    author.name,
                    author.confirmed,
                    author.attempted,
                    walks=author.walks,
                    late_by=late_by,
                )
            ]
            assert not found, "\n".join(found)


def _has(stream: LedgerStream, last: dict[str, int]) -> bool:
    return all(stream.latest.get(name, -1) >= number for name, number in last.items())


def discrepancies(
    entries: Sequence[Entry],
    author: str,
    confirmed: Iterable[int],
    attempted: int,
    *,
    walks: bool = False,
    late_by: int = 0,
) -> list[str]:
    """What is wrong with an author's entries in a stream; nothing, where all is well.

    Args:
        entries: the stream from before the author's first event on, told gaps among them.
        confirmed: the numbers that the broker took. (Others below `attempted` may or may not have come.)
        walks: the order kept is that of each task's events, not that of all of the author's.
        late_by: so many entries behind its hole a gap may be told.
    """
    places = [(entry, place) for place, entry in enumerate(entries) if entry.author == author]
    gaps = [place for place, entry in enumerate(entries) if entry.author == GAP]
    found = []
    seen: dict[int, int] = {}
    for entry, place in places:
        if entry.number in seen:
            found.append(f"{author}: {entry.number} came twice, as entries {seen[entry.number]} and {place}")
        if entry.number >= attempted:
            found.append(f"{author}: {entry.number} was never published")
        seen[entry.number] = place
    before: dict[str | None, int] = {}
    for entry, place in places:
        of = entry.uuid if walks else None
        if entry.number < before.get(of, -1):
            found.append(f"{author}: {entry.number} came after {before[of]}, as entry {place}")
        before[of] = entry.number
    missing = sorted(set(confirmed) - seen.keys())
    ends = [(-1, -1), *sorted(seen.items())]
    for (low, after), (high, until) in pairwise(ends):
        lost = missing[bisect_left(missing, low) : bisect_left(missing, high)]
        if lost and not any(after < gap < until + late_by for gap in gaps):
            found.append(
                f"{author}: {len(lost)} events, {lost[0]} to {lost[-1]}, are missing between entries "
                f"{after} and {until}, and no gap is told there (gaps are told at {gaps})"
            )
    missing = missing[bisect_left(missing, ends[-1][0]) :]
    if missing:
        found.append(
            f"{author}: the last {len(missing)} events, {missing[0]} to {missing[-1]}, never came "
            f"(gaps are told at {gaps}, of {len(entries)} entries)"
        )
    return found


def publish(channel: Channel, body: bytes, exchange: str = "celeryev") -> None:
    """One message as Celery's dispatcher makes it; waits for the broker where the channel confirms."""
    message = Message(body, content_type="application/json", content_encoding="utf-8", delivery_mode=1)
    channel.basic_publish(message, exchange=exchange, routing_key="ledger.entry")


def _flood(url: str, name: str, per_second: float, body_bytes: int) -> int:
    """Publish unconfirmed events until SIGTERM; returns how many, all of them with the broker."""
    is_stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopping
        is_stopping = True

    signal.signal(signal.SIGTERM, stop)
    # py-amqp's default of 1,000 ms (amqp/transport.py) resets the connection of a publisher that a busy
    # broker makes wait.
    options = {"socket_settings": {socket.TCP_USER_TIMEOUT: 60_000}}
    with Connection(url, transport_options=options) as connection:
        channel = connection.channel()
        event_exchange(channel).declare()
        head = {"type": "ledger-entry", "hostname": name, "timestamp": time.time(), "note": ""}
        head["note"] = "x" * max(body_bytes - len(json.dumps(head)) - len(', "number": 000000'), 0)
        template = json.dumps(head).encode()[:-1]
        number, started = 0, time.monotonic()
        while not is_stopping:
            publish(channel, b'%s, "number": %d}' % (template, number))
            number += 1
            early_seconds = started + number / per_second - time.monotonic()
            if early_seconds > 0:
                time.sleep(early_seconds)
            else:
                # Held up by the broker: go on at the pace from now on, do not catch up.
                started -= early_seconds if early_seconds < -1 else 0
        channel.close()  # answered after everything before it
    return number


if __name__ == "__main__":
    print(_flood(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])), flush=True)
