"""A maximum rate of events (`max_rate`): what is sent, what is skipped, and how that is reported."""

import asyncio
import json
from random import Random
from typing import Any

import pytest

from celery_gateway.events.filter import Filter
from celery_gateway.events.filter_parser import parse
from celery_gateway.stream import hub as hub_module
from celery_gateway.stream import stream_rate
from celery_gateway.stream.framing import FORMATS
from celery_gateway.stream.history import Entry
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.messages import gap_message
from celery_gateway.stream.report_timer import ReportTimer
from celery_gateway.stream.reports import Reports, SkippedReports
from celery_gateway.stream.stream_rate import HeldEntries, StreamRate, Together
from celery_gateway.stream.subscription import Subscription
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

Message = dict[str, Any]
FRAMING = FORMATS["ndjson"]


class Clock:
    """A clock that a test sets, in seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the rates of a hub."""
    made = Clock()
    monkeypatch.setattr(hub_module, "StreamRate", lambda per_second: StreamRate(per_second, made))
    return made


def lines(chunk: bytes) -> list[Message]:
    return [json.loads(line) for line in chunk.splitlines()]


def shown(chunk: bytes) -> list[str]:
    """Return the positions of events, and the types of control messages, with the count of those skipped."""
    return [
        each["id"].removeprefix("e-")
        if each["type"] == "event"
        else f"{each['type'].removeprefix('gateway-')} {each['count']} at {each['id'].removeprefix('e-')}"
        if "count" in each
        else each["type"].removeprefix("gateway-")
        for each in lines(chunk)
    ]


def entry(position: int, type: str | None = None) -> Entry:
    id = b"e-%d" % position
    body = b'{"type":"%b","id":"%b"}' % (type.encode() if type else b"event", id)
    return Entry(id, (None,) * 10, type, body)


def test_tokens_come_back_with_time() -> None:
    clock = Clock()
    rate = StreamRate(10, clock)
    assert rate.tokens() == 10, "a burst of a second"
    rate.spend(10)
    assert rate.tokens() == 0
    clock.now += 0.25
    assert rate.tokens() == 2
    clock.now += 100
    assert rate.tokens() == 10


def together(*entries: Entry) -> Together:
    return Together(entries, FRAMING, lambda entry: b"e-%d" % (int(entry.id[2:]) - 1))


def test_the_newest_events_that_come_together_are_sent() -> None:
    rate = StreamRate(2, Clock())
    assert shown(together(*map(entry, range(1, 7))).chunk(rate)) == ["skipped 4 at 4", "5", "6"]


def test_a_report_comes_before_the_next_event_and_once_a_second() -> None:
    clock = Clock()
    rate = StreamRate(2, clock)
    assert shown(together(entry(1), entry(2)).chunk(rate)) == ["1", "2"]
    assert shown(together(entry(3), entry(4)).chunk(rate)) == []
    clock.now += 0.5
    assert shown(together(entry(5), entry(6)).chunk(rate)) == ["skipped 3 at 5", "6"]
    clock.now += 0.5
    assert shown(together(entry(7), entry(9)).chunk(rate)) == ["9"], "the report waits"
    assert not rate.is_report_due
    clock.now += 0.5
    assert rate.is_report_due
    assert shown(together(entry(10)).chunk(rate)) == ["skipped 1 at 9", "10"]


def test_control_messages_are_never_skipped_and_stay_in_order() -> None:
    rate = StreamRate(1, Clock())
    gap, status = entry(2, "gateway-gap"), entry(4, "gateway-status")
    some = together(entry(1), gap, entry(3), status, entry(5), entry(6), entry(7, "gateway-gap"))
    assert shown(some.chunk(rate)) == ["gap", "status", "skipped 3 at 5", "6", "gap"]
    assert shown(some.chunk(rate)) == ["gap", "status", "gap"]
    assert rate.skipped == 4


def test_equal_streams_share_the_frames() -> None:
    some = together(*map(entry, range(1, 4)))
    some.chunk(StreamRate(5, Clock()))
    frames = dict(some._frames)
    some.chunk(StreamRate(5, Clock()))
    assert all(some._frames[index] is frame for index, frame in frames.items())


def test_a_stream_that_is_behind_gets_the_newest_events(monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldEntries(StreamRate(3, Clock()))

    def read(*numbers: int, is_last: bool = False) -> list[str]:
        entries = [(number, entry(number)) for number in numbers]
        return shown(held.read(entries, FRAMING, lambda position: b"e-%d" % position, is_last=is_last))

    assert read(*range(1, 101)) == []
    assert held.position == 97, "a client that reconnects now gets the three that are held"
    assert read(*range(101, 103)) == []
    assert read(103, is_last=True) == ["skipped 100 at 100", "101", "102", "103"]
    assert not held and held.size_bytes == 0


def test_what_the_tokens_allow_is_not_held_beyond_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_rate, "MAX_HELD", 2)
    held = HeldEntries(StreamRate(5, Clock()))
    entries = [(number, entry(number)) for number in range(1, 9)]
    first = shown(held.read(entries[:5], FRAMING, lambda position: b"e-%d" % position, is_last=False))
    assert first == ["1", "2", "3"]
    rest = shown(held.read(entries[5:], FRAMING, lambda position: b"e-%d" % position, is_last=True))
    assert rest == ["skipped 3 at 6", "7", "8"]


class Client:
    """A client whose transport, or whose pulls, are slow at random; it resumes after a cut."""

    def __init__(self, hub: Hub, filter: Filter, rate: int, timer: ReportTimer, *, is_pushed: bool) -> None:
        self.hub, self.filter, self.rate, self.timer, self.is_pushed = hub, filter, rate, timer, is_pushed
        self.messages: list[Message] = []
        self.subscription = self.open(None)

    def open(self, last_event_id: str | None) -> Subscription:
        subscription = self.hub.subscribe(self.filter, FRAMING, last_event_id, max_rate=self.rate)
        assert subscription.rate is not None
        self.timer.add(subscription, Reports([SkippedReports(subscription.rate)]))
        if self.is_pushed:
            subscription.attach(self.write, lambda reason: None, lambda: pytest.fail("aborted"))
        return subscription

    def write(self, chunk: bytes) -> None:
        self.messages += lines(chunk)

    def take(self) -> None:
        if not self.is_pushed:
            self.write(self.subscription.read())


async def _settle() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(tries(25)))
@pytest.mark.parametrize("is_pushed", [True, False])
async def test_each_event_is_sent_or_counted(
    seed: int, is_pushed: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bursts, pauses, a filter, gaps of the broker; and a stream whose client is slow at random."""
    random = Random(seed)
    monkeypatch.setattr("celery_gateway.stream.flush_timer.MIN_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("celery_gateway.stream.flush_timer.PAUSE_PER_FLUSH", 0)
    monkeypatch.setattr("celery_gateway.stream.report_timer.TICK_SECONDS", 0.0)
    monkeypatch.setattr(stream_rate, "MAX_HELD", random.choice([2, 500]))
    hub, timer, per_second = Hub(), ReportTimer(), random.choice([1, 3, 20])
    filter = random.choice([Filter(), parse({"type": ["a"]})])
    client = Client(hub, filter, per_second, timer, is_pushed=is_pushed)
    other = Client(hub, filter, 2, timer, is_pushed=True)
    wanted = []
    began = clock.now
    for number in range(150):
        action = random.choice(
            ["burst", "one", "time", "time", "pause", "resume", "take", "take", "gap", "settle"]
        )
        if action in ("burst", "one"):
            for _ in range(random.randrange(1, 40) if action == "burst" else 1):
                hub.append({"type": random.choice("ab"), "uuid": "u", "number": number})
                if filter == Filter() or hub.history.entry(hub.history.position).keys[0] == "a":
                    wanted.append(hub.id.decode())
        elif action == "gap":
            hub.broadcast(lambda id: gap_message(id, "broker", None))
        elif action == "time":
            clock.now += random.choice([0.01, 0.3, 1.5])
        elif is_pushed and action in ("pause", "resume"):
            client.subscription.pause() if action == "pause" else client.subscription.resume()
        elif action == "settle":
            await _settle()
        client.take()
    client.subscription.resume()
    for _ in range(10):
        clock.now += 2
        await _settle()
        client.take()
    for each in (client, other):
        got = [message for message in each.messages if message["type"] in "ab"]
        skipped = sum(message.get("count", 0) for message in each.messages)
        positions = [hub.position_of(message["id"]) or 0 for message in each.messages]
        assert positions == sorted(positions), "ids never go back"
        assert [message["id"] for message in got] == sorted({m["id"] for m in got}, key=hub.position_of)
        assert {message["id"] for message in got} <= set(wanted)
        assert len(got) + skipped == len(wanted)
        assert len(got) <= each.rate * (clock.now - began + 1)
        gaps = [message for message in each.messages if message["type"] == "gateway-gap"]
        assert len(gaps) == sum(e.control_type == "gateway-gap" for e in hub.history.after(0, 10_000))
        _check_places(each.messages, wanted)
    timer.close()
    hub.close()


def _check_places(messages: list[Message], wanted: list[str]) -> None:
    """Check that what a report counts lies between the events around it, or before those in that second."""
    index = {id: number for number, id in enumerate(wanted)}
    told = seen = 0  # events that were reported as skipped, and received
    for message in messages:
        if message["type"] in "ab":
            seen += 1
            assert index[message["id"]] + 1 >= told + seen, "no event is counted before it was skipped"
        told += message.get("count", 0)


async def test_a_stream_resumes_after_a_skip(clock: Clock) -> None:
    """Skipped events count as delivered; those that are held do not."""
    hub = Hub()
    first = hub.subscribe(Filter(), FRAMING, max_rate=2)
    lines(first.read())
    first.read()
    for number in range(10):
        hub.append({"type": "a", "number": number})
    hub.flush()
    got = lines(first.read())
    assert [each.get("count", each.get("number")) for each in got] == [8, 8, 9]
    first.close()
    for number in range(10, 20):
        hub.append({"type": "a", "number": number})
    hub.flush()
    second = hub.subscribe(Filter(), FRAMING, got[-1]["id"], max_rate=3)
    again = lines(second.read()) + lines(second.read())
    assert again[0]["resume"] == "resumed"
    assert [each.get("count", each.get("number")) for each in again[1:]] == [7, 17, 18, 19]


async def test_a_filter_that_matches_little_skips_nothing_when_it_resumes(clock: Clock) -> None:
    hub = Hub()
    id = hub.id.decode()
    for number in range(5_000):
        hub.append({"type": "a" if number % 500 else "b", "number": number})
    hub.flush()
    stream = hub.subscribe(parse({"type": ["b"]}), FRAMING, id, max_rate=10)
    got: list[Message] = []
    while stream.has_more or stream.unread_bytes:
        got += lines(stream.read())
    assert [each["number"] for each in got if each["type"] == "b"] == list(range(0, 5_000, 500))
    assert not any("count" in each for each in got)


async def test_the_position_of_a_stream_that_holds_events_is_before_them(clock: Clock) -> None:
    hub = Hub()
    id = hub.id.decode()
    for number in range(2_000):
        hub.append({"type": "a", "number": number})
    hub.flush()
    stream = hub.subscribe(Filter(), FRAMING, id, max_rate=5)
    stream.read()
    stream.read()
    held_from = hub.position_of(stream.id.decode())
    assert held_from is not None and 0 < held_from < 2_000 and stream.backlog > 1_000
    hub.refilter(stream, parse({"type": ["a"]}))
    got: list[Message] = []
    while stream.has_more or stream.unread_bytes:
        got += lines(stream.read())
    assert [each["type"] for each in got] == ["gateway-filter", "gateway-skipped", *["a"] * 5]
    assert got[1]["count"] == 1_995 and [each["number"] for each in got[2:]] == list(range(1_995, 2_000))


async def test_a_stream_that_ends_for_a_final_reason_gets_its_last_events(clock: Clock) -> None:
    hub = Hub()
    stream = hub.subscribe(Filter(), FRAMING, max_rate=1)
    stream.read()
    stream.read()
    for number in range(10):
        hub.append({"type": "a", "number": number})
    hub.flush()
    stream.end("ready", {"known": 1})
    got: list[Message] = []
    while not stream.is_ended:
        got += lines(stream.read())
    assert [each.get("count", each.get("number", each.get("reason"))) for each in got] == [9, 9, "ready"]


async def test_the_end_of_a_stream_comes_after_the_count_of_its_skipped_events(clock: Clock) -> None:
    hub = Hub()
    stream = hub.subscribe(Filter(), FRAMING, max_rate=1)
    stream.read()
    stream.read()
    for number in range(10):
        hub.append({"type": "a", "number": number})
        hub.flush()
        if not number:
            stream.read()
    hub.close()
    got: list[Message] = []
    while not stream.is_ended:
        got += lines(stream.read())
    assert [each.get("count", each.get("reason")) for each in got] == [9, "drain"]


async def test_streams_with_and_without_a_rate_have_cohorts_of_their_own(clock: Clock) -> None:
    hub = Hub()
    streams = [hub.subscribe(Filter(), FRAMING, max_rate=rate) for rate in (None, None, 1, 5)]
    assert hub.statistics().cohorts == 2
    for stream in streams:
        stream.read()
        stream.read()
    for number in range(10):
        hub.append({"type": "a", "number": number})
    hub.flush()
    counts = [sum(each["type"] == "a" for each in lines(stream.read())) for stream in streams]
    assert counts == [10, 10, 1, 5]
    hub.refilter(streams[3], parse({"type": ["a"]}))
    assert hub.statistics().cohorts == 3
    for stream in streams:
        stream.close()
    assert hub.statistics().cohorts == 0


async def test_a_burst_that_is_too_long_is_read_as_the_client_reads(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery_gateway.stream.cohort.MAX_FLUSH_BYTES", 1_000)
    hub = Hub()
    stream = hub.subscribe(Filter(), FRAMING, max_rate=50)
    stream.read()
    stream.read()
    pulling = asyncio.create_task(stream.pull())
    await asyncio.sleep(0)
    for number in range(60):
        hub.append({"type": "a", "number": number})
    hub.flush()
    got = lines(await asyncio.wait_for(pulling, 10))
    while stream.has_more or stream.unread_bytes:
        got += lines(stream.read())
    assert [each["number"] for each in got if each["type"] == "a"] == list(range(10, 60))
    assert sum(each.get("count", 0) for each in got) == 10
