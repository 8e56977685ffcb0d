"""Origins: the names of a task that scopes compare, from its first ``task-sent`` or ``task-received``."""

from typing import Any

import pytest

from celery_gateway.events.event import Event
from celery_gateway.state.task_record import UNKNOWN_ORIGIN, Origin
from celery_gateway.state.task_table import TaskTable

pytestmark = pytest.mark.unit

NOBODY = (None,) * 5


def sent(uuid: str = "u", **fields: Any) -> Event:
    return _named("task-sent", uuid, {"queue": "high"} | fields)


def received(uuid: str = "u", **fields: Any) -> Event:
    return _named("task-received", uuid, fields)


def _named(type: str, uuid: str, fields: dict[str, Any]) -> Event:
    call = {"name": "shop.add", "root_id": "r", "parent_id": "p", "retries": 0}
    return {"type": type, "uuid": uuid, "timestamp": 1.0, "hostname": "w@h", "pid": 1} | call | fields


def table(*events: Event, **options: Any) -> TaskTable:
    tasks = TaskTable(keeps_origins=True, **options)
    for number, event in enumerate(events):
        tuple(tasks.join(event, float(number)))
    return tasks


def origin(tasks: TaskTable, uuid: str = "u") -> Origin:
    (record,) = tasks.find(uuid)
    return record.origin


@pytest.mark.parametrize("first", [sent, received])
@pytest.mark.parametrize("second", [sent, received])
def test_the_first_event_decides(first: Any, second: Any) -> None:
    forged = second(name="theirs", root_id="theirs", parent_id="theirs", queue="theirs")
    found = origin(table(first(queue="mine"), forged))
    assert (found.name, found.root_id, found.parent_id) == ("shop.add", "r", "p")


def test_the_queue_is_that_of_the_first_task_sent() -> None:
    assert origin(table(received())).queue is None
    assert origin(table(received(queue="forged"))).queue is None
    assert origin(table(received(), sent(queue="high"), sent(queue="low"))).queue == "high"


def test_a_task_without_a_root_is_its_own_and_never_its_own_parent() -> None:
    found = origin(table(received(root_id=None, parent_id="u")))
    assert (found.root_id, found.parent_id) == ("u", None)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "task-progress", "uuid": "u", "name": "shop.add", "root_id": "r"},
        {"type": "task-succeeded", "uuid": "u", "name": "shop.add", "root_id": "r", "timestamp": 1.0},
    ],
)
def test_other_events_give_a_task_no_origin(event: Event) -> None:
    tasks = table(event)
    assert origin(tasks) is UNKNOWN_ORIGIN
    assert tasks.origin_keys(event)[:4] == NOBODY[:4]


def test_the_keys_of_an_event_are_those_of_its_task_not_its_own() -> None:
    tasks = table(sent())
    own = {"type": "mail-sent", "uuid": "u", "name": "forged", "root_id": "forged", "state": "SUCCESS"}
    assert tasks.origin_keys(own) == ("shop.add", "r", "p", "high", "PENDING")
    assert tasks.origin_keys({"type": "mail-sent", "root_id": "r", "name": "shop.add"}) == NOBODY
    assert tasks.origin_keys({"type": "mail-sent", "uuid": "another"}) == NOBODY


def test_a_forgotten_task_has_no_origin() -> None:
    tasks = table(sent(), sent("v"), max_tasks=1)
    assert tasks.find("u") == []
    assert tasks.origin_keys(sent()) == NOBODY


def test_brokers_with_names_have_tasks_of_their_own() -> None:
    tasks = table(sent(cluster="eu"), sent(cluster="us", root_id="another"), clusters=("eu", "us"))
    keys = [tasks.origin_keys(sent(cluster=cluster))[1] for cluster in ("eu", "us")]
    assert keys == ["r", "another"]


def test_without_authentication_nothing_is_kept() -> None:
    tasks = TaskTable()
    tuple(tasks.join(sent(), 0.0))
    assert origin(tasks) is UNKNOWN_ORIGIN
    assert tasks.origin_keys(sent()) == ()
