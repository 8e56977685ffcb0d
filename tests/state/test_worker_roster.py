"""The roster has the workers of the table, and encodes them in small steps."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import encode
from celery_gateway.state.worker import Worker
from celery_gateway.state.worker_roster import REFRESH_SECONDS, WORKERS_AT_ONCE, Roster
from celery_gateway.state.worker_status import WorkerKey
from celery_gateway.state.worker_table import WorkerTable
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

_NAMES = st.sampled_from(["a@host", "b@host", "c@host"])
_STEPS = st.one_of(
    st.tuples(
        st.sampled_from(["worker-online", "worker-heartbeat", "worker-offline", "task-started", "task-sent"]),
        _NAMES,
        st.integers(1, 2),
    ),
    st.sampled_from(["look", "prepare", "away", "back", "gone"]),
    st.sampled_from([0.1, 1.5, 20.0, 4_000.0]),  # seconds pass
)


@settings(deadline=None, max_examples=tries(200))
@given(st.lists(_STEPS, max_size=40))
def test_it_returns_the_workers_of_the_table(steps: list[Any]) -> None:
    workers = WorkerTable(has_clusters=False)
    roster = Roster(workers)
    now, clock = 1_000.0, 0
    for step in [*steps, REFRESH_SECONDS, "look"]:
        epoch = 1_700_000_000.0 + now
        if isinstance(step, float):
            now += step
        elif isinstance(step, tuple):
            kind, hostname, pid = step
            clock += 1
            workers.on_event(
                {"type": kind, "hostname": hostname, "pid": pid, "clock": clock, "freq": 2.0}, now
            )
        elif step == "prepare":
            roster.prepare(now, epoch)
        elif step == "away":
            workers.on_disconnect(None, now)
        elif step == "back":
            workers.on_reconnect(None, now)
        elif step == "gone":
            workers.find_gone(now)
        else:
            encoded = roster.all(now, epoch)
            if now - roster._refreshed_at == 0:  # else a status may be a second old
                assert list(encoded) == [encode(worker) for worker in workers.all(now, epoch)]
    assert now - roster._refreshed_at == 0


class CountingTable(WorkerTable):
    """A table of workers that counts how many workers are read from it."""

    reads = 0

    def get(self, key: WorkerKey, now: float, time: float) -> Worker | None:
        self.reads += 1
        return super().get(key, now, time)


def test_workers_are_encoded_in_small_steps_and_later_only_those_that_change() -> None:
    workers = CountingTable(has_clusters=False)

    def beat(number: int) -> None:
        event = {"type": "worker-heartbeat", "hostname": f"w{number}@host", "pid": 1, "freq": 2.0}
        workers.on_event(event | {"clock": number, "loadavg": [0.1, 0.2, 0.3]}, 0.0)

    for number in range(2_000):
        beat(number)
    roster = Roster(workers)
    is_done = False
    while not is_done:
        before = workers.reads
        is_done = roster.prepare(0.0, 1.0)
        assert workers.reads - before <= WORKERS_AT_ONCE
    assert workers.reads == 2_000
    first = roster.all(0.0, 1.0)
    assert len(first) == 2_000
    assert roster.all(0.5, 1.5) is first
    beat(7)
    again = roster.all(0.5, 1.5)
    assert sum(one is not other for one, other in zip(first, again, strict=True)) <= 1
    before = workers.reads
    assert all(roster.all(0.5, 1.5) is again for _ in range(500)), "snapshots share the encoded workers"
    assert workers.reads == before


def test_a_worker_that_was_removed_from_a_full_table_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("celery_gateway.state.worker_table.MAX_WORKERS", 10)
    workers = WorkerTable()
    roster = Roster(workers)
    for number in range(10):
        workers.on_event({"type": "worker-heartbeat", "hostname": f"old{number}@host", "timestamp": 1.0}, 0.0)
    assert len(roster.all(0.0, 1.0)) == 10
    for number in range(5_000):
        workers.on_event({"type": "worker-heartbeat", "hostname": f"new{number}@host", "timestamp": 1.0}, 0.0)
    assert len(workers.changed) < 300
    later = REFRESH_SECONDS + 1.0
    assert [*roster.all(later, later)] == [encode(worker) for worker in workers.iterate(later, later)]
