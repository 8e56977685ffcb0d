"""The events that wait for their task: order, deadline and bounds. Time is the argument `now`."""

import pytest

from celery_gateway.state import join_buffer
from celery_gateway.state.join_buffer import JOIN_WAIT_SECONDS, JoinBuffer

pytestmark = pytest.mark.unit


def test_the_events_of_a_task_wait_in_order_from_the_first_one_on() -> None:
    buffer = JoinBuffer()
    for number, key in enumerate("abab"):
        buffer.add(key, {"type": f"task-{number}"}, None, float(number))
    assert (buffer.event_count, buffer.next_deadline, buffer.oldest()) == (4, JOIN_WAIT_SECONDS, "a")
    assert [event["type"] for event, _ in buffer.remove("a")] == ["task-0", "task-2"]
    assert (buffer.event_count, buffer.next_deadline, "a" in buffer) == (2, 1.0 + JOIN_WAIT_SECONDS, False)
    assert buffer.remove("a") == []


def test_no_event_waits_in_an_empty_buffer() -> None:
    buffer = JoinBuffer()
    assert (buffer.next_deadline, buffer.event_count, buffer.keys()) == (None, 0, [])


def test_the_keys_of_one_cluster() -> None:
    buffer = JoinBuffer()
    for cluster in ("eu", "us"):
        buffer.add(f"{cluster}-key", {"type": "task-started", "cluster": cluster}, None, 0.0)
    assert (buffer.keys("us"), buffer.keys()) == (["us-key"], ["eu-key", "us-key"])


def test_it_is_full_above_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_buffer, "MAX_WAITING_EVENTS", 2)
    buffer = JoinBuffer()
    found = []
    for _ in range(3):
        buffer.add("a", {"type": "task-started"}, None, 0.0)
        found.append(buffer.is_full)
    buffer.remove("a")
    monkeypatch.setattr(join_buffer, "MAX_WAITING_BYTES", 10_000)
    buffer.add("a", {"type": "task-started", "text": "x" * 20_000}, None, 0.0)
    assert (found, buffer.is_full) == ([False, False, True], True)
