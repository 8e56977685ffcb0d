"""Which workers are alive, by their events. Time is the `now` argument; nothing here waits."""

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.event import Event, encode
from gateway.task import Task
from gateway.workers import (
    FORGET_SECONDS,
    MAX_WORKERS,
    SILENT_SECONDS,
    Worker,
    Workers,
    WorkersStatistics,
)

NAME = "w1@host"
DRAWN = settings(deadline=None, max_examples=300, derandomize=True)

_clock = count(1)


def event(subject: str, hostname: Any = NAME, pid: Any = 7, **fields: Any) -> Event:
    """A worker's event; each is younger than the one made before."""
    return {
        "type": f"worker-{subject}",
        "hostname": hostname,
        "pid": pid,
        "timestamp": float(next(_clock)),
        **fields,
    }


def heartbeat(**fields: Any) -> Event:
    return event("heartbeat", **{"freq": 2.0, "active": 0, "processed": 0} | fields)


def task_event(subject: str, hostname: Any = NAME, pid: Any = 7) -> Event:
    return event("", hostname, pid) | {"type": f"task-{subject}", "uuid": "u1"}


def only(workers: Workers, now: float = 0.0) -> Worker:
    (worker,) = workers.all(now)
    return worker


def running(pid: int | None = 7, state: str = "STARTED", hostname: str | None = NAME) -> Task:
    """A task that a worker's process has told of just now."""
    return Task("u1", state=state, worker=hostname, pid=pid, timestamp=float(next(_clock)))


# ------------------------------------------------------------------------------------------- alive


def test_a_worker_is_alive_until_it_is_silent_for_three_heartbeats_and_fifteen_seconds() -> None:
    for freq, silent_seconds in ((2.0, SILENT_SECONDS), (60.0, 180.0), (None, SILENT_SECONDS)):
        workers = Workers()
        workers.hear(heartbeat(freq=freq), 100.0)
        assert only(workers, 100.0 + silent_seconds).alive
        assert not only(workers, 100.1 + silent_seconds).alive
        workers.hear(heartbeat(freq=freq), 500.0)
        assert only(workers, 500.0).alive


def test_one_that_says_goodbye_is_offline_at_once_and_until_it_comes_back() -> None:
    workers = Workers()
    workers.hear(event("online"), 0.0)
    goodbye = event("offline")
    workers.hear(goodbye, 1.0)
    workers.hear(task_event("succeeded"), 1.0)  # Celery flushes its events after that
    assert not only(workers, 1.0).alive
    assert only(workers, 1.0).offline == goodbye["timestamp"]
    workers.hear(event("online"), 2.0)
    assert only(workers, 2.0).alive


@pytest.mark.parametrize("same_pid", [True, False])
def test_a_goodbye_of_before_the_restart_that_comes_late_changes_nothing(same_pid: bool) -> None:
    workers = Workers()
    workers.hear(event("online"), 0.0)
    goodbye, back = event("offline"), event("online", pid=7 if same_pid else 8)
    workers.hear(back, 1.0)
    workers.hear(goodbye, 1.0)
    assert only(workers, 1.0).alive
    assert only(workers, 1.0).pid == back["pid"]
    assert only(workers, 1.0).online == back["timestamp"]


def test_a_heartbeat_of_before_the_end_that_comes_late_changes_nothing() -> None:
    workers = Workers()
    workers.hear(event("online"), 0.0)
    late = heartbeat()
    workers.hear(event("offline"), 1.0)
    workers.hear(late, 1.0)
    assert not only(workers, 1.0).alive


def test_any_event_is_a_sign_of_life_also_of_the_pools_children() -> None:
    for pid in (7, 4711, None):
        workers = Workers()
        workers.hear(heartbeat(), 0.0)
        workers.hear(task_event("progress", pid=pid), 14.0)
        assert only(workers, 28.0).alive
        assert not only(workers, 30.0).alive


def test_task_events_alone_and_clients_make_no_worker() -> None:
    workers = Workers()
    for made in (
        task_event("started"),
        event("online", "gen12@host"),
        event("online", ""),
        event("online", "x" * 300),
        event("online", None),
        event("online", ["w1@host"]),
    ):
        workers.hear(made, 0.0)
    assert workers.all(0.0) == []
    workers.hear(event("online", "general@host"), 0.0)
    assert only(workers).hostname == "general@host"


# ------------------------------------------------------------------------------- what is known of it


def test_what_a_worker_says_is_kept() -> None:
    workers = Workers()
    online = event("online", freq=2.0, sw_ident="py-celery", sw_ver="5.7.0", sw_sys="Linux", clock=3)
    workers.hear(online, 0.0)
    workers.hear(heartbeat(active=2, processed=5, loadavg=[0.5, 1, 2.25]), 1.0)
    assert only(workers, 1.0) == Worker(
        NAME,
        alive=True,
        freq=2.0,
        active=2,
        processed=5,
        loadavg=[0.5, 1.0, 2.25],
        pid=7,
        clock=3,
        timestamp=online["timestamp"] + 1,
        online=online["timestamp"],
        sw_ident="py-celery",
        sw_ver="5.7.0",
        sw_sys="Linux",
    )
    assert b"cluster" not in encode(only(workers, 1.0))


def test_an_answer_to_the_heartbeat_command_leaves_what_was_known() -> None:
    workers = Workers()
    workers.hear(heartbeat(freq=30.0, active=2, processed=5, loadavg=[1.0, 1.0, 1.0]), 0.0)
    workers.hear(event("heartbeat", freq=5, sw_ident="py-celery"), 1.0)
    worker = only(workers, 1.0)
    assert (worker.freq, worker.active, worker.processed, worker.loadavg) == (30.0, 2, 5, [1.0, 1.0, 1.0])


def test_a_restarted_worker_inherits_no_counts() -> None:
    workers = Workers()
    workers.hear(heartbeat(active=2, processed=5), 0.0)
    workers.hear(event("online", pid=8), 1.0)
    assert (only(workers).active, only(workers).processed) == (None, None)


def test_values_of_the_wrong_kind_are_passed_over() -> None:
    workers = Workers()
    wrong = {
        "freq": "2",
        "active": True,
        "processed": 1.5,
        "loadavg": [None],
        "pid": "7",
        "clock": [],
        "sw_ver": 5,
    }
    workers.hear(event("online", **{"timestamp": None} | wrong), 0.0)
    workers.hear(heartbeat(freq=-1, loadavg="high"), 1.0)
    worker = only(workers, 1.0)
    assert (worker.freq, worker.loadavg, worker.clock, worker.sw_ver, worker.pid) == (
        None,
        None,
        None,
        None,
        7,
    )


def test_workers_of_several_brokers_may_have_one_name() -> None:
    workers = Workers(has_clusters=True)
    for cluster in ("us", "eu"):
        workers.hear(event("online", cluster=cluster), 0.0)
    workers.hear(event("offline", cluster="us"), 1.0)
    assert [(worker.cluster, worker.alive) for worker in workers.all(1.0)] == [("eu", True), ("us", False)]
    task = running()
    for cluster, is_stale in (("us", True), ("eu", False)):
        task.cluster = cluster
        assert workers.is_stale(task, 1.0) is is_stale


def test_a_field_called_cluster_is_no_cluster_where_brokers_have_no_names() -> None:
    workers = Workers()
    workers.hear(event("online", cluster=["eu"]), 0.0)
    assert b"cluster" not in encode(only(workers))


# -------------------------------------------------------------------------------------------- stale


def test_a_task_is_stale_while_it_runs_at_a_worker_that_is_gone() -> None:
    workers = Workers()
    workers.hear(heartbeat(), 0.0)
    for state in ("RECEIVED", "STARTED", "PROGRESS"):
        assert not workers.is_stale(running(state=state), 15.0)
        assert workers.is_stale(running(state=state), 15.1)
        assert workers.is_stale(running(state=state, pid=None), 15.1)
    for state in ("PENDING", "RETRY", "SUCCESS", "FAILURE", "REVOKED", "REJECTED"):
        assert not workers.is_stale(running(state=state), 15.1)
    assert not workers.is_stale(running(hostname="w2@host"), 15.1), "it may run without heartbeats"
    assert not workers.is_stale(running(hostname=None), 15.1)


def test_a_task_of_the_process_before_the_restart_is_stale_at_once() -> None:
    workers = Workers()
    workers.hear(heartbeat(), 0.0)
    before, unheard = running(pid=7), running(pid=6)
    workers.hear(event("online", pid=8), 1.0)
    assert workers.is_stale(before, 1.0)
    assert workers.is_stale(unheard, 1.0), "a process that was not heard of"
    assert not workers.is_stale(running(pid=8), 1.0)
    assert not workers.is_stale(running(pid=4711), 1.0), "one of the pool's children"


def test_two_workers_with_one_name_are_told_apart_by_their_pids() -> None:
    workers = Workers()
    for seconds in range(30):
        workers.hear(heartbeat(pid=8), float(seconds))
        if seconds < 10:
            workers.hear(heartbeat(pid=7), float(seconds))
    assert workers.is_stale(running(pid=7), 30.0)
    assert not workers.is_stale(running(pid=8), 30.0)
    assert only(workers, 30.0).alive


def test_who_is_gone_is_forgotten_after_an_hour_and_its_tasks_stay_stale() -> None:
    workers = Workers()
    workers.hear(heartbeat(), 0.0)
    assert not only(workers, FORGET_SECONDS).alive
    assert workers.all(FORGET_SECONDS + 1) == []
    assert workers.is_stale(running(), FORGET_SECONDS + 1)
    workers.hear(heartbeat(), FORGET_SECONDS + 2)
    assert not workers.is_stale(running(), FORGET_SECONDS + 2)


def test_who_sends_a_heartbeat_an_hour_is_not_forgotten_in_between() -> None:
    workers = Workers()
    workers.hear(heartbeat(freq=3600.0), 0.0)
    assert only(workers, 3 * 3600.0).alive
    workers.hear(heartbeat(freq=1e300), 0.0)
    assert workers.all(4 * 3600.0) == []


# ------------------------------------------------------------------------------------------ bounded


def test_the_longest_silent_make_room() -> None:
    workers = Workers()
    for number in range(MAX_WORKERS):
        workers.hear(event("online", f"w{number}@host"), 0.0)
    workers.hear(task_event("started", "w0@host"), 0.0)
    workers.hear(event("online", "new@host"), 0.0)
    names = {worker.hostname for worker in workers.all(0.0)}
    assert len(names) == MAX_WORKERS
    assert "w1@host" not in names
    assert {"w0@host", "w2@host", "new@host"} <= names
    assert not workers.is_stale(running(hostname="w1@host"), 0.0), "it lives, there was no room for it"
    assert workers.statistics(0.0) == WorkersStatistics(MAX_WORKERS, MAX_WORKERS)
    assert workers.statistics(15.1) == WorkersStatistics(MAX_WORKERS, 0)


def test_one_name_with_ever_new_pids_stays_small() -> None:
    workers = Workers()
    for pid in range(1000):
        workers.hear(heartbeat(pid=pid), 0.0)
    assert not workers.is_stale(running(pid=999), 0.0)
    assert len(workers._known[None, NAME].processes) <= 8


# ---------------------------------------------------------------------------------------- in any order


@DRAWN
@given(st.permutations(range(6)), st.integers(0, 5))
def test_whatever_the_order_events_come_in_the_youngest_word_counts(order: list[int], last: int) -> None:
    """An oracle that sorts: two processes, the second of which came up after the first ended."""
    said = [
        ("online", 7),
        ("heartbeat", 7),
        ("offline", 7),
        ("online", 8),
        ("heartbeat", 8),
        ("offline", 8),
    ][: last + 1]
    events = [
        event(subject, pid=pid, active=0) | {"timestamp": float(at)} for at, (subject, pid) in enumerate(said)
    ]
    workers = Workers()
    for index in order:
        if index < len(events):
            workers.hear(events[index], 0.0)
    assert only(workers).alive is (said[-1][0] != "offline")
    assert only(workers).pid == said[-1][1]
    assert only(workers).timestamp == float(last)
