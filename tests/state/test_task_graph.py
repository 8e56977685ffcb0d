"""Workflows by root and children by parent. (Their counts and sizes in a table: test_task_table.)"""

import pytest

from celery_gateway.state.task import Task
from celery_gateway.state.task_graph import CHILDREN_BYTES, ROOT_BYTES, TaskGraph
from celery_gateway.state.task_record import Record, record_key

pytestmark = pytest.mark.unit


class Graph:
    """A graph, and the records of a table."""

    def __init__(self, *, has_clusters: bool = False) -> None:
        self.records: dict[str, Record] = {}
        self.graph = TaskGraph(self.records, has_clusters)

    def add(self, uuid: str, *, key: str | None = None, cluster: str | None = None) -> Record:
        record = self.records[key or uuid] = Record(Task(uuid), key or uuid, len(self.records))
        if cluster is not None:
            record.task.cluster = cluster
        self.graph.adopt_orphans(record)
        return record

    def remove(self, record: Record) -> None:
        del self.records[record.key]
        self.graph.remove(record)


def test_a_task_moves_from_one_workflow_to_another() -> None:
    tasks = Graph()
    one, other = tasks.add("a"), tasks.add("b")
    for record in (one, other):
        assert tasks.graph.set_root(record, "r") == 1
    assert tasks.graph.set_root(one, "longer") == len("longer") - 1
    assert one.root is tasks.graph.root("longer")
    root = tasks.graph.root("r")
    assert root is not None and (list(root.members), root.unready, root.unsent) == (["b"], 1, 1)
    tasks.graph.set_root(other, "longer")
    assert (tasks.graph.root("r"), tasks.graph.size_bytes) == (None, ROOT_BYTES)


def test_a_parent_that_becomes_known_later_adopts_its_children() -> None:
    tasks = Graph()
    child = tasks.add("c")
    assert tasks.graph.set_parent(child, "p") == (None, 1)
    parent = tasks.add("p")
    assert (parent.child_ids, tasks.graph.size_bytes) == (["c"], CHILDREN_BYTES)
    second = tasks.add("d")
    assert tasks.graph.set_parent(second, "p")[0] is parent
    assert parent.child_ids == ["c", "d"]


def test_the_children_of_a_removed_parent_are_orphans_until_it_returns() -> None:
    tasks = Graph()
    parent, child = tasks.add("p"), tasks.add("c")
    tasks.graph.set_parent(child, "p")
    tasks.remove(parent)
    assert tasks.add("p").child_ids == ["c"]


def test_nothing_is_left_of_removed_tasks() -> None:
    tasks = Graph()
    parent, child, orphan = tasks.add("p"), tasks.add("c"), tasks.add("o")
    for record, above in ((child, "p"), (orphan, "unknown")):
        tasks.graph.set_root(record, "r")
        tasks.graph.set_parent(record, above)
    for record in (parent, child, orphan):
        tasks.remove(record)
    assert (tasks.graph.size_bytes, tasks.graph.root("r")) == (0, None)


def test_roots_and_parents_are_of_the_cluster_of_the_task() -> None:
    tasks = Graph(has_clusters=True)
    parent = tasks.add("p", key=record_key("eu", "p"), cluster="eu")
    here = tasks.add("a", key=record_key("eu", "a"), cluster="eu")
    there = tasks.add("b", key=record_key("us", "b"), cluster="us")
    for record in (here, there):
        tasks.graph.set_root(record, "p")
        tasks.graph.set_parent(record, "p")
    assert parent.child_ids == ["a"]
    assert here.root is not there.root
