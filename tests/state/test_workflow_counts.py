"""The counts that workflows keep: compared with their tasks, counted again, after random events."""

import random
from collections import Counter
from typing import Any

import pytest

from celery_gateway.state.process import Process
from celery_gateway.state.replicated_table import ReplicatedTaskTable
from celery_gateway.state.task_graph import Root
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.transitions import READY_STATES
from celery_gateway.state.visible_workflow import VisibleWorkflow
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.state.workflow_counts import TALLY_MEMBERS
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

SUBJECTS = (
    "sent",
    "received",
    "started",
    "progress",
    "succeeded",
    "failed",
    "retried",
    "revoked",
    "rejected",
)


def random_event(chance: random.Random, at: int) -> dict[str, Any]:
    number = chance.randrange(120)
    subject = chance.choice(SUBJECTS)
    event: dict[str, Any] = {
        "type": f"task-{subject}",
        "uuid": f"t{number}",
        "timestamp": float(at),
        "clock": at,
        "hostname": chance.choice(["w1@host", "w2@host"]),
        "pid": 1,
    }
    if subject in ("sent", "received"):
        event |= {"name": "a", "root_id": f"r{chance.choice([number % 3, number % 50])}", "parent_id": None}
        event["retries"] = chance.randrange(3)
    if subject == "progress":
        event["progress"] = chance.choice([0.25, 0.5])
    return event


def assert_counts(workflow: Root | VisibleWorkflow) -> None:
    tasks = [record.task for record in workflow.members.values()]
    idle = (None, "PENDING", "RECEIVED", "RETRY", "REJECTED", "CANCELLED", "LOST")
    states = Counter(task.state or "PENDING" for task in tasks)
    ready = [task for task in tasks if task.state in READY_STATES]
    running = [task for task in tasks if task.state not in idle and task not in ready]
    lost = [task for task in tasks if task.lost is not None]
    failed = states["FAILURE"] + states["REVOKED"]
    assert (workflow.unready, workflow.lost) == (len(tasks) - len(ready), len(lost))
    assert (workflow.running, workflow.failed) == (len(running), failed)
    assert workflow.unsent == sum(task.sent is None for task in tasks)
    expected = "failed" if failed else "succeeded"
    if len(ready) < len(tasks):
        expected = "running" if running else "lost" if lost else "waiting"
    assert workflow.state == expected
    if workflow.tally is not None:
        assert workflow.tally.counts == {state: number for state, number in states.items() if number}
        progress = sum(task.progress or 0.0 for task in tasks if task.state not in READY_STATES)
        assert workflow.tally.unready_progress() == pytest.approx(progress)
        assert (
            workflow.tally.ended is None
            or not ready
            or workflow.tally.ended >= max(task.ended_at or 0.0 for task in ready)
        )


@pytest.mark.parametrize("seed", range(tries(20)))
def test_counts_are_those_of_the_tasks(seed: int) -> None:
    chance = random.Random(seed)
    tasks, workers = TaskTable(max_tasks=chance.choice([60, 1_000])), WorkerTable(has_clusters=False)
    processes: set[Process] = set()
    parts: dict[Root, VisibleWorkflow] = {}
    version = -1
    for at in range(1, 1_500):
        event = random_event(chance, at)
        process = workers.on_event(event, float(at)) if event["type"] != "task-sent" else None
        if process is not None:
            processes.add(process)
        tasks.join(event, float(at), process)
        if chance.random() < 0.01 and processes:
            tasks.mark_lost(chance.choice(sorted(processes, key=str)), "test", float(at))
        if at % 50:
            continue
        roots = list(tasks.workflows())
        numbers = [root.number for root in roots]
        assert numbers == sorted(numbers, reverse=True) and len(set(numbers)) == len(numbers)
        assert sum(len(root.members) for root in roots) == sum(
            record.task.root_id is not None for record in tasks.newest()
        )
        for root in roots:
            assert_counts(root)
            assert (root.tally is not None) or len(root.members) < TALLY_MEMBERS
        # The visible part of each workflow, brought up to date by what has changed.
        for key in tasks.changed_since(version):
            record = tasks.get(key)
            if record is not None:
                for part in parts.values():
                    part.set(record, False)
                now = record.root
                if now is not None and record.number % 2:
                    parts.setdefault(now, VisibleWorkflow(now.id, now.number)).set(record, True)
        version = tasks.version
        for part in parts.values():
            for record in tuple(part.members.values()):
                if tasks.get(record.key) is not record:  # it was evicted
                    part.set(record, False)
            assert_counts(part)


def test_numbers_of_workflows_are_positions_in_a_shared_log() -> None:
    """The leader joins events, another gateway applies the joined ones: both number alike."""
    leader, other = ReplicatedTaskTable(), ReplicatedTaskTable()
    chance = random.Random(4)
    position = 100
    for at in range(1, 300):
        event = random_event(chance, at)
        for joined in leader.join(dict(event), float(at), None, float(at)):
            position += chance.randint(1, 3)
            leader.set_number(joined, position)
            own = {name: value for name, value in joined.items() if name in own_fields(joined)}
            added = {name: value for name, value in joined.items() if name not in own}
            other.follow(own, added, float(at), None, float(at))
            other.set_number(joined, position)
    found = [{root.id: root.number for root in table.workflows()} for table in (leader, other)]
    assert found[0] == found[1]
    assert list(found[0].values()) == sorted(found[0].values(), reverse=True)
    assert len(found[0]) > 20 and not leader._graph.unnumbered and not other._graph.unnumbered


def own_fields(event: dict[str, Any]) -> set[str]:
    """The fields that an event has before it is joined."""
    own = {"type", "uuid", "timestamp", "clock", "hostname", "pid", "progress", "retries"}
    return own | (
        {"name", "root_id", "parent_id"} if event["type"] in ("task-sent", "task-received") else set()
    )
