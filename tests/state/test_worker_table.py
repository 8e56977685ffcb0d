"""The worker table: the status of workers, from their events. Time is the argument `now`; no test waits."""

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import Event, encode
from celery_gateway.pipeline.pipeline import Pipeline
from celery_gateway.state.process import Process, ProcessKey
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker import Worker
from celery_gateway.state.worker_status import FORGET_SECONDS, SILENT_SECONDS, STOPPING_SECONDS
from celery_gateway.state.worker_table import (
    GONE_SECONDS,
    MAX_CHECKS,
    MAX_GONE,
    MAX_PROCESSES,
    MAX_WORKERS,
    WorkerTable,
)
from celery_gateway.stream.hub import Hub
from tests.support.thorough import tries, variants

pytestmark = pytest.mark.unit

NAME = "w1@host"
TIME = 1_700_000_000.0
"""Epoch seconds of `now` 0."""
DRAWN = settings(deadline=None, max_examples=tries(300), derandomize=True)

_clock = count(1)


def event(subject: str, hostname: Any = NAME, pid: Any = 7, **fields: Any) -> Event:
    """A worker's event; each is later than the one made before."""
    at = next(_clock)
    made = {
        "type": f"worker-{subject}",
        "hostname": hostname,
        "pid": pid,
        "timestamp": float(at),
        "clock": at,
    }
    return made | fields


def online(**fields: Any) -> Event:
    """The first event of a new process, as Celery's Heart sends it."""
    return event("online", **{"freq": 2.0, "active": 0, "processed": 0} | fields)


def heartbeat(**fields: Any) -> Event:
    return event("heartbeat", **{"freq": 2.0, "active": 0, "processed": 0} | fields)


def task_event(subject: str, hostname: Any = NAME, pid: Any = 7, **fields: Any) -> Event:
    return event("", hostname, pid, **fields) | {"type": f"task-{subject}", "uuid": "u1"}


def every(workers: WorkerTable, now: float = 0.0) -> list[Worker]:
    return workers.all(now, TIME + now)


def only(workers: WorkerTable, now: float = 0.0) -> Worker:
    (worker,) = every(workers, now)
    return worker


def status(workers: WorkerTable, now: float) -> tuple[str, float | None, bool]:
    """The status of the only worker, since when on the clock of `now`, and whether it is alive."""
    worker = only(workers, now)
    return worker.status, worker.since and worker.since - TIME, worker.alive


def process_of(workers: WorkerTable, made: Event, now: float) -> Process:
    """Pass an event to the table, and return the process that has sent it."""
    process = workers.on_event(made, now)
    assert process is not None
    return process


def gone(workers: WorkerTable, now: float) -> list[ProcessKey]:
    """The keys of the processes that were found to be gone."""
    found = workers.find_gone(now)
    while workers.has_more(now):
        found += workers.find_gone(now)
    return [each.process.key for each in found]


def key(pid: int | None = 7, life: int = 0, cluster: str | None = None) -> ProcessKey:
    return ProcessKey(cluster, NAME, pid, life)


# ----------------------------------------------------------------------------------------- silence


@pytest.mark.parametrize(
    ("freq", "silent_seconds"), [(2.0, SILENT_SECONDS), (60.0, 180.0), (None, SILENT_SECONDS)]
)
def test_a_worker_is_silent_after_three_heartbeats_and_at_least_fifteen_seconds(
    freq: float | None, silent_seconds: float
) -> None:
    workers = WorkerTable()
    workers.on_event(online(freq=freq), 100.0)
    assert status(workers, 100.0 + silent_seconds) == ("online", 100.0, True)
    assert status(workers, 100.1 + silent_seconds) == ("silent", 100.0, False)
    workers.on_event(heartbeat(freq=freq), 500.0)
    assert status(workers, 500.0) == ("online", 100.0, True)


@pytest.mark.parametrize("offset_seconds", [-7200.0, 0.0, 7200.0])
def test_silence_is_measured_by_arrival_and_not_by_the_workers_clock(offset_seconds: float) -> None:
    workers = WorkerTable()
    for now in range(0, 40, 2):
        workers.on_event(heartbeat(timestamp=TIME + now + offset_seconds), float(now))
    assert status(workers, 53.0)[0] == "online"
    assert status(workers, 53.1)[0] == "silent"


def test_a_worker_whose_clock_is_set_back_goes_on() -> None:
    workers = WorkerTable()
    process_of(workers, online(timestamp=TIME + 7200), 0.0)
    ahead = process_of(workers, heartbeat(timestamp=TIME + 7202, processed=3, active=1), 2.0)
    right = process_of(workers, heartbeat(timestamp=TIME + 4, processed=4, active=2), 4.0)
    assert right is ahead
    worker = only(workers, 4.0)
    assert (worker.status, worker.timestamp, worker.active, worker.processed) == ("online", TIME + 4, 2, 4)
    assert gone(workers, 4.0) == []


def test_a_new_process_with_an_earlier_clock_than_the_one_before_is_online() -> None:
    """The first had a clock an hour ahead."""
    workers = WorkerTable()
    workers.on_event(online(pid=10, timestamp=TIME + 3600), 0.0)
    for now in range(20, 60, 2):
        workers.on_event(heartbeat(pid=11, timestamp=TIME + now), float(now))
    assert status(workers, 60.0)[0] == "online"
    assert only(workers, 60.0).pid == 11
    assert gone(workers, 60.0) == [key(10)]


@pytest.mark.parametrize("pid", [7, 4711, None])
def test_any_event_ends_the_silence_also_one_of_the_pools_children(pid: int | None) -> None:
    workers = WorkerTable()
    process = process_of(workers, heartbeat(), 0.0)
    assert workers.on_event(task_event("progress", pid=pid), 14.0) is process
    assert status(workers, 28.0)[0] == "online"
    assert status(workers, 30.0)[0] == "silent"


def test_a_silent_worker_is_gone_only_after_the_timeout() -> None:
    for seconds in (GONE_SECONDS, 40.0):
        workers = WorkerTable(gone_seconds=seconds)
        process_of(workers, heartbeat(), 0.0)
        assert gone(workers, seconds) == []
        assert status(workers, seconds) == ("silent", 0.0, False)
        (found,) = workers.find_gone(seconds + 1)
        assert found.process.key == key()
        assert "silent" in found.reason and f"{seconds + 1:.0f} s" in found.reason
        assert status(workers, seconds + 2) == ("offline", seconds + 1, False)
        assert gone(workers, seconds + 2) == [], "each is reported once"


def test_a_process_that_was_taken_for_gone_and_sends_again_is_online_and_may_go_again() -> None:
    workers = WorkerTable(gone_seconds=20.0)
    process = process_of(workers, heartbeat(), 0.0)
    assert gone(workers, 21.0) == [key()]
    assert process_of(workers, heartbeat(), 22.0) is process
    assert status(workers, 22.0)[0] == "online"
    assert gone(workers, 43.0) == [key()]


# ----------------------------------------------------------------------------------------- stopping


def test_a_worker_that_stops_with_a_task_under_way_is_stopping_until_the_task_ends() -> None:
    workers = WorkerTable()
    process = process_of(workers, online(), 0.0)
    process.assigned = {"received": False, "started": True}
    offline_event = event("offline")
    workers.on_event(offline_event, 1.0)
    assert status(workers, 1.0) == ("stopping", 1.0, True)
    assert status(workers, 300.0) == ("stopping", 1.0, True), "it sends no heartbeats any more"
    assert gone(workers, STOPPING_SECONDS) == []
    assert workers.statistics(300.0).alive == 1
    del process.assigned["started"]
    workers.on_event(task_event("succeeded"), 301.0)
    assert status(workers, 301.0) == ("offline", 1.0, False)
    assert only(workers, 301.0).offline == offline_event["timestamp"]


def test_a_worker_that_stops_without_a_task_is_offline_at_once_until_it_comes_back() -> None:
    workers = WorkerTable()
    workers.on_event(online(), 0.0)
    workers.on_event(event("offline"), 1.0)
    workers.on_event(task_event("succeeded"), 1.0)  # Celery flushes its events after that
    assert status(workers, 2.0) == ("offline", 1.0, False)
    workers.on_event(online(processed=1), 3.0)
    assert status(workers, 3.0)[0] == "online"


def test_a_stopping_process_is_gone_after_an_hour() -> None:
    workers = WorkerTable()
    process = process_of(workers, online(), 0.0)
    process.assigned["started"] = True
    workers.on_event(event("offline"), 1.0)
    assert gone(workers, STOPPING_SECONDS + 2) == [key()]


def test_a_stopping_process_is_gone_after_an_hour_also_beside_the_next_one() -> None:
    workers = WorkerTable()
    process_of(workers, online(pid=10), 0.0).assigned["started"] = True
    workers.on_event(event("offline", pid=10), 1.0)
    found = []
    for now in range(2, int(STOPPING_SECONDS) + 60, 2):
        workers.on_event(heartbeat(pid=11), float(now))
        found += gone(workers, float(now))
    assert found == [key(10)]


def test_a_stopping_process_is_not_gone_because_the_next_one_has_come_up() -> None:
    workers = WorkerTable()
    process_of(workers, online(pid=10), 0.0).assigned["started"] = True
    workers.on_event(event("offline", pid=10), 1.0)
    for now in range(2, 600, 2):
        workers.on_event(heartbeat(pid=11), float(now))
        assert gone(workers, float(now)) == []
    assert status(workers, 600.0)[0] == "online"


@pytest.mark.parametrize("pid", [7, 8])
def test_a_late_worker_offline_from_before_the_restart_changes_nothing(pid: int) -> None:
    workers = WorkerTable()
    workers.on_event(online(clock=40), 0.0)
    offline_event, back = event("offline", clock=50), online(pid=pid, clock=1)
    workers.on_event(back, 1.0)
    if pid == 7:
        offline_event["clock"] = 0  # an earlier event of the same process has a smaller counter
    workers.on_event(offline_event, 1.0)
    assert status(workers, 1.0)[0] == "online"
    worker = only(workers, 1.0)
    assert (worker.pid, worker.online, worker.timestamp) == (pid, back["timestamp"], back["timestamp"])


# ------------------------------------------------------------------------------------------- lives


@pytest.mark.parametrize(
    "restarted",
    [
        online(clock=1, processed=0),
        online(clock=1, processed=None),
        online(clock=90, processed=0),
        online(clock=None, processed=0),
    ],
    ids=["both", "clock", "processed", "processed alone"],
)
def test_a_restart_with_the_same_pid_is_another_life(restarted: Event) -> None:
    """As the first process of a container."""
    workers = WorkerTable()
    before = process_of(workers, online(clock=1), 0.0)
    process_of(workers, heartbeat(clock=80, processed=5), 2.0)
    after = process_of(workers, restarted, 20.0)
    assert (after.key, after.processed or 0) == (key(life=1), 0)
    (found,) = workers.find_gone(20.0)
    assert found.process is before
    assert "restarted" in found.reason
    assert status(workers, 20.0) == ("online", 20.0, True)


def test_a_restart_is_found_by_the_tasks_that_were_seen_to_start() -> None:
    """The process was killed before a heartbeat counted them."""
    workers = WorkerTable()
    before = process_of(workers, online(clock=None), 0.0)
    before.starts = 1
    after = process_of(workers, online(clock=None, processed=0), 20.0)
    assert after is not before
    assert gone(workers, 20.0) == [key()]


def test_a_worker_that_only_lost_its_broker_goes_on() -> None:
    """It sends `worker-online` again, with its counters."""
    workers = WorkerTable()
    before = process_of(workers, online(clock=1), 0.0)
    before.starts = 1
    before.assigned["started"] = True
    workers.on_event(event("offline", clock=3), 1.0)
    assert process_of(workers, online(clock=5, active=1, processed=1), 2.0) is before
    assert status(workers, 2.0) == ("online", 0.0, True)
    for now in range(4, 100, 2):
        assert process_of(workers, heartbeat(clock=now, active=1, processed=1), float(now)) is before
        assert gone(workers, float(now)) == []


def test_worker_online_alone_is_no_restart() -> None:
    workers = WorkerTable()
    before = process_of(workers, online(clock=10, processed=5), 0.0)
    assert process_of(workers, online(clock=11, processed=5), 1.0) is before
    assert process_of(workers, event("online", clock=None), 2.0) is before
    assert gone(workers, 2.0) == []


def test_a_restart_whose_worker_online_is_lost_is_found_by_the_second_heartbeat() -> None:
    workers = WorkerTable()
    before = process_of(workers, heartbeat(clock=80, processed=5), 0.0)
    assert process_of(workers, heartbeat(clock=2, processed=0), 2.0) is before
    assert gone(workers, 2.0) == []
    after = process_of(workers, heartbeat(clock=4, processed=0), 4.0)
    assert after.key == key(life=1)
    (found,) = workers.find_gone(4.0)
    assert (found.process, found.successor) == (before, after), "what came in between may be of either"


def test_two_workers_with_one_hostname_and_pid_are_not_gone() -> None:
    """Two containers, each with a pid 1 and a fixed host name: their heartbeats alternate."""
    workers = WorkerTable()
    processes = set()
    for now in range(0, 600, 2):
        processes.add(process_of(workers, heartbeat(clock=1000 + now, processed=100 + now), float(now)))
        processes.add(process_of(workers, heartbeat(clock=10 + now, processed=3), now + 1.0))
        assert gone(workers, now + 1.0) == []
    assert len(processes) == 1
    assert status(workers, 600.0)[0] == "online"


@pytest.mark.parametrize("first", [7, 8])
def test_two_workers_with_one_hostname_differ_by_their_pids(first: int) -> None:
    """One of them is killed. Beside the other, which goes on, it is gone after the timeout at the latest."""
    workers = WorkerTable()
    workers.on_event(online(pid=first), 0.0)
    found = []
    for now in range(1, int(GONE_SECONDS) + 20):
        workers.on_event(heartbeat(pid=8), float(now))
        if now < 10:
            workers.on_event(heartbeat(pid=7), float(now))
        found += gone(workers, float(now))
        assert status(workers, float(now))[0] == "online"
    assert found == [key(7)]


def test_a_killed_process_is_gone_once_it_is_silent_and_another_has_come_up() -> None:
    workers = WorkerTable()
    workers.on_event(heartbeat(pid=7), 0.0)
    workers.on_event(online(pid=8), 5.0)
    assert gone(workers, 5.0) == []
    assert gone(workers, SILENT_SECONDS) == []
    workers.on_event(heartbeat(pid=8), SILENT_SECONDS)
    (found,) = workers.find_gone(SILENT_SECONDS + 0.1)
    assert (found.process.key, found.successor) == (key(7), None)
    assert "another process" in found.reason
    assert only(workers, SILENT_SECONDS + 0.1).pid == 8


# ------------------------------------------------------------------------------------ our own absence


def test_while_the_gateway_is_disconnected_its_workers_are_unknown_and_none_is_gone() -> None:
    workers = WorkerTable()
    workers.on_event(heartbeat(pid=10), 0.0)
    workers.on_event(heartbeat(pid=11), 2.0)
    workers.on_disconnect(None, 4.0)
    workers.on_disconnect(None, 90.0)  # it tries again, and fails
    assert status(workers, 4.0) == ("unknown", 4.0, True)
    assert status(workers, 2000.0) == ("unknown", 4.0, True), "as it was then"
    assert workers.statistics(2000.0)[:2] == (1, 1)
    assert gone(workers, 2000.0) == []
    workers.on_reconnect(None, 3000.0)
    assert status(workers, 3000.0)[0] == "online"
    assert gone(workers, 3000.0) == [], "the time away is not counted"
    workers.on_event(heartbeat(pid=11), 3002.0)
    assert gone(workers, 3000.0 + SILENT_SECONDS) == [key(10)]


@pytest.mark.timeout(10)
def test_while_disconnected_for_long_no_worker_is_gone_or_removed() -> None:
    workers = WorkerTable()
    workers.on_event(heartbeat(), 0.0)
    workers.on_disconnect(None, 4.0)
    for now in range(0, int(3 * STOPPING_SECONDS), 100):
        assert gone(workers, float(now)) == []
    assert workers.statistics(2 * FORGET_SECONDS)[:2] == (1, 1)
    assert status(workers, 2 * FORGET_SECONDS) == ("unknown", 4.0, True)


def test_a_worker_that_was_silent_before_the_disconnection_is_not_alive() -> None:
    workers = WorkerTable()
    workers.on_event(heartbeat(), 0.0)
    workers.on_disconnect(None, 20.0)
    assert status(workers, 21.0) == ("unknown", 20.0, False)
    workers.on_reconnect(None, 100.0)
    assert status(workers, 100.0)[0] == "silent"


def test_a_disconnection_from_one_broker_concerns_only_its_workers() -> None:
    workers = WorkerTable(has_clusters=True, gone_seconds=60.0)
    for cluster in ("eu", "us"):
        workers.on_event(heartbeat(cluster=cluster), 0.0)
    workers.on_disconnect("eu", 1.0)
    assert [worker.status for worker in every(workers, 70.0)] == ["unknown", "silent"]
    assert gone(workers, 70.0) == [key(cluster="us")]
    workers.on_reconnect("eu", 80.0)
    assert [worker.status for worker in every(workers, 80.0)] == ["online", "offline"]


def test_a_reconnection_without_a_disconnection_changes_nothing() -> None:
    workers = WorkerTable()
    workers.on_event(heartbeat(), 0.0)
    workers.on_reconnect(None, 10.0)
    assert status(workers, 16.0)[0] == "silent"


def test_a_pause_of_the_gateway_itself_is_not_counted() -> None:
    workers = WorkerTable(has_clusters=True, gone_seconds=60.0)
    for cluster in ("eu", "us"):
        workers.on_event(heartbeat(cluster=cluster), 0.0)
    workers.on_disconnect("eu", 5.0)
    workers.on_pause(100.0)
    assert [worker.status for worker in every(workers, 105.0)] == ["unknown", "online"]
    assert gone(workers, 105.0) == []
    workers.on_reconnect("eu", 105.0)
    assert [worker.status for worker in every(workers, 105.0)] == ["online", "online"]
    assert gone(workers, 150.0) == [], "the same absence is not counted twice"


# ------------------------------------------------------------------------------- without heartbeats


@pytest.mark.timeout(10)
def test_a_worker_without_heartbeats_is_known_by_its_task_events_and_never_silent() -> None:
    workers = WorkerTable()
    process = process_of(workers, task_event("received"), 0.0)
    process.assigned["u1"] = True
    worker = only(workers, FORGET_SECONDS - 1)
    assert (worker.status, worker.heartbeats, worker.pid) == ("online", False, 7)
    for now in range(0, int(10 * FORGET_SECONDS), 100):
        assert gone(workers, float(now)) == []
    assert only(workers, 10 * FORGET_SECONDS).hostname == NAME, "it holds a task"
    process.assigned.clear()
    assert every(workers, 10 * FORGET_SECONDS) == []


@pytest.mark.parametrize(
    "subject", ["received", "started", "succeeded", "failed", "retried", "revoked", "rejected", "cancelled"]
)
def test_each_task_event_of_a_worker_makes_it_known(subject: str) -> None:
    workers = WorkerTable()
    process = process_of(workers, task_event(subject), 0.0)
    assert (process.key, only(workers).status) == (key(), "online")


def test_the_first_heartbeat_is_recorded() -> None:
    workers = WorkerTable()
    process = process_of(workers, task_event("received"), 0.0)
    assert not only(workers).heartbeats
    assert process_of(workers, heartbeat(), 1.0) is process
    assert only(workers, 1.0).heartbeats


def test_a_restarted_worker_without_heartbeats_is_shown_with_its_new_pid() -> None:
    workers = WorkerTable()
    workers.on_event(task_event("received", pid=10), 0.0)
    workers.on_event(task_event("received", pid=11), 1.0)
    assert only(workers, 1.0).pid == 11
    assert gone(workers, SILENT_SECONDS + 1) == [], "without heartbeats silence means little"
    assert gone(workers, STOPPING_SECONDS + 1) == [key(10)]


def test_clients_and_an_applications_own_worker_events_add_no_worker() -> None:
    workers = WorkerTable()
    for made in (
        task_event("sent", "gen12@host"),
        task_event("sent", "w1@host"),
        task_event("progress"),
        event("deployed"),
        event("onlines"),
        event("online", ""),
        event("online", "x" * 256),
        event("online", None),
        event("online", ["w1@host"]),
        {"type": "shop-opened", "hostname": NAME, "pid": 7},
    ):
        assert workers.on_event(made, 0.0) is None
    assert every(workers) == []
    assert workers.statistics(0.0)[:2] == (0, 0)


def test_a_worker_may_be_named_like_a_client() -> None:
    workers = WorkerTable()
    workers.on_event(online(hostname="gen1@host"), 0.0)
    assert only(workers).hostname == "gen1@host"
    assert workers.on_event(task_event("sent", "gen1@host"), 1.0) is None, "sent by a client of that name"


def test_an_applications_own_worker_events_change_no_worker() -> None:
    workers = WorkerTable()
    process = process_of(workers, heartbeat(processed=5), 0.0)
    before = encode(only(workers))
    workers.on_event(event("deployed", processed=0, clock=0, freq=99.0, sw_ver="x"), 0.0)
    assert encode(only(workers)) == before
    assert process_of(workers, heartbeat(processed=5), 1.0) is process


# ------------------------------------------------------------------------------- what is known of it


def test_the_fields_of_worker_events_are_recorded() -> None:
    workers = WorkerTable()
    begun = event("online", freq=2.0, sw_ident="py-celery", sw_ver="5.7.0", sw_sys="Linux")
    workers.on_event(begun, 0.0)
    beat = heartbeat(active=2, processed=5, loadavg=[0.5, 1, 2.25])
    workers.on_event(beat, 1.0)
    assert only(workers, 1.0) == Worker(
        NAME,
        alive=True,
        status="online",
        since=TIME,
        heartbeats=True,
        freq=2.0,
        active=2,
        processed=5,
        loadavg=[0.5, 1.0, 2.25],
        pid=7,
        clock=beat["clock"],
        timestamp=beat["timestamp"],
        online=begun["timestamp"],
        sw_ident="py-celery",
        sw_ver="5.7.0",
        sw_sys="Linux",
    )
    assert b"cluster" not in encode(only(workers, 1.0))


def test_an_answer_to_the_heartbeat_command_removes_no_field() -> None:
    workers = WorkerTable()
    process = process_of(workers, heartbeat(freq=30.0, active=2, processed=5, loadavg=[1.0, 1.0, 1.0]), 0.0)
    assert process_of(workers, event("heartbeat", freq=5, sw_ident="py-celery"), 1.0) is process
    worker = only(workers, 1.0)
    assert (worker.freq, worker.active, worker.processed, worker.loadavg) == (30.0, 2, 5, [1.0, 1.0, 1.0])


def test_a_restarted_worker_inherits_no_counts() -> None:
    workers = WorkerTable()
    workers.on_event(heartbeat(active=2, processed=5), 0.0)
    workers.on_event(event("online", pid=8), 1.0)
    assert (only(workers).active, only(workers).processed) == (None, None)


def test_values_of_a_wrong_type_are_ignored() -> None:
    workers = WorkerTable()
    wrong = {
        "freq": "2",
        "active": True,
        "processed": 1.5,
        "loadavg": [None],
        "pid": "7",
        "clock": [],
        "sw_ver": 5,
        "timestamp": None,
    }
    nameless = process_of(workers, event("online", **wrong), 0.0)
    assert nameless.key == key(None)
    workers.on_event(heartbeat(freq=-1, loadavg="high", clock=1 << 80, processed=-(1 << 80)), 1.0)
    worker = only(workers, 1.0)
    assert (worker.freq, worker.loadavg, worker.sw_ver, worker.pid) == (None, None, None, 7)
    assert (worker.clock, worker.processed) == (None, None)


def test_workers_of_several_brokers_may_have_one_name() -> None:
    workers = WorkerTable(has_clusters=True)
    for cluster in ("us", "eu"):
        assert process_of(workers, online(cluster=cluster), 0.0).key == key(cluster=cluster)
    workers.on_event(event("offline", cluster="us"), 1.0)
    assert [(w.cluster, w.status) for w in every(workers, 1.0)] == [("eu", "online"), ("us", "offline")]


def test_a_field_called_cluster_is_no_cluster_where_brokers_have_no_names() -> None:
    workers = WorkerTable()
    assert process_of(workers, online(cluster=["eu"]), 0.0).key == key()
    assert b"cluster" not in encode(only(workers))


# ------------------------------------------------------------------------------------------ bounded


def test_a_worker_that_is_gone_is_removed_after_an_hour() -> None:
    workers = WorkerTable()
    workers.on_event(heartbeat(), 0.0)
    assert not only(workers, FORGET_SECONDS).alive
    assert every(workers, FORGET_SECONDS + 1) == []
    workers.on_event(heartbeat(), FORGET_SECONDS + 2)
    assert status(workers, FORGET_SECONDS + 2) == ("online", FORGET_SECONDS + 2, True)


def test_a_worker_with_a_heartbeat_an_hour_is_not_removed_in_between() -> None:
    workers = WorkerTable(gone_seconds=24 * 3600.0)
    workers.on_event(heartbeat(freq=3600.0), 0.0)
    assert only(workers, FORGET_SECONDS).status == "online"
    workers.on_event(heartbeat(freq=1e300), 0.0)
    assert every(workers, 4 * 3600.0) == []


def test_the_workers_without_an_event_for_longest_are_removed_first() -> None:
    workers = WorkerTable()
    for number in range(MAX_WORKERS):
        workers.on_event(online(hostname=f"w{number}@host"), 0.0)
    workers.on_event(task_event("started", "w0@host"), 0.0)
    workers.on_event(online(hostname="new@host"), 0.0)
    names = {worker.hostname for worker in every(workers)}
    assert len(names) == MAX_WORKERS
    assert "w1@host" not in names
    assert {"w0@host", "w2@host", "new@host"} <= names
    assert workers.statistics(0.0)[:2] == (MAX_WORKERS, MAX_WORKERS)
    assert workers.statistics(15.1)[:2] == (MAX_WORKERS, 0)


def test_one_name_with_ever_new_pids_stays_small_and_only_silent_processes_are_gone() -> None:
    workers = WorkerTable()
    reported = []
    for pid in range(1000):
        process_of(workers, heartbeat(pid=pid), 0.0)
        reported += gone(workers, 0.0)
    assert len(workers._entries[None, NAME].processes) == MAX_PROCESSES
    assert reported == [], "none of them is silent"
    for pid in range(1000, 1000 + MAX_PROCESSES):
        process_of(workers, heartbeat(pid=pid), SILENT_SECONDS + 1)
    assert len(gone(workers, SILENT_SECONDS + 1)) == MAX_PROCESSES
    gone(workers, 2 * GONE_SECONDS)
    assert workers._timers._heap == []


def test_processes_that_live_beside_many_others_of_their_name_are_not_gone() -> None:
    workers = WorkerTable()
    for now in range(60):
        for pid in range(MAX_PROCESSES + 3):
            process_of(workers, heartbeat(pid=pid), float(now))
        assert gone(workers, float(now)) == []


def test_workers_whose_first_heartbeat_comes_late_are_gone_in_time() -> None:
    workers = WorkerTable()
    workers.on_event(task_event("received"), 0.0)
    assert gone(workers, SILENT_SECONDS + 1) == []
    workers.on_event(heartbeat(freq=30.0), SILENT_SECONDS + 2)
    assert gone(workers, SILENT_SECONDS + GONE_SECONDS + 3) == [key()]


def test_pods_with_names_of_their_own_are_removed_completely() -> None:
    workers = WorkerTable()
    for number in range(2_000):
        workers.on_event(task_event("received", f"pod{number}@host"), float(number))
    now = 2_000.0 + FORGET_SECONDS + STOPPING_SECONDS
    assert every(workers, now) == []
    gone(workers, now)
    assert workers._timers._heap == []


def test_workers_that_are_long_gone_are_not_checked_again() -> None:
    workers = WorkerTable()
    for number in range(3000):
        workers.on_event(heartbeat(hostname=f"old{number}@host"), 0.0)
    assert len(gone(workers, GONE_SECONDS + 1)) == 3000
    assert workers._timers._heap == []


def test_processes_are_removed_with_their_worker() -> None:
    """Hosts with names of their own, on each of which two workers ran one after the other."""
    workers = WorkerTable()
    for number in range(100):
        for pid in (1, 2):
            process_of(workers, online(hostname=f"w{number}@host", pid=pid), number)
            workers.on_event(event("offline", f"w{number}@host", pid), number)
    now = 100.0 + FORGET_SECONDS + STOPPING_SECONDS
    gone(workers, now)
    assert every(workers, now) == []
    gone(workers, now)
    assert workers._timers._heap == []


FLOODS: dict[str, Callable[[int], Event]] = {
    "one name with ever new pids": lambda number: heartbeat(pid=number, freq=3600.0),
    "ever new names": lambda number: heartbeat(hostname=f"w{number}@host", freq=3600.0),
    "ever new names without heartbeats": lambda number: task_event("started", f"w{number}@host"),
    "ever new long names": lambda number: heartbeat(
        hostname=f"{number}@" + "\N{GRINNING FACE}" * 240, freq=3600.0
    ),
    "many processes of each name": lambda number: heartbeat(
        hostname=f"w{number % 900}@host", pid=number, freq=3600.0
    ),
    "restarts of one process": lambda number: online(clock=1_000_000 - number, freq=3600.0),
    "restarts of many processes": lambda number: online(
        hostname=f"w{number % 900}@host", clock=1_000_000 - number, freq=3600.0
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("flood", variants(4, FLOODS.values()), ids=FLOODS.keys())
def test_a_flood_of_workers_is_bounded_and_counted(
    flood: Callable[[int], Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery_gateway.state.worker_table.MAX_WORKERS", 1_000)
    monkeypatch.setattr("celery_gateway.state.worker_table.MAX_BYTES", 4_000_000)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        workers = WorkerTable()
        for number in range(10_000):
            workers.on_event(flood(number), number * 1e-3)
        gc.collect()
        held_bytes = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    reported_bytes = workers.statistics(10.0).known_bytes
    assert reported_bytes <= 4_000_000 + 700_000
    assert held_bytes < 1.3 * reported_bytes + 300_000
    assert len(workers._timers._heap) <= 2 * len(workers._timers._processes) + 1_000
    assert len(workers._gone) <= MAX_GONE


@pytest.mark.slow
def test_processes_that_are_gone_are_found_in_short_calls() -> None:
    def longest_seconds() -> float:
        workers = WorkerTable()
        for number in range(15_000):
            workers.on_event(heartbeat(hostname=f"w{number % 8_000}@host", pid=number), 0.0)
        longest, gone_count = 0.0, 0
        for now in (SILENT_SECONDS + 1, GONE_SECONDS + 1):
            while workers.has_more(now):
                began = time.process_time()
                found = workers.find_gone(now)
                longest = max(longest, time.process_time() - began)
                assert len(found) <= MAX_CHECKS
                gone_count += len(found)
        assert gone_count == 15_000
        return longest

    gc.disable()  # a collection would be counted to whatever call it falls into
    try:
        assert min(longest_seconds(), longest_seconds()) < 0.03, "about 0.002"
    finally:
        gc.enable()


def test_the_pipeline_reports_all_processes_that_are_gone_without_a_tick() -> None:
    async def main() -> None:
        pipeline = Pipeline([], TaskTable(), WorkerTable(), Hub())
        now = asyncio.get_running_loop().time()
        for number in range(MAX_GONE):
            pipeline.workers.on_event(online(clock=1_000_000 - number), now)
        assert pipeline.workers.has_more(now)
        pipeline._timers.emit_lost()
        assert pipeline.workers.has_more(now), "a call does a part of it"
        deadline = now + 5.0
        while pipeline.workers.has_more(now):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.005)
        await pipeline.stop()

    asyncio.run(main())


def test_of_many_restarts_those_with_tasks_are_kept() -> None:
    workers = WorkerTable()
    for number in range(MAX_GONE + 50):
        process = process_of(workers, online(clock=1_000_000 - number), 0.0)
        if number >= MAX_GONE:
            process.assigned["a task"] = True
    process_of(workers, online(clock=1), 0.0)
    lives = {key.life for key in gone(workers, 1.0)}
    assert lives == set(range(MAX_GONE + 50))


def test_each_process_that_is_not_gone_has_one_timer() -> None:
    workers = WorkerTable()
    for now in range(0, 60, 2):
        for pid in range(5):
            process_of(workers, heartbeat(pid=pid), float(now))
        gone(workers, float(now))
        assert len(workers._timers._processes) == 5
        assert len(workers._timers._heap) <= 10


def test_the_bytes_are_bounded_also_when_known_workers_have_more_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("celery_gateway.state.worker_table.MAX_BYTES", 1_000_000)
    workers = WorkerTable()
    for pid in range(MAX_PROCESSES):
        for number in range(500):
            process_of(workers, heartbeat(hostname=f"w{number}@host", pid=pid, sw_ident="x" * 255), 0.0)
            if number % 20 == 0:
                assert workers.statistics(0.0).known_bytes <= 1_000_000
    assert workers.statistics(0.0).known > 100


# ------------------------------------------------------------------------------------------- drawn

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["heartbeat", "online", "offline", "task", "die", "restart"]),
        st.integers(0, 1),
        st.floats(0.1, 30.0),
    ),
    max_size=60,
)


class _Life:
    """The truth about a process."""

    def __init__(self) -> None:
        self.clock = self.processed = 0
        self.is_stopping = self.is_dead = False


@pytest.mark.slow
@DRAWN
@given(STEPS, st.lists(st.floats(-7200.0, 7200.0), min_size=2, max_size=2))
def test_whatever_the_clocks_no_process_that_sends_is_gone(
    steps: list[tuple[str, int, float]], offsets: list[float]
) -> None:
    """Two pids of one hostname live, die and restart; the expected result is the simulated history."""
    workers, now = WorkerTable(), 0.0
    lives: list[_Life | None] = [None, None]
    named: dict[ProcessKey, _Life] = {}
    sent_at: dict[_Life, float] = {}
    for action, pid, pause in steps:
        now += pause
        life = lives[pid]
        if action == "die" and life is not None:
            life.is_dead = True
        if action == "restart" or life is None:
            if life is not None:
                life.is_dead = True
            life = lives[pid] = _Life()
            action = "online"
        if not life.is_dead:
            life.clock += 1
            fields = {"pid": pid, "timestamp": TIME + now + offsets[pid], "clock": life.clock}
            if action == "task":
                life.processed += 1
                process = process_of(workers, task_event("started", **fields), now)
                process.starts += 1
            elif action == "offline":
                life.is_stopping = True
                process = process_of(workers, event("offline", **fields), now)
            else:
                life.is_stopping = False
                made = {"online": online, "heartbeat": heartbeat}.get(action, heartbeat)
                process = process_of(workers, made(processed=life.processed, **fields), now)
            named[process.key] = life
            sent_at[life] = now
        for found in workers.find_gone(now):
            lost = named[found.process.key]
            silent_seconds = now - sent_at[lost]
            assert lost.is_dead or (silent_seconds > SILENT_SECONDS and not lost.is_stopping), found.reason
        for worker in every(workers, now):
            lately = [one for one, at in sent_at.items() if now - at <= SILENT_SECONDS and not one.is_dead]
            if any(not one.is_stopping for one in lately):
                assert worker.status == "online"
