"""The catch-up scheduler: lagging readers read a little at a time, and delay neither the loop nor other
clients."""

import asyncio
import gc
import time
from collections.abc import Callable

import pytest

from celery_gateway.events.filter import Filter
from celery_gateway.events.filter_parser import parse
from celery_gateway.http.stream_response import pulled
from celery_gateway.stream.catch_up import SLICE_BYTES, SLICE_SECONDS, CatchUpScheduler
from celery_gateway.stream.framing import FORMATS
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.subscription import Subscription

pytestmark = pytest.mark.unit

FRAMING = FORMATS["ndjson"]
GLOBS = parse({"name": [f"*a*b{number}*c" for number in range(90)]})


class Clock:
    """A clock in place of ``perf_counter``, which readers advance."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("celery_gateway.stream.catch_up.perf_counter", clock)
    return clock


class Reader:
    """A lagging reader that asks for turns until it has read often enough."""

    def __init__(
        self,
        scheduler: CatchUpScheduler,
        clock: Clock,
        client: str,
        reads: int,
        seconds: float = 0.0,
        size: int = 0,
        backlog: int = 1_000,
    ) -> None:
        self.client = client
        self.backlog = backlog
        self.reads_left = reads
        self.turns = 0
        self._scheduler = scheduler
        self._clock = clock
        self._seconds = seconds
        self._size = size
        scheduler.add(self)

    def catch_up(self) -> int:
        self.turns += 1
        self.reads_left -= 1
        self._clock.seconds += self._seconds
        if self.reads_left:
            self._scheduler.add(self)
        return self._size


async def loop_turns(until: Callable[[], bool]) -> int:
    """Return how many turns of the loop it takes until a condition is true."""
    count = 0
    async with asyncio.timeout(30):
        while not until():
            await asyncio.sleep(0)
            count += 1
    return count


async def test_a_client_with_many_readers_gets_no_more_turns_than_a_client_with_one(clock: Clock) -> None:
    scheduler = CatchUpScheduler()
    crowd = [Reader(scheduler, clock, "crowd", 1_000, 0.0002) for _ in range(100)]
    alone = Reader(scheduler, clock, "alone", 50, 0.0002)
    await loop_turns(lambda: not alone.reads_left)
    in_a_slice = SLICE_SECONDS / 0.0002
    assert sum(reader.turns for reader in crowd) <= 50 + in_a_slice + 2
    assert max(reader.turns for reader in crowd) <= 1, "the readers of one client take turns, too"
    for reader in crowd:
        scheduler.discard(reader)
    assert len(scheduler) == 0


async def test_a_slice_ends_after_some_milliseconds_or_a_megabyte(clock: Clock) -> None:
    scheduler = CatchUpScheduler()
    for seconds, size in ((SLICE_SECONDS, 0), (0.0, SLICE_BYTES)):
        readers = [Reader(scheduler, clock, "a", 10, seconds, size) for _ in range(3)]
        assert await loop_turns(lambda: not any(each.reads_left for each in readers)) >= 30  # noqa: B023
    small = [Reader(scheduler, clock, "a", 10) for _ in range(3)]
    assert await loop_turns(lambda: not any(reader.reads_left for reader in small)) <= 3


async def test_a_reader_that_is_almost_live_goes_first_and_leaves_half_of_the_time_to_others(
    clock: Clock,
) -> None:
    scheduler = CatchUpScheduler()
    long = [Reader(scheduler, clock, "a", 1_000, 0.0002) for _ in range(500)]
    short = Reader(scheduler, clock, "a", 1, backlog=10)
    assert await loop_turns(lambda: not short.reads_left) == 1
    crowd = [Reader(scheduler, clock, f"b{number}", 1_000, 0.0002, backlog=10) for number in range(500)]
    before = sum(reader.turns for reader in long)
    for _ in range(30):
        await asyncio.sleep(0)
    turns_of_crowd = sum(reader.turns for reader in crowd)
    assert 0.5 * turns_of_crowd <= sum(reader.turns for reader in long) - before <= 2 * turns_of_crowd


@pytest.mark.parametrize(
    ("seconds", "size", "in_a_slice"),
    [(0.0, SLICE_BYTES // 16, 8), (0.0, 2 * SLICE_BYTES, 1), (SLICE_SECONDS, 0, 1)],
)
async def test_readers_that_are_almost_live_never_get_all_turns(
    clock: Clock, seconds: float, size: int, in_a_slice: int
) -> None:
    """Each of their reads is a part of a slice, or longer than a slice, in bytes or in time."""
    scheduler = CatchUpScheduler()
    crowd = [Reader(scheduler, clock, f"c{number}", 1_000, seconds, size, backlog=5) for number in range(20)]
    long = Reader(scheduler, clock, "long", 1_000, 0.0, SLICE_BYTES // 16)
    slices = 20
    for _ in range(slices):
        await asyncio.sleep(0)
    assert 0 < sum(reader.turns for reader in crowd) <= in_a_slice * slices
    assert long.turns >= slices - 1
    for reader in (*crowd, long):
        scheduler.discard(reader)


async def test_nothing_is_scheduled_when_no_reader_waits(clock: Clock) -> None:
    scheduler = CatchUpScheduler()
    reader = Reader(scheduler, clock, "a", 1)
    await loop_turns(lambda: not reader.reads_left)
    assert scheduler._handle is None


class Push:
    """A connection whose client reads at once."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.data = b""
        subscription.attach(self._write, lambda reason: None, lambda: None)

    def _write(self, data: bytes) -> None:
        self.data += data


def filled(how_many: int) -> Hub:
    hub = Hub()
    for number in range(how_many):
        hub.append({"type": "task-received", "name": "a" * 100 + f"b{number}d", "n": number})
    hub.flush()
    return hub


@pytest.mark.slow
@pytest.mark.parametrize("is_pushed", [True, False])
async def test_replays_with_many_globs_delay_neither_the_loop_nor_live_events(is_pushed: bool) -> None:
    hub = filled(2_000)
    live = Push(hub.subscribe(parse({"type": ["tick"]}), FRAMING, client="192.0.2.2"))
    replays = [hub.subscribe(GLOBS, FRAMING, since=0, client="192.0.2.1") for _ in range(10)]

    async def pull(subscription: Subscription) -> None:
        async for _ in pulled(subscription, 1_000.0):
            pass

    tasks = []
    for replay in replays:
        if is_pushed:
            Push(replay)
        else:
            tasks.append(asyncio.create_task(pull(replay)))
    turn_seconds: list[float] = []  # CPU time of each turn of the loop
    ticks = 0
    gc.disable()
    try:
        while any(replay.backlog for replay in replays):
            began = time.thread_time()
            await asyncio.sleep(0)
            turn_seconds.append(time.thread_time() - began)
            if len(turn_seconds) % 20 == 0:
                hub.append({"type": "tick"})
                hub.flush()
                ticks += 1
                assert live.data.count(b'"tick"') == ticks, "it was sent at once"
    finally:
        gc.enable()
    assert len(turn_seconds) > 20
    assert max(turn_seconds) < sum(turn_seconds) / 10, "no turn has a large part of the work"
    for subscription in (*replays, live.subscription):
        subscription.close()
    await asyncio.gather(*tasks)
    assert len(hub.scheduler) == 0


async def test_a_new_stream_is_live_at_once_while_others_replay() -> None:
    hub = filled(5_000)
    replays = [Push(hub.subscribe(Filter(), FRAMING, since=0)) for _ in range(100)]
    await asyncio.sleep(0)
    new = Push(hub.subscribe(Filter(), FRAMING))
    assert b"gateway-open" in new.data
    await asyncio.sleep(0)
    hub.append({"type": "tick"})
    hub.flush()
    assert b'"tick"' in new.data
    assert any(replay.subscription.backlog > 1 for replay in replays)
    for push in (*replays, new):
        push.subscription.close()


async def test_replays_are_complete_whether_they_are_pushed_or_pulled() -> None:
    hub = filled(1_200)
    pushes = [Push(hub.subscribe(Filter(), FRAMING, since=0)) for _ in range(3)]
    streams = [pulled(hub.subscribe(Filter(), FRAMING, since=0), 1_000.0) for _ in range(3)]
    texts = [b""] * 3
    for number, stream in enumerate(streams):
        async with asyncio.timeout(30):
            while texts[number].count(b"task-received") < 1_200:
                texts[number] += await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
    await loop_turns(lambda: all(push.data.count(b"task-received") == 1_200 for push in pushes))
    assert {push.data for push in pushes} == set(texts)
