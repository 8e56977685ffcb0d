"""Which task is evicted next, and which keys are remembered."""

import pytest

from celery_gateway.state import eviction
from celery_gateway.state.eviction import MAX_IDLE_SECONDS, EvictionOrder
from celery_gateway.state.task import Task
from celery_gateway.state.task_record import Record

pytestmark = pytest.mark.unit


def order_of(*keys: str) -> tuple[EvictionOrder, dict[str, Record]]:
    """Return an order with these records, added one after the other."""
    order = EvictionOrder()
    records = {key: Record(Task(key), key, number) for number, key in enumerate(keys)}
    for record in records.values():
        order.add(record)
        order.touch(record)
    return order, records


def finish(order: EvictionOrder, record: Record) -> None:
    record.task.state = "SUCCESS"
    order.set_finished(record, True)
    order.touch(record)


def test_finished_tasks_are_evicted_before_unfinished_ones_in_the_order_of_their_last_change() -> None:
    order, records = order_of("a", "b", "c", "d")
    finish(order, records["c"])
    finish(order, records["b"])
    order.touch(records["a"])
    assert [order.pop(0.0).key for _ in range(4)] == ["c", "b", "d", "a"]
    assert (order.evicted_finished, order.evicted_unfinished) == (2, 2)


def test_an_unfinished_task_without_an_event_for_a_day_is_evicted_first() -> None:
    order, records = order_of("a", "b")
    finish(order, records["b"])
    assert order.pop(MAX_IDLE_SECONDS).key == "a"


def test_a_task_that_begins_again_is_unfinished() -> None:
    order, records = order_of("a", "b")
    finish(order, records["a"])
    records["a"].task.state = "STARTED"
    order.set_finished(records["a"], False)
    order.touch(records["a"])
    assert [order.pop(0.0).key for _ in range(2)] == ["b", "a"]


def test_the_records_that_have_changed_since_a_version() -> None:
    order, records = order_of("a", "b", "c")
    version = order.version
    assert order.changed_since(version) == []
    finish(order, records["b"])
    order.touch(records["a"])
    assert sorted(order.changed_since(version)) == ["a", "b"]
    assert sorted(order.changed_since(-1)) == ["a", "b", "c"]


def test_the_keys_of_the_last_evicted_tasks_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "MAX_EVICTED", 10)
    order, _ = order_of(*(str(number) for number in range(30)))
    keys = [order.pop(0.0).key for _ in range(30)]
    remembered = [key for key in keys if order.has_evicted(key)]
    assert remembered == keys[-len(remembered) :]
    assert 5 <= len(remembered) <= 10
    assert not order.has_evicted("unknown")
