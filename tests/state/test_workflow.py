"""The tree of a workflow, put together from a table of tasks in small steps."""

import gc
import json
import time
from collections import Counter
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import Event
from celery_gateway.events.fields import Fields
from celery_gateway.state.task_graph import Root
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.state.workflow import MAX_DEPTH, Workflow
from tests.support.thorough import tries, variants

pytestmark = pytest.mark.unit

DRAWN = settings(deadline=None, max_examples=tries(100), derandomize=True)
MANY = 50_000
MAX_STEP_SHARE = 0.1
"""The maximum CPU time of one step of a large workflow, as a part of the CPU time of all steps."""

_clock = count(1)


def event(subject: str, uuid: str, **fields: Any) -> Event:
    """A task event; each is a second later than the one made before."""
    return {
        "type": f"task-{subject}",
        "uuid": uuid,
        "timestamp": float(next(_clock)),
        "hostname": "w@h",
    } | fields


def received(uuid: str, parent: str | None = None, root: str = "r", **fields: Any) -> Event:
    return event("received", uuid, name=f"of.{uuid}", root_id=root, parent_id=parent, retries=0, **fields)


def table(*events: Event) -> TaskTable:
    tasks = TaskTable()
    for each in events:
        list(tasks.join(each, 0.0))
    return tasks


def root_of(tasks: TaskTable, root_id: str = "r") -> Root:
    (root,) = tasks.roots(root_id)
    return root


def read(tasks: TaskTable, root_id: str = "r", fields: frozenset[str] | None = None) -> dict[str, Any]:
    workflow = Workflow(root_id, Fields(fields))
    for record in root_of(tasks, root_id).members.values():
        workflow.add(record)
    return finished(workflow)


def finished(workflow: Workflow) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(b"".join(workflow.pieces()) + b"}")
    return tree


def shape(tasks: list[dict[str, Any]]) -> list[Any]:
    """The uuids, each with those of its children where it has any."""
    return [(task["uuid"], shape(task["children"])) if task["children"] else task["uuid"] for task in tasks]


def uuids(tasks: list[dict[str, Any]]) -> list[str]:
    """All of a tree."""
    found, left = [], list(tasks)
    while left:
        task = left.pop()
        found.append(task["uuid"])
        left += task["children"]
    return found


def test_a_workflow_is_a_tree_with_counts_and_progress() -> None:
    tree = read(
        table(
            received("r"),
            received("a", "r"),
            received("b", "r"),
            received("c", "b"),
            event("started", "r"),
            event("succeeded", "r", result="1", runtime=1.0),
            event("started", "a"),
            event("failed", "a", exception="x", traceback="y"),
            event("started", "b"),
            event("progress", "b", current=1, total=4),
            event("started", "c"),
        )
    )
    assert shape(tree["tasks"]) == [("r", ["a", ("b", ["c"])])]
    counted = ("root_id", "total", "known", "ready", "sent_events", "progress", "counts")
    assert {key: tree[key] for key in counted} == {
        "root_id": "r",
        "total": 4,
        "known": 4,
        "ready": 2,
        "sent_events": False,
        "progress": 2.25 / 4,
        "counts": {"SUCCESS": 1, "FAILURE": 1, "PROGRESS": 1, "STARTED": 1},
    }
    root = tree["tasks"][0]
    assert root["name"] == "of.r"
    assert root["result"] == "1"
    assert root["stale"] is False
    assert "attempts" not in root, "they are given on request"


def test_a_lost_task_is_stale_and_not_running() -> None:
    tasks, workers = TaskTable(), WorkerTable(gone_seconds=60.0)
    for each in (received("r"), received("a", "r"), event("started", "r"), event("started", "a")):
        each["hostname"] = f"{each['uuid']}@h"
        list(tasks.join(each, 0.0, workers.on_event(each, 0.0)))
    workers.on_event({"type": "worker-heartbeat", "hostname": "a@h", "freq": 2.0}, 0.0)
    (found,) = workers.find_gone(100.0)
    assert [lost["uuid"] for lost in tasks.mark_lost(found.process, found.reason, 5e9)] == ["a"]
    tree = read(tasks)
    assert tree["counts"] == {"STARTED": 1, "LOST": 1}
    assert (tree["ready"], tree["known"]) == (0, 2)
    root = tree["tasks"][0]
    assert [(task["stale"], task["lost"]) for task in (root, root["children"][0])] == [
        (False, None),
        (True, 5e9),
    ]
    assert [step["uuid"] for step in tree["critical_path"]] == ["r"]
    picked = read(tasks, fields=frozenset({"stale"}))["tasks"][0]
    assert [picked["stale"], picked["children"][0]["stale"]] == [False, True]


def test_sent_events_is_true_only_if_each_task_has_one() -> None:
    def sent(uuid: str) -> Event:
        return event("sent", uuid, name="n", root_id="r", parent_id=None, retries=0)

    tasks = table(sent("r"), received("r"), received("a", "r"))
    assert read(tasks)["sent_events"] is False
    list(tasks.join(sent("a"), 0.0))
    assert read(tasks)["sent_events"] is True
    list(tasks.join(received("b", "r"), 0.0))
    assert read(tasks)["sent_events"] is False


def test_attempts_are_returned_on_request() -> None:
    tasks = table(
        received("r"),
        event("started", "r"),
        event("retried", "r", exception="E()"),
        received("r") | {"retries": 1},
        event("started", "r"),
        event("succeeded", "r", result="1"),
        received("a", "r"),
    )
    tree = read(tasks, fields=frozenset({"attempts"}))
    root = tree["tasks"][0]
    assert set(root) == {"uuid", "attempts", "children"}
    assert [(t["retries"], t["state"], t["exception"]) for t in root["attempts"]] == [
        (0, "RETRY", "E()"),
        (1, "SUCCESS", None),
    ]
    assert [t["state"] for t in root["children"][0]["attempts"]] == ["RECEIVED"]


def test_children_whose_parents_are_not_known_are_roots_beside_the_root() -> None:
    tree = read(table(received("b", "gone"), received("c", "b"), received("r")))
    assert shape(tree["tasks"]) == [("b", ["c"]), "r"]


def test_tasks_in_a_circle_of_parents_are_returned_once_each() -> None:
    tree = read(table(received("a", "c"), received("b", "a"), received("c", "b"), received("d", "c")))
    assert shape(tree["tasks"]) == [("a", [("b", [("c", ["d"])])])]
    assert [step["uuid"] for step in tree["critical_path"]] == ["b", "c", "a"]


def test_the_critical_path_leads_to_the_task_that_has_been_running_for_longest() -> None:
    tasks = table(
        received("r"),
        event("succeeded", "r"),
        received("a", "r"),
        event("started", "a"),
        received("b", "r"),
        received("c", "b"),
        event("succeeded", "c"),
    )
    path = read(tasks)["critical_path"]
    assert [(step["uuid"], step["name"], step["state"], step["seconds"]) for step in path] == [
        ("r", "of.r", "SUCCESS", 1.0),
        ("a", "of.a", "STARTED", 1.0),
    ]


def test_without_a_running_task_the_critical_path_leads_to_the_one_that_ended_last() -> None:
    tasks = table(
        received("r"),
        received("a", "r"),
        received("b", "r"),
        event("succeeded", "r"),
        event("succeeded", "b"),
        event("failed", "a"),
    )
    assert [step["uuid"] for step in read(tasks)["critical_path"]] == ["r", "a"]
    waiting = table(event("sent", "r", name="n", root_id="r", parent_id=None))
    assert [step["uuid"] for step in read(waiting)["critical_path"]] == ["r"]


def test_a_client_that_reports_late_what_it_has_sent_does_not_change_the_critical_path() -> None:
    tasks = table(
        received("r"),
        received("a", "r"),
        event("succeeded", "r"),
        event("succeeded", "a"),
        event("sent", "r", name="of.r", root_id="r", parent_id=None),
    )
    path = read(tasks)["critical_path"]
    assert [(step["uuid"], step["seconds"]) for step in path] == [("r", 0.0), ("a", 2.0)]


def test_fields_are_selected_besides_uuid_and_children() -> None:
    tree = read(table(received("r"), received("a", "r")), fields=frozenset({"state", "name", "cluster"}))
    assert tree["tasks"] == [
        {
            "uuid": "r",
            "name": "of.r",
            "state": "RECEIVED",
            "children": [{"uuid": "a", "name": "of.a", "state": "RECEIVED", "children": []}],
        }
    ]
    tree = read(table(received("r")), fields=frozenset({"stale"}))
    assert tree["tasks"] == [{"uuid": "r", "stale": False, "children": []}]


def test_a_task_that_is_added_again_is_updated_and_one_that_has_left_is_removed() -> None:
    tasks = table(received("r"), received("a", "r"), received("b", "r"))
    workflow = Workflow("r")
    records = [tasks.get(uuid) for uuid in "rab"]
    for record in records:
        assert record is not None
        workflow.add(record)
    list(tasks.join(event("started", "a"), 0.0))
    list(tasks.join(received("b", "r", "other"), 0.0))
    for record in records[1:]:
        assert record is not None
        workflow.add(record)
    list(tasks.join(event("succeeded", "a"), 0.0))
    tree = finished(workflow)
    assert tree["counts"] == {"RECEIVED": 1, "STARTED": 1}
    assert shape(tree["tasks"]) == [("r", ["a"])]


def test_a_deep_chain_is_split_and_no_task_is_lost() -> None:
    chain = [received(f"t{n}", f"t{n - 1}" if n else None) for n in range(2 * MAX_DEPTH + 1)]
    tree = read(table(*chain))
    assert [task["uuid"] for task in tree["tasks"]] == ["t0", f"t{MAX_DEPTH}", f"t{2 * MAX_DEPTH}"]
    assert tree["tasks"][1]["parent_id"] == f"t{MAX_DEPTH - 1}"
    assert sorted(uuids(tree["tasks"])) == sorted(each["uuid"] for each in chain)


def steps_of(workflow: Workflow) -> tuple[list[bytes], list[float]]:
    """Return the pieces of a workflow, and the CPU seconds of each, without garbage collection."""
    pieces, steps_seconds = [], []
    gc.collect()
    gc.disable()
    try:
        before = time.thread_time()
        for piece in workflow.pieces():
            now = time.thread_time()
            pieces.append(piece)
            steps_seconds.append(now - before)
            before = now
    finally:
        gc.enable()
    return pieces, steps_seconds


@pytest.mark.slow
@pytest.mark.parametrize("kind", variants(2, ["siblings", "chain", "binary", "circle"]))
def test_a_workflow_of_fifty_thousand_tasks_is_encoded_in_small_steps_without_recursion(kind: str) -> None:
    parents = {
        "siblings": lambda n: 0,
        "chain": lambda n: n - 1,
        "binary": lambda n: (n - 1) // 2,
        "circle": lambda n: n - 1,
    }[kind]
    tasks = table()
    for n in range(MANY):
        parent = f"t{parents(n)}" if n else (f"t{MANY - 1}" if kind == "circle" else None)
        list(tasks.join(received(f"t{n}", parent), 0.0))
    workflow = Workflow("r")
    for record in root_of(tasks).members.values():
        workflow.add(record)
    pieces, steps_seconds = steps_of(workflow)
    longest_share = max(steps_seconds) / sum(steps_seconds)
    print(f"{kind}: {len(pieces)} pieces, the longest took {longest_share:.1%} of {sum(steps_seconds):.3f} s")
    assert longest_share < MAX_STEP_SHARE
    tree = json.loads(b"".join(pieces) + b"}")
    assert tree["total"] == MANY
    found = uuids(tree["tasks"])
    assert len(found) == MANY
    assert len(set(found)) == MANY
    if kind in ("chain", "circle"):
        assert len(tree["tasks"]) == MANY // MAX_DEPTH
    else:
        assert len(tree["tasks"]) == 1


@DRAWN
@given(
    st.lists(
        st.tuples(st.integers(-1, 12), st.sampled_from(["", "started", "succeeded", "failed"])), max_size=12
    )
)
def test_each_task_is_below_its_parent(drawn: list[tuple[int, str]]) -> None:
    """The expected tree follows from the `parent_id` of the tasks."""
    parents = {f"t{n}": f"t{parent}" if parent >= 0 else None for n, (parent, _) in enumerate(drawn)}
    tasks = table(received("t0", parents.get("t0")))
    for uuid, parent in parents.items():
        list(tasks.join(received(uuid, parent), 0.0))
    for uuid, (_, subject) in zip(parents, drawn, strict=True):
        if subject:
            list(tasks.join(event(subject, uuid), 0.0))
    tree = read(tasks)
    members = parents or {"t0": None}
    assert sorted(uuids(tree["tasks"])) == sorted(members)
    states = {"": "RECEIVED", "started": "STARTED", "succeeded": "SUCCESS", "failed": "FAILURE"}
    wanted = Counter(states[subject] for _, subject in drawn) or {"RECEIVED": 1}
    assert tree["counts"] == wanted
    assert tree["ready"] == wanted.get("SUCCESS", 0) + wanted.get("FAILURE", 0)
    assert tree["progress"] == tree["ready"] / tree["total"]
    left = [(None, task) for task in tree["tasks"]]
    while left:
        above, task = left.pop()
        if above is not None:
            assert members[task["uuid"]] == above
        else:
            parent = members[task["uuid"]]
            assert (
                parent not in members or parent == task["uuid"] or _leads_into_a_circle(task["uuid"], members)
            )
        left += [(task["uuid"], child) for child in task["children"]]


def _leads_into_a_circle(uuid: str, parents: dict[str, str | None]) -> bool:
    above: str | None = uuid
    for _ in parents:
        above = parents.get(above or "")
        if above == parents.get(above or ""):
            return False  # a root, or its own parent
    return above in parents
