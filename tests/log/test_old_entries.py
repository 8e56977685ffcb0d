"""Streams over a shared log: positions older than memory, several terms, states ahead, and outages."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.errors import Evicted
from celery_gateway.events.event import encode
from celery_gateway.events.filter import Filter
from celery_gateway.events.filter_parser import parse
from celery_gateway.http.query_json import json_query
from celery_gateway.http.visible import Visible
from celery_gateway.http.websocket_session import WebSocketSession
from celery_gateway.log.batch import Head, Line
from celery_gateway.log.batch import encode as encode_message
from celery_gateway.log.engine import LogError, Stored
from celery_gateway.log.memory_log import MemoryLog, MemoryServer
from celery_gateway.pipeline.pipeline import Pipeline
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream import log_entries
from celery_gateway.stream.completion import Completions, Target
from celery_gateway.stream.framing import NDJSON
from celery_gateway.stream.history import Moment
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.initial_snapshot import SnapshotPage
from celery_gateway.stream.keepalive import ProgressCheck
from celery_gateway.stream.lines import control_type, line_keys
from celery_gateway.stream.log_entries import LogEntries
from celery_gateway.stream.messages import status_message
from celery_gateway.stream.subscription import Subscription
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

FRAMING = NDJSON()
START = 1_795_234_871.0
Message = dict[str, Any]


class CountingLog(MemoryLog):
    """An engine that counts its reads, and whose reads can take long or fail."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.reads = self.running = self.most_running = 0
        self.seconds = 0.0
        self.error: LogError | None = None

    async def read(self, start: int, *, limit_bytes: int, limit: int = 10_000) -> list[Stored]:
        self.reads += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.seconds)
            if self.error is not None:
                raise self.error
            return await super().read(start, limit_bytes=limit_bytes, limit=limit)
        finally:
            self.running -= 1


class Shared:
    """A log with one writer, and any number of gateways that read it."""

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.server = MemoryServer(max_bytes=max_bytes)
        self.engine = CountingLog(self.server)
        self.terms: list[tuple[str, int]] = [("t0", 1)]
        self.position = self.claims = 0
        self.at = START
        self.batches: list[tuple[int, list[Line], float]] = []  # those that count, with their offset

    async def open(self) -> "Shared":
        await self.engine.open()
        return self

    @property
    def term(self) -> str:
        return self.terms[-1][0]

    def begin_term(self) -> None:
        self.terms = [each for each in self.terms if each[1] <= self.position]
        self.claims += 1
        self.terms.append((f"t{self.claims}", self.position + 1))
        self.put("claim", self.term)

    def put(self, kind: str, term: str, first: int = 0, lines: list[Line] | None = None) -> int:
        head = Head(kind, term, "gateway", self.at, first=first)
        self.engine.append(encode_message(head, lines))
        messages = self.server._messages
        assert messages is not None
        return messages[-1].offset

    def write(self, count: int, **fields: Any) -> None:
        """Append a batch of events, numbered by their positions."""
        first = self.position + 1
        lines = [self.line(number, **fields) for number in range(first, first + count)]
        offset = self.put("batch", self.term, first, lines)
        self.position += count
        self.batches.append((offset, lines, self.at))

    @staticmethod
    def line(number: int, **fields: Any) -> Line:
        event = {"type": ("task-sent", "task-failed")[number % 2], "uuid": f"u{number % 7}", "number": number}
        return Line(encode(event | fields), len(event))

    def gateway(
        self, history_bytes: int = 1 << 20, *, block_bytes: int = 2_000, cache_bytes: int = 200_000
    ) -> "Gateway":
        return Gateway(self, history_bytes, block_bytes, cache_bytes)


class Gateway:
    """A hub that reads a shared log; ``read`` passes on what was written since."""

    def __init__(self, log: Shared, history_bytes: int, block_bytes: int, cache_bytes: int) -> None:
        self.log = log
        self.hub = Hub(history_bytes=history_bytes, max_event_bytes=5_000)
        self.older = LogEntries(
            log.engine,
            self.hub.history,
            keeps_origins=True,
            max_event_bytes=5_000,
            cache_bytes=cache_bytes,
            block_bytes=block_bytes,
        )
        self.hub.use_log(self.older)
        self._next = 0

    def begin(self, batch: int = 0) -> "Gateway":
        """Begin with a batch, by its number."""
        position = self.log.position if batch == len(self.log.batches) else self._first(batch) - 1
        self._next = batch
        self.hub.begin(position, self.log.terms)
        return self

    def read(self, *, remembers: bool = False) -> None:
        for offset, lines, at in self.log.batches[self._next :]:
            first = self._first(self._next)
            self._next += 1
            self.hub.set_terms(self.log.terms)
            if remembers:
                self.older.remember(first, offset, at)
            for line in lines:
                event = json.loads(line.json)
                keys = line_keys(line, event, keeps_origins=True)
                self.hub.commit(line.json, keys, control_type(line, event), at)
        self.hub.flush()

    def _first(self, batch: int) -> int:
        return 1 + sum(len(lines) for _, lines, _ in self.log.batches[:batch])

    async def subscribe(
        self,
        last_event_id: str | None = None,
        since: float | None = None,
        client: str = "",
        filter: Any = None,
    ) -> "Client":
        position = await self.hub.find_beginning(last_event_id, since, client)
        return Client(
            self.hub.subscribe(
                filter or Filter(), FRAMING, last_event_id, since, client=client, since_position=position
            )
        )

    def id(self, position: int) -> str:
        return self.hub.id_of(position).decode()


class Client:
    """A client that pulls its stream."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.messages: list[Message] = []
        self.chunks: list[bytes] = []

    @property
    def numbers(self) -> list[int]:
        return [message["number"] for message in self.messages if "number" in message]

    @property
    def controls(self) -> list[str]:
        return [each["type"] for each in self.messages if each["type"].startswith("gateway-")]

    async def until(self, is_enough: Callable[[], bool]) -> "Client":
        async with asyncio.timeout(30):
            while not is_enough():
                chunk = await self.subscription.pull()
                self.chunks.append(chunk)
                self.messages += [json.loads(line) for line in chunk.splitlines()]
                assert chunk or is_enough(), f"it has ended: {self.messages[-1]}"
        return self

    async def until_bytes(self, end: bytes) -> None:
        """Read without parsing, until there are some bytes."""
        async with asyncio.timeout(60):
            while not self.chunks or end not in self.chunks[-1]:
                self.chunks.append(await self.subscription.pull())

    async def until_number(self, number: int) -> "Client":
        return await self.until(lambda: bool(self.numbers) and self.numbers[-1] == number)


async def filled(batches: int = 100, size: int = 10, **options: Any) -> tuple[Shared, Gateway]:
    """Return a log, and a gateway that has the newest twentieth of it in memory."""
    log = await Shared().open()
    for _ in range(batches):
        log.at += 1
        log.write(size)
    return log, log.gateway(**options).begin(batches - batches // 20)


async def test_a_stream_that_resumes_before_memory_gets_every_entry_once_and_goes_on_live() -> None:
    log, gateway = await filled()
    gateway.read()
    assert gateway.hub.history.evicted == 950
    for position in (0, 1, 9, 10, 433, 949, 950, 951, 1_000):
        client = await gateway.subscribe(gateway.id(position))
        log.write(3)
        newest = log.position
        gateway.read()
        await client.until_number(newest)
        assert client.numbers == list(range(position + 1, newest + 1))
        assert client.controls == ["gateway-open"]
        assert client.messages[0]["resume"] == "resumed"
        assert [each["id"] for each in client.messages[1:]] == [gateway.id(each) for each in client.numbers]
        log.write(1)
        gateway.read()
        await client.until_number(log.position)
        client.subscription.close()


async def test_entries_of_memory_and_of_the_log_are_the_same_bytes() -> None:
    """Events with origins, large events that are truncated, control messages, and text that is not ASCII."""
    log = await Shared().open()
    for number in range(1, 40):
        lines = [
            Line(encode({"type": "task-sent", "uuid": "ü", "number": number, "args": "ä" * 4_000}), 3),
            Line(encode({"type": "gateway-gap", "reason": "broker", "lost": None}), 0),
            Line(encode({"type": "task-failed", "uuid": 7}), 2, origin=("name", None, "p", None, "FAILURE")),
        ]
        offset = log.put("batch", log.term, log.position + 1, lines)
        log.position += 3
        log.batches.append((offset, lines, log.at))
    roomy, small = log.gateway().begin(), log.gateway().begin(len(log.batches))
    roomy.read()
    assert roomy.hub.history.evicted == 0 and small.hub.history.evicted == log.position
    clients = [await each.subscribe(each.id(0)) for each in (roomy, small)]
    for client in clients:
        await client.until(lambda client=client: len(client.messages) == 1 + log.position)
        client.subscription.close()
    assert b"".join(clients[0].chunks) == b"".join(clients[1].chunks)
    for position in (1, 3, 100):
        first, second = [await each.hub.find_entry(each.id(position)) for each in (roomy, small)]
        assert first is not None and second is not None
        assert (first.id, first.keys, first.json, first.full_json) == (
            *(second.id, second.keys, second.json),
            second.full_json,
        )
        assert first.keys[9:] == ((None,) * 5 if position != 3 else ("name", None, "p", None, "FAILURE"))
    assert await small.hub.find_entry(small.id(2)) is None, "a control message is no event"


@settings(deadline=None, max_examples=tries(60), derandomize=True)
@given(st.integers(0, 1 << 30))
def test_cursors_over_the_log_and_memory_give_each_entry_once_in_order(seed: int) -> None:
    """Logs with terms, batches that do not count, batches sent twice, idle time, and retention."""
    asyncio.run(_random_log(Random(seed)))


async def _random_log(drawn: Random) -> None:
    log = await Shared().open()
    gateway = log.gateway(
        drawn.choice([3_000, 20_000, 100_000]),
        block_bytes=drawn.choice([1, 300, 3_000]),
        cache_bytes=drawn.choice([1, 5_000, 100_000]),
    )
    for _ in range(drawn.randrange(30)):
        write(log, drawn)
    gateway.begin(drawn.randrange(len(log.batches) + 1))
    gateway.read(remembers=drawn.random() < 0.5)
    clients: list[tuple[Client, int, str]] = []
    for number in range(drawn.randrange(1, 6)):
        position = drawn.randint(0, log.position)
        text = drawn.choice(["", "task-sent"])
        client = await gateway.subscribe(
            gateway.id(position),
            client=f"c{number % 2}",
            filter=parse({"type": [text]}) if text else None,
        )
        clients.append((client, position, text))
    for _ in range(drawn.randrange(5)):
        write(log, drawn)
        gateway.read(remembers=drawn.random() < 0.5)
        await asyncio.sleep(0)
    log.write(2, type="last")
    gateway.read()
    hub = gateway.hub
    hub.close()
    for client, position, text in clients:
        expected = [
            number
            for number in range(position + 1, log.position + 1)
            if not text
            or (log.line(number).json.startswith(b'{"type":"task-sent"') and number < log.position - 1)
        ]
        if client.subscription.closing == "drain":
            await client.until(lambda client=client: client.controls[-1:] == ["gateway-close"])
        assert client.numbers == expected[: len(client.numbers)]
        assert "gateway-gap" not in client.controls
        # What is left is there for the next stream.
        resumed = await gateway.subscribe(client.messages[-1]["id"])
        await resumed.until(lambda resumed=resumed: resumed.controls[-1:] == ["gateway-close"])
        assert "gateway-gap" not in resumed.controls
    gateway.older.close()


def write(log: Shared, drawn: Random) -> None:
    """Append some of what may be in a log."""
    kind = drawn.randrange(10)
    log.at += drawn.choice([0.0, 0.01, 1.0])
    if kind == 0:
        stale = log.term
        log.begin_term()
        for _ in range(drawn.randrange(3)):  # of the leader before, which does not know it yet
            log.put("batch", stale, log.position + 1, [Line(b'{"type":"stale","number":-1}', 1)])
    elif kind == 1 and log.batches and log.batches[-1][1]:
        first = log.position + 1 - len(log.batches[-1][1])
        if first >= log.terms[-1][1]:
            log.put("batch", log.term, first, log.batches[-1][1])  # sent twice
    elif kind == 2:
        log.put("batch", log.term, log.position + 1)
    elif kind == 3:
        log.put(drawn.choice(["seen", "resign"]), log.term, log.position)
        log.server.skip(drawn.randrange(5))
    else:
        log.write(drawn.choice([1, 1, 2, 5, 30]))


async def test_every_entry_of_a_random_log_arrives() -> None:
    for seed in range(tries(40)):
        drawn = Random(seed)
        log = await Shared().open()
        gateway = log.gateway(
            5_000, block_bytes=drawn.choice([1, 500, 5_000]), cache_bytes=drawn.choice([1, 9_000])
        )
        for _ in range(60):
            write(log, drawn)
        log.write(1)
        gateway.begin(drawn.randrange(len(log.batches)))
        gateway.read(remembers=bool(seed % 2))
        positions = [drawn.randint(0, log.position - 1) for _ in range(5)]
        clients = [await gateway.subscribe(gateway.id(each), client=str(each)) for each in positions]
        await asyncio.gather(*[client.until_number(log.position) for client in clients])
        for client, position in zip(clients, positions, strict=True):
            assert client.numbers == list(range(position + 1, log.position + 1))
            assert client.controls == ["gateway-open"]
            client.subscription.close()
        assert gateway.older.statistics().waiting == 0


async def test_entries_that_retention_has_removed_are_a_gap() -> None:
    log, gateway = await filled()
    gateway.read()
    client = await gateway.subscribe(gateway.id(100))
    log.server._trim(log.batches[30][0])  # up to position 300
    await client.until_number(1_000)
    (at,) = [number for number, each in enumerate(client.messages) if each["type"] == "gateway-gap"]
    gap, before, after = client.messages[at], client.messages[1:at], client.messages[at + 1 :]
    assert (gap["reason"], gap["id"]) == ("evicted", gateway.id(300))
    assert [each["number"] for each in before] == list(range(101, 101 + len(before)))
    assert [each["number"] for each in after] == list(range(301, 1_001))
    assert gateway.older.first_position == 300
    later = await gateway.subscribe(gateway.id(250))
    later.subscription.end("drain")
    await later.until(lambda: later.controls[-1:] == ["gateway-close"])
    assert later.messages[0]["resume"] == "reset"
    assert later.controls == ["gateway-open", "gateway-gap", "gateway-close"]
    with pytest.raises(Evicted):
        await gateway.hub.find_entry(gateway.id(299))
    entry = await gateway.hub.find_entry(gateway.id(301))
    assert entry is not None and json.loads(entry.json)["number"] == 301


async def test_the_first_position_is_found_before_a_stream_opens() -> None:
    """A gateway that has read nothing old yet: what is gone is no `resumed`."""
    log, gateway = await filled()
    log.server._trim(log.batches[30][0])
    gateway.read()
    for position, resume in ((299, "reset"), (300, "resumed"), (301, "resumed")):
        client = await gateway.subscribe(gateway.id(position))
        client.subscription.close()
        client.messages += [json.loads(line) for line in client.subscription.read().splitlines()]
        first = json.loads(
            (await gateway.subscribe(gateway.id(position))).subscription.read().splitlines()[0]
        )
        assert first["resume"] == resume


async def test_since_begins_at_the_first_entry_of_that_time() -> None:
    log, gateway = await filled()
    gateway.read()
    searches = 0
    for batch in (0, 1, 50, 51, 94, 95, 99):
        at = log.batches[batch][2] - 0.5
        for since in (Moment(at), at):  # a time, and an age
            client = await gateway.subscribe(since=since)
            await client.until_number(1_000)
            assert client.numbers == list(range(batch * 10 + 1, 1_001))
            assert client.controls == ["gateway-open"]
            assert client.messages[0]["resume"] == "resumed"
            client.subscription.close()
    searches = gateway.older.statistics().searches
    clients = await asyncio.gather(
        *[gateway.subscribe(since=log.batches[20][2] + number / 1_000) for number in range(100)]
    )
    assert gateway.older.statistics().searches <= searches + 1, "clients share the searches"
    for client in clients:
        await client.until(lambda client=client: bool(client.numbers))
        assert client.numbers[0] in (201, 211)
        client.subscription.close()
    log.server._trim(log.batches[30][0])
    fresh = log.gateway().begin(95)
    fresh.read()
    client = await fresh.subscribe(since=log.batches[10][2])
    await client.until_number(1_000)
    assert client.numbers[:1] == [301]
    assert client.controls == ["gateway-open", "gateway-gap"], "entries of that time are gone"


async def test_since_earliest_begins_at_the_first_entry_that_the_log_has() -> None:
    log, gateway = await filled()
    gateway.read()
    for position in (0, 420):
        log.server._trim(log.batches[position // 10][0])
        await asyncio.sleep(0)
        gateway.older._first_at = float("-inf")
        client = await gateway.subscribe(since=0.0)
        await client.until_number(1_000)
        assert client.numbers == list(range(position + 1, 1_001))
        assert client.controls == ["gateway-open"]
        client.subscription.close()


async def test_clients_that_come_back_together_share_reads_and_wait_without_turns() -> None:
    log, gateway = await filled(history_bytes=1 << 20, block_bytes=4_000)
    gateway.read()
    log.engine.seconds = 0.01
    log.engine.reads = 0
    clients = await asyncio.gather(
        *[gateway.subscribe(gateway.id(0), client=f"c{number % 50}") for number in range(500)]
    )
    turns = 0
    catch_up = Subscription.catch_up

    def counted(subscription: Subscription) -> int:
        nonlocal turns
        turns += 1
        return catch_up(subscription)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Subscription, "catch_up", counted)
        await asyncio.gather(*[client.until_bytes(b'"number":1000}') for client in clients])
    assert len({b"".join(client.chunks) for client in clients}) == 1
    events = [json.loads(line) for line in b"".join(clients[0].chunks).splitlines()[1:]]
    assert [event["number"] for event in events] == list(range(1, 1_001))
    blocks = sum(len(line.json) + 5 for _, lines, _ in log.batches for line in lines) / 4_000
    assert log.engine.reads <= 3 * blocks + 40
    assert log.engine.most_running <= log_entries.MAX_READS + 1
    assert turns <= len(clients) * (2 * blocks + 10), "who waits for a block has no turns"
    for client in clients:
        client.subscription.close()


async def test_streams_wait_while_the_log_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_entries, "RETRY_SECONDS", 0.02)
    log, gateway = await filled()
    gateway.read()
    live = await gateway.subscribe()
    log.engine.error = LogError("the server has stopped")
    client = await gateway.subscribe(gateway.id(7))
    receiving = asyncio.create_task(client.until_number(1_001))
    log.write(1)
    gateway.read()
    await live.until_number(1_001)
    await asyncio.sleep(0.1)
    assert client.controls == ["gateway-open"] and not client.numbers
    assert client.subscription.is_waiting and not client.subscription.has_more
    assert len(gateway.hub.scheduler) == 0
    keepalive = json.loads(client.subscription.keepalive())
    assert keepalive["id"] == gateway.id(7), "it would lose entries if it resumed later"
    with pytest.raises(LogError):
        await gateway.hub.find_entry(gateway.id(500))
    log.engine.error = None
    await receiving
    assert client.numbers == list(range(8, 1_002))
    assert gateway.older.statistics().errors > 0


async def test_a_stream_that_ends_while_it_waits_can_be_resumed() -> None:
    log, gateway = await filled()
    gateway.read()
    client = await gateway.subscribe(gateway.id(100))
    log.engine.error = LogError("the server has stopped")
    with suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.until_number(1_000)
    assert client.subscription.is_waiting
    gateway.hub.close()
    await client.until(lambda: client.controls[-1:] == ["gateway-close"])
    last = client.messages[-1]
    assert (last["reason"], last["id"]) == ("drain", gateway.id((client.numbers or [100])[-1]))
    assert client.subscription not in gateway.older._positions
    gateway.older.close()


async def test_a_damaged_log_is_a_gap_and_no_endless_wait() -> None:
    log, gateway = await filled()
    messages = log.server._messages
    assert messages is not None
    del messages[40:42]
    broken = messages[60]
    messages[60] = Stored(broken.offset, b"no message")
    gateway.read()
    client = await (await gateway.subscribe(gateway.id(0))).until_number(1_000)
    assert client.controls == ["gateway-open", "gateway-gap", "gateway-gap"]
    gone = {*range(401, 421), *range(621, 631)}
    assert client.numbers == [number for number in range(1, 1_001) if number not in gone]


async def test_a_batch_that_was_lost_and_sent_again_is_no_gap() -> None:
    log, gateway = await filled(50)
    offsets = [log.batches[-1][0]]
    for number in (2, 3, 1, 2, 3):  # of the next three batches
        first = log.position + 10 * (number - 1) + 1
        offsets.append(
            log.put("batch", log.term, first, [log.line(each) for each in range(first, first + 10)])
        )
    log.position += 30
    log.batches += [
        (offsets[at], [log.line(each) for each in range(first, first + 10)], log.at)
        for at, first in ((3, 501), (4, 511), (5, 521))
    ]
    log.write(10)
    gateway = log.gateway(block_bytes=1).begin(len(log.batches) - 1)
    gateway.read()
    client = await (await gateway.subscribe(gateway.id(450))).until_number(540)
    assert client.numbers == list(range(451, 541)) and client.controls == ["gateway-open"]


async def test_a_snapshot_that_is_ahead_of_the_stream_continues_behind_its_position() -> None:
    log, gateway = await filled(10)
    gateway.read()
    hub = gateway.hub
    for is_resumed in (False, True):
        begin = log.position
        hub.written = begin + 3
        assert (hub.flush(), hub.id) == (begin + 3, hub.id_of(begin + 3))
        pages = Pages(SnapshotPage(b'{"type":"page"}\n', hub.flush()))
        subscription = hub.subscribe(
            Filter(),
            FRAMING,
            gateway.id(begin - 2) if is_resumed else None,
            None,
            lambda pages=pages: pages,
            snapshot_when_resumed=True,
        )
        client = Client(subscription)
        receiving = asyncio.create_task(client.until_number(begin + 6))
        called: list[int] = []
        hub.after_flush(lambda called=called: called.append(hub.position))
        for _ in range(20):
            await asyncio.sleep(0)
        assert subscription.is_waiting and not len(hub.scheduler), "no turns without anything to read"
        for _ in range(3):
            log.write(2)
            gateway.read()
            await asyncio.sleep(0.01)
        hub.written = 0
        await receiving
        assert called == [begin + 4]
        page = [each["type"] for each in client.messages].index("page")
        before = [each["number"] for each in client.messages[:page] if "number" in each]
        assert before == (list(range(begin - 1, begin + 4)) if is_resumed else [])
        after = [each["number"] for each in client.messages[page:] if "number" in each]
        assert after == list(range(begin + 4, begin + 7))
        subscription.close()


class Pages:
    """An initial snapshot of one page."""

    def __init__(self, page: SnapshotPage) -> None:
        self.read_count = 0
        self._page: SnapshotPage | None = page

    def read(self) -> SnapshotPage | None:
        self.read_count += 1
        page, self._page = self._page, None
        return page

    def refilter(self, filter: Any) -> None: ...
    def close(self) -> None: ...


async def test_an_id_that_another_gateway_has_got_first_is_awaited() -> None:
    log, gateway = await filled(10)
    gateway.read()
    is_caught_up = asyncio.Event()

    async def catch_up() -> None:
        await is_caught_up.wait()

    gateway.hub.use_log(gateway.older, catch_up)
    log.begin_term()
    ahead = f"{log.term}-{log.position + 2}"
    assert not gateway.hub.begins_at_once(ahead, None)
    opening = asyncio.create_task(gateway.subscribe(ahead))
    looking_up = asyncio.create_task(gateway.hub.find_entry(ahead))
    await asyncio.sleep(0.01)
    gateway.hub.begin_term(log.term)
    log.write(5)
    gateway.read()
    assert not opening.done() and not looking_up.done()
    is_caught_up.set()
    client = await opening
    await client.until_number(log.position)
    assert client.numbers == list(range(log.position - 2, log.position + 1))
    entry = await looking_up
    assert entry is not None and entry.id.decode() == ahead
    for id in ("other-1", f"{log.term}-{log.position + 1}", f"{log.terms[0][0]}-{log.position}", "", "x"):
        client = await gateway.subscribe(id)
        first = json.loads((await client.subscription.pull()).splitlines()[0])
        assert first["resume"] == "reset"
        assert await gateway.hub.find_entry(id) is None
        client.subscription.close()


async def test_a_gateway_that_cannot_know_an_id_now_refuses_it() -> None:
    log, gateway = await filled(10)
    gateway.read()

    async def catch_up() -> None:
        raise LogError("reading takes too long")

    gateway.hub.use_log(gateway.older, catch_up)
    with pytest.raises(LogError):
        await gateway.subscribe("other-1")
    with pytest.raises(LogError):
        await gateway.hub.find_entry("other-1")
    (await gateway.subscribe(gateway.id(5))).subscription.close()
    visible = Visible(Pipeline([], TaskTable(), WorkerTable(), gateway.hub))
    session = WebSocketSession(
        *(visible, json_query({}, "ndjson"), FRAMING, lambda subscription: None, lambda session: None)
    )
    session.on_text(json.dumps({"op": "open", "last_event_id": "other-1"}))
    session.on_text(json.dumps({"op": "ping"}))
    client = Client(session.subscription)
    await client.until(lambda: "gateway-pong" in client.controls)
    assert [each.get("reason") for each in client.messages if each["type"] == "gateway-error"] == [
        "log-unavailable"
    ]
    session.subscription.close()


async def test_a_message_about_this_gateway_only_is_not_in_the_history() -> None:
    log, gateway = await filled(10)
    gateway.read()
    client = await gateway.subscribe()
    position = gateway.hub.history.position
    gateway.hub.broadcast_local(lambda id: status_message(id, []))
    await client.until(lambda: "gateway-status" in client.controls)
    assert client.messages[-1]["id"] == gateway.id(position)
    assert gateway.hub.history.position == position


async def test_streams_that_are_open_when_the_hub_begins_end() -> None:
    log = await Shared().open()
    log.write(5)
    gateway = log.gateway()
    client = await gateway.subscribe()
    gateway.begin(1)
    await client.until(lambda: client.controls[-1:] == ["gateway-close"])
    assert client.messages[-1]["reason"] == "drain"


async def test_live_streams_are_not_delayed_by_many_that_read_the_log() -> None:
    log, gateway = await filled(400, 25, block_bytes=16 << 10, cache_bytes=3 << 20)
    gateway.read()
    live = await gateway.subscribe()
    await live.subscription.pull()
    clients = [await gateway.subscribe(gateway.id(number * 90), client=str(number)) for number in range(100)]
    reading = asyncio.gather(*[client.until_bytes(b'"number":10000}') for client in clients])
    loop_turns = []
    while not reading.done():
        log.write(1)
        pulled = asyncio.create_task(live.subscription.pull())
        await asyncio.sleep(0)
        gateway.read()
        loop_turns.append(0)
        while not pulled.done():
            await asyncio.sleep(0)
            loop_turns[-1] += 1
        assert f'"number":{log.position}}}'.encode() in pulled.result()
        await asyncio.sleep(0.005)
    await reading
    assert len(loop_turns) > 5
    assert max(loop_turns) <= 5
    assert gateway.older.statistics().cached_bytes <= 3 << 20
    for client in (live, *clients):
        client.subscription.close()


class Transport:
    """A transport that its client reads slowly: it is full after each write."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.buffer = b""
        self.taken = b""
        subscription.attach(self.write, lambda reason: None, lambda: None)

    def write(self, chunk: bytes) -> None:
        self.buffer += chunk
        self.subscription.pause()

    def take(self) -> None:
        if self.buffer:
            self.taken += self.buffer
            self.buffer = b""
            self.subscription.resume()


async def test_a_slow_client_reads_old_entries_as_fast_as_it_can() -> None:
    log, gateway = await filled(block_bytes=1_000, cache_bytes=1)
    gateway.read()
    transports = [Transport((await gateway.subscribe(gateway.id(at))).subscription) for at in (3, 500)]
    async with asyncio.timeout(30):
        while not all(b'"number":1000}' in each.taken for each in transports):
            await asyncio.sleep(0)
            for transport in transports:
                transport.take()
    for transport, first in zip(transports, (4, 501), strict=True):
        events = [json.loads(line) for line in transport.taken.splitlines()[1:]]
        assert [event["number"] for event in events] == list(range(first, 1_001))
        transport.subscription.close()


async def test_a_stream_that_waits_for_the_log_has_keepalives_and_is_not_slow() -> None:
    log, gateway = await filled()
    gateway.read()
    log.engine.error = LogError("the server has stopped")
    written: list[bytes] = []
    subscription = (await gateway.subscribe(gateway.id(7))).subscription
    subscription.attach(written.append, lambda reason: None, lambda: None)
    await asyncio.sleep(0.01)
    assert subscription.is_waiting
    check = ProgressCheck(subscription, lambda: 0, now=0.0)
    for now in range(0, 101, 10):
        check.tick(float(now), keepalive_seconds=40.0, slow_seconds=20.0)
    keepalives = [json.loads(chunk) for chunk in written[1:]]
    assert [each["id"] for each in keepalives] == [gateway.id(7)] * 3
    assert subscription.closing is None
    subscription.close()
    assert subscription not in gateway.older._positions
    gateway.older.close()


async def test_a_filter_can_change_while_a_stream_waits_for_the_log() -> None:
    log, gateway = await filled()
    gateway.read()
    log.engine.seconds = 0.02
    client = await gateway.subscribe(gateway.id(400))
    receiving = asyncio.create_task(client.until_number(1_000))
    await asyncio.sleep(0.03)
    gateway.hub.refilter(client.subscription, parse({"uuid": ["u6"]}))
    gateway.hub.refilter(client.subscription, Filter())
    await receiving
    assert client.numbers == list(range(401, 1_001))


async def test_a_client_that_has_the_end_of_a_stream_of_another_gateway_gets_no_other() -> None:
    log, gateway = await filled(10)
    tasks = TaskTable()
    completions = Completions(tasks, gateway.hub)
    events = [
        {"type": "task-received", "uuid": "done", "root_id": "done", "timestamp": START, "hostname": "a"},
        {"type": "task-succeeded", "uuid": "done", "timestamp": START, "hostname": "a"},
        {"type": "task-received", "uuid": "runs", "root_id": "runs", "timestamp": START, "hostname": "a"},
    ]
    first = log.position + 1
    log.at = time.time() - 60
    for event in events:
        for joined in tasks.join(dict(event), 0.0):
            offset = log.put("batch", log.term, log.position + 1, [Line(encode(joined), len(event))])
            log.batches.append((offset, [Line(encode(joined), len(event))], log.at))
            log.position += 1
    gateway.read()

    def is_complete(uuid: str, position: int, field: Literal["uuid", "root_id"] = "uuid") -> bool:
        return completions.is_complete(Target(field, uuid), gateway.id(position))

    assert is_complete("done", first + 1) and is_complete("done", first + 2)
    assert is_complete("done", first + 1, "root_id")
    assert not is_complete("done", first), "it has not got the last event"
    assert not is_complete("runs", first + 2) and not is_complete("unknown", first + 2)
    gateway.hub.written = log.position + 1
    assert not is_complete("done", first + 1), "the table is ahead of the stream"


async def test_a_stream_that_completes_has_the_events_that_are_ahead() -> None:
    """The table of the leader has the end of a task before it has read it back from the log."""
    log, gateway = await filled(10)
    gateway.read()
    tasks = TaskTable()
    completions = Completions(tasks, gateway.hub)
    event = {"type": "task-succeeded", "uuid": "u", "name": "n", "timestamp": START, "hostname": "a"}
    client = await gateway.subscribe()
    completions.add(client.subscription, Target("uuid", "u"))
    tasks.join(event | {"type": "task-received"}, 0.0)
    (joined,) = tasks.join(dict(event), 0.0)
    gateway.hub.written = log.position + 3
    completions.on_event(joined)
    receiving = asyncio.create_task(client.until(lambda: client.controls[-1:] == ["gateway-close"]))
    for _ in range(3):
        await asyncio.sleep(0.01)
        assert not receiving.done()
        log.write(1)
        gateway.read()
    await receiving
    assert client.numbers == list(range(log.position - 2, log.position + 1))
    assert client.messages[-1]["reason"] == "ready"


async def test_messages_over_websocket_wait_for_a_stream_that_opens_in_the_past() -> None:
    log, gateway = await filled()
    gateway.read()
    pipeline = Pipeline([], TaskTable(), WorkerTable(), gateway.hub)
    visible, at_once = Visible(pipeline), json_query({}, "ndjson")
    is_replaced = asyncio.Event()
    session = WebSocketSession(
        *(visible, at_once, FRAMING, lambda subscription: None, lambda session: is_replaced.set())
    )
    before = session.subscription
    log.engine.seconds = 0.01
    session.on_text(json.dumps({"op": "open", "last_event_id": gateway.id(100), "any": []}))
    session.on_text(json.dumps({"op": "filter", "any": [{"uuid": ["u3"]}]}))
    session.on_text(json.dumps({"op": "ping"}))
    assert session.subscription is before
    async with asyncio.timeout(30):
        await is_replaced.wait()
    client = Client(session.subscription)
    await client.until(lambda: bool(client.numbers) and client.numbers[-1] > 990)
    assert client.numbers == [number for number in range(101, 1_001) if number % 7 == 3]
    assert client.controls[:2] == ["gateway-open", "gateway-status"]
    assert {"gateway-filter", "gateway-pong"} <= {*client.controls}
    assert before.is_ended
    session.on_text(json.dumps({"op": "open", "since": "earliest"}))
    for _ in range(3):
        session.on_text("x" * 100_000)
    await client.until(lambda: client.controls[-1:] == ["gateway-close"])
    assert client.messages[-1]["reason"] == "limit", "it sends more than may wait"
