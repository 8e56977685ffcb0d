"""The simulated cluster itself: a seed repeats, its promises hold, and every kind of trouble occurs."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise

import pytest

from tests.support.simulated_cluster import Event, History, Trouble, history

pytestmark = pytest.mark.unit

SEEDS = range(200)
CALM = Trouble(**{field.name: False for field in fields(Trouble) if field.default is True})
NOT_BY_MAIN = ("task-sent", "task-progress")
STATES = {"SUCCESS", "FAILURE", "REVOKED", "RETRY", "REJECTED", "STARTED", "PROGRESS", "RECEIVED", "PENDING"}
STATE_OF = {
    "task-sent": "PENDING",
    "task-received": "RECEIVED",
    "task-started": "STARTED",
    "task-succeeded": "SUCCESS",
    "task-failed": "FAILURE",
}


@pytest.fixture(scope="module")
def histories() -> list[History]:
    began = time.perf_counter()
    found = [history(seed) for seed in SEEDS]
    events = sum(len(one.arrivals) for one in found)
    print(f"\n{events} events, {events / (time.perf_counter() - began):.0f} a second")
    return found


def of_tasks(one: History) -> Iterator[list[Event]]:
    """Yield the events of each task as they arrive."""
    tasks = defaultdict(list)
    for _, event in one.arrivals:
        if "uuid" in event:
            tasks[event["uuid"]].append(event)
    yield from tasks.values()


def of_processes(one: History) -> Iterator[list[Event]]:
    """Yield the events of each worker's main process as they arrive; lives with the same pid are together."""
    processes = defaultdict(list)
    for _, event in one.arrivals:
        if event["type"] not in NOT_BY_MAIN:
            processes[event["hostname"], event["pid"]].append(event)
    yield from processes.values()


def test_a_seed_gives_the_same_history_each_time() -> None:
    for trouble in (Trouble(), Trouble(lost=True, duplicates=True)):
        assert history(7, trouble) == history(7, trouble)
        assert history(7, trouble) != history(8, trouble)


def test_events_arrive_by_time_and_those_of_one_process_in_the_order_in_which_it_sent_them() -> None:
    for seed in SEEDS:
        one = history(seed, Trouble(same_pid=False))
        assert all(a.at <= b.at for a, b in pairwise(one.arrivals))
        assert one.ended_at == one.arrivals[-1].at
        for events in of_processes(one):
            assert all(a["clock"] < b["clock"] for a, b in pairwise(events))


@pytest.mark.slow
def test_every_final_state_occurs(histories: list[History]) -> None:
    truths = [truth for one in histories for truth in one.truth.values()]
    states = Counter(truth.final_state for truth in truths)
    assert states.keys() == STATES | {"LOST"}
    assert min(states.values()) >= 30
    assert all(truth.is_lost == (truth.final_state == "LOST") for truth in truths)
    assert any(truth.may_be_lost for truth in truths)
    assert any(truth.attempts != truth.attempts_joined for truth in truths)
    assert max(truth.attempts for truth in truths) >= 4
    assert any(truth.parent_id for truth in truths)
    assert any(truth.retries is None for truth in truths)


def test_truth_and_events_have_the_same_tasks(histories: list[History]) -> None:
    for one in histories:
        assert {events[0]["uuid"] for events in of_tasks(one)} == one.truth.keys()


def test_an_outcome_was_reported_once_and_by_its_worker(histories: list[History]) -> None:
    outcomes = 0
    for one in histories:
        for events in of_tasks(one):
            truth = one.truth[events[0]["uuid"]]
            assert (truth.result is not None) == (truth.final_state == "SUCCESS")
            assert (truth.exception is not None) == (truth.final_state in ("FAILURE", "RETRY"))
            for field, text in (("result", truth.result), ("exception", truth.exception)):
                reports = {event["hostname"] for event in events if event.get(field) == text is not None}
                assert reports == (set() if text is None else {truth.worker})
                outcomes += text is not None
    assert outcomes > 1000


@pytest.mark.slow
def test_without_trouble_the_last_event_has_the_true_outcome() -> None:
    for seed in SEEDS:
        one = history(seed, CALM)
        for events in of_tasks(one):
            last, truth = events[-1], one.truth[events[0]["uuid"]]
            assert truth.final_state == STATE_OF[last["type"]]
            assert (truth.result, truth.exception) == (last.get("result"), last.get("exception"))
            assert (truth.worker, truth.attempts, truth.retries) == (last["hostname"], 1, 0)
            assert [event["type"] for event in events[:2]] == ["task-received", "task-started"]
            assert truth.is_exact and not truth.may_be_lost


def kinds_of_task(events: list[Event]) -> Iterator[str]:
    """Yield the kinds of trouble in a task's events."""
    types = [event["type"] for event in events]
    by_main = [event for event in events if event["type"] not in NOT_BY_MAIN]
    received = [event for event in events if event["type"] == "task-received"]
    if len({event["name"] for event in received}) > 1:
        yield "replaced"
    if any(event["parent_id"] == event["uuid"] for event in received):
        yield "own parent"
    if any(event["parent_id"] not in (None, event["uuid"]) for event in received):
        yield "parent"
    if "task-received" not in types and "task-revoked" in types:
        yield "revoked without received"
    if any(event.get("terminated") for event in events):
        yield "terminated"
    if "task-retried" in types:
        yield "retried"
    if any(event.get("requeue") for event in events):
        yield "requeued"
    for before, after in pairwise(by_main):
        if after["type"] == "task-received" and after["retries"] == 0:
            yield "requeued and received" if before.get("requeue") else f"received after {before['type']}"
            is_same = (before["hostname"], before["pid"]) == (after["hostname"], after["pid"])
            yield f"received again, same process: {is_same}"
        if after["timestamp"] < before["timestamp"]:
            yield "timestamp goes back"
    yield from kinds_of_overtaking(events, types)


def kinds_of_overtaking(events: list[Event], types: list[str]) -> Iterator[str]:
    for before, after in pairwise(events):
        types_of_pair = before["type"], after["type"]
        is_same = before["hostname"] == after["hostname"]
        if types_of_pair == ("task-progress", "task-started") and is_same:
            yield "progress before started"
        if types_of_pair == ("task-succeeded", "task-progress") and is_same:
            yield "progress after succeeded"
        if types_of_pair == ("task-succeeded", "task-retried") and is_same:
            yield "retry ended before it was reported"
        if after["type"] == "task-sent" and after["retries"] and before["type"] == "task-succeeded":
            yield "retry sent late"
        if after["type"] == "task-sent" and after["retries"] == 0:
            yield f"sent after {before['type']}"
    runs = [event for event in events if event["type"] == "task-sent" and event["retries"] == 0]
    if len(runs) > 1 and runs[0]["name"] == runs[1]["name"] and "task-succeeded" in types:
        yield "run again with task-sent"
    if any(event["type"] == "task-progress" and event["pid"] != events[0]["pid"] for event in events):
        yield "progress of a child"


def kinds_of_process(events: list[Event]) -> Iterator[str]:
    """Yield the kinds of trouble in the events of a hostname and pid."""
    for before, after in pairwise(events):
        if after["timestamp"] < before["timestamp"] - 60:
            yield "step back"
        if after["timestamp"] > before["timestamp"] + 60:
            yield "step forward"
        if after["type"] != "worker-online":
            continue
        if after["clock"] < before["clock"]:
            yield "restart, counter begins at 1"
        elif before["type"] != "worker-offline" and not after["processed"]:
            yield "restart, counter goes on"
        if before["type"] == "worker-offline" and after["processed"]:
            yield "reconnect"
    types = [event["type"] for event in events]
    if "worker-offline" in types and "task-succeeded" in types[types.index("worker-offline") :]:
        yield "succeeded after offline"


def kinds_of(one: History) -> Iterator[str]:
    """Yield the kinds of trouble in a history, from its events alone."""
    for events in of_tasks(one):
        yield from kinds_of_task(events)
    pids = defaultdict(set)
    for events in of_processes(one):
        yield from kinds_of_process(events)
        pids[events[0]["hostname"]].add(events[0]["pid"])
        by_thread = (event["hostname"] == events[0]["hostname"] and event["pid"] == events[0]["pid"]
                     for _, event in one.arrivals if event["type"] == "task-progress")  # fmt: skip
        if any(by_thread):
            yield "progress of a thread"
    if any(len(of_hostname) > 1 for of_hostname in pids.values()):
        yield "restart, another pid"
    if any(abs(event["timestamp"] - 1_700_000_000 - at) > 3600 for at, event in one.arrivals):
        yield "skew"


EXPECTED_KINDS = {
    "replaced", "own parent", "parent", "revoked without received", "terminated", "requeued",
    "received after task-received", "received after task-started", "received after task-succeeded",
    "received after task-failed", "requeued and received", "received again, same process: True",
    "received again, same process: False", "timestamp goes back", "progress before started",
    "progress after succeeded", "retry ended before it was reported", "sent after task-received",
    "sent after task-started", "sent after task-succeeded", "retry sent late", "retried",
    "run again with task-sent", "progress of a child",
    "progress of a thread", "step back", "step forward", "restart, counter begins at 1",
    "restart, counter goes on", "restart, another pid", "reconnect", "succeeded after offline", "skew",
}  # fmt: skip


def test_every_kind_of_trouble_occurs(histories: list[History]) -> None:
    kinds = Counter(kind for one in histories for kind in kinds_of(one))
    assert not EXPECTED_KINDS - kinds.keys(), kinds


@pytest.mark.parametrize(
    ("switch", "kinds"),
    [
        ("skew", ("skew",)),
        ("steps", ("step back", "step forward")),
        ("restarts", ("restart, another pid", "restart, counter begins at 1", "restart, counter goes on")),
        ("same_pid", ("restart, counter begins at 1", "restart, counter goes on")),
        ("reconnects", ("reconnect",)),
        ("redelivery", ("requeued and received",)),
        ("reruns", ("run again with task-sent", "received after task-succeeded")),
        ("retries", ("retried", "retry ended before it was reported")),
        ("replaces", ("replaced",)),
        ("rejects", ("requeued",)),
        ("revokes", ("terminated", "revoked without received")),
        ("progress", ("progress of a child", "progress of a thread")),
        ("threads", ("progress of a thread",)),
        ("late", ("progress before started", "progress after succeeded", "retry sent late")),
        ("races", ("retry ended before it was reported",)),
        ("sent_events", ("sent after task-received", "run again with task-sent")),
    ],
)
def test_a_switch_that_is_off_leaves_its_kind_of_trouble_out(switch: str, kinds: tuple[str, ...]) -> None:
    trouble = replace(Trouble(), **{switch: False})
    if switch == "skew":
        trouble = replace(trouble, steps=False)
    found = {kind for seed in range(40) for kind in kinds_of(history(seed, trouble))}
    assert not found.intersection(kinds)


def test_duplicates_follow_at_once_and_change_nothing_else() -> None:
    once, twice = history(3), history(3, Trouble(duplicates=True))
    assert len(twice.arrivals) > len(once.arrivals)
    seen = [after for before, after in pairwise([once.arrivals[0], *twice.arrivals]) if before != after]
    assert [once.arrivals[0], *seen] == once.arrivals
    assert twice.truth == once.truth


def test_lost_events_leave_a_weaker_truth() -> None:
    all_of_it, part = history(3), history(3, Trouble(lost=True))
    assert 0.9 * len(all_of_it.arrivals) < len(part.arrivals) < len(all_of_it.arrivals)
    assert not any(truth.is_exact for truth in part.truth.values())
    states = {uuid: truth.final_state for uuid, truth in part.truth.items() if truth.final_state}
    assert len(states) > 10
    assert states.items() <= {uuid: truth.final_state for uuid, truth in all_of_it.truth.items()}.items()
