"""The subscribers of the soak test: they connect, stall, are disconnected, resume, and check their events.

    python -m benchmarks.soak_clients PORT --subscribers 200

The connections are real; the parser is our own, since that of a library would use more CPU than the gateway.
The command ``figures`` returns the counts. ``settle``, with the last numbers of the authors, lets all
subscribers connect and catch up, checks that they have everything, and returns the counts.
"""

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread
from typing import Any, Protocol

import msgspec
import uvloop

from benchmarks.soak_account import AUDIENCE, Account, interest

STAY_SECONDS = (5.0, 60.0)
"""How long a subscriber reads before it stalls or disconnects."""
AWAY_SECONDS = (0.1, 10.0)
LONG_AWAY_SECONDS = (40.0, 70.0)
"""Some subscribers resume so late that the history has evicted their next entry."""
STALL_SECONDS = (5.0, 50.0)
"""Shorter than ``--slow-timeout``, and long enough that an unfiltered stream gets an ``evicted`` gap."""
STALLING, LEAVING, LONG_AWAY = 0.3, 0.4, 0.1
"""Shares: subscribers that stall, disconnected ones that never resume, and others that resume late."""
SETTLE_SECONDS = 30.0
POLL_SECONDS = 0.1
TIMEOUT_SECONDS = 10.0
MAX_TOLD = 20
"""The number of violations that are kept as text; all are counted."""
TRANSPORTS = ("sse", "ndjson", "ws")


class Message(msgspec.Struct):
    """The fields of an event or a control message that the test reads."""

    type: str
    id: str
    hostname: str = ""
    number: int = -1
    resume: str = ""
    reason: str = ""


_decode = msgspec.json.Decoder(Message).decode


class Parser(Protocol):
    """Parses the bytes of a connection and yields JSON texts. Raises ValueError for invalid bytes."""

    def take(self, data: bytes) -> Iterator[bytes]: ...


class HTTP:
    """A chunked response of NDJSON or SSE."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix  # the start of lines with JSON
        self._rest = b""
        self._is_open = False

    def take(self, data: bytes) -> Iterator[bytes]:
        data = self._rest + data
        at = 0
        if not self._is_open:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self._rest = data
                return
            if not data.startswith(b"HTTP/1.1 200 "):
                raise ValueError(f"the response was {data[:100]!r}")
            self._is_open = True
        while (end_of_size := data.find(b"\r\n", at)) >= 0:
            start = end_of_size + 2
            end = start + int(data[at:end_of_size], 16)
            if end + 2 > len(data):
                break
            at = end + 2
            for line in data[start:end].split(b"\n"):
                if line and line.startswith(self._prefix):
                    yield line[len(self._prefix) :]
        self._rest = data[at:]


class WebSocket:
    """Frames of a server: not masked, one message per frame."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_open = False

    def take(self, data: bytes) -> Iterator[bytes]:
        data = self._rest + data
        at = 0
        if not self._is_open:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self._rest = data
                return
            if not data.startswith(b"HTTP/1.1 101 "):
                raise ValueError(f"the response was {data[:100]!r}")
            self._is_open = True
        while len(data) >= at + 2:
            size, start = data[at + 1], at + 2
            if size >= 126:
                start += 2 if size == 126 else 8
                size = int.from_bytes(data[at + 2 : start])
            if start + size > len(data):
                break
            if data[at] == 0x81:
                yield data[start : start + size]
            at = start + size
        self._rest = data[at:]


class Tally:
    """The counts of all subscribers together."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.told: list[str] = []

    def violation(self, who: str, what: str) -> None:
        self.counts["violations"] += 1
        if len(self.told) < MAX_TOLD:
            self.told.append(f"{who}: {what}")


class Subscriber(asyncio.Protocol):
    """One subscriber. Its account continues over all connections that resume its stream."""

    def __init__(self, tally: Tally, transport: str, kind: str, number: int) -> None:
        self.who = f"{kind} {number} over {transport}"
        self.interest = interest(kind, number)
        self.account = Account(self.interest)
        self.last_id: str | None = None
        self.ended: asyncio.Future[None] | None = None
        self._kind_of_transport = transport
        self._tally = tally
        self._transport: asyncio.Transport | None = None
        self._parser: Parser = WebSocket()
        self._is_leaving = False
        self._is_opened = False

    def request(self) -> bytes:
        query = [self.interest.query] if self.interest.query else []
        head = ["Host: localhost"]
        if self._kind_of_transport == "ws":
            self._parser = WebSocket()
            if self.last_id is not None:  # a browser cannot set a header here
                query.append(f"last_event_id={self.last_id}")
            head += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
            head += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        else:
            is_sse = self._kind_of_transport == "sse"
            self._parser = HTTP(b"data: " if is_sse else b"")
            head.append(f"Accept: {'text/event-stream' if is_sse else 'application/x-ndjson'}")
            if self.last_id is not None:
                head.append(f"Last-Event-ID: {self.last_id}")
        path = "/ws" if self._kind_of_transport == "ws" else "/events"
        return "\r\n".join([f"GET {path}?{'&'.join(query)} HTTP/1.1", *head, "", ""]).encode()

    async def connect(self, port: int) -> None:
        """Begin or resume a stream. Raises OSError or TimeoutError if it cannot connect."""
        loop = asyncio.get_running_loop()
        self.ended = loop.create_future()
        self._is_leaving = self._is_opened = False
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await loop.create_connection(lambda: self, "127.0.0.1", port)
        self._tally.counts["connected"] += 1

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self.request())

    def data_received(self, data: bytes) -> None:
        try:
            for text in self._parser.take(data):
                self._take(_decode(text))
        except ValueError as error:
            self._tally.violation(self.who, f"cannot be read: {error}")
            self.cut()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._is_leaving:
            self._tally.violation(self.who, f"the connection was lost: {error!r}")
        self._tally.counts["connected"] -= 1
        assert self.ended is not None
        self.ended.set_result(None)

    def cut(self) -> None:
        """Abort the connection."""
        self._is_leaving = True
        assert self._transport is not None
        self._transport.abort()

    def stall(self) -> None:
        """Stop reading until ``go_on``."""
        assert self._transport is not None
        self._transport.pause_reading()

    def go_on(self) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _take(self, message: Message) -> None:
        counts = self._tally.counts
        if message.number >= 0:
            counts["delivered"] += 1
            lost = self.account.lost
            wrong = self.account.event(message.hostname, message.number)
            counts["lost inside gaps"] += self.account.lost - lost
            if wrong is not None:
                self._tally.violation(self.who, wrong)
        elif message.type == "gateway-gap":
            counts[f"gaps ({message.reason})"] += 1
            self.account.gap()
        elif message.type == "gateway-open":
            counts[f"opened ({message.resume})"] += 1
            if self._is_opened or (self.last_id is not None) == (message.resume == "live"):
                self._tally.violation(self.who, f"opened as {message.resume} after {self.last_id}")
            self._is_opened = True
        elif message.type == "gateway-close":
            counts[f"closed ({message.reason})"] += 1
            self._is_leaving = True
        elif message.type not in ("gateway-bookmark", "gateway-status"):
            self._tally.violation(self.who, f"unexpected {message.type}")
        self.last_id = message.id


class Audience:
    """All subscribers. Each runs independently until ``settle``."""

    def __init__(self, port: int, count: int) -> None:
        self.tally = Tally()
        self._port = port
        self._chance = random.Random(count)
        self._settling = asyncio.Event()
        self._present: dict[int, Subscriber] = {}
        kinds = [kind for kind, part in AUDIENCE.items() for _ in range(round(part * count))]
        self._lives = [asyncio.create_task(self._live(place, kind)) for place, kind in enumerate(kinds)]

    def figures(self) -> dict[str, Any]:
        return {"counts": dict(self.tally.counts), "told": self.tally.told, "places": len(self._lives)}

    async def settle(self, ends: dict[str, int]) -> None:
        """Let all subscribers stay connected and catch up. Missing events are then violations."""
        self._settling.set()
        for _ in range(round(SETTLE_SECONDS / POLL_SECONDS)):
            if len(self._present) == len(self._lives) and not self._missing(ends):
                break
            await asyncio.sleep(POLL_SECONDS)
        for place in range(len(self._lives)):
            if place not in self._present:
                self.tally.violation(f"place {place}", "could not connect")
        for who, what in self._missing(ends):
            self.tally.violation(who, what)
        for life in self._lives:
            if life.done() and (error := life.exception()):
                self.tally.violation("a subscriber", f"failed: {error!r}")

    def _missing(self, ends: dict[str, int]) -> list[tuple[str, str]]:
        return [(one.who, what) for one in self._present.values() for what in one.account.missing(ends)]

    async def _live(self, place: int, kind: str) -> None:
        chance, settling = self._chance, self._settling
        await self._pause(0, 5)
        number = place
        subscriber = None
        while True:
            if subscriber is None:
                number += 1_000
                transport = TRANSPORTS[number % len(TRANSPORTS)]
                subscriber = Subscriber(self.tally, transport, kind, number)
            try:
                await subscriber.connect(self._port)
            except (OSError, TimeoutError) as error:
                self.tally.violation(subscriber.who, f"cannot connect: {error!r}")
                await asyncio.sleep(1)
                continue
            assert subscriber.ended is not None
            self._present[place] = subscriber
            if await self._until(subscriber.ended, chance.uniform(*STAY_SECONDS)):
                if not settling.is_set() and chance.random() < STALLING:
                    self.tally.counts["stalls"] += 1
                    subscriber.stall()
                    await self._until(subscriber.ended, chance.uniform(*STALL_SECONDS))
                    subscriber.go_on()
                    await self._until(subscriber.ended, chance.uniform(*STAY_SECONDS))
                if settling.is_set():
                    await subscriber.ended
                elif not subscriber.ended.done():
                    subscriber.cut()
                    await subscriber.ended
            del self._present[place]
            if chance.random() < LEAVING:
                subscriber = None
                self.tally.counts["left"] += 1
            else:
                self.tally.counts["cut, to come back"] += 1
                await self._pause(*(LONG_AWAY_SECONDS if chance.random() < LONG_AWAY else AWAY_SECONDS))

    async def _pause(self, least_seconds: float, most_seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._settling.wait(), self._chance.uniform(least_seconds, most_seconds))

    async def _until(self, ended: asyncio.Future[None], seconds: float) -> bool:
        """Wait for the end of the stream, a timeout or ``settle``. Return whether the stream is open."""
        settling = asyncio.ensure_future(self._settling.wait())
        await asyncio.wait({ended, settling}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        settling.cancel()
        return not ended.done()


async def attend(port: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        loop.call_soon_threadsafe(lines.put_nowait, "end")

    Thread(target=listen, daemon=True).start()
    audience = Audience(port, count)
    while (line := await lines.get()) != "end":
        word, _, ends = line.partition(" ")
        if word == "settle":
            await audience.settle(json.loads(ends))
        print(json.dumps(audience.figures()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("port", type=int, help="of the gateway, on 127.0.0.1")
    parser.add_argument("--subscribers", type=int, default=200)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(attend(options.port, options.subscribers))


if __name__ == "__main__":
    main()
