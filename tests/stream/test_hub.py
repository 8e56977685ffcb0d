"""The hub, its subscriptions and cursors, in a real event loop: no event is missed, none is sent twice."""

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count, pairwise
from random import Random
from typing import Any

import httpx
import httpx_sse
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import Event, keys
from celery_gateway.events.filter import Filter
from celery_gateway.events.filter_parser import parse
from celery_gateway.stream.cohort import Cohort
from celery_gateway.stream.cursor import Cursor
from celery_gateway.stream.framing import NDJSON, SSE
from celery_gateway.stream.history import ENTRY_OVERHEAD_BYTES, Entry, History
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.keepalive import ProgressCheck
from celery_gateway.stream.messages import gap_message, pong_message, status_message
from celery_gateway.stream.subscription import Subscription
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

Message = dict[str, Any]
LineFraming = NDJSON | SSE

EVERYTHING = Filter()
NOTHING = parse({"type": ["no-such-type"]})
NDJSON_FRAMING, SSE_FRAMING = NDJSON(), SSE()
FRAMINGS: list[LineFraming] = [NDJSON_FRAMING, SSE_FRAMING]
FILTERS = [
    EVERYTHING,
    NOTHING,
    parse({"name": ["shop.*"]}),
    parse({"name": ["!shop.*"]}),
    parse({"type": ["task-failed,task-sent"]}),
    parse({"root_id": ["r1"]}),
    parse({"root_id": ["r1", "r2"], "type": ["!task-sent"]}),
    parse({"uuid": ["u7"]}),
    parse({"name": ["*.pay"], "type": ["task-*"]}),
]


def event(number: int, **fields: Any) -> Event:
    """Return an event of one of the kinds that the filters distinguish."""
    drawn = Random(number)
    return {
        "type": drawn.choice(["task-sent", "task-failed", "task-started", "worker-heartbeat"]),
        "name": drawn.choice(["shop.pay", "shop.send", "mail.pay", None]),
        "root_id": drawn.choice(["r1", "r2", "r3"]),
        "uuid": f"u{drawn.randrange(10)}",
        "number": number,
    } | fields


def is_control(message: Message) -> bool:
    return str(message["type"]).startswith("gateway-")


def parsed(chunk: bytes, framing: LineFraming) -> list[Message]:
    """Return the messages of all complete frames, without keep-alives."""
    whole = chunk[: chunk.rfind(b"\n" if framing is NDJSON_FRAMING else b"\n\n") + 1]
    if framing is NDJSON_FRAMING:
        return [json.loads(line) for line in whole.split(b"\n")[:-1]]
    response = httpx.Response(200, headers={"content-type": SSE.media_type}, content=whole + b"\n")
    messages = []
    for frame in httpx_sse.EventSource(response).iter_sse():
        if frame.data:
            message = json.loads(frame.data)
            assert message["id"] == frame.id
            assert frame.event == (message["type"] if is_control(message) else "message")
            messages.append(message)
    return messages


class Reader:
    """A client that reads its subscription, and keeps the messages."""

    def __init__(self, subscription: Subscription, framing: LineFraming = NDJSON_FRAMING) -> None:
        self.subscription = subscription
        self.framing = framing
        self.messages: list[Message] = []

    @property
    def events(self) -> list[Message]:
        return [message for message in self.messages if not is_control(message)]

    @property
    def numbers(self) -> list[int]:
        return [message["number"] for message in self.events]

    @property
    def controls(self) -> list[Message]:
        return [message for message in self.messages if is_control(message)]

    def take(self) -> bool:
        """Read once; return whether there were bytes."""
        chunk = self.subscription.read()
        self.messages += parsed(chunk, self.framing)
        return bool(chunk)

    def drain(self) -> None:
        """Read everything; then the subscription is live, or has ended."""
        while self.take() or (self.subscription.has_more and not self.subscription.is_ended):
            pass

    async def until(self, is_enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not is_enough():
                if self.take():
                    continue
                assert not self.subscription.is_ended, f"it ended with {self.messages[-3:]}"
                self.messages += parsed(await self.subscription.pull(), self.framing)

    async def until_end(self) -> list[Message]:
        await self.until(lambda: self.subscription.is_ended)
        return self.messages


class Log(Reader):
    """A hub, and a reader of all events that reads at once: the reference for other readers."""

    def __init__(self, history_bytes: int = 64 << 20) -> None:
        self.hub = Hub(history_bytes=history_bytes)
        super().__init__(self.hub.subscribe(EVERYTHING, NDJSON_FRAMING))
        self.appended: list[Event] = []
        self._numbers = count()

    def append(self, how_many: int = 1, **fields: Any) -> None:
        for _ in range(how_many):
            made = event(next(self._numbers), **fields)
            self.appended.append(dict(made))
            self.hub.append(made)

    async def flushed(self) -> None:
        """Return when everything that was appended was flushed."""
        await self.until(lambda: self.numbers[-1:] == [made["number"] for made in self.appended[-1:]])

    def subscribe(
        self, filter: Filter = EVERYTHING, framing: LineFraming = NDJSON_FRAMING, id: str | None = None
    ) -> Reader:
        return Reader(self.hub.subscribe(filter, framing, id), framing)

    def expected(self, filter: Filter, after_id: str) -> list[int]:
        """Return the numbers of all matching events after an id, which is one of `messages`."""
        places = {message["id"]: place for place, message in enumerate(self.messages)}
        later = self.messages[places[after_id] + 1 :]
        return [
            message["number"]
            for message in later
            if not is_control(message) and filter.matches(keys(message))
        ]


@asynccontextmanager
async def opened_log(**options: int) -> AsyncIterator[Log]:
    log = Log(**options)
    log.take()
    assert log.messages[0]["type"] == "gateway-open"
    yield log
    log.hub.close()
    await log.until_end()


# --------------------------------------------------------------------------------------- live streams


async def test_gateway_open_comes_first_with_resume_live() -> None:
    async with opened_log() as log:
        log.append(3)
        await log.flushed()
        reader = log.subscribe()
        log.append(2)
        await reader.until(lambda: len(reader.events) == 2)
        assert reader.messages[0] == {"type": "gateway-open", "resume": "live", "id": log.messages[3]["id"]}
        assert reader.numbers == [3, 4]


async def test_an_event_is_sent_unchanged_with_its_id() -> None:
    async with opened_log() as log:
        reader, sse = log.subscribe(), log.subscribe(framing=SSE_FRAMING)
        log.append(1, text="é\u2028\n😀", deep={"a": [1, 1.0, None, True]})
        await reader.until(lambda: len(reader.events) == 1)
        await sse.until(lambda: len(sse.events) == 1)
        (message,) = reader.events
        assert sse.events == [message]
        assert json.dumps(message) == json.dumps({"id": message["id"], **log.appended[0]})


async def test_every_subscription_gets_all_matching_events_in_order_whenever_it_began() -> None:
    random = Random(1)
    async with opened_log() as log:
        readers: list[tuple[Reader, Filter, int]] = []
        for _ in range(150):
            log.append(random.randrange(6))
            for _ in range(random.randrange(3)):
                filter, framing = random.choice(FILTERS), random.choice(FRAMINGS)
                readers.append((log.subscribe(filter, framing), filter, len(log.appended)))
            for reader, _, _ in random.sample(readers, min(len(readers), 5)):
                reader.take()
            if random.random() < 0.7:
                await asyncio.sleep(0)
            log.take()
        log.append(1)
        await log.flushed()
        assert log.numbers == list(range(len(log.appended)))
        log_ids = [message["id"] for message in log.messages]
        assert len(set(log_ids)) == len(log_ids)
        for reader, filter, appended_before in readers:
            reader.drain()
            began_after = reader.messages[0]["id"]
            assert reader.numbers == log.expected(filter, began_after)
            assert log_ids.index(began_after) <= appended_before, "events after its beginning are not missed"
            assert [message["type"] for message in reader.controls] == ["gateway-open"]
            reader.subscription.close()
        assert len(readers) > 100


async def test_a_burst_is_one_chunk() -> None:
    async with opened_log() as log:
        reader = log.subscribe()
        reader.drain()
        log.append(100)
        assert len(parsed(await reader.subscription.pull(), NDJSON_FRAMING)) == 100
        assert reader.subscription.read() == b""


async def test_subscriptions_with_equal_filters_share_one_cohort_and_the_same_bytes() -> None:
    async with opened_log() as log:
        queries = [
            {"name": ["shop.*", "mail.*"]},
            {"name": ["mail.*,shop.*"]},
            {"name": ["shop.*,mail.*,shop.*"]},
        ]
        subscriptions = [log.hub.subscribe(parse(query), SSE_FRAMING) for query in queries]
        assert log.hub.statistics().cohorts == 2
        assert log.hub.subscribe(parse(queries[0]), NDJSON_FRAMING)
        assert log.hub.statistics().cohorts == 3
        for subscription in subscriptions:
            Reader(subscription, SSE_FRAMING).drain()
        log.append(20)
        await log.flushed()
        chunks = [subscription.read() for subscription in subscriptions]
        assert chunks[0]
        assert chunks[0] is chunks[1] is chunks[2]


async def test_a_subscription_without_matching_events_is_not_woken_but_its_position_moves() -> None:
    async with opened_log() as log:
        reader = log.subscribe(NOTHING, SSE_FRAMING)
        reader.drain()
        waiting = asyncio.create_task(reader.subscription.pull())
        log.append(10)
        await log.flushed()
        assert not waiting.done()
        assert reader.subscription.read() == b""
        assert b"\nid: %b\n" % log.messages[-1]["id"].encode() in reader.subscription.keepalive()
        again = log.subscribe(EVERYTHING, id=log.messages[-1]["id"])
        again.take()
        assert not again.take()
        assert [message["resume"] for message in again.controls] == ["resumed"]
        waiting.cancel()


async def test_a_pull_returns_at_once_if_there_is_something_and_loses_nothing_when_it_is_cancelled() -> None:
    async with opened_log() as log:
        reader = log.subscribe()
        async with asyncio.timeout(30):
            assert b"gateway-open" in await reader.subscription.pull()
            reader.drain()
            waiting = asyncio.create_task(reader.subscription.pull())
            await asyncio.sleep(0)
            waiting.cancel()
            log.append(1)
            await log.flushed()
            chunk = await reader.subscription.pull()
        assert [message["number"] for message in parsed(chunk, NDJSON_FRAMING)] == [0]


async def test_close_wakes_the_task_that_pulls() -> None:
    async with opened_log() as log:
        reader = log.subscribe()
        reader.drain()
        waiting = asyncio.create_task(reader.subscription.pull())
        await asyncio.sleep(0)
        reader.subscription.close()
        async with asyncio.timeout(30):
            assert await waiting == b""
        assert reader.subscription.is_ended


# ------------------------------------------------------------------------------------ slow subscribers


def assert_gapless(numbers: list[int]) -> None:
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.slow
@pytest.mark.parametrize("framing", FRAMINGS, ids=["ndjson", "sse"])
async def test_a_client_that_does_not_read_while_entries_are_evicted_gets_a_gap_and_then_the_rest(
    framing: LineFraming,
) -> None:
    async with opened_log(history_bytes=100 * (ENTRY_OVERHEAD_BYTES + 150)) as log:
        slow = log.subscribe(framing=framing)
        slow.drain()
        for _ in range(1_000):
            log.append(3)
            await log.flushed()
        slow.drain()
        (place,) = [place for place, message in enumerate(slow.messages) if message["type"] == "gateway-gap"]
        gap, before, after = slow.messages[place], slow.messages[1:place], slow.messages[place + 1 :]
        assert gap.items() >= {"reason": "evicted", "lost": None}.items()
        assert_gapless([message["number"] for message in before])
        assert before[0]["number"] == 0
        assert_gapless([message["number"] for message in after])
        assert after[-1]["number"] == 2_999
        assert len(after) >= 90
        assert gap["id"] == log.messages[after[0]["number"]]["id"], "the position right before the next event"


async def test_a_slow_subscriber_is_live_again_when_it_has_caught_up() -> None:
    async with opened_log() as log:
        slow = log.subscribe()
        for _ in range(20):
            log.append(5)
            await log.flushed()
        slow.drain()
        assert slow.numbers == list(range(100))
        log.append(5)
        await slow.until(lambda: len(slow.events) == 105)
        assert slow.numbers == list(range(105))


async def test_a_slow_subscriber_whose_filter_matches_little_gets_a_gap_too() -> None:
    # The lost events may have matched.
    async with opened_log(history_bytes=50 * (ENTRY_OVERHEAD_BYTES + 150)) as log:
        slow = log.subscribe(parse({"type": ["needle"]}))
        slow.drain()
        for _ in range(3):
            log.append(1, type="needle")
            await log.flushed()
        log.append(500, type="hay")
        await log.flushed()
        log.append(1, type="needle")
        await log.flushed()
        slow.drain()
        assert [message["type"] for message in slow.messages] == [
            "gateway-open", "needle", "gateway-gap", "needle"
        ]  # fmt: skip
        assert slow.numbers[0] == 0
        assert slow.numbers[-1] == 503


def assert_no_silent_loss(got: list[Message], wanted: list[int]) -> int:
    """Check that all wanted events came once, in order, or a gap; return the number of gaps."""
    gaps, place, is_reported = 0, 0, False
    for message in got:
        if message["type"] == "gateway-gap":
            gaps, is_reported = gaps + 1, True
        elif not is_control(message):
            here = wanted.index(message["number"])
            assert here == place or (here > place and is_reported), (
                f"wrong after {wanted[:place][-1:]}: {message}"
            )
            place, is_reported = here + 1, False
    assert place == len(wanted) or is_reported, f"{wanted[place:]} are missing at the end"
    return gaps


async def test_a_burst_larger_than_the_history_is_complete_or_has_a_gap() -> None:
    async with opened_log(history_bytes=50 * (ENTRY_OVERHEAD_BYTES + 150)) as log:
        live = [log.subscribe(filter) for filter in FILTERS]
        for reader in live:
            reader.drain()
        lagging = [log.subscribe(filter) for filter in FILTERS]
        log.append(500)  # within one turn of the loop
        await log.flushed()
        for reader, filter in zip(live + lagging, FILTERS + FILTERS, strict=True):
            reader.drain()
            assert_no_silent_loss(
                reader.messages, [made["number"] for made in log.appended if filter.matches(keys(made))]
            )


@pytest.mark.slow
async def test_slow_subscribers_take_no_memory() -> None:
    async def traced_bytes(slow_subscribers: int) -> int:
        log = Log(history_bytes=200_000)
        kept = [log.hub.subscribe(filter, SSE_FRAMING) for filter in FILTERS for _ in range(slow_subscribers)]
        for _ in range(150):
            log.append(20, padding="x" * 400)
            await log.flushed()
            log.messages.clear()
            log.appended.clear()
            log.append(1)
            await log.flushed()
        gc.collect()
        traced, _ = tracemalloc.get_traced_memory()
        assert log.hub.statistics().subscriptions == len(kept) + 1
        return traced

    tracemalloc.start()
    try:
        await traced_bytes(0)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        alone = await traced_bytes(0) - before
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        beside_slow_subscribers = await traced_bytes(20) - before
    finally:
        tracemalloc.stop()
    # 2 MB were sent. Each of the 180 subscribers has its objects, and a chunk that it shares with its cohort.
    assert beside_slow_subscribers - alone < 180 * 2_000 + len(FILTERS) * 20_000


# --------------------------------------------------------------------------------------------- resume


async def test_an_id_in_the_history_resumes_right_after_it() -> None:
    async with opened_log() as log:
        log.append(300)
        await log.flushed()
        for filter in FILTERS:
            for place in (0, 1, 150, 299, 300):
                id = log.messages[place]["id"]
                reader = log.subscribe(filter, id=id)
                reader.drain()
                assert reader.messages[0] == {"type": "gateway-open", "resume": "resumed", "id": id}
                assert reader.numbers == log.expected(filter, id)
                assert len(reader.controls) == 1
                reader.subscription.close()


@pytest.mark.slow
async def test_live_events_follow_replayed_events_without_a_gap_or_a_repetition() -> None:
    async with opened_log() as log:
        log.append(5_000)
        await log.flushed()
        reader = log.subscribe(id=log.messages[0]["id"])
        while len(reader.events) < 8_000:
            log.append(7)
            await asyncio.sleep(0)
            reader.take()
        log.append(1)
        await log.flushed()
        await reader.until(lambda: reader.numbers[-1] == log.numbers[-1])
        assert reader.numbers == log.numbers


async def test_the_last_evicted_id_resumes_and_the_one_before_is_reset() -> None:
    async with opened_log(history_bytes=50 * (ENTRY_OVERHEAD_BYTES + 150)) as log:
        log.append(40)
        await log.flushed()
        log.append(40)
        await log.flushed()
        evicted = log.hub.statistics().evicted
        assert evicted > 0
        ids = [message["id"] for message in log.messages if message["type"] != "gateway-gap"]
        last = log.subscribe(id=ids[evicted])
        last.take()
        last.drain()
        assert last.controls == [{"type": "gateway-open", "resume": "resumed", "id": ids[evicted]}]
        assert last.numbers == list(range(evicted, 80))
        before = log.subscribe(id=ids[evicted - 1])
        log.append(1)
        await before.until(lambda: bool(before.events))
        assert [
            (message["type"], message.get("resume"), message.get("reason")) for message in before.controls
        ] == [
            ("gateway-open", "reset", None),
            ("gateway-gap", None, "evicted"),
        ]
        assert before.numbers == [80], "after a reset the stream is live"


async def test_an_id_that_is_not_of_this_log_is_reset_and_reported_as_a_gap() -> None:
    async with opened_log() as log, opened_log() as other:
        other.append(5)
        log.append(5)
        await log.flushed()
        await other.flushed()
        epoch = log.messages[0]["id"].rpartition("-")[0]
        foreign = [message["id"] for message in other.messages]
        future = [f"{epoch}-6", f"{epoch}-999999999", f"{epoch}-{'9' * 100}"]
        garbage = [
            "",
            "0",
            "x",
            "-",
            f"{epoch}-",
            f"{epoch}--1",
            f"{epoch}-1 ",
            f"{epoch}-٣",
            "é\u2028",
            "\0",
            "a" * 9999,
        ]
        for id in [*foreign, *future, *garbage]:
            reader = log.subscribe(id=id)
            assert reader.take()
            assert reader.messages == [
                {"type": "gateway-open", "resume": "reset", "id": log.messages[-1]["id"]},
                {"type": "gateway-gap", "reason": "unknown-id", "lost": None, "id": log.messages[-1]["id"]},
            ]
            assert not reader.take()
            reader.subscription.close()


def cut(chunk: bytes, random: Random) -> bytes:
    """Return the part of a chunk that arrives before the connection breaks, often within a frame."""
    return chunk[: random.randrange(len(chunk) + 1)]


def last_id(chunk: bytes, framing: LineFraming) -> str | None:
    """Return the last id of the complete frames, keep-alives included."""
    whole = chunk[: chunk.rfind(b"\n" if framing is NDJSON_FRAMING else b"\n\n") + 1]
    if framing is NDJSON_FRAMING:
        lines = whole.split(b"\n")[:-1]
        return json.loads(lines[-1])["id"] if lines else None
    ids = [line[4:] for line in whole.split(b"\n") if line.startswith(b"id: ")]
    return ids[-1].decode() if ids else None


async def cut_and_resume(log: Log, random: Random) -> tuple[Filter, list[Message]]:
    """Read with connections that break anywhere, until the end; return the filter and the messages."""
    filter, framing = random.choice(FILTERS), random.choice(FRAMINGS)
    id: str | None = log.messages[0]["id"]
    got: list[Message] = []

    def receive(chunk: bytes) -> None:
        nonlocal id
        got.extend(parsed(chunk, framing))
        id = last_id(chunk, framing) or id

    for _ in range(random.randrange(1, 6)):
        subscription = log.hub.subscribe(filter, framing, id)
        for _ in range(random.randrange(6)):
            if random.random() < 0.6:
                log.append(random.randrange(8))
            if random.random() < 0.6:
                await asyncio.sleep(0)
            if chunk := subscription.read():
                receive(chunk)
            elif random.random() < 0.5 and not subscription.has_more:
                receive(subscription.keepalive())
        receive(cut(subscription.read(), random))
        subscription.close()
        log.append(random.randrange(3))
    log.append(1)
    await log.flushed()
    subscription = log.hub.subscribe(filter, framing, id)
    while (chunk := subscription.read()) or subscription.has_more:
        receive(chunk)
    subscription.close()
    return filter, got


@pytest.mark.slow
async def test_a_thousand_clients_that_are_cut_and_resume_miss_nothing_and_get_nothing_twice() -> None:
    seen = 0
    for seed in range(1_000):
        random = Random(seed)
        log = Log()
        log.take()
        filter, got = await cut_and_resume(log, random)
        numbers = [message["number"] for message in got if not is_control(message)]
        assert numbers == log.expected(filter, log.messages[0]["id"]), f"seed {seed}"
        assert not [message for message in got if message["type"] == "gateway-gap"], f"seed {seed}"
        seen += len(numbers)
        log.subscription.close()
        assert log.hub.statistics()[-2:] == (0, 0)
    assert seen > 5_000


@pytest.mark.slow
async def test_clients_that_resume_after_evicted_entries_lose_nothing_without_a_gap() -> None:
    gaps = 0
    for seed in range(300):
        random = Random(seed)
        log = Log(history_bytes=random.randrange(5, 30) * (ENTRY_OVERHEAD_BYTES + 150))
        log.take()
        filter, got = await cut_and_resume(log, random)
        wanted = [made["number"] for made in log.appended if filter.matches(keys(made))]
        gaps += assert_no_silent_loss(got, wanted)
        log.subscription.close()
    assert gaps > 50


# --------------------------------------------------------------------------------------- gaps, the end


async def test_a_gap_reaches_every_filter_at_its_position() -> None:
    async with opened_log() as log:
        readers = [(log.subscribe(filter, framing), filter) for filter in FILTERS for framing in FRAMINGS]
        log.append(20)
        log.hub.broadcast(lambda id: gap_message(id, "broker", None))
        log.append(20)
        await log.flushed()
        log.hub.broadcast(lambda id: gap_message(id, "broker", 3))
        log.append(1)
        await log.flushed()
        resumed = [(log.subscribe(filter, id=log.messages[0]["id"]), filter) for filter in FILTERS]
        wanted = {"type": "gateway-gap", "reason": "broker"}
        for reader, filter in [*readers, *resumed]:
            reader.drain()
            expected = [
                message
                for message in log.messages[1:]
                if is_control(message) or filter.matches(keys(message))
            ]
            assert reader.messages[1:] == expected
            first, second = reader.controls[1:]
            assert first.items() >= (wanted | {"lost": None}).items()
            assert second.items() >= (wanted | {"lost": 3}).items()
        ids = [message["id"] for message in log.messages]
        assert len(set(ids)) == len(ids), "a gap has its own position"


async def test_a_broadcast_reaches_every_filter_with_a_position_of_its_own() -> None:
    sources = [{"cluster": None, "consuming": False, "reason": "away", "since": 1.5}]
    async with opened_log() as log:
        readers = [(log.subscribe(filter, framing), filter) for filter in FILTERS for framing in FRAMINGS]
        log.append(10)
        log.hub.broadcast(lambda id: status_message(id, sources))
        log.append(10)
        await log.flushed()
        (message,) = log.controls[1:]
        assert {**message, "id": None} == {"type": "gateway-status", "sources": sources, "id": None}
        assert log.messages.index(message) == 11
        assert len({message["id"] for message in log.messages}) == len(log.messages)
        readers += [(log.subscribe(filter, id=log.messages[0]["id"]), filter) for filter in FILTERS]
        for reader, filter in readers:
            reader.drain()
            assert reader.messages[1:] == [
                message
                for message in log.messages[1:]
                if is_control(message) or filter.matches(keys(message))
            ]


async def test_close_sends_all_appended_events_and_ends_every_stream() -> None:
    log = Log()
    readers = [log.subscribe(filter, framing) for filter in FILTERS for framing in FRAMINGS]
    for reader in [log, *readers]:
        reader.drain()
    log.append(10)  # not flushed yet
    log.hub.close()
    log.hub.close()
    await log.until_end()
    assert log.numbers == list(range(10))
    for reader, filter in zip(readers[::2], FILTERS, strict=True):
        assert (await reader.until_end())[1:-1] == [each for each in log.events if filter.matches(keys(each))]
    for reader in readers:
        messages = await reader.until_end()
        assert messages[-1].items() >= {"type": "gateway-close", "reason": "drain"}.items()
        assert [message["type"] for message in reader.controls] == ["gateway-open", "gateway-close"]
    assert (log.hub.statistics().subscriptions, log.hub.statistics().cohorts) == (0, 0)


async def test_a_subscriber_that_lags_when_the_hub_closes_gets_the_rest() -> None:
    log = Log()
    lagging = log.subscribe()
    for _ in range(10):
        log.append(5)
        await log.flushed()
    log.hub.close()
    messages = await lagging.until_end()
    assert messages[-1]["type"] == "gateway-close"
    assert lagging.numbers == list(range(50))


async def test_the_id_in_gateway_close_is_the_position_up_to_which_all_was_sent() -> None:
    log = Log()
    log.drain()
    readers = [log.subscribe(filter) for filter in FILTERS]
    for number in range(10):
        log.append(5)
        await log.flushed()
        for reader in readers[number % 2 :: 2]:
            reader.take()
    log.hub.close()
    await log.until_end()
    for reader, filter in zip(readers, FILTERS, strict=True):
        messages = await reader.until_end()
        places = {message["id"]: place for place, message in enumerate(log.messages)}
        up_to = log.messages[1 : places[messages[-1]["id"]] + 1]
        assert reader.events == [
            each for each in up_to if not is_control(each) and filter.matches(keys(each))
        ]


async def test_close_of_the_hub_wakes_all_tasks_that_pull() -> None:
    log = Log()
    readers = [log.subscribe(filter) for filter in FILTERS]
    ends = [asyncio.create_task(reader.until_end()) for reader in readers]
    await asyncio.sleep(0)
    log.hub.close()
    async with asyncio.timeout(30):
        assert {messages[-1]["type"] for messages in await asyncio.gather(*ends)} == {"gateway-close"}


async def test_a_subscription_after_the_close_gets_open_and_close() -> None:
    log = Log()
    log.append(3)
    await log.flushed()
    log.hub.close()
    for id in (None, log.messages[0]["id"], "garbage"):
        messages = await log.subscribe(id=id).until_end()
        assert messages[0]["type"] == "gateway-open"
        assert messages[-1]["type"] == "gateway-close"
        assert messages[-1]["reason"] == "drain"
    await log.until_end()
    assert (log.hub.statistics().subscriptions, log.hub.statistics().cohorts) == (0, 0)


async def test_one_stream_can_be_ended_alone() -> None:
    async with opened_log() as log:
        ended, other = log.subscribe(), log.subscribe()
        log.append(3)
        await log.flushed()
        details = {"known": 3, "message": "…"}
        ended.subscription.end("limit", details)
        messages = await ended.until_end()
        expected = {"type": "gateway-close", "reason": "limit", **details}
        assert messages[-1].items() >= expected.items()
        log.append(1)
        await log.flushed()
        await other.until(lambda: len(other.events) == 4)
        assert not other.subscription.is_ended
        assert len(ended.events) <= 3


def alive(kind: type) -> int:
    gc.collect()
    return sum(type(found) is kind for found in gc.get_objects())


@pytest.mark.slow
async def test_closed_subscriptions_leave_nothing_behind() -> None:
    async with opened_log() as log:
        before = alive(Subscription), alive(Cohort)
        for round in range(4):
            subscriptions = [
                log.hub.subscribe(filter, framing, id)
                for filter in FILTERS
                for framing in FRAMINGS
                for id in (None, log.messages[0]["id"], "garbage")
            ]
            assert log.hub.statistics().subscriptions == 1 + len(subscriptions)
            assert log.hub.statistics().cohorts == 2 * len(FILTERS)
            log.append(3)
            await log.flushed()
            for subscription in subscriptions[round % 3 :: 3]:
                while subscription.read() or subscription.has_more:
                    pass
            log.append(3)  # some are closed with events not flushed, not read, or both
            for subscription in subscriptions:
                subscription.close()
                subscription.close()
            del subscriptions, subscription
            assert (log.hub.statistics().subscriptions, log.hub.statistics().cohorts) == (1, 1)
            await log.flushed()
        assert (alive(Subscription), alive(Cohort)) == before


async def test_the_statistics_count_what_was_appended_and_evicted() -> None:
    async with opened_log(history_bytes=20 * (ENTRY_OVERHEAD_BYTES + 150)) as log:
        log.append(100)
        statistics = log.hub.statistics()
        assert statistics.events == 100
        assert 75 <= statistics.evicted < 85
        assert 0 < statistics.history_bytes <= 20 * (ENTRY_OVERHEAD_BYTES + 150)
        assert (statistics.subscriptions, statistics.cohorts) == (1, 1)


async def test_a_subscription_that_begins_between_an_event_and_its_flush_gets_the_event() -> None:
    # The stream begins after the id in gateway-open.
    async with opened_log() as log:
        log.append(3)
        live, resumed = log.subscribe(FILTERS[3]), log.subscribe(FILTERS[2], id=log.messages[0]["id"])
        for reader in (live, resumed):
            reader.drain()
        await log.flushed()
        for reader, filter in ((live, FILTERS[3]), (resumed, FILTERS[2])):
            reader.drain()
            assert reader.numbers == log.expected(filter, reader.messages[0]["id"])


async def test_a_message_to_one_client_is_not_lost_when_an_event_comes_before_it_is_read() -> None:
    async with opened_log() as log:
        reader, other = log.subscribe(), log.subscribe()
        reader.drain()
        other.drain()
        reader.subscription.send(pong_message(reader.subscription.id))
        log.append(2)
        await log.flushed()
        reader.subscription.send(pong_message(reader.subscription.id))
        reader.drain()
        other.drain()
        assert [message["type"] for message in reader.controls] == [
            "gateway-open",
            "gateway-pong",
            "gateway-pong",
        ]
        assert reader.numbers == other.numbers == [0, 1]
        assert [message["type"] for message in other.controls] == ["gateway-open"]


@pytest.mark.slow
async def test_memory_for_long_names_stays_bounded() -> None:
    # Names come from publishers, and each may be new.
    log = Log(history_bytes=1_000_000)
    kept = [log.hub.subscribe(parse({"name": [f"shop.{number}.*"]}), NDJSON_FRAMING) for number in range(3)]
    tracemalloc.start()
    try:
        for number in range(1_500):
            log.append(1, name=f"{number}" + "n" * 20_000)
            if number % 20 == 0:
                await log.flushed()
                log.messages.clear()
                log.appended[:-1] = []
        await log.flushed()
        log.messages.clear()
        gc.collect()
        traced, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert traced < 5_000_000, "30 MB of names were sent"
    assert len(kept) == 3


@pytest.mark.timing
async def test_four_times_as_many_different_filters_cost_about_four_times_the_cpu_time() -> None:
    async with opened_log() as log:

        def cpu_seconds(how_many: int) -> float:
            filters = [parse({"name": [f"shop.{number}.*"]}) for number in range(how_many)]
            started = time.process_time()
            subscriptions = [log.hub.subscribe(filter, SSE_FRAMING) for filter in filters]
            for subscription in reversed(subscriptions):
                subscription.close()
            return time.process_time() - started

        few = min(cpu_seconds(300), cpu_seconds(300))
        assert min(cpu_seconds(1_200), cpu_seconds(1_200)) < 2.5 * 4 * few


# ------------------------------------------------------------------------------------ since, refilter


async def test_since_zero_begins_with_the_oldest_entry() -> None:
    async with opened_log(history_bytes=50 * (ENTRY_OVERHEAD_BYTES + 150)) as log:
        for _ in range(10):
            log.append(10)
            await log.flushed()
        reader = Reader(log.hub.subscribe(EVERYTHING, NDJSON_FRAMING, since=0))
        reader.drain()
        assert [message["type"] for message in reader.controls] == ["gateway-open"]
        assert reader.numbers == list(range(log.hub.statistics().evicted, 100))


async def test_since_a_time_begins_with_the_first_entry_after_it_and_a_gap_if_that_was_evicted() -> None:
    async with opened_log() as log, opened_log(history_bytes=50 * (ENTRY_OVERHEAD_BYTES + 150)) as short:
        for each in (log, short):
            each.append(100)
            await each.flushed()
        for since, numbers in ((1.0, list(range(100))), (1e12, [])):
            reader = Reader(log.hub.subscribe(EVERYTHING, NDJSON_FRAMING, since=since))
            reader.drain()
            assert [message["type"] for message in reader.controls] == ["gateway-open"]
            assert reader.numbers == numbers
        late = Reader(short.hub.subscribe(EVERYTHING, NDJSON_FRAMING, since=1.0))
        late.drain()
        assert [message.get("reason") for message in late.controls] == [None, "evicted"]
        assert late.numbers == list(range(short.hub.statistics().evicted, 100))


async def test_an_id_takes_precedence_over_since() -> None:
    async with opened_log() as log:
        log.append(10)
        await log.flushed()
        known = Reader(log.hub.subscribe(EVERYTHING, NDJSON_FRAMING, log.messages[5]["id"], since=0))
        unknown = Reader(log.hub.subscribe(EVERYTHING, NDJSON_FRAMING, "garbage", since=0))
        known.drain()
        unknown.drain()
        assert (known.controls[0]["resume"], known.numbers) == ("resumed", list(range(5, 10)))
        assert [message.get("resume", message.get("reason")) for message in unknown.controls] == [
            "reset", "unknown-id"
        ]  # fmt: skip
        assert unknown.numbers == list(range(10)), (
            "with since=earliest the stream begins with the oldest entry"
        )


@pytest.mark.slow
async def test_a_new_filter_applies_from_the_id_in_gateway_filter_on() -> None:
    for seed in range(100):
        random = Random(seed)
        log = Log()
        log.drain()
        reader, filters = log.subscribe(FILTERS[2]), [FILTERS[2]]
        for _ in range(12):
            log.append(random.randrange(5))
            if random.random() < 0.5:
                await asyncio.sleep(0)
            if random.random() < 0.5:
                reader.take()
            if random.random() < 0.4:
                filters.append(random.choice(FILTERS))
                log.hub.refilter(reader.subscription, filters[-1])
        log.append(1)
        await log.flushed()
        reader.drain()
        expected: list[Message] = []
        places = {message["id"]: place for place, message in enumerate(log.messages)}
        begins = [places[message["id"]] for message in reader.controls]
        assert begins == sorted(begins), f"seed {seed}"
        for message, filter, begin, end in zip(
            reader.controls, filters, begins, [*begins[1:], len(log.messages) - 1], strict=True
        ):
            expected += [
                message,
                *(each for each in log.messages[begin + 1 : end + 1] if filter.matches(keys(each))),
            ]
        assert reader.messages == expected, f"seed {seed}"
        assert [message["type"] for message in reader.controls[1:]] == ["gateway-filter"] * (len(filters) - 1)
        reader.subscription.close()
        log.subscription.close()
        assert log.hub.statistics()[-2:] == (0, 0)


async def test_a_new_filter_for_a_stream_that_has_ended_leaves_nothing_behind() -> None:
    # The last message of a client can arrive after the end of its stream.
    async with opened_log() as log:
        reader = log.subscribe(FILTERS[2])
        reader.subscription.close()
        log.hub.refilter(reader.subscription, FILTERS[3])
        assert (log.hub.statistics().subscriptions, log.hub.statistics().cohorts) == (1, 1)


# ---------------------------------------------------------------------------------------------- pushed


class Broken:
    """A connection that fails after some writes."""

    def __init__(self, subscription: Subscription, working_writes: int) -> None:
        self.subscription = subscription
        self.is_aborted = False
        self._working_writes = working_writes
        subscription.attach(self._write, self._on_end, self._abort)

    def _write(self, data: bytes) -> None:
        self._working_writes -= 1
        if self._working_writes < 0:
            raise RuntimeError("the transport is closed")

    def _on_end(self, reason: str) -> None:
        raise RuntimeError("cannot close")

    def _abort(self) -> None:
        self.is_aborted = True


@pytest.mark.parametrize("working_writes", [0, 1, 2])
async def test_a_member_whose_write_fails_does_not_affect_other_members(
    working_writes: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened_log() as log:
        before = Transport(log.hub.subscribe(EVERYTHING, SSE_FRAMING), 1 << 30)
        broken = Broken(log.hub.subscribe(EVERYTHING, SSE_FRAMING), working_writes)
        after = Transport(log.hub.subscribe(EVERYTHING, SSE_FRAMING), 1 << 30)
        for number in range(3):
            log.append(1)
            await log.flushed()
            assert broken.is_aborted == broken.subscription.is_ended == (number + 1 >= working_writes)
        before.take(1 << 30)
        after.take(1 << 30)
        assert before.taken == after.taken
        assert [message["number"] for message in parsed(before.taken, SSE_FRAMING)[1:]] == [0, 1, 2]


async def test_a_final_reason_is_not_replaced_by_drain() -> None:
    async with opened_log() as log:
        subscription = log.hub.subscribe(EVERYTHING, NDJSON_FRAMING)
        reader = Reader(subscription)
        reader.take()
        subscription.end("ready", {"known": 1})
        log.hub.close()
        (close,) = (await reader.until_end())[1:]
        assert (close["reason"], close["known"]) == ("ready", 1)


async def test_a_stream_that_fails_to_end_does_not_keep_others_from_ending() -> None:
    async with opened_log() as log:
        streams = [log.hub.subscribe(EVERYTHING, SSE_FRAMING) for _ in range(3)]
        broken = [Broken(stream, 100) for stream in streams[:2]]
        good = Transport(streams[2], 1 << 30)
        await asyncio.sleep(0)
        log.hub.close()
        assert [each.is_aborted for each in broken] == [True, True]
        assert good.ended == ["drain"]


async def test_an_event_that_cannot_be_framed_ends_the_streams_of_its_framing_only() -> None:
    class FailingFraming(NDJSON):
        def event(self, id: bytes, json: bytes) -> bytes:
            if b'"number":1,' in json or json.endswith(b'"number":1}'):
                raise ValueError("this framing cannot write it")
            return super().event(id, json)

    async with opened_log() as log:
        pushed = Transport(log.hub.subscribe(EVERYTHING, failing := FailingFraming()), 1 << 30)
        lagging = log.hub.subscribe(EVERYTHING, failing, since=0)
        other = Transport(log.hub.subscribe(EVERYTHING, SSE_FRAMING), 1 << 30)
        log.append(3)
        await log.flushed()
        assert pushed.subscription.is_ended
        with pytest.raises(ValueError, match="cannot write"):
            while lagging.read():
                pass
        other.take(1 << 30)
        assert [message["number"] for message in parsed(other.taken, SSE_FRAMING)[1:]] == [0, 1, 2]


async def test_a_flush_writes_a_bounded_chunk_and_the_rest_is_read_at_the_pace_of_each_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class GrowingFraming(NDJSON):
        """Makes 5 kB of each event, as records of tasks can."""

        def event(self, id: bytes, json: bytes) -> bytes:
            return super().event(id, json[:-1] + b',"record":"%b"}' % (b"x" * 5_000))

    class Measured(Transport):
        largest_bytes = 0

        def _write(self, data: bytes) -> None:
            self.largest_bytes = max(self.largest_bytes, len(data))
            super()._write(data)

    monkeypatch.setattr("celery_gateway.stream.cohort.MAX_FLUSH_BYTES", 100_000)
    async with opened_log() as log:
        growing = GrowingFraming()
        quick = Measured(log.hub.subscribe(EVERYTHING, growing), 1 << 30)
        slow = Measured(log.hub.subscribe(EVERYTHING, growing), 1 << 16)
        pulled = Reader(log.hub.subscribe(EVERYTHING, growing))
        pulled.drain()
        log.append()
        await log.flushed()
        log.append(199)  # a megabyte, in one flush
        await log.flushed()
        assert slow.buffered_bytes < 200_000
        await pulled.until(lambda: len(pulled.numbers) == 200)
        assert pulled.numbers == list(range(200))
        for transport in (quick, slow):
            await transport.take_all(partial(lambda each: each.taken.count(b"\n") > 200, transport))
            assert transport.largest_bytes < 120_000
            numbers = [message["number"] for message in transport.messages if not is_control(message)]
            assert numbers == list(range(200))


class Transport:
    """A connection whose client reads only when ``take`` is called."""

    def __init__(self, subscription: Subscription, limit_bytes: int) -> None:
        self.subscription = subscription
        self.ended: list[str] = []
        self.taken = b""
        self._limit_bytes = limit_bytes
        self._buffer = b""
        subscription.attach(self._write, self.ended.append, lambda: None)

    def _write(self, data: bytes) -> None:
        assert not self.ended, "nothing is written after the end"
        assert data
        is_full = len(self._buffer) > self._limit_bytes
        self._buffer += data
        if not is_full and len(self._buffer) > self._limit_bytes:
            self.subscription.pause()

    @property
    def buffered_bytes(self) -> int:
        return len(self._buffer)

    def progress_check(self) -> ProgressCheck:
        return ProgressCheck(
            self.subscription, lambda: self.buffered_bytes, asyncio.get_running_loop().time()
        )

    def take(self, size: int) -> None:
        was_full = len(self._buffer) > self._limit_bytes
        self.taken += self._buffer[:size]
        self._buffer = self._buffer[size:]
        if was_full and len(self._buffer) <= self._limit_bytes and not self.ended:
            self.subscription.resume()

    async def take_all(self, up_to: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not up_to():
                self.take(1 << 30)
                await asyncio.sleep(0)
        self.take(1 << 30)

    @property
    def messages(self) -> list[Message]:
        return parsed(self.taken, NDJSON_FRAMING)


@pytest.mark.slow
async def test_a_stream_through_a_buffer_that_fills_and_drains_is_complete_and_in_order() -> None:
    for seed in range(300):
        random = Random(seed)
        log = Log()
        log.drain()
        filter = random.choice(FILTERS)
        transport = Transport(log.hub.subscribe(filter, NDJSON_FRAMING), random.randrange(2_000))
        for _ in range(20):
            log.append(random.randrange(12))
            if random.random() < 0.6:
                await asyncio.sleep(0)
            if random.random() < 0.5:
                transport.take(random.randrange(3_000))
        log.append(1)
        await log.flushed()
        last = log.messages[-1]["id"]
        await transport.take_all(lambda t=transport, last=last: t.subscription.id.decode() == last)  # type: ignore[misc]
        numbers = [message["number"] for message in transport.messages if not is_control(message)]
        assert numbers == log.expected(filter, transport.messages[0]["id"]), f"seed {seed}"
        assert [each["type"] for each in transport.messages if is_control(each)] == ["gateway-open"]
        transport.subscription.close()
        log.subscription.close()
        assert log.hub.statistics()[-2:] == (0, 0)


@pytest.mark.slow
async def test_a_pushed_stream_whose_client_does_not_read_while_entries_are_evicted_gets_a_gap() -> None:
    async with opened_log(history_bytes=50 * (ENTRY_OVERHEAD_BYTES + 150)) as log:
        transport = Transport(log.hub.subscribe(EVERYTHING, NDJSON_FRAMING), 500)
        for _ in range(100):
            log.append(5)
            await log.flushed()
        last = log.messages[-1]["id"]
        assert transport.buffered_bytes < 2_000, "what the client does not read waits in the history only"
        await transport.take_all(lambda: transport.subscription.id.decode() == last)
        assert assert_no_silent_loss(transport.messages, log.numbers) == 1


async def test_a_pushed_stream_ends_with_gateway_close_and_one_call_of_on_end() -> None:
    log = Log()
    log.drain()
    transports = [Transport(log.hub.subscribe(filter, NDJSON_FRAMING), 1 << 20) for filter in FILTERS]
    log.append(10)
    log.hub.close()
    await log.until_end()
    for transport, filter in zip(transports, FILTERS, strict=True):
        await transport.take_all(lambda transport=transport: bool(transport.ended))  # type: ignore[misc]
        assert transport.ended == ["drain"]
        assert transport.messages[1:-1] == [each for each in log.events if filter.matches(keys(each))]
        assert transport.messages[-1].items() >= {"type": "gateway-close", "reason": "drain"}.items()
    assert log.hub.statistics()[-2:] == (0, 0)


async def test_a_pushed_stream_without_progress_ends_with_the_id_to_resume_from() -> None:
    async with opened_log() as log:
        slow = Transport(log.hub.subscribe(EVERYTHING, NDJSON_FRAMING), 500)
        steady = Transport(log.hub.subscribe(EVERYTHING, NDJSON_FRAMING), 500)
        log.append(200)
        await log.flushed()
        checks = [(each, each.progress_check()) for each in (slow, steady)]
        for now in range(0, 25, 5):
            for each, check in checks:
                if not each.ended:
                    check.tick(1_000.0 + now, keepalive_seconds=15.0, slow_seconds=20.0)
            steady.take(100)
            assert slow.ended == (["slow"] if now >= 20 else [])
        assert steady.ended == []
        slow.take(1 << 30)
        close = slow.messages[-1]
        assert close.items() >= {"type": "gateway-close", "reason": "slow"}.items()
        got = [message["number"] for message in slow.messages if not is_control(message)]
        again = log.subscribe(id=close["id"])
        again.drain()
        assert got + again.numbers == list(range(200)), "no event is missed, and none is sent twice"
        steady.subscription.close()


async def test_an_idle_pushed_stream_gets_a_keepalive_with_its_position() -> None:
    async with opened_log() as log:
        transport = Transport(log.hub.subscribe(NOTHING, NDJSON_FRAMING), 1 << 20)
        log.append(10)
        await log.flushed()
        now = asyncio.get_running_loop().time() + 15
        transport.progress_check().tick(now, keepalive_seconds=15.0, slow_seconds=30.0)
        transport.take(1 << 30)
        assert transport.messages[1:] == [{"type": "gateway-bookmark", "id": log.messages[-1]["id"]}]
        transport.subscription.close()


# -------------------------------------------------------------------------------------------- cursors


def logged(how_many: int, max_bytes: int = 1 << 30) -> History:
    history = History(max_bytes=max_bytes)
    for number in range(how_many):
        id = history.id_of(number + 1)
        history.append(Entry(id, keys(event(number)), None, b'{"id":"%b","number":%d}' % (id, number), 0.0))
    return history


@settings(deadline=None, max_examples=tries(100), derandomize=True)
@given(
    st.sampled_from(FILTERS),
    st.integers(0, 60),
    st.lists(st.tuples(st.integers(1, 2_000), st.integers(1, 20)), min_size=1, max_size=8),
)
def test_a_cursor_returns_the_same_bytes_whatever_the_limits_of_each_read(
    filter: Filter, position: int, limits: list[tuple[int, int]]
) -> None:
    history = logged(60)
    whole = Cursor(history, filter, SSE_FRAMING, position).read(60, 1 << 30, 1 << 30)
    cursor = Cursor(history, filter, SSE_FRAMING, position)
    pieces: list[bytes] = []
    positions = [position]
    while cursor.position < 60:
        limit_bytes, limit_entries = limits[len(pieces) % len(limits)]
        pieces.append(cursor.read(60, limit_bytes, limit_entries))
        positions.append(cursor.position)
        assert len(pieces[-1]) < limit_bytes + 100
        assert cursor.position - positions[-2] <= limit_entries
    assert b"".join(pieces) == whole
    assert all(before < after for before, after in pairwise(positions))


def test_a_cursor_stops_at_the_given_position() -> None:
    cursor = Cursor(logged(60), EVERYTHING, NDJSON_FRAMING, 10)
    assert len(parsed(cursor.read(15, 1 << 30, 1 << 30), NDJSON_FRAMING)) == 5
    assert cursor.position == 15
    assert cursor.read(15, 1 << 30, 1 << 30) == b""
    assert cursor.position == 15


@pytest.mark.parametrize("how_many", [50, 1_500, 5_000])
def test_a_cursor_whose_entries_are_evicted_reports_one_gap_and_stops_at_the_given_position(
    how_many: int,
) -> None:
    history = logged(how_many, max_bytes=30 * (ENTRY_OVERHEAD_BYTES + 40))
    evicted = history.evicted
    cursor = Cursor(history, EVERYTHING, NDJSON_FRAMING, 0)
    # Between two flushes more may be evicted than the cohort has sent.
    (gap,) = parsed(cursor.read(evicted - 5, 1 << 30, 1 << 30), NDJSON_FRAMING)
    assert gap == {
        "type": "gateway-gap",
        "reason": "evicted",
        "lost": None,
        "id": history.id_of(evicted).decode(),
    }
    assert cursor.position == evicted
    rest = parsed(cursor.read(how_many, 1 << 30, 1 << 30), NDJSON_FRAMING)
    assert [message["number"] for message in rest] == list(range(evicted, how_many))
