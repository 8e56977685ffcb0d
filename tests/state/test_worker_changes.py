"""Changes of workers and of other keyed things: each reader gets the newest one, once."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import decode_object, encode
from celery_gateway.state import numbered_changes
from celery_gateway.state.numbered_changes import NumberedChanges
from celery_gateway.state.worker_changes import WORKERS_AT_ONCE, WorkerChanges
from celery_gateway.state.worker_roster import Roster
from celery_gateway.state.worker_status import WorkerKey
from celery_gateway.state.worker_table import WorkerTable
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

KEYS = st.sampled_from("abcde")
STEPS = st.lists(
    st.one_of(st.tuples(KEYS, st.integers(0, 9)), st.tuples(st.just("forget"), KEYS), st.just("read")),
    max_size=60,
)


@settings(deadline=None, max_examples=tries(300))
@given(STEPS, st.integers(0, 3))
def test_a_reader_gets_what_has_changed_since_its_last_read(steps: list[Any], spare: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbered_changes, "_SPARE", spare)
        changes: NumberedChanges[str, int] = NumberedChanges()
        values: dict[str, int] = {}
        touched: list[str] = []  # since the last read, the oldest first
        read_up_to = 0
        for step in [*steps, "read"]:
            if step == "read":
                expected = [(key, values[key]) for key in touched if key in values]
                found = list(changes.after(read_up_to))
                assert [(key, value) for _, key, value in found] == expected
                assert [number for number, _, _ in found] == sorted({number for number, _, _ in found})
                read_up_to, touched = changes.number, []
            elif step[0] == "forget":
                changes.discard(step[1])
                values.pop(step[1], None)
            else:
                key, value = step
                changes.put(key, value)
                values[key] = value
                touched = [*[each for each in touched if each != key], key]
            assert changes.known() == values.keys() and len(changes) == len(values)
            assert all(changes.get(key) == values.get(key) for key in "abcde")
            assert len(changes._order) <= 2 * len(changes) + spare
        newest = [key for _, key, _ in changes.after(0)]
        assert sorted(newest) == sorted(values)
        changes.clear()
        assert not list(changes.after(0)) and changes.number >= read_up_to


_NAMES = st.sampled_from(["a@host", "b@host", "c@host"])
_EVENTS = st.tuples(
    st.sampled_from(["worker-online", "worker-heartbeat", "worker-offline", "task-started", "task-sent"]),
    _NAMES,
    st.integers(1, 2),
)
_WORKER_STEPS = st.lists(
    st.one_of(
        _EVENTS,
        st.sampled_from(["look", "away", "back", "gap", "gone", "snapshot"]),
        st.sampled_from([0.5, 5.0, 20.0, 4_000.0]),  # seconds pass
    ),
    max_size=50,
)


@settings(deadline=None, max_examples=tries(200))
@given(_WORKER_STEPS)
def test_a_look_finds_every_change_of_a_status(steps: list[Any]) -> None:
    workers = WorkerTable()
    roster = Roster(workers)
    changes = WorkerChanges(workers, roster)
    now, clock, read_up_to = 1_000.0, 0, 0
    known: dict[WorkerKey, Any] = {}  # what a client knows
    for step in [*steps, "look"]:
        epoch = 1_700_000_000.0 + now
        if isinstance(step, float):
            now += step
        elif isinstance(step, tuple):
            kind, hostname, pid = step
            clock += 1
            event = {"type": kind, "hostname": hostname, "pid": pid, "clock": clock, "processed": clock}
            workers.on_event(event | {"freq": 2.0, "uuid": "u"}, now)
        elif step == "away":
            workers.on_disconnect(None, now)
        elif step == "back":
            workers.on_reconnect(None, now)
        elif step == "gap":
            workers.on_gap(None)
        elif step == "gone":
            workers.find_gone(now)
        elif step == "snapshot":
            roster.all(now, epoch)
        else:
            changes.begin()
            assert changes.step(now, epoch)
            for number, key, json in changes.after(read_up_to):
                read_up_to = number
                assert json == encode(workers.get(key, now, epoch)), "it is as of now"
                shown = decode_object(json)
                report = shown["status"], shown["alive"], shown["sends_task_events"]
                assert known.get(key) != report, "it has changed"
                known[key] = report
            read_up_to = changes.number
            table = {(None, worker.hostname): worker for worker in workers.all(now, epoch)}
            known = {key: report for key, report in known.items() if key in table}  # none reports a removal
            assert known == {
                key: (worker.status, worker.alive, worker.sends_task_events) for key, worker in table.items()
            }


def test_a_look_takes_small_steps() -> None:
    workers = WorkerTable()
    for number in range(3 * WORKERS_AT_ONCE):
        workers.on_event({"type": "worker-online", "hostname": f"w{number:04d}", "clock": 1}, 0.0)
    changes = WorkerChanges(workers, Roster(workers))
    assert not changes.is_complete
    changes.begin()
    assert [changes.step(1.0, 1.0) for _ in range(3)] == [False, False, True]
    assert changes.is_complete
    assert [key[1] for _, key, _ in changes.after(0)] == [f"w{n:04d}" for n in range(3 * WORKERS_AT_ONCE)]
    changes.begin()
    changes.clear()
    assert not changes.is_complete and not list(changes.after(0))
