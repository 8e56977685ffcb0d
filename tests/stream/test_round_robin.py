"""The round-robin queue against a plain model, and its order."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.stream.round_robin import RoundRobin
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

CLIENTS = ["a", "b", "c"]
ADDS = st.tuples(st.just("add"), st.sampled_from(CLIENTS), st.integers(0, 8))
POPS = st.tuples(st.just("pop"), st.just(""), st.just(0))
DISCARDS = st.tuples(st.just("discard"), st.just(""), st.integers(0, 8))


def test_clients_take_turns_and_the_items_of_a_client_keep_their_order() -> None:
    queue: RoundRobin[str] = RoundRobin()
    for item in ("a1", "a2", "a3", "b1", "b2", "c1"):
        queue.add(item[0], item)
    assert [queue.pop() for _ in range(len(queue))] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert not queue


def test_a_client_with_many_items_delays_another_client_by_one() -> None:
    queue: RoundRobin[int] = RoundRobin()
    for number in range(1_000):
        queue.add("many", number)
    queue.add("one", -1)
    assert [queue.pop(), queue.pop()] == [0, -1]


def test_an_item_that_waits_already_keeps_its_place() -> None:
    queue: RoundRobin[str] = RoundRobin()
    for item in ("first", "second", "first"):
        queue.add("a", item)
    assert (len(queue), queue.count("a"), queue.count("b")) == (2, 2, 0)
    assert queue.pop() == "first"


def test_pop_of_an_empty_queue_raises() -> None:
    queue: RoundRobin[int] = RoundRobin()
    queue.discard(1)
    with pytest.raises(KeyError):
        queue.pop()


@settings(deadline=None, max_examples=tries(200))
@given(st.lists(st.one_of(ADDS, ADDS, POPS, DISCARDS), max_size=60))
def test_the_queue_equals_a_model(steps: list[tuple[str, str, int]]) -> None:
    """The model: a list of clients, the next one first, each with its items."""
    queue: RoundRobin[int] = RoundRobin()
    model: list[tuple[str, deque[int]]] = []

    def waiting() -> dict[int, str]:
        return {item: client for client, items in model for item in items}

    for step, client, item in steps:
        if step == "add":
            queue.add(client, item)
            if item not in waiting():
                items = dict(model).get(client)
                if items is None:
                    model.append((client, deque([item])))
                else:
                    items.append(item)
        elif step == "discard":
            queue.discard(item)
            for _, items in model:
                if item in items:
                    items.remove(item)
            model = [(client, items) for client, items in model if items]
        elif model:
            client, items = model.pop(0)
            assert queue.pop() == items.popleft()
            if items:
                model.append((client, items))
        assert len(queue) == len(waiting())
        assert all(queue.count(each) == len(dict(model).get(each, ())) for each in CLIENTS)
        assert all((item in queue) == (item in waiting()) for item in range(9))
