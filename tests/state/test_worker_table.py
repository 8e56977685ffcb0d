"""The table of workers: their status by their events. Time is the `now` argument; nothing here waits."""

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.event import Event, encode
from gateway.process import Process, ProcessKey
from gateway.worker import Worker
from gateway.workers import (
    FORGET_SECONDS,
    GONE_SECONDS,
    MAX_PROCESSES,
    MAX_WORKERS,
    SILENT_SECONDS,
    STOPPING_SECONDS,
    Workers,
    WorkersStatistics,
)

NAME = "w1@host"
TIME = 1_700_000_000.0
"""Epoch seconds of `now` 0."""
DRAWN = settings(deadline=None, max_examples=300, derandomize=True)

_clock = count(1)


def event(subject: str, hostname: Any = NAME, pid: Any = 7, **fields: Any) -> Event:
    """A worker's event; each is younger than the one made before."""
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


def every(workers: Workers, now: float = 0.0) -> list[Worker]:
    return workers.all(now, TIME + now)


def only(workers: Workers, now: float = 0.0) -> Worker:
    (worker,) = every(workers, now)
    return worker


def status(workers: Workers, now: float) -> tuple[str, float | None, bool]:
    """The status of the only worker, since when on the clock of `now`, and whether it is alive."""
    worker = only(workers, now)
    return worker.status, worker.since and worker.since - TIME, worker.alive


def heard(workers: Workers, made: Event, now: float) -> Process:
    """Pass an event to the table, and return the process that it is from."""
    process = workers.hear(made, now)
    assert process is not None
    return process


def gone(workers: Workers, now: float) -> list[ProcessKey]:
    """The keys of the processes that have become known to be gone."""
    return [found.process.key for found in workers.find_gone(now)]


def key(pid: int | None = 7, life: int = 0, cluster: str | None = None) -> ProcessKey:
    return ProcessKey(cluster, NAME, pid, life)


# ----------------------------------------------------------------------------------------- silence


@pytest.mark.parametrize(
    ("freq", "silent_seconds"), [(2.0, SILENT_SECONDS), (60.0, 180.0), (None, SILENT_SECONDS)]
)
def test_a_worker_is_silent_after_three_heartbeats_and_at_least_fifteen_seconds(
    freq: float | None, silent_seconds: float
) -> None:
    workers = Workers()
    workers.hear(online(freq=freq), 100.0)
    assert status(workers, 100.0 + silent_seconds) == ("online", 100.0, True)
    assert status(workers, 100.1 + silent_seconds) == ("silent", 100.0, False)
    workers.hear(heartbeat(freq=freq), 500.0)
    assert status(workers, 500.0) == ("online", 100.0, True)


@pytest.mark.parametrize("offset_seconds", [-7200.0, 0.0, 7200.0])
def test_silence_is_judged_by_arrival_and_not_by_the_workers_clock(offset_seconds: float) -> None:
    workers = Workers()
    for now in range(0, 40, 2):
        workers.hear(heartbeat(timestamp=TIME + now + offset_seconds), float(now))
    assert status(workers, 53.0)[0] == "online"
    assert status(workers, 53.1)[0] == "silent"


def test_a_worker_whose_clock_is_set_back_goes_on() -> None:
    workers = Workers()
    heard(workers, online(timestamp=TIME + 7200), 0.0)
    ahead = heard(workers, heartbeat(timestamp=TIME + 7202, processed=3, active=1), 2.0)
    right = heard(workers, heartbeat(timestamp=TIME + 4, processed=4, active=2), 4.0)
    assert right is ahead
    worker = only(workers, 4.0)
    assert (worker.status, worker.timestamp, worker.active, worker.processed) == ("online", TIME + 4, 2, 4)
    assert gone(workers, 4.0) == []


def test_a_new_process_with_an_earlier_clock_than_the_one_before_is_online() -> None:
    """CASES.md A8: the first had a clock an hour ahead."""
    workers = Workers()
    workers.hear(online(pid=10, timestamp=TIME + 3600), 0.0)
    for now in range(20, 60, 2):
        workers.hear(heartbeat(pid=11, timestamp=TIME + now), float(now))
    assert status(workers, 60.0)[0] == "online"
    assert only(workers, 60.0).pid == 11
    assert gone(workers, 60.0) == [key(10)]


@pytest.mark.parametrize("pid", [7, 4711, None])
def test_any_event_is_a_sign_of_life_also_of_the_pools_children(pid: int | None) -> None:
    workers = Workers()
    process = heard(workers, heartbeat(), 0.0)
    assert workers.hear(task_event("progress", pid=pid), 14.0) is process
    assert status(workers, 28.0)[0] == "online"
    assert status(workers, 30.0)[0] == "silent"


def test_a_silent_worker_is_gone_only_after_the_timeout() -> None:
    for seconds in (GONE_SECONDS, 40.0):
        workers = Workers(gone_seconds=seconds)
        heard(workers, heartbeat(), 0.0)
        assert gone(workers, seconds) == []
        assert status(workers, seconds) == ("silent", 0.0, False)
        (found,) = workers.find_gone(seconds + 1)
        assert found.process.key == key()
        assert "silent" in found.why and f"{seconds + 1:.0f} s" in found.why
        assert status(workers, seconds + 2) == ("offline", seconds + 1, False)
        assert gone(workers, seconds + 2) == [], "each is reported once"


def test_a_process_that_was_taken_for_gone_and_sends_again_is_online_and_may_go_again() -> None:
    workers = Workers(gone_seconds=20.0)
    process = heard(workers, heartbeat(), 0.0)
    assert gone(workers, 21.0) == [key()]
    assert heard(workers, heartbeat(), 22.0) is process
    assert status(workers, 22.0)[0] == "online"
    assert gone(workers, 43.0) == [key()]


# ----------------------------------------------------------------------------------------- stopping


def test_a_worker_that_stops_with_a_task_under_way_is_stopping_until_the_task_ends() -> None:
    """CASES.md A9."""
    workers = Workers()
    process = heard(workers, online(), 0.0)
    process.held = {"received": False, "started": True}
    goodbye = event("offline")
    workers.hear(goodbye, 1.0)
    assert status(workers, 1.0) == ("stopping", 1.0, True)
    assert status(workers, 300.0) == ("stopping", 1.0, True), "it sends no heartbeats any more"
    assert gone(workers, STOPPING_SECONDS) == []
    assert workers.statistics(300.0).alive == 1
    del process.held["started"]
    workers.hear(task_event("succeeded"), 301.0)
    assert status(workers, 301.0) == ("offline", 1.0, False)
    assert only(workers, 301.0).offline == goodbye["timestamp"]


def test_a_worker_that_stops_without_a_task_is_offline_at_once_until_it_comes_back() -> None:
    workers = Workers()
    workers.hear(online(), 0.0)
    workers.hear(event("offline"), 1.0)
    workers.hear(task_event("succeeded"), 1.0)  # Celery flushes its events after that
    assert status(workers, 2.0) == ("offline", 1.0, False)
    workers.hear(online(processed=1), 3.0)
    assert status(workers, 3.0)[0] == "online"


def test_a_stopping_process_is_gone_after_an_hour() -> None:
    workers = Workers()
    process = heard(workers, online(), 0.0)
    process.held["started"] = True
    workers.hear(event("offline"), 1.0)
    assert gone(workers, STOPPING_SECONDS + 2) == [key()]


def test_a_stopping_process_is_gone_after_an_hour_also_beside_the_next_one() -> None:
    workers = Workers()
    heard(workers, online(pid=10), 0.0).held["started"] = True
    workers.hear(event("offline", pid=10), 1.0)
    found = []
    for now in range(2, int(STOPPING_SECONDS) + 60, 2):
        workers.hear(heartbeat(pid=11), float(now))
        found += gone(workers, float(now))
    assert found == [key(10)]


def test_a_stopping_process_is_not_gone_because_the_next_one_has_come_up() -> None:
    workers = Workers()
    heard(workers, online(pid=10), 0.0).held["started"] = True
    workers.hear(event("offline", pid=10), 1.0)
    for now in range(2, 600, 2):
        workers.hear(heartbeat(pid=11), float(now))
        assert gone(workers, float(now)) == []
    assert status(workers, 600.0)[0] == "online"


@pytest.mark.parametrize("pid", [7, 8])
def test_a_goodbye_of_before_the_restart_that_comes_late_changes_nothing(pid: int) -> None:
    workers = Workers()
    workers.hear(online(clock=40), 0.0)
    goodbye, back = event("offline", clock=50), online(pid=pid, clock=1)
    workers.hear(back, 1.0)
    if pid == 7:
        goodbye["clock"] = 0  # of the same process a smaller counter tells that it is an earlier event
    workers.hear(goodbye, 1.0)
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
    """CASES.md A6: as the first process of a container."""
    workers = Workers()
    before = heard(workers, online(clock=1), 0.0)
    heard(workers, heartbeat(clock=80, processed=5), 2.0)
    after = heard(workers, restarted, 20.0)
    assert (after.key, after.processed or 0) == (key(life=1), 0)
    (found,) = workers.find_gone(20.0)
    assert found.process is before
    assert "restarted" in found.why
    assert status(workers, 20.0) == ("online", 20.0, True)


def test_a_restart_is_found_by_the_tasks_that_were_seen_to_start() -> None:
    """The process was killed before a heartbeat counted them."""
    workers = Workers()
    before = heard(workers, online(clock=None), 0.0)
    before.starts = 1
    after = heard(workers, online(clock=None, processed=0), 20.0)
    assert after is not before
    assert gone(workers, 20.0) == [key()]


def test_a_worker_that_only_lost_its_broker_goes_on() -> None:
    """CASES.md A7: it sends `worker-online` again, with its counters."""
    workers = Workers()
    before = heard(workers, online(clock=1), 0.0)
    before.starts = 1
    before.held["started"] = True
    workers.hear(event("offline", clock=3), 1.0)
    assert heard(workers, online(clock=5, active=1, processed=1), 2.0) is before
    assert status(workers, 2.0) == ("online", 0.0, True)
    for now in range(4, 100, 2):
        assert heard(workers, heartbeat(clock=now, active=1, processed=1), float(now)) is before
        assert gone(workers, float(now)) == []


def test_worker_online_alone_is_no_restart() -> None:
    workers = Workers()
    before = heard(workers, online(clock=10, processed=5), 0.0)
    assert heard(workers, online(clock=11, processed=5), 1.0) is before
    assert heard(workers, event("online", clock=None), 2.0) is before
    assert gone(workers, 2.0) == []


def test_a_restart_whose_worker_online_is_lost_is_found_by_the_second_heartbeat() -> None:
    workers = Workers()
    before = heard(workers, heartbeat(clock=80, processed=5), 0.0)
    assert heard(workers, heartbeat(clock=2, processed=0), 2.0) is before
    assert gone(workers, 2.0) == []
    after = heard(workers, heartbeat(clock=4, processed=0), 4.0)
    assert after.key == key(life=1)
    (found,) = workers.find_gone(4.0)
    assert (found.process, found.successor) == (before, after), "what came in between may be of either"


def test_two_workers_with_one_hostname_and_pid_are_not_gone() -> None:
    """Two containers, each with a pid 1 and a fixed host name: their heartbeats alternate."""
    workers = Workers()
    processes = set()
    for now in range(0, 600, 2):
        processes.add(heard(workers, heartbeat(clock=1000 + now, processed=100 + now), float(now)))
        processes.add(heard(workers, heartbeat(clock=10 + now, processed=3), now + 1.0))
        assert gone(workers, now + 1.0) == []
    assert len(processes) == 1
    assert status(workers, 600.0)[0] == "online"


@pytest.mark.parametrize("first", [7, 8])
def test_two_workers_with_one_hostname_are_told_apart_by_their_pids(first: int) -> None:
    """One of them is killed. Beside the other, which goes on, it is gone after the timeout at the latest."""
    workers = Workers()
    workers.hear(online(pid=first), 0.0)
    found = []
    for now in range(1, int(GONE_SECONDS) + 20):
        workers.hear(heartbeat(pid=8), float(now))
        if now < 10:
            workers.hear(heartbeat(pid=7), float(now))
        found += gone(workers, float(now))
        assert status(workers, float(now))[0] == "online"
    assert found == [key(7)]


def test_a_killed_process_is_gone_once_it_is_silent_and_another_has_come_up() -> None:
    workers = Workers()
    workers.hear(heartbeat(pid=7), 0.0)
    workers.hear(online(pid=8), 5.0)
    assert gone(workers, 5.0) == []
    assert gone(workers, SILENT_SECONDS) == []
    workers.hear(heartbeat(pid=8), SILENT_SECONDS)
    (found,) = workers.find_gone(SILENT_SECONDS + 0.1)
    assert (found.process.key, found.successor) == (key(7), None)
    assert "another process" in found.why
    assert only(workers, SILENT_SECONDS + 0.1).pid == 8


# ------------------------------------------------------------------------------------ our own absence


def test_while_the_gateway_is_away_its_workers_are_unknown_and_none_is_gone() -> None:
    """CASES.md A11."""
    workers = Workers()
    workers.hear(heartbeat(pid=10), 0.0)
    workers.hear(heartbeat(pid=11), 2.0)
    workers.away(None, 4.0)
    workers.away(None, 90.0)  # it tries again, and fails
    assert status(workers, 4.0) == ("unknown", 4.0, True)
    assert status(workers, 2000.0) == ("unknown", 4.0, True), "as it was then"
    assert workers.statistics(2000.0) == WorkersStatistics(1, 1)
    assert gone(workers, 2000.0) == []
    workers.back(None, 3000.0)
    assert status(workers, 3000.0)[0] == "online"
    assert gone(workers, 3000.0) == [], "the time away is not counted"
    workers.hear(heartbeat(pid=11), 3002.0)
    assert gone(workers, 3000.0 + SILENT_SECONDS) == [key(10)]


@pytest.mark.timeout(10)
def test_during_a_long_absence_no_worker_is_gone_or_forgotten() -> None:
    workers = Workers()
    workers.hear(heartbeat(), 0.0)
    workers.away(None, 4.0)
    for now in range(0, int(3 * STOPPING_SECONDS), 100):
        assert gone(workers, float(now)) == []
    assert workers.statistics(2 * FORGET_SECONDS) == WorkersStatistics(1, 1)
    assert status(workers, 2 * FORGET_SECONDS) == ("unknown", 4.0, True)


def test_a_worker_that_was_silent_before_the_gateway_was_away_is_not_alive() -> None:
    workers = Workers()
    workers.hear(heartbeat(), 0.0)
    workers.away(None, 20.0)
    assert status(workers, 21.0) == ("unknown", 20.0, False)
    workers.back(None, 100.0)
    assert status(workers, 100.0)[0] == "silent"


def test_the_absence_from_one_broker_excuses_only_its_workers() -> None:
    workers = Workers(has_clusters=True, gone_seconds=60.0)
    for cluster in ("eu", "us"):
        workers.hear(heartbeat(cluster=cluster), 0.0)
    workers.away("eu", 1.0)
    assert [worker.status for worker in every(workers, 70.0)] == ["unknown", "silent"]
    assert gone(workers, 70.0) == [key(cluster="us")]
    workers.back("eu", 80.0)
    assert [worker.status for worker in every(workers, 80.0)] == ["online", "offline"]


def test_to_be_back_without_having_been_away_changes_nothing() -> None:
    workers = Workers()
    workers.hear(heartbeat(), 0.0)
    workers.back(None, 10.0)
    assert status(workers, 16.0)[0] == "silent"


def test_a_standstill_of_the_gateway_itself_is_not_counted() -> None:
    workers = Workers(has_clusters=True, gone_seconds=60.0)
    for cluster in ("eu", "us"):
        workers.hear(heartbeat(cluster=cluster), 0.0)
    workers.away("eu", 5.0)
    workers.stood_still(100.0)
    assert [worker.status for worker in every(workers, 105.0)] == ["unknown", "online"]
    assert gone(workers, 105.0) == []
    workers.back("eu", 105.0)
    assert [worker.status for worker in every(workers, 105.0)] == ["online", "online"]
    assert gone(workers, 150.0) == [], "the same absence is not counted twice"


# ------------------------------------------------------------------------------- without heartbeats


@pytest.mark.timeout(10)
def test_a_worker_without_heartbeats_is_known_by_its_task_events_and_never_silent() -> None:
    """CASES.md A21."""
    workers = Workers()
    process = heard(workers, task_event("received"), 0.0)
    process.held["u1"] = True
    worker = only(workers, FORGET_SECONDS - 1)
    assert (worker.status, worker.heartbeats, worker.pid) == ("online", False, 7)
    for now in range(0, int(10 * FORGET_SECONDS), 100):
        assert gone(workers, float(now)) == []
    assert only(workers, 10 * FORGET_SECONDS).hostname == NAME, "it holds a task"
    process.held.clear()
    assert every(workers, 10 * FORGET_SECONDS) == []


@pytest.mark.parametrize(
    "subject", ["received", "started", "succeeded", "failed", "retried", "revoked", "rejected", "cancelled"]
)
def test_each_task_event_of_a_worker_makes_it_known(subject: str) -> None:
    workers = Workers()
    process = heard(workers, task_event(subject), 0.0)
    assert (process.key, only(workers).status) == (key(), "online")


def test_the_first_heartbeat_is_remembered() -> None:
    workers = Workers()
    process = heard(workers, task_event("received"), 0.0)
    assert not only(workers).heartbeats
    assert heard(workers, heartbeat(), 1.0) is process
    assert only(workers, 1.0).heartbeats


def test_a_restarted_worker_without_heartbeats_is_shown_with_its_new_pid() -> None:
    workers = Workers()
    workers.hear(task_event("received", pid=10), 0.0)
    workers.hear(task_event("received", pid=11), 1.0)
    assert only(workers, 1.0).pid == 11
    assert gone(workers, SILENT_SECONDS + 1) == [], "without heartbeats silence means little"
    assert gone(workers, STOPPING_SECONDS + 1) == [key(10)]


def test_clients_and_an_applications_own_worker_events_make_no_worker() -> None:
    workers = Workers()
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
        assert workers.hear(made, 0.0) is None
    assert every(workers) == []
    assert workers.statistics(0.0) == WorkersStatistics(0, 0)


def test_a_worker_may_be_named_like_a_client() -> None:
    workers = Workers()
    workers.hear(online(hostname="gen1@host"), 0.0)
    assert only(workers).hostname == "gen1@host"
    assert workers.hear(task_event("sent", "gen1@host"), 1.0) is None, "sent by a client of that name"


def test_an_applications_own_worker_events_change_no_worker() -> None:
    workers = Workers()
    process = heard(workers, heartbeat(processed=5), 0.0)
    before = encode(only(workers))
    workers.hear(event("deployed", processed=0, clock=0, freq=99.0, sw_ver="x"), 0.0)
    assert encode(only(workers)) == before
    assert heard(workers, heartbeat(processed=5), 1.0) is process


# ------------------------------------------------------------------------------- what is known of it


def test_what_a_worker_says_is_kept() -> None:
    workers = Workers()
    begun = event("online", freq=2.0, sw_ident="py-celery", sw_ver="5.7.0", sw_sys="Linux")
    workers.hear(begun, 0.0)
    beat = heartbeat(active=2, processed=5, loadavg=[0.5, 1, 2.25])
    workers.hear(beat, 1.0)
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


def test_an_answer_to_the_heartbeat_command_leaves_what_was_known() -> None:
    workers = Workers()
    process = heard(workers, heartbeat(freq=30.0, active=2, processed=5, loadavg=[1.0, 1.0, 1.0]), 0.0)
    assert heard(workers, event("heartbeat", freq=5, sw_ident="py-celery"), 1.0) is process
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
        "timestamp": None,
    }
    nameless = heard(workers, event("online", **wrong), 0.0)
    assert nameless.key == key(None)
    workers.hear(heartbeat(freq=-1, loadavg="high", clock=1 << 80, processed=-(1 << 80)), 1.0)
    worker = only(workers, 1.0)
    assert (worker.freq, worker.loadavg, worker.sw_ver, worker.pid) == (None, None, None, 7)
    assert (worker.clock, worker.processed) == (None, None)


def test_workers_of_several_brokers_may_have_one_name() -> None:
    workers = Workers(has_clusters=True)
    for cluster in ("us", "eu"):
        assert heard(workers, online(cluster=cluster), 0.0).key == key(cluster=cluster)
    workers.hear(event("offline", cluster="us"), 1.0)
    assert [(w.cluster, w.status) for w in every(workers, 1.0)] == [("eu", "online"), ("us", "offline")]


def test_a_field_called_cluster_is_no_cluster_where_brokers_have_no_names() -> None:
    workers = Workers()
    assert heard(workers, online(cluster=["eu"]), 0.0).key == key()
    assert b"cluster" not in encode(only(workers))


# ------------------------------------------------------------------------------------------ bounded


def test_who_is_gone_is_forgotten_after_an_hour() -> None:
    workers = Workers()
    workers.hear(heartbeat(), 0.0)
    assert not only(workers, FORGET_SECONDS).alive
    assert every(workers, FORGET_SECONDS + 1) == []
    workers.hear(heartbeat(), FORGET_SECONDS + 2)
    assert status(workers, FORGET_SECONDS + 2) == ("online", FORGET_SECONDS + 2, True)


def test_who_sends_a_heartbeat_an_hour_is_not_forgotten_in_between() -> None:
    workers = Workers(gone_seconds=24 * 3600.0)
    workers.hear(heartbeat(freq=3600.0), 0.0)
    assert only(workers, FORGET_SECONDS).status == "online"
    workers.hear(heartbeat(freq=1e300), 0.0)
    assert every(workers, 4 * 3600.0) == []


def test_the_longest_silent_make_room() -> None:
    workers = Workers()
    for number in range(MAX_WORKERS):
        workers.hear(online(hostname=f"w{number}@host"), 0.0)
    workers.hear(task_event("started", "w0@host"), 0.0)
    workers.hear(online(hostname="new@host"), 0.0)
    names = {worker.hostname for worker in every(workers)}
    assert len(names) == MAX_WORKERS
    assert "w1@host" not in names
    assert {"w0@host", "w2@host", "new@host"} <= names
    assert workers.statistics(0.0) == WorkersStatistics(MAX_WORKERS, MAX_WORKERS)
    assert workers.statistics(15.1) == WorkersStatistics(MAX_WORKERS, 0)


def test_one_name_with_ever_new_pids_stays_small_and_only_silent_processes_are_gone() -> None:
    workers = Workers()
    reported = []
    for pid in range(1000):
        heard(workers, heartbeat(pid=pid), 0.0)
        reported += gone(workers, 0.0)
    assert len(workers._known[None, NAME].processes) == MAX_PROCESSES
    assert reported == [], "none of them is silent"
    for pid in range(1000, 1000 + MAX_PROCESSES):
        heard(workers, heartbeat(pid=pid), SILENT_SECONDS + 1)
    assert len(gone(workers, SILENT_SECONDS + 1)) == MAX_PROCESSES
    gone(workers, 2 * GONE_SECONDS)
    assert workers._due == []


def test_processes_that_live_beside_many_others_of_their_name_are_not_gone() -> None:
    workers = Workers()
    for now in range(60):
        for pid in range(MAX_PROCESSES + 3):
            heard(workers, heartbeat(pid=pid), float(now))
        assert gone(workers, float(now)) == []


def test_workers_whose_first_heartbeat_comes_late_are_gone_in_time() -> None:
    workers = Workers()
    workers.hear(task_event("received"), 0.0)
    assert gone(workers, SILENT_SECONDS + 1) == []
    workers.hear(heartbeat(freq=30.0), SILENT_SECONDS + 2)
    assert gone(workers, SILENT_SECONDS + GONE_SECONDS + 3) == [key()]


def test_pods_with_names_of_their_own_leave_nothing_behind() -> None:
    workers = Workers()
    for number in range(2_000):
        workers.hear(task_event("received", f"pod{number}@host"), float(number))
    now = 2_000.0 + FORGET_SECONDS + STOPPING_SECONDS
    assert every(workers, now) == []
    workers.find_gone(now)
    assert workers._due == []


def test_workers_that_are_long_gone_are_not_looked_at_again() -> None:
    workers = Workers()
    for number in range(3000):
        workers.hear(heartbeat(hostname=f"old{number}@host"), 0.0)
    assert len(gone(workers, GONE_SECONDS + 1)) == 3000
    assert workers._due == []


def test_processes_of_workers_that_are_forgotten_are_forgotten_too() -> None:
    """Hosts with names of their own, on each of which two workers ran one after the other."""
    workers = Workers()
    for number in range(100):
        for pid in (1, 2):
            heard(workers, online(hostname=f"w{number}@host", pid=pid), number)
            workers.hear(event("offline", f"w{number}@host", pid), number)
    now = 100.0 + FORGET_SECONDS + STOPPING_SECONDS
    workers.find_gone(now)
    assert every(workers, now) == []
    workers.find_gone(now)
    assert workers._due == []


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
    """One process as it really is."""

    def __init__(self) -> None:
        self.clock = self.processed = 0
        self.is_stopping = self.is_dead = False


@DRAWN
@given(STEPS, st.lists(st.floats(-7200.0, 7200.0), min_size=2, max_size=2))
def test_whatever_the_clocks_no_process_that_sends_is_gone(
    steps: list[tuple[str, int, float]], offsets: list[float]
) -> None:
    """Two pids of one hostname live, die and restart; the oracle is the history itself."""
    workers, now = Workers(), 0.0
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
                process = heard(workers, task_event("started", **fields), now)
                process.starts += 1
            elif action == "offline":
                life.is_stopping = True
                process = heard(workers, event("offline", **fields), now)
            else:
                life.is_stopping = False
                made = {"online": online, "heartbeat": heartbeat}.get(action, heartbeat)
                process = heard(workers, made(processed=life.processed, **fields), now)
            named[process.key] = life
            sent_at[life] = now
        for found in workers.find_gone(now):
            lost = named[found.process.key]
            silent_seconds = now - sent_at[lost]
            assert lost.is_dead or (silent_seconds > SILENT_SECONDS and not lost.is_stopping), found.why
        for worker in every(workers, now):
            lately = [one for one, at in sent_at.items() if now - at <= SILENT_SECONDS and not one.is_dead]
            if any(not one.is_stopping for one in lately):
                assert worker.status == "online"
