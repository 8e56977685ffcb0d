"""The clients of the chaos test: subscribers behind nginx that are cut at random, and a probe of each
gateway.

    python -m benchmarks.chaos_clients NGINX_URL GATEWAY_URL... --subscribers 12 --seed 7

A subscriber resumes with its last id wherever nginx leads it. A probe reads everything from one gateway. All
keep the position and a hash of each event's bytes. Commands, one a line, each with one line of JSON as the
answer:

- ``figures``: the counts and the first violations.
- ``mark {"number": 3, "at": 1796010533.0, "probes": [0, 2]}``: measure when these probes get the first event
  that was published after a fault.
- ``marks``: the results, in seconds by number.
- ``settle 12000``: cut nothing any more, and wait until all have everything up to the last event.
- ``check {"truth": "truth.json", "restarts": 2}``: read the whole log from each gateway, and compare
  everything (``chaos_check``).
"""

import argparse
import asyncio
import json
import random
import sys
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import aiohttp
import uvloop

from benchmarks.chaos_check import FILTERS, Message, check, decode, position_of
from benchmarks.chaos_tally import Tally, clock

STAY_SECONDS = 8.0
"""How long a subscriber stays connected, on average, before it is cut."""
AWAY_SECONDS = (0.02, 1.0)
SILENT_SECONDS = 6.0
"""A client that gets nothing for three keep-alives of the gateway connects anew."""
SETTLE_SECONDS = 120.0
POLL_SECONDS = 0.1
TRANSPORTS = ("sse", "ndjson", "websocket")


class Client:
    """One client, over all its connections.

    Attributes:
        start: the position after which its stream begins; ``None`` before its first connection.
        position: up to which it has got everything.
        positions, hashes: of the events that it got, in their order.
        highest: the highest number of an event that it got.
    """

    def __init__(
        self, tally: Tally, url: str, transport: str, filter: str, chance: random.Random | None
    ) -> None:
        self.who = f"{filter or 'unfiltered'} over {transport}" + ("" if chance else f" at {url}")
        self.filter = filter
        self.start: int | None = None
        self.position = 0
        self.positions, self.hashes = array("q"), array("q")
        self.highest = -1
        self.is_settling = False
        self.on_event: Callable[[Message, float], None] | None = None
        self._tally = tally
        self._url = url
        self._transport = transport
        self._chance = chance
        self._last_id = ""
        self._is_first = True

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Read for ever."""
        while True:
            stay = None
            if self._chance is not None and not self.is_settling:
                stay = self._chance.expovariate(1 / STAY_SECONDS)
            try:
                async with asyncio.timeout(stay) as limit:
                    await self._read(session)
            except TimeoutError:
                self._tally.count("cut" if limit.expired() else "silent")
            except (aiohttp.ClientError, OSError, ValueError) as error:
                self._tally.count(f"ended ({type(error).__name__})")
            await asyncio.sleep((self._chance or random).uniform(*AWAY_SECONDS))

    async def _read(self, session: aiohttp.ClientSession) -> None:
        query = {"last_event_id": self._last_id} if self._last_id else {}
        if self.filter:
            name, _, value = self.filter.partition("=")
            query[name] = value
        read = self._read_websocket if self._transport == "websocket" else self._read_http
        self._is_first = True
        async for line in read(session, query):
            self._take(line)

    async def _read_http(self, session: aiohttp.ClientSession, query: dict[str, str]) -> AsyncIterator[bytes]:
        is_sse = self._transport == "sse"
        query["format"] = self._transport
        async with session.get(f"{self._url}/events?{urlencode(query)}") as response:
            if response.status != 200:
                await self._on_refusal(response.status, response.text)
                return
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if not is_sse:
                        yield line
                    elif line.startswith(b"data: "):
                        yield line[6:]

    async def _read_websocket(
        self, session: aiohttp.ClientSession, query: dict[str, str]
    ) -> AsyncIterator[bytes]:
        try:
            async with session.ws_connect(
                f"{self._url}/ws?{urlencode(query)}",
                max_msg_size=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=0.1),
            ) as websocket:
                while True:
                    async with asyncio.timeout(SILENT_SECONDS):
                        message = await websocket.receive()
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        return
                    yield message.data.encode()
        except aiohttp.WSServerHandshakeError as error:
            await self._on_refusal(error.status, None)

    async def _on_refusal(self, status: int, text: Callable[[], Awaitable[str]] | None) -> None:
        self._tally.count(f"refused ({status})")
        if status < 500 and status != 429:
            said = (await text())[:200] if text is not None else ""
            self._tally.violation(self.who, f"refused with {status} {said}")

    def _take(self, line: bytes) -> None:
        message = decode(line)
        is_first, self._is_first = self._is_first, False
        position = position_of(message.id)
        if is_first:
            self._on_open(message, position)
        elif not message.type.startswith("gateway-"):
            self._tally.counts["delivered"] += 1
            if position <= self.position:
                self._tally.violation(self.who, f"{message.id} came after position {self.position}")
            self.positions.append(position)
            self.hashes.append(hash(line))
            self.highest = max(self.highest, message.number)
            if self.on_event is not None:
                self.on_event(message, clock())
        elif message.type == "gateway-gap" and message.reason == "broker":
            self._tally.count("gaps of a broker")  # an entry of the log: ``chaos_check``
        elif message.type == "gateway-gap":
            self._tally.violation(
                self.who, f"gap ({message.reason}) at {message.id}, position {self.position}"
            )
        elif message.type == "gateway-close":
            self._tally.count(f"closed ({message.reason})")
        elif position < self.position:
            self._tally.violation(self.who, f"{message.type} went back from {self.position} to {message.id}")
        self.position = max(self.position, position)
        self._last_id = message.id

    def _on_open(self, message: Message, position: int) -> None:
        self._tally.count(f"opened ({message.resume})")
        if message.type != "gateway-open":
            self._tally.violation(self.who, f"the first message is {message.type}")
        elif self.start is None:
            self.start = position
            if message.resume != "live":
                self._tally.violation(self.who, f"opened first as {message.resume}")
        elif message.resume != "resumed" or position != self.position:
            self._tally.violation(
                self.who, f"opened as {message.resume} at {message.id} after {self._last_id}"
            )
            self.position = position


class Marks:
    """Measures when probes get the first event that was published after a fault."""

    def __init__(self, probes: list[Client]) -> None:
        self.found: dict[int, list[float]] = {}
        self._waiting: list[tuple[int, float, int]] = []  # number, at, probe
        for index, probe in enumerate(probes):
            probe.on_event = lambda message, now, index=index: self._on_event(index, message, now)

    def add(self, number: int, at: float, probes: list[int]) -> None:
        self._waiting += [(number, at, probe) for probe in probes]

    def _on_event(self, index: int, message: Message, now: float) -> None:
        if not self._waiting:
            return
        for mark in [each for each in self._waiting if each[2] == index and message.timestamp >= each[1]]:
            self._waiting.remove(mark)
            self.found.setdefault(mark[0], []).append(now - mark[1])


class Clients:
    """All clients; each runs by itself until the end."""

    def __init__(self, nginx: str, gateways: list[str], subscribers: int, seed: int) -> None:
        self.tally = Tally(Counter())
        self._gateways = gateways
        chance = random.Random(seed)
        filters = list(FILTERS)
        self.subscribers = [
            Client(
                self.tally,
                nginx,
                TRANSPORTS[number % len(TRANSPORTS)],
                filters[number // len(TRANSPORTS) % len(filters)],
                random.Random(chance.random()),
            )
            for number in range(subscribers)
        ]
        self.probes = [Client(self.tally, url, "ndjson", "", None) for url in gateways]
        self.marks = Marks(self.probes)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def _all(self) -> list[Client]:
        return [*self.subscribers, *self.probes]

    def start(self, session: aiohttp.ClientSession) -> None:
        self._tasks = [asyncio.create_task(client.run(session)) for client in self._all]

    async def obey(self, line: str) -> dict[str, Any]:
        """Carry out a command, and return the answer."""
        word, _, rest = line.partition(" ")
        if word == "mark":
            self.marks.add(**json.loads(rest))
        elif word == "marks":
            return {"marks": self.marks.found}
        elif word == "settle":
            await self._settle(int(rest))
        elif word == "check":
            told = json.loads(rest)
            truth = json.loads(await asyncio.to_thread(Path(told["truth"]).read_text))
            await check(self.tally, self._gateways, self._all, truth, told["restarts"])
        is_open = all(client.start is not None for client in self._all)
        return {"counts": self.tally.counts, "violations": self.tally.violations, "is_open": is_open}

    async def _settle(self, last: int) -> None:
        for client in self._all:
            client.is_settling = True
        if not await self._until(lambda: all(probe.highest >= last for probe in self.probes)):
            for probe in self.probes:
                self.tally.violation(probe.who, f"has numbers up to {probe.highest} of {last}")
        await asyncio.sleep(2 * SILENT_SECONDS / 3)  # events that wait, and statuses
        end = max(probe.position for probe in self.probes)
        if not await self._until(lambda: all(client.position >= end for client in self._all)):
            for client in self._all:
                if client.position < end:
                    self.tally.violation(client.who, f"is at position {client.position} of {end}")
        for task in self._tasks:
            if task.done():
                self.tally.violation("a client", f"failed: {task.exception()!r}")
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _until(self, condition: Callable[[], bool]) -> bool:
        for _ in range(round(SETTLE_SECONDS / POLL_SECONDS)):
            if condition():
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False


async def attend(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        loop.call_soon_threadsafe(lines.put_nowait, "end")

    Thread(target=listen, daemon=True).start()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENT_SECONDS)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, read_bufsize=1 << 18, max_line_size=1 << 20
    ) as session:
        clients = Clients(options.nginx, options.gateways, options.subscribers, options.seed)
        clients.start(session)
        while (line := await lines.get()) != "end":
            print(json.dumps(await clients.obey(line)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nginx", help="URL of all gateways")
    parser.add_argument("gateways", nargs="+", help="URL of one gateway")
    parser.add_argument("--subscribers", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(attend(parser.parse_args()))


if __name__ == "__main__":
    main()
