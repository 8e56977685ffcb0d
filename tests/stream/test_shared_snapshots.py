"""Snapshots that clients share: their content, their cost, and that they leave nothing behind."""

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from math import inf
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celery_gateway.errors import OverLimit
from celery_gateway.events.event import Event
from celery_gateway.events.event import keys as keys_of
from celery_gateway.events.filter import Filter
from celery_gateway.events.filter_parser import parse
from celery_gateway.state.task import view
from celery_gateway.state.task_record import Record
from celery_gateway.state.task_table import TaskTable
from celery_gateway.stream import snapshot, snapshot_pages
from celery_gateway.stream.catch_up import SLICE_BYTES
from celery_gateway.stream.framing import FORMATS, NDJSON
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.keepalive import ProgressCheck
from celery_gateway.stream.limits import Limits
from celery_gateway.stream.snapshot import COST_BYTES, Snapshots
from celery_gateway.stream.subscription import Subscription
from tests.support.thorough import tries

NDJSON_FRAMING = FORMATS["ndjson"]
CLIENT = "192.0.2.1"


class Setup:
    """A table, a hub and their snapshots. ``view_count`` counts how often a record was encoded."""

    def __init__(self, max_tasks: int = 100_000, memory_bytes: int = 256 << 20) -> None:
        self.limits = Limits(memory_bytes=memory_bytes)
        self.tasks = TaskTable(max_tasks=max_tasks)
        self.hub = Hub(limits=self.limits)
        self.workers: list[bytes] = []
        self.snapshots = Snapshots(self.tasks, self.hub, lambda: self.workers, lambda: True, self.limits)
        self.view_count = 0
        self.appended: list[tuple[int, Event]] = []
        self._clock = count(1)

    def view(self, record: Record) -> bytes:
        self.view_count += 1
        return view(record.task, record.child_ids)

    def happen(self, uuid: str, kind: str, **fields: Any) -> None:
        event: Event = {"type": f"task-{kind}", "uuid": uuid, "timestamp": float(next(self._clock)), **fields}
        for joined in self.tasks.join(event, 0.0):
            self.hub.append(joined)
            self.appended.append((self.hub.statistics().events, joined))

    def fill(self, how_many: int, **fields: Any) -> None:
        for number in range(how_many):
            self.happen(f"{number:08d}", "received", name=f"shop.{number % 7}", **fields)
        self.hub.flush()

    def subscribe(
        self, filter: Filter, view_key: object = None, client: str = CLIENT, framing: NDJSON | None = None
    ) -> Subscription:
        framing = framing or NDJSON_FRAMING
        return self.hub.subscribe(
            filter,
            framing,
            initial_snapshot=lambda: self.snapshots.begin(
                filter, framing, self.view, view_key, client=client
            ),
            client=client,
        )

    def assert_empty(self) -> None:
        """Check that no subscription has left anything behind."""
        assert self.hub.statistics()[-2:] == (0, 0)
        assert len(self.hub.scheduler) == 0
        assert self.snapshots.shared_bytes == 0
        assert self.limits.statistics()[:2] == (0, 0)


class Reader:
    """A client that keeps the tasks that it reads."""

    def __init__(self, setup: Setup, filter: Filter) -> None:
        self.setup = setup
        self.filter = filter
        self.subscription = setup.subscribe(filter)
        self.subscription.read()  # gateway-open
        self.tasks: dict[str, Any] = {}
        self.begin: int | None = None
        self.positions: list[int] = []

    def read(self) -> bool:
        """Read once; return whether there may be more to read."""
        for line in self.subscription.read().splitlines():
            message = json.loads(line)
            if message["type"] == "gateway-snapshot":
                assert self.begin is None
                self.tasks |= {task["uuid"]: task for task in message["tasks"]}
                if message["done"]:
                    self.begin = int(message["id"].partition("-")[2])
                    self.check()
            elif not message["type"].startswith("gateway-"):
                assert self.begin is not None
                self.positions.append(int(message["id"].partition("-")[2]))
        return self.subscription.has_more

    def check(self) -> None:
        """Compare with the table, at the moment when the last page was read."""
        known = {record.task.uuid: record for record in self.setup.tasks.newest()}
        wanted = {uuid for uuid, record in known.items() if self.filter.matches(record.task.keys())}
        assert wanted <= self.tasks.keys()
        for uuid in self.tasks.keys() & known.keys():
            given, now = self.tasks[uuid], json.loads(view(known[uuid].task, known[uuid].child_ids))
            # The eviction of a child is no change of its parent.
            given["children"] = [child for child in given["children"] if child in known]
            assert given == now

    def finish(self) -> None:
        for _ in range(1_000):
            if not self.read():
                break
        assert self.begin is not None, "the snapshot did not end, though there were no more events"
        assert self.positions == [
            position
            for position, event in self.setup.appended
            if position > self.begin and self.filter.matches(keys_of(event))
        ]
        self.subscription.close()


@contextmanager
def small_pages() -> Iterator[None]:
    small_pages = {"PAGE_TASKS": 3, "READ_TASKS": 5, "RELIST_SECONDS": 0.0, "MAX_CHANGES": 6}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "FEW_TASKS", 4)
        for name, value in small_pages.items():
            patch.setattr(snapshot_pages, name, value)
        yield


_FILTERS = [
    Filter(),
    parse({"state": ["RECEIVED"]}),
    parse({"name": ["a*"]}),
    parse({"uuid": ["3", "5"]}),
    parse({"root_id": ["r1"]}),
    parse({"parent_id": ["2"]}),
]
_STEPS = st.one_of(
    st.tuples(st.integers(0, 30), st.sampled_from(["received", "started", "succeeded", "retried"])),
    st.sampled_from([0, 0, 0, 1, 1, 1, 2, 3, 4, 5]),  # a client subscribes with this filter
    st.tuples(st.just("read"), st.integers(0, 5)),
    st.tuples(st.just("read"), st.integers(0, 5)),
    st.just("close"),
    st.tuples(st.just("relist"), st.sampled_from([0.0, inf])),  # after how many seconds, from now on
)
_UNLISTED = [0, 0, ("relist", inf), ("read", 5), (25, "received"), *[("read", 4)] * 9, ("relist", 0.0)]
"""A task that is added after the last page was made, and before the last client subscribes."""


@settings(deadline=None, max_examples=tries(120))
@given(
    steps=st.lists(_STEPS, min_size=20, max_size=60),
    bound=st.sampled_from([12, 1000]),
)
@example(steps=_UNLISTED, bound=1000)
def test_shared_snapshots_read_at_any_pace_equal_the_table(steps: list[Any], bound: int) -> None:
    async def run() -> None:
        setup = Setup(bound)
        readers: list[Reader] = []

        def happen(number: int, kind: str) -> None:
            fields = {"name": "ab"[number % 2], "root_id": f"r{number % 3}", "parent_id": str(number // 4)}
            setup.happen(str(number), kind, **(fields if kind == "received" else {}))

        for number in range(20):
            happen(number, "received")
        for step in [0, 0, 1, 1, *steps, 0, 2]:
            if isinstance(step, int):
                readers.append(Reader(setup, _FILTERS[step]))
            elif step == "close":
                if len(readers) > 3:
                    readers.pop(0).subscription.close()
            elif step[0] == "relist":
                snapshot_pages.RELIST_SECONDS = step[1]
            elif step[0] != "read":
                happen(*step)
            elif readers:
                readers[step[1] % len(readers)].read()
        setup.hub.flush()
        for reader in readers:
            reader.finish()
        setup.assert_empty()
        setup.hub.close()

    with small_pages():
        asyncio.run(run())


class Push:
    """A connection whose client reads at once, or not at all."""

    def __init__(self, subscription: Subscription, limit_bytes: int = 1 << 40) -> None:
        self.subscription = subscription
        self.written_bytes = self.buffered_bytes = 0
        self.ended: list[str] = []
        self._limit_bytes = limit_bytes
        subscription.attach(
            self._write, self.ended.append, lambda: None, buffered_bytes=lambda: self.buffered_bytes
        )

    def progress_check(self) -> ProgressCheck:
        return ProgressCheck(
            self.subscription, lambda: self.buffered_bytes, asyncio.get_running_loop().time()
        )

    def _write(self, data: bytes) -> None:
        self.written_bytes += len(data)
        if self._limit_bytes < 1 << 40:
            self.buffered_bytes += len(data)
            if self.buffered_bytes > self._limit_bytes:
                self.subscription.pause()


async def turn_until(condition: Callable[[], bool], in_between: Callable[[], object] = lambda: None) -> None:
    """Let the loop run until a condition is true."""
    gc.disable()  # else it collects what earlier tests have left
    try:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0)
                in_between()
    finally:
        gc.enable()


async def test_equal_snapshots_are_encoded_once_and_delay_no_live_event() -> None:
    setup = Setup()
    setup.fill(20_000)
    live = Push(setup.hub.subscribe(parse({"type": ["tick"]}), NDJSON_FRAMING))
    await turn_until(lambda: not live.subscription.has_more)
    pushes = [Push(setup.subscribe(Filter())) for _ in range(100)]
    peak = written_bytes = 0

    def check_turn() -> None:
        nonlocal peak, written_bytes
        before_bytes, written_bytes = written_bytes, sum(push.written_bytes for push in pushes)
        assert written_bytes - before_bytes < 1.5 * SLICE_BYTES, "between two turns of the loop"
        before_bytes = live.written_bytes
        setup.hub.append({"type": "tick"})
        setup.hub.flush()
        assert live.written_bytes > before_bytes, "a live event was sent at once"
        peak = max(peak, setup.limits.memory.used)

    await turn_until(lambda: all(push.subscription.backlog == 0 for push in pushes), check_turn)
    # Once, unless the machine is slow: pages are made again with a list that is half a second old.
    assert setup.view_count <= 4 * 20_000, "100 snapshots of 20,000 tasks"
    size_bytes = len(view(next(setup.tasks.newest()).task, ())) * 20_000
    assert min(push.written_bytes for push in pushes) > size_bytes
    assert peak < 40 << 20, "the pages are in memory once"
    for push in (*pushes, live):
        push.subscription.close()
    setup.assert_empty()


async def test_tasks_that_several_snapshots_look_up_are_encoded_once() -> None:
    """Also for different filters. Their ids lead to few tasks, so they share no pages."""
    setup = Setup()
    setup.fill(200)
    ids = [f"{number:08d}" for number in range(100)]
    pushes = [Push(setup.subscribe(parse({"uuid": [*ids, f"none{number}"]}))) for number in range(20)]
    await turn_until(lambda: all(push.subscription.backlog == 0 for push in pushes))
    assert setup.view_count == 100
    for push in pushes:
        push.subscription.close()
    setup.assert_empty()


async def test_a_list_of_tasks_that_exceeds_the_memory_ends_the_stream() -> None:
    setup = Setup(memory_bytes=50_000)
    setup.fill(10_000)
    push = Push(setup.subscribe(Filter()))
    await turn_until(lambda: push.subscription.is_ended)
    assert push.ended == ["limit"]
    setup.assert_empty()


async def test_a_new_filter_is_charged_instead_of_the_old_one() -> None:
    def about(count: int) -> Filter:
        return parse({"uuid": [f"{number:08d}" for number in range(count)]})

    setup = Setup(memory_bytes=100_000)
    setup.fill(100)
    push = Push(setup.subscribe(about(1)))
    await turn_until(lambda: push.subscription.backlog == 0)
    subscription = setup.subscribe(about(1))
    charged = setup.limits.memory.used
    setup.hub.refilter(subscription, about(21))
    assert setup.limits.memory.used == charged + COST_BYTES * (about(21).cost - about(1).cost) > charged
    setup.hub.refilter(subscription, about(1))
    assert setup.limits.memory.used == charged
    subscription.close()
    push.subscription.close()

    view_count = setup.view_count
    push = Push(setup.subscribe(about(1)))
    setup.hub.refilter(push.subscription, about(99))
    await turn_until(lambda: push.subscription.is_ended)
    assert push.ended == ["limit"]
    assert setup.view_count == view_count, "no task was encoded for it"
    setup.assert_empty()


async def test_further_snapshots_without_a_matching_task_cost_little() -> None:
    setup = Setup()
    setup.fill(20_000)

    async def cpu_seconds(how_many: int) -> float:
        began = time.thread_time()
        pushes = [Push(setup.subscribe(parse({"name": ["none"]}))) for _ in range(how_many)]
        await turn_until(lambda: all(push.subscription.backlog == 0 for push in pushes))
        for push in pushes:
            push.subscription.close()
        return time.thread_time() - began

    two = min([await cpu_seconds(2) for _ in range(3)])
    assert await cpu_seconds(100) < 25 * two
    setup.assert_empty()


async def test_different_snapshots_that_are_not_read_take_a_few_kilobytes_each() -> None:
    setup = Setup()
    setup.fill(20_000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        pushes = [
            Push(setup.subscribe(parse({"state": ["RECEIVED"], "name": [f"!none{number}"]})), 100_000)
            for number in range(100)
        ]
        await turn_until(lambda: all(push.subscription.is_paused for push in pushes))
        traced, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (traced - before) / 100 < 15_000
    for push in pushes:
        push.subscription.close()
    setup.assert_empty()


async def test_a_snapshot_over_the_memory_limit_is_refused_or_ends_its_own_stream() -> None:
    setup = Setup(memory_bytes=200_000)
    setup.fill(1_000)
    kept = []
    with pytest.raises(OverLimit) as refused:
        for _ in range(1_000):
            kept.append(setup.subscribe(Filter()))  # noqa: PERF401
    assert refused.value.reason == "memory"
    assert len(kept) > 10
    for subscription in kept:
        subscription.close()
    setup.assert_empty()

    # Changed tasks are encoded for one client; here they are more than it may have.
    slow = Push(setup.subscribe(parse({"uuid": [f"{number:08d}" for number in range(100)]})))
    other = setup.hub.subscribe(Filter(), NDJSON_FRAMING, client="192.0.2.2")
    for number in range(100):
        setup.happen(f"{number:08d}", "failed", exception="x" * 3_000, traceback="y" * 3_000)
    async with asyncio.timeout(30):
        while not slow.ended:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert slow.ended == ["limit"]
    assert setup.limits.refused["memory"] == 1
    assert not other.is_ended
    other.close()
    setup.assert_empty()


@pytest.mark.parametrize("reason", ["drain", "ready"])
async def test_a_closing_stream_ends_when_its_snapshot_is_over_the_memory_limit(reason: Any) -> None:
    setup = Setup(memory_bytes=200_000)
    setup.fill(100)
    for number in range(100):
        setup.happen(f"{number:08d}", "failed", exception="x" * 3_000, traceback="y" * 3_000)
    push = Push(setup.subscribe(parse({"uuid": [f"{number:08d}" for number in range(100)]})))
    push.subscription.end(reason)
    async with asyncio.timeout(30):
        while not push.subscription.is_ended:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert push.ended == (["limit"] if reason == "drain" else [])
    setup.assert_empty()


async def test_the_buffer_of_a_client_that_does_not_read_is_charged() -> None:
    setup = Setup(memory_bytes=1_000_000)
    base = setup.hub.subscribe(Filter(), NDJSON_FRAMING, client=CLIENT)
    charged = setup.limits.memory.used
    base.close()
    slow = Push(setup.hub.subscribe(Filter(), NDJSON_FRAMING, client=CLIENT), 50_000)
    await asyncio.sleep(0)

    def write(size: int) -> None:
        setup.hub.append({"type": "test", "text": "x" * size})
        setup.hub.flush()

    write(60_000)
    await asyncio.sleep(0)
    assert setup.limits.memory.used == charged + slow.buffered_bytes
    slow.buffered_bytes = 0
    slow.subscription.resume()
    assert setup.limits.memory.used == charged
    while slow.subscription.has_more:  # noqa: ASYNC110
        await asyncio.sleep(0)
    write(600_000)
    await asyncio.sleep(0)
    assert slow.ended == ["limit"]
    setup.assert_empty()


async def test_streams_that_replace_each_other_leave_nothing_behind() -> None:
    setup = Setup()
    setup.fill(3_000)
    before = None
    for number in range(300):
        kinds: list[Callable[[], Subscription]] = [
            lambda: setup.subscribe(Filter()),
            lambda: setup.subscribe(parse({"name": [f"shop.{number}*"]}), number),  # noqa: B023
            lambda: setup.hub.subscribe(Filter(), NDJSON_FRAMING, since=0),
            lambda: setup.hub.subscribe(parse({"uuid": [str(number)]}), NDJSON_FRAMING),  # noqa: B023
        ]
        subscription = kinds[number % 4]()
        if before is not None:
            before.close()
        if number % 3:
            Push(subscription, 1_000)
        if number % 5 == 0:
            setup.hub.refilter(subscription, parse({"name": [f"other.{number}*"]}))
        if number % 7 == 0:
            await asyncio.sleep(0)
        before = subscription
    assert len(setup.hub.scheduler) <= 1
    assert before is not None
    before.close()
    setup.assert_empty()


async def _opened(setup: Setup) -> Subscription:
    return setup.hub.subscribe(parse({"type": ["none"]}), NDJSON_FRAMING)


async def _in_snapshot(setup: Setup) -> Subscription:
    return setup.subscribe(Filter())


async def _catching_up(setup: Setup) -> Subscription:
    return setup.hub.subscribe(Filter(), NDJSON_FRAMING, since=0)


async def _live(setup: Setup) -> Subscription:
    asyncio.get_running_loop().call_later(0.01, lambda: setup.fill(100))
    return setup.hub.subscribe(Filter(), NDJSON_FRAMING)


@pytest.mark.parametrize("phase", [_opened, _in_snapshot, _catching_up, _live])
async def test_a_client_that_never_reads_is_closed_in_every_phase(
    phase: Callable[[Setup], Awaitable[Subscription]],
) -> None:
    setup = Setup()
    setup.fill(1_000)
    push = Push(await phase(setup), 50_000)
    await asyncio.sleep(0.02)
    now = asyncio.get_running_loop().time()
    check = push.progress_check()
    for tick in range(9):
        assert not push.ended
        check.tick(now + 4 * tick, keepalive_seconds=1_000.0, slow_seconds=30.0)
    assert push.ended == ["slow"]
    setup.assert_empty()


async def test_a_client_that_reads_a_little_now_and_then_is_not_closed() -> None:
    setup = Setup()
    push = Push(setup.hub.subscribe(Filter(), NDJSON_FRAMING), 50_000)
    await asyncio.sleep(0)
    setup.fill(20)
    check = push.progress_check()
    for tick in range(30):
        push.buffered_bytes -= 10 if tick % 5 == 0 else 0
        check.tick(1_000.0 + 4 * tick, keepalive_seconds=1_000.0, slow_seconds=30.0)
    assert push.ended == []
    push.subscription.close()
