"""The current record of an event's task, encoded once."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from celery_gateway.events.fields import ALL_FIELDS, Fields
from celery_gateway.state import current_records
from celery_gateway.state.current_records import CurrentRecords
from celery_gateway.state.task import VIEW_FIELDS
from celery_gateway.state.task_table import TaskTable

pytestmark = pytest.mark.unit


def received(uuid: str, **fields: Any) -> dict[str, Any]:
    about = {"name": "shop.pay", "root_id": uuid, "parent_id": None, "retries": 0, "args": "()"}
    return {
        "type": "task-received",
        "uuid": uuid,
        "timestamp": 1.0,
        "hostname": "celery@w",
        **about,
        **fields,
    }


def table(*events: dict[str, Any], clusters: Iterable[str] = (), max_tasks: int = 100) -> TaskTable:
    made = TaskTable(max_tasks=max_tasks, clusters=clusters)
    for number, event in enumerate(events):
        made.join(event, float(number))
    return made


def test_all_fields_but_children_and_attempts() -> None:
    found = CurrentRecords(table(received("u"), received("v", parent_id="u"))).find("u", None, ALL_FIELDS)
    assert found is not None
    assert json.loads(found).keys() == set(VIEW_FIELDS) - {"children", "attempts", "cluster"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"state"}, {"uuid": "u", "state": "RECEIVED"}),
        ({"stale"}, {"uuid": "u", "stale": False}),
        ({"children", "attempts", "nothing"}, {"uuid": "u"}),
    ],
)
def test_some_fields_and_the_uuid(fields: set[str], expected: dict[str, Any]) -> None:
    found = CurrentRecords(table(received("u"))).find("u", None, Fields(frozenset(fields)))
    assert json.loads(found or b"") == expected


def test_it_is_encoded_again_after_a_change_only() -> None:
    tasks = table(received("u"))
    records = CurrentRecords(tasks)
    first = records.find("u", None, ALL_FIELDS)
    assert records.find("u", None, ALL_FIELDS) is first
    tasks.join({"type": "task-started", "uuid": "u", "timestamp": 2.0, "hostname": "celery@w"}, 2.0)
    second = records.find("u", None, ALL_FIELDS)
    assert json.loads(second or b"")["state"] == "STARTED"
    assert json.loads(first or b"")["state"] == "RECEIVED"


def test_an_unknown_or_evicted_task_has_none() -> None:
    tasks = table(received("u"), max_tasks=1)
    records = CurrentRecords(tasks)
    assert records.find("u", None, ALL_FIELDS) is not None
    assert records.find("v", None, ALL_FIELDS) is None
    tasks.join(received("v"), 2.0)
    assert records.find("u", None, ALL_FIELDS) is None
    tasks.join(received("u", name="again"), 3.0)
    assert json.loads(records.find("u", None, ALL_FIELDS) or b"")["name"] == "again"


def test_brokers_with_names_may_have_the_same_uuid() -> None:
    events = (received("u", cluster="eu", name="one"), received("u", cluster="us", name="two"))
    records = CurrentRecords(table(*events, clusters=("eu", "us")))
    clusters = ("eu", "us", "asia")
    found = [json.loads(records.find("u", cluster, ALL_FIELDS) or b"null") for cluster in clusters]
    assert [record and (record["cluster"], record["name"]) for record in found] == [
        ("eu", "one"),
        ("us", "two"),
        None,
    ]


def test_the_cache_is_bounded() -> None:
    count = current_records.MAX_CACHED + 10
    long = "x" * (current_records.MAX_CACHED_BYTES + 1)
    records = CurrentRecords(table(*(received(str(number)) for number in range(count)), max_tasks=2 * count))
    for number in range(count):
        assert records.find(str(number), None, ALL_FIELDS) is not None
    assert len(records._cache) <= current_records.MAX_CACHED
    records = CurrentRecords(table(received("u", args=long)))
    assert records.find("u", None, ALL_FIELDS) is not None
    assert not records._cache
