"""The tables of records, workflows and workers that the gateway and the JavaScript client share."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from celery_gateway.state.task import Task
from celery_gateway.state.task_record import Record
from celery_gateway.state.workflow import Workflow
from tests.support.conformance import derive, load, workers_at

pytestmark = pytest.mark.unit

TASKS = load()
FOLDER = Path(__file__).parents[1] / "conformance"
WORKFLOWS = json.loads((FOLDER / "workflow.json").read_text("utf-8"))
WORKERS = json.loads((FOLDER / "worker.json").read_text("utf-8"))
Object = dict[str, Any]


@pytest.mark.parametrize("case", TASKS["cases"], ids=[case["rule"] for case in TASKS["cases"]])
def test_a_record_after_each_event(case: Object) -> None:
    """`python -m tests.support.conformance` writes the records again."""
    assert derive(case, TASKS["blank"]) == [each["stream"] for each in case["events"]]


def test_a_new_task_has_the_fields_of_blank() -> None:
    task = msgspec.to_builtins(Task("u"))
    del task["uuid"]
    assert TASKS["blank"] == task | {"stale": False}


@pytest.mark.parametrize("case", WORKFLOWS["cases"], ids=[case["rule"] for case in WORKFLOWS["cases"]])
def test_the_tree_of_a_workflow(case: Object) -> None:
    workflow = Workflow(case["root_id"])
    for number, fields in enumerate(case["tasks"], 1):
        task = Task(root_id=case["root_id"], **fields)
        workflow.add(Record(task, task.uuid, number))
    found = json.loads(b"".join(workflow.pieces()) + b"}")
    del found["critical_path"]
    found["tasks"] = [tree(task) for task in found["tasks"]]
    assert found == case["workflow"]


def tree(task: Object) -> Object:
    """Return the uuids of a task and those below it."""
    return {task["uuid"]: [tree(child) for child in task["children"]]} if task["children"] else task["uuid"]


@pytest.mark.parametrize("case", WORKERS["cases"], ids=[case["rule"] for case in WORKERS["cases"]])
def test_workers_after_events(case: Object) -> None:
    assert list(workers_at(case)) == [step.get("workers") for step in case["steps"]]
