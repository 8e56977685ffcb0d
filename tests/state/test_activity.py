"""Statistics of names: at any moment the counts are those of all records, and each attempt counts once."""

import gc
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from celery_gateway.events.event import Event
from celery_gateway.state import activity as activity_module
from celery_gateway.state import failure_groups
from celery_gateway.state.activity import MAX_NAMES, eta_seconds
from celery_gateway.state.activity_report import ActivityReader
from celery_gateway.state.name_activity import NAME_BYTES, NameActivity
from celery_gateway.state.process import Process
from celery_gateway.state.replicated_table import ReplicatedTaskTable
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable
from tests.support.simulated_cluster import EPOCH, Trouble, history
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

BEGIN = 1_795_000_020.0
ENDED = {"SUCCESS", "FAILURE", "REVOKED"}
WAITING = {None, "PENDING", "RECEIVED", "RETRY", "REJECTED", "CANCELLED"}


def place(state: str | None) -> int:
    return 3 if state in ENDED else 1 if state in WAITING else 2 if state == "LOST" else 0


def check(tasks: TaskTable, *, is_full: bool = False) -> None:
    """Compare the counts with the records; ``is_full``: not all names have counts of their own."""
    activity = tasks.activity
    records = list(tasks.newest())
    shown = {
        "state": [record.task.state for record in records],
        "name": [record.task.name for record in records],
    }
    for by, values in shown.items():
        counts = activity.counts(by)
        assert counts is None or counts == Counter(value or "" for value in values), by
    assert activity.counts("state") is not None
    assert tasks.queues() >= {record.task.queue for record in records if record.task.queue}
    expected: dict[Any, list[int]] = {}
    for record in records:
        name = record.origin.name if tasks.keeps_origins else record.task.name
        cluster = record.task.cluster if isinstance(record.task.cluster, str) else None
        expected.setdefault((name, cluster), [0, 0, 0, 0])[place(record.task.state)] += 1
    found = {(each.name, each.cluster): each.now for each in activity.names() if any(each.now)}
    total = [sum(column) for column in zip(*found.values(), activity.other.now, strict=False)]
    assert not records or total == [sum(column) for column in zip(*expected.values(), strict=True)]
    assert all(count >= 0 for each in (*activity.names(), activity.other) for count in each.now)
    if not is_full:
        assert found == expected
        assert activity.other.now == [0, 0, 0, 0]


class Driver:
    """A table with its workers, as the pipeline wires them."""

    def __init__(self, tasks: TaskTable) -> None:
        self.tasks = tasks
        self.workers = WorkerTable(has_clusters=False)

    def receive(self, event: Event, at: float) -> None:
        arrived = EPOCH + at
        process = self.workers.on_event(event, at, arrived)
        if isinstance(self.tasks, ReplicatedTaskTable):
            self.tasks.follow(event, {"name": None, "root_id": None}, at, process, arrived)
        else:
            self.tasks.join(event, at, process, arrived)
        self.tick(at)

    def tick(self, at: float) -> None:
        self.tasks.release(at)
        for process, reason, successor in self.workers.find_gone(at):
            self.tasks.mark_lost(process, reason, EPOCH + at, successor)
        self.tasks.mark_lost_late(EPOCH + at)


TABLES = {
    "plain": lambda: TaskTable(),
    "evicting": lambda: TaskTable(max_tasks=12),
    "origins": lambda: TaskTable(max_tasks=25, keeps_origins=True),
    "replicated": lambda: ReplicatedTaskTable(max_tasks=25, keeps_origins=True),
    "few-bytes": lambda: TaskTable(max_bytes=30_000),
}


@pytest.mark.parametrize("kind", TABLES)
def test_the_counts_now_are_those_of_the_records_after_each_event(kind: str) -> None:
    states = set()
    for seed in range(tries(60)):
        dice, driver = Random(seed), Driver(TABLES[kind]())
        true = history(seed, Trouble(duplicates=seed % 2 == 0, lost=seed % 3 == 0))
        for arrival in true.arrivals:
            driver.receive(dict(arrival.event), arrival.at)
            if dice.random() < 0.1:
                driver.tasks.set_name(
                    f"s{seed}-t{dice.randrange(60)}", f"named.{dice.randrange(3)}", arrival.at
                )
            if dice.random() < 0.2:
                check(driver.tasks)
                states |= set(driver.tasks.activity.counts("state") or ())
        driver.tick(true.ended_at + 400)
        check(driver.tasks)
    assert {"PENDING", "RECEIVED", "STARTED", "SUCCESS", "FAILURE", "RETRY"} <= states
    assert "LOST" in states or kind in ("evicting", "few-bytes")


def test_with_more_names_than_the_limit_the_rest_is_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity_module, "MAX_NAMES", 3)
    for seed in range(tries(24)):
        driver = Driver(TaskTable(max_tasks=20))
        for arrival in history(seed).arrivals:
            driver.receive(dict(arrival.event), arrival.at)
            check(driver.tasks, is_full=True)
        assert len(driver.tasks.activity) == 3
        assert sum(driver.tasks.activity.other.now) > 0


def events_of(uid: str, name: str = "shop.pay", **received: Any) -> Iterator[Event]:
    """The events of a task that succeeds."""
    common = {"uuid": uid, "hostname": "w@h", "pid": 1}
    yield common | {"type": "task-sent", "name": name, "hostname": "gen1@h", "pid": 9, "queue": "q"}
    yield common | {"type": "task-received", "name": name, "retries": 0} | received
    yield common | {"type": "task-started"}
    yield common | {"type": "task-succeeded", "runtime": 0.5}


class Shop:
    """A table that gets events one by one, with a clock."""

    def __init__(self, **options: Any) -> None:
        self.tasks = TaskTable(**options)
        self.workers = WorkerTable(has_clusters="clusters" in options)
        self.now = BEGIN
        self.clock = 0

    def receive(self, *events: Event, stamp: float | None = None) -> None:
        for event in events:
            self.clock += 1
            made = {"timestamp": self.now if stamp is None else stamp, "clock": self.clock} | event
            process = self.workers.on_event(made, self.now, self.now)
            self.tasks.join(made, self.now, process, self.now)

    def read(self, window: float = 3_600.0, **options: Any) -> ActivityReader:
        reader = ActivityReader(self.tasks.activity, window, **options)
        for _ in reader.read(self.now):
            pass
        return reader

    def item(self, window: float = 3_600.0) -> dict[str, Any]:
        (item,) = self.read(window).names
        return item

    @property
    def name(self) -> NameActivity:
        (name,) = self.tasks.activity.names()
        return name


KINDS = ("received", "started", "succeeded", "failed", "retried", "revoked", "rejected")


def counts(item: dict[str, Any]) -> dict[str, int]:
    return {kind: item[kind] for kind in KINDS if item[kind]}


def test_an_event_that_comes_twice_counts_once() -> None:
    shop = Shop()
    events = [event | {"clock": number} for number, event in enumerate(events_of("a"), 1)]
    for event in events:
        shop.receive(event, event)
    shop.receive(*events, *reversed(events))
    assert counts(shop.item()) == {"received": 1, "started": 1, "succeeded": 1}


def test_late_events_count_where_they_belong() -> None:
    shop = Shop()
    sent, received, started, succeeded = (
        event | {"clock": number} for number, event in enumerate(events_of("a"), 1)
    )
    shop.receive(sent, succeeded, started, received)
    assert counts(shop.item()) == {"received": 1, "started": 1, "succeeded": 1}


def test_retries_and_lost_tasks() -> None:
    shop = Shop()
    sent, received, started, succeeded = events_of("a")
    shop.receive(sent, received, started)
    assert [shop.item()[place] for place in ("running", "waiting", "lost")] == [1, 0, 0]
    shop.receive(started | {"type": "task-retried", "exception": "E()"})
    assert [shop.item()[place] for place in ("running", "waiting", "lost")] == [0, 1, 0]
    shop.now += 1
    shop.receive(sent | {"retries": 1}, received | {"retries": 1}, started)
    (record,) = shop.tasks.find("a")
    assert record.current is not None
    process = record.current.process
    assert isinstance(process, Process)
    shop.tasks.mark_lost(process, "gone", shop.now)
    assert [shop.item()[place] for place in ("running", "waiting", "lost")] == [0, 0, 1]
    shop.receive(succeeded)  # it was not gone
    item = shop.item()
    assert [item[place] for place in ("running", "waiting", "lost")] == [0, 0, 0]
    assert counts(item) == {"received": 2, "started": 2, "succeeded": 1, "retried": 1}
    check(shop.tasks)


def test_a_custom_event_means_that_the_task_runs() -> None:
    shop = Shop()
    *before, _ = events_of("a")
    shop.receive(*before, before[0] | {"type": "task-progress", "hostname": "w@h", "pid": 1})
    assert shop.item()["running"] == 1
    assert shop.tasks.activity.counts("state") == {"PROGRESS": 1}


@pytest.mark.parametrize(
    ("sent", "received", "started", "eta", "expected"),
    [
        (0.0, 1.0, 3.0, None, 3.0),
        (None, 1.0, 3.0, None, 2.0),
        (0.0, 1.0, 3.0, 2.5, 0.5),
        (0.0, 1.0, 3.0, 4.0, 0.0),
        (5.0, 1.0, 3.0, None, 0.0),
        (0.0, 1.0, 3.0, "not a time", 3.0),
        (0.0, 1.0, 3.0, "9999-99-99T00:00:00Z", 3.0),
    ],
)
def test_the_wait_is_since_the_task_was_due(
    sent: float | None, received: float, started: float, eta: Any, expected: float
) -> None:
    shop = Shop()
    shop.now += 10
    of_sent, of_received, of_started, _ = events_of("a")
    if isinstance(eta, float):
        second = int(eta)
        eta = f"2026-11-18T11:07:{second:02}.{int(eta % 1 * 1e6):06}+00:00"
    base = BEGIN if eta is None or "T11" not in str(eta) else eta_seconds("2026-11-18T11:07:00+00:00")
    assert base is not None
    shop.now = base + 10
    if sent is not None:
        shop.receive(of_sent, stamp=base + sent)
    shop.receive(of_received | {"eta": eta}, stamp=base + received)
    shop.receive(of_started, stamp=base + started)
    wait = shop.item()["wait"]
    assert wait["count"] == 1
    assert wait["max"] == pytest.approx(expected, abs=1e-5)
    assert wait["p50"] == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_an_eta_is_iso_8601_and_utc_without_a_zone() -> None:
    assert eta_seconds("2026-11-18T11:07:00") == eta_seconds("2026-11-18T12:07:00+01:00") == 1_795_000_020
    assert eta_seconds("2026-11-18T11:07:00.500Z") == 1_795_000_020.5
    for bad in ("", "soon", "2026-13-01", "1", "\ud800", "0001-01-01T00:00:00+23:59"):
        assert eta_seconds(bad) is None or bad.startswith("0001")


@pytest.mark.parametrize("runtime", [-1.0, float("inf"), 1e300, "1", None, True])
def test_an_absurd_runtime_is_none(runtime: Any) -> None:
    shop = Shop()
    *before, succeeded = events_of("a")
    shop.receive(*before)
    shop.now += 4
    shop.receive(succeeded | {"runtime": runtime})
    assert shop.item()["runtime"]["max"] == 4.0, "since started"


def test_buckets_have_the_times_of_arrival() -> None:
    shop = Shop()
    for minute in range(3):
        shop.now = BEGIN + 60 * minute
        shop.receive(*events_of(f"a{minute}"), *events_of(f"b{minute}"), stamp=BEGIN - 300)
    item = shop.item()
    assert item["buckets"]["seconds"] == 60.0
    assert item["buckets"]["succeeded"] == [0] * 57 + [2, 2, 2]
    assert item["buckets"]["start"] == shop.now // 60 * 60 - 59 * 60
    assert shop.item(60.0)["buckets"]["succeeded"] == [0, 0, 0, 0, 0, 2]
    assert shop.item(86_400.0)["succeeded"] == 6
    shop.now += 3_600
    assert not shop.read().names
    assert shop.item(7_200.0)["succeeded"] == 6
    assert shop.item(7_200.0)["runtime"]["count"] == 6


def test_if_the_clock_goes_back_counting_goes_on() -> None:
    shop = Shop()
    shop.receive(*events_of("a"))
    shop.now -= 30
    shop.receive(*events_of("b"))
    shop.now = BEGIN
    assert shop.item()["succeeded"] == 2
    shop.now = BEGIN + 1e9
    shop.receive(*events_of("c"))
    shop.now = BEGIN + 60
    shop.receive(*events_of("d"))
    assert (shop.item()["succeeded"], shop.item()["runtime"]["count"]) == (1, 1)


def test_a_reader_finds_what_has_changed() -> None:
    shop = Shop()
    reader = ActivityReader(shop.tasks.activity, 60.0)

    def names() -> list[str]:
        for _ in reader.read(shop.now):
            pass
        return [item["name"] for item in reader.names]

    assert (names(), reader.is_changed, reader.total["succeeded"]) == ([], True, 0)
    assert (names(), reader.is_changed, reader.may_have_changed(shop.now)) == ([], False, False)
    shop.receive(*events_of("a", "one"), *events_of("b", "two"), *events_of("c", "two"))
    assert reader.may_have_changed(shop.now)
    assert (names(), reader.is_changed) == (["two", "one"], True), "those that have ended most come first"
    shop.receive(*events_of("d", "one"))
    assert (names(), reader.names[0]["succeeded"], reader.total["succeeded"]) == (["one"], 2, 4)
    shop.now += 30
    shop.receive(*events_of("e", "one"))
    assert names() == ["one"]
    shop.now += 40  # the first four have left the window
    assert reader.may_have_changed(shop.now)
    assert (names(), reader.is_changed, reader.total["succeeded"]) == (["one", "two"], True, 1)
    assert reader.names[1]["succeeded"] == 0
    shop.now += 3_600
    names()
    assert reader.total["runtime"] is None
    assert (names(), reader.is_changed) == ([], False)


def test_a_name_that_was_not_active_for_an_hour_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity_module, "MAX_NAMES", 2)
    shop = Shop()
    *started, succeeded = events_of("a", "old")
    shop.receive(*started)
    assert shop.read().head["complete"]
    shop.now += 1_800
    shop.receive(*events_of("b", "kept"), *events_of("c", "more"))
    assert [item["name"] for item in shop.read().names] == ["kept", "old"]
    other = shop.read().other
    assert other is not None and (other["name"], other["succeeded"]) == (None, 1)
    assert shop.read().total["succeeded"] == 2
    assert not shop.read().head["complete"]
    shop.now += 2_700
    shop.receive(*events_of("d", "new"))
    assert {item["name"] for item in shop.read().names} == {"kept", "new"}
    assert {each.name for each in shop.tasks.activity.names()} == {"kept", "new"}
    check(shop.tasks, is_full=True)
    shop.receive(succeeded)
    other = shop.read().other
    assert other is not None and (other["running"], other["succeeded"]) == (0, 2)  # of "more" and "old"
    shop.receive(*events_of("e", "more"))
    check(shop.tasks, is_full=True)


def test_a_very_long_name_has_no_counts_of_its_own() -> None:
    shop = Shop()
    shop.receive(*events_of("a", "n" * 300))
    assert not list(shop.tasks.activity.names())
    other = shop.read().other
    assert other is not None and other["succeeded"] == 1


def test_the_last_failure_and_its_group() -> None:
    shop = Shop()
    *before, _ = events_of("a")
    shop.receive(*before, before[2] | {"type": "task-failed", "exception": "E('x 1')", "traceback": "t"})
    shop.receive(before[2] | {"type": "task-failed", "exception": "E('x 1')"})  # of a hard time limit: twice
    assert shop.item()["last_failure"] == {"uuid": "a", "time": BEGIN, "exception": "E('x 1')"}
    (group,) = shop.tasks.activity.failures.newest()
    (failures,) = group.names.values()
    assert (failures.count, failures.worker, failures.uuid) == (1, "w@h", "a")


def test_failures_have_their_names_also_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity_module, "MAX_NAMES", 1)
    shop = Shop()
    for name in ("first", "second"):
        *before, _ = events_of(name, name)
        shop.receive(*before, before[2] | {"type": "task-failed", "exception": "E()"})
    (group,) = shop.tasks.activity.failures.newest()
    assert [name for name, _ in group.names] == ["first", "second"]


def test_the_last_failure_has_the_exception_in_a_wrapper() -> None:
    shop = Shop()
    *before, _ = events_of("a")
    wrapped = {"exception": "ExceptionWithTraceback()", "traceback": "…\nshop.Gone: signal 9\n"}
    shop.receive(*before, before[2] | {"type": "task-failed"} | wrapped)
    assert shop.item()["last_failure"]["exception"] == "Gone: signal 9"


def test_an_event_cannot_move_counts_to_the_name_of_others() -> None:
    shop = Shop(keeps_origins=True)
    events = list(events_of("a", "bank.pay"))
    shop.receive(*events[:2], events[1] | {"name": "shop.pay"}, *events[2:])
    shop.receive(events[1] | {"type": "task-progress", "name": "shop.pay"})
    assert [item["name"] for item in shop.read().names] == ["bank.pay"]
    check(shop.tasks)


def test_each_cluster_has_names_of_its_own() -> None:
    shop = Shop(clusters=("eu", "us"))
    for cluster in ("eu", "us", "us"):
        uid = f"{cluster}{shop.clock}"
        shop.receive(*(event | {"cluster": cluster} for event in events_of(uid)))
    assert [(item["cluster"], item["succeeded"]) for item in shop.read().names] == [("us", 2), ("eu", 1)]
    assert shop.read().total["succeeded"] == 3
    check(shop.tasks)


def test_hidden_fields_are_left_out() -> None:
    shop = Shop()
    *before, _ = events_of("a")
    shop.receive(*before, before[2] | {"type": "task-failed", "exception": "E()"})
    hidden = frozenset({"runtime", "eta", "exception"})
    (item,) = shop.read(hidden=hidden).names
    assert (item["runtime"], item["wait"]) == (None, None)
    assert item["last_failure"] == {"uuid": "a", "time": BEGIN}


def test_the_memory_of_a_thousand_names_under_full_load_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With durations of all lengths throughout a day."""
    most = MAX_NAMES * NAME_BYTES + activity_module.MAX_SLOT_BYTES + failure_groups.MAX_BYTES
    assert most < 52_000_000
    monkeypatch.setattr(activity_module, "MAX_SLOT_BYTES", 30_000)
    dice, shop = Random(1), Shop()
    shop.receive(*events_of("a"))
    (record,) = shop.tasks.newest()
    gc.collect()
    tracemalloc.start()
    try:
        name, largest = NameActivity("busy", None), 0
        for minute in range(0, 1_440, 12):
            shop.name.durations, shop.name.closes = name.durations, 0.0
            shop.tasks.activity._advance(record, shop.name, BEGIN + 60 * minute)
            largest = max(largest, name.durations.size_bytes)
            for _ in range(15):
                name.durations.add(0, 10 ** dice.uniform(-4, 7))
                name.durations.add(1, 10 ** dice.uniform(-4, 7))
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 28_000 < largest <= 30_000
    assert 0.7 < (name.size_bytes + name.durations.size_bytes) / grown < 1.3


def test_a_gateway_that_reads_the_log_later_has_the_same_statistics() -> None:
    leader, follower = Shop(keeps_origins=True), ReplicatedTaskTable(keeps_origins=True)
    workers = WorkerTable()
    for number in range(40):
        leader.now = BEGIN + 97 * number
        name = f"name-{number % 3}"
        for event in events_of(f"u{number}", name):
            made = event | {"timestamp": leader.now - 1, "clock": leader.clock + 1}
            leader.receive(made)
            at = 1_000.0 + number  # a clock of its own: what was read at once
            process = workers.on_event(made, at, leader.now)
            follower.follow(made, {"name": name, "root_id": made["uuid"]}, at, process, leader.now)
    for window in (60.0, 3_600.0, 86_400.0):
        reader = ActivityReader(follower.activity, window)
        for _ in reader.read(leader.now):
            pass
        expected = leader.read(window)
        assert (reader.names, reader.total) == (expected.names, expected.total)
        assert reader.head == expected.head
    check(follower)
