"""Timestamps that cannot be true decide nothing: the future, another unit, 0, negative, no number at all.

Events without `clock` are the worst case: then only timestamps and the arrival decide about the order.
"""

import math
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import SKEW_SECONDS, Event, is_time, rfc3339
from celery_gateway.events.message import Message
from celery_gateway.events.normalize import normalize
from celery_gateway.state.task import Task
from celery_gateway.state.task_fields import MAX_DURATION_SECONDS
from celery_gateway.state.task_record import Record
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import GONE_SECONDS, WorkerTable

pytestmark = pytest.mark.unit

NOW = 1_795_234_871.25
"""Epoch seconds of the moment 0 of the clock that only goes forward."""
YEAR_2030 = 1_893_456_000.0 + 10 * 365 * 86_400
BAD: list[Any] = [
    *(YEAR_2030, NOW + 3600, NOW * 1e3, NOW * 1e6, NOW * 1e9, 0, 0.0, -1, -1.5e9, 1e300, 10**400),
    *(None, True, math.nan, math.inf, -math.inf, "1795234871.2", "soon", [NOW], {"at": NOW}, ""),
]
bad_times = st.one_of(
    st.sampled_from(BAD),
    st.floats(NOW + 10_000, 1e30),
    st.floats(-1e30, 0),
    st.integers(10**11, 10**25),
    st.text(max_size=5),
)


class Stages:
    """The stages with state, connected as in `pipeline.pipeline`; each event is a second later."""

    def __init__(self) -> None:
        self.now = 0.0
        self.workers = WorkerTable()
        self.tasks = TaskTable()

    def on_event(self, event: Event) -> None:
        self.now += 1.0
        process = self.workers.on_event(dict(event), self.now, NOW + self.now)
        for _ in self.tasks.join(dict(event), self.now, process, NOW + self.now):
            pass

    @property
    def record(self) -> Record:
        (record,) = self.tasks.newest()
        return record

    @property
    def task(self) -> Task:
        return self.record.task


def of_task(kind: str, at: Any, **fields: Any) -> Event:
    return {"type": f"task-{kind}", "uuid": "u", "hostname": "w@h", "pid": 7, "timestamp": at, **fields}


def received(at: Any, **fields: Any) -> Event:
    return of_task("received", at, name="shop.pay", root_id="u", parent_id=None, retries=0, **fields)


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_only_a_number_between_1970_and_a_little_after_the_arrival_is_a_time(bad: Any) -> None:
    assert not is_time(bad, NOW)


def test_clocks_of_hosts_may_differ() -> None:
    assert is_time(NOW + SKEW_SECONDS, NOW) and is_time(NOW - 1e8, NOW) and is_time(1, NOW)


@pytest.mark.parametrize("bad", [bad for bad in BAD if not isinstance(bad, float) or math.isfinite(bad)])
def test_the_timestamp_stays_as_sent_and_time_is_the_arrival(bad: Any) -> None:
    if isinstance(bad, int) and bad > 1 << 63:
        return  # written in JSON, but kept as a float: see test_normalize
    (event,) = normalize(Message(msgspec.json.encode({"type": "a", "timestamp": bad})), NOW).events
    assert event["timestamp"] == bad and type(event["timestamp"]) is type(bad)
    assert event["time"] == rfc3339(NOW)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["time"])


@pytest.mark.parametrize("bad", BAD, ids=repr)
@pytest.mark.parametrize("has_clock", [False, True])
def test_a_task_that_failed_in_the_future_and_then_succeeds_has_succeeded(bad: Any, has_clock: bool) -> None:
    stages = Stages()
    events = [
        *(received(bad), of_task("started", bad), of_task("failed", bad, exception="E()")),
        *(
            received(NOW + 4),
            of_task("started", NOW + 5),
            of_task("succeeded", NOW + 6, result="1", runtime=1),
        ),
    ]
    for clock, event in enumerate(events, 10):
        stages.on_event({**event, "clock": clock} if has_clock else event)
    task = stages.task
    assert (task.state, task.result, task.exception, task.timestamp) == ("SUCCESS", "1", None, NOW + 6)
    assert task.ended_at == NOW + 6


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_a_heartbeat_of_the_future_hides_no_worker(bad: Any) -> None:
    stages = Stages()
    beat = {"type": "worker-heartbeat", "hostname": "w@h", "pid": 7, "freq": 2.0, "processed": 1, "active": 0}
    stages.on_event(beat | {"timestamp": NOW + 1, "clock": 1})
    stages.on_event(beat | {"timestamp": bad, "clock": 2})
    (worker,) = stages.workers.all(stages.now, NOW + stages.now)
    assert worker.timestamp == NOW + 2  # the arrival
    stages.on_event(beat | {"timestamp": NOW + 3, "clock": 3, "active": 5})
    (worker,) = stages.workers.all(stages.now, NOW + stages.now)
    assert (worker.timestamp, worker.active, worker.status) == (NOW + 3, 5, "online")
    later = stages.now + GONE_SECONDS + 1
    assert [gone.process.pid for gone in stages.workers.find_gone(later)] == [7]
    (worker,) = stages.workers.all(later, NOW + later)
    assert (worker.status, worker.alive) == ("offline", False)


@pytest.mark.parametrize("kind", ["online", "offline"])
def test_times_of_a_worker_are_the_arrivals_where_it_sends_none(kind: str) -> None:
    stages = Stages()
    sign = {"type": f"worker-{kind}", "hostname": "w@h", "pid": 7, "timestamp": NOW * 1e3}
    stages.on_event(sign)
    (worker,) = stages.workers.all(stages.now, NOW + stages.now)
    assert getattr(worker, kind) == NOW + 1


def test_milliseconds_keep_the_order_of_arrival() -> None:
    stages = Stages()
    for event in (received(NOW * 1e3), of_task("started", NOW * 1e3), of_task("retried", NOW * 1e3)):
        stages.on_event(event)
    stages.on_event(received(NOW * 1e3 - 500) | {"retries": 1})
    stages.on_event(of_task("started", NOW * 1e3 - 600))
    task = stages.task
    assert (task.state, task.attempt, task.retries) == ("STARTED", 2, 1)
    assert (task.retried, task.received, task.started) == (NOW + 3, NOW + 4, NOW + 5)
    assert task.queued_seconds == 1.0


ENDS = [("succeeded", {"result": "1", "runtime": 1.5}), ("failed", {"exception": "E()"}), ("revoked", {})]


@settings(deadline=None)
@given(
    is_sent=st.booleans(),
    has_clock=st.booleans(),
    is_begun=st.booleans(),
    progress=st.integers(0, 2),
    end=st.sampled_from([None, *ENDS]),
    times=st.lists(st.one_of(st.none(), bad_times), min_size=8, max_size=8),
    skew=st.floats(-30, 30),
)
def test_bad_timestamps_make_no_difference_to_an_attempt(
    is_sent: bool,
    has_clock: bool,
    is_begun: bool,
    progress: int,
    end: tuple[str, dict[str, Any]] | None,
    times: list[Any],
    skew: float,
) -> None:
    """Each event has its good timestamp (`None` in `times`), or a bad one."""
    events = []
    if is_sent:
        events.append(received(0) | {"type": "task-sent", "hostname": "gen1@c", "queue": "celery"})
    events.append(received(0))
    if is_begun:
        events.append(of_task("started", 0))
        events += [of_task("progress", 0, current=number, total=4) for number in range(progress)]
    if end is not None:
        events.append(of_task(end[0], 0, terminated=is_begun, **end[1]))
    good, spoilt = Stages(), Stages()
    for number, event in enumerate(events):
        right = NOW + number + 1 + (skew if event["hostname"] == "w@h" else 0.0)
        extra = {"clock": number + 1} if has_clock else {}
        good.on_event(event | {"timestamp": right} | extra)
        bad = times[number]
        spoilt.on_event(event | {"timestamp": right if bad is None else bad} | extra)
    for field in (
        "state",
        "type",
        "attempt",
        "retries",
        "result",
        "exception",
        "progress",
        "worker",
        "name",
    ):
        assert getattr(spoilt.task, field) == getattr(good.task, field), field
    assert [each.state for each in spoilt.record.current_run()] == [
        each.state for each in good.record.current_run()
    ]
    for task in (good.task, spoilt.task):
        for seconds in (task.queued_seconds, task.runtime):
            assert seconds is None or 0 <= seconds <= 100
        for moment in (task.timestamp, task.sent, task.received, task.started, task.ended_at, task.custom_at):
            assert moment is None or abs(moment - NOW) <= 100


@settings(deadline=None)
@given(st.lists(st.floats(1, NOW + 50), min_size=3, max_size=3))
def test_no_duration_is_negative_or_absurd(times: list[float]) -> None:
    stages = Stages()
    stages.on_event(received(times[0]))
    stages.on_event(of_task("started", times[1]))
    stages.on_event(of_task("failed", times[2]))
    for seconds in (stages.task.queued_seconds, stages.task.runtime):
        assert seconds is None or 0 <= seconds <= MAX_DURATION_SECONDS
    assert stages.task.state == "FAILURE"
