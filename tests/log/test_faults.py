"""Gateways with one log that fail: clients get every event once, and the same bytes from each gateway."""

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from kombu import Connection

from tests.support.fleet import Fleet, Member, running, task_records
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, walk
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis_server import redis_server
from tests.support.stream_client import NdjsonStream

SECONDS = 40
FAILOVER_SECONDS = 20
"""Usually 2.3 s; CI's machine may be slow."""
_numbers = itertools.count()


@pytest.fixture(scope="module")
def whole_fleet(rabbitmq: RabbitMQ, broker: str, folder: Path) -> Iterator[Fleet]:
    options = ("--keepalive", "1")
    with running(rabbitmq, broker, folder, count=2, options=options, has_nginx=False) as fleet:
        yield fleet


@pytest.fixture
def fleet(whole_fleet: Fleet) -> Iterator[Fleet]:
    """Two gateways that are ready; whatever a test breaks is repaired after it."""
    yield whole_fleet
    whole_fleet.heal()


@pytest.fixture
def leader(fleet: Fleet) -> Member:
    return fleet.wait_leader()


@pytest.fixture
def other(fleet: Fleet, leader: Member) -> Member:
    return fleet.others(leader)[0]


def publish(publisher: Publisher, tasks: int = 5, name: str = "shop.charge") -> list[int]:
    """Publish the events of some tasks, and return their numbers."""
    events = [event | {"number": next(_numbers)} for _ in range(tasks) for event in walk(name)]
    publisher.send(*events)
    return [event["number"] for event in events]


def numbers_of(events: Sequence[dict[str, Any]]) -> list[int]:
    return [event["number"] for event in events if "number" in event]


def received(stream: NdjsonStream, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Wait for events with these numbers, and find that the stream has each of them once, and no gap."""
    events = stream.until(lambda events: set(numbers) <= set(numbers_of(events)), SECONDS)
    assert numbers_of(events) == list(numbers)
    assert not [event for event in events if event["type"] == "gateway-gap"]
    return events


def lines(url: str, after: str, last: int) -> list[str]:
    """Return the events after an id, as they are sent, up to that with a number."""
    found = []
    query = {"format": "ndjson", "last_event_id": after}
    with httpx.stream("GET", f"{url}/events", params=query, timeout=SECONDS) as response:
        for line in response.iter_lines():
            if '"number"' in line:
                found.append(line)
            assert '"gateway-gap"' not in line and '"reset"' not in line
            if f'"number":{last},' in line or f'"number":{last}}}' in line:
                break
    return found


def assert_same(one: Member, other: Member, start: str, last: int) -> None:
    """Both gateways have the same bytes from an id up to a number, and the same tasks."""
    assert lines(one.url, start, last) == lines(other.url, start, last)
    assert task_records(one.url) == task_records(other.url)


def test_another_gateway_takes_over_from_a_killed_leader(
    leader: Member, other: Member, publisher: Publisher
) -> None:
    with NdjsonStream(other.url) as stream:
        start = stream.opened["id"]
        numbers = publish(publisher)
        received(stream, numbers)
        leader.kill()
        killed_at = time.monotonic()
        numbers += publish(publisher)
        received(stream, numbers)
        assert time.monotonic() - killed_at < FAILOVER_SECONDS
    leader.start()
    assert_same(leader, other, start, numbers[-1])


def test_a_frozen_leader_that_wakes_up_adds_nothing(
    fleet: Fleet, leader: Member, other: Member, publisher: Publisher
) -> None:
    with NdjsonStream(other.url) as stream:
        start = stream.opened["id"]
        numbers = publish(publisher)
        received(stream, numbers)
        numbers += publish(publisher, 50)  # some of which are on their way when it freezes
        leader.freeze()
        numbers += publish(publisher)
        received(stream, numbers)
        assert fleet.wait_leader(other_than=leader) is other
        leader.wake()
        numbers += publish(publisher)
        received(stream, numbers)
        fleet.wait_ready()
        assert_same(leader, other, start, numbers[-1])


def test_a_partitioned_leader_follows_when_it_is_back(
    fleet: Fleet, leader: Member, other: Member, publisher: Publisher
) -> None:
    """Clients of the partitioned gateway resume at the other one, or wait."""
    with NdjsonStream(other.url) as stream:
        start = stream.opened["id"]
        numbers = publish(publisher)
        received(stream, numbers)
        leader.stall()
        numbers += publish(publisher)
        newest = received(stream, numbers)[-1]["id"]
        query = {"last_event_id": newest}
        with httpx.stream("GET", f"{leader.url}/events", params=query, timeout=SECONDS) as refused:
            assert refused.status_code == 503 and "Retry-After" in refused.headers
        leader.mend()
        numbers += publish(publisher)
        received(stream, numbers)
        fleet.wait_ready()
        assert lines(leader.url, start, numbers[-1]) == lines(other.url, start, numbers[-1])


def test_nothing_is_lost_while_no_gateway_runs(fleet: Fleet, other: Member, publisher: Publisher) -> None:
    with NdjsonStream(other.url) as stream:
        numbers = publish(publisher)
        last_id = received(stream, numbers)[-1]["id"]
    for member in fleet.members:
        member.kill()
    numbers = publish(publisher, 100)
    fleet.start()
    for member in fleet.members:
        with NdjsonStream(member.url, {"last_event_id": last_id}) as stream:
            assert stream.opened["resume"] == "resumed"
            received(stream, numbers)


def test_clients_go_on_after_a_gap_when_the_log_is_deleted(
    fleet: Fleet, broker: str, publisher: Publisher
) -> None:
    first, second = fleet.members
    with NdjsonStream(first.url) as stream:
        numbers = publish(publisher)
        last_id = received(stream, numbers)[-1]["id"]
        with Connection(broker) as connection:
            connection.channel().queue_delete("celery-gateway.log")
        assert stream.closed(SECONDS)
    fleet.wait_ready()
    with (
        NdjsonStream(first.url, {"last_event_id": last_id}) as stream,
        NdjsonStream(second.url, {"last_event_id": last_id}) as same,
    ):
        assert (stream.opened["resume"], same.opened["resume"]) == ("reset", "reset")
        numbers = publish(publisher)
        for each in (stream, same):
            events = each.until(lambda events: numbers[-1] in numbers_of(events), SECONDS)
            assert events[0]["type"] == "gateway-gap" and events[0]["reason"] == "unknown-id"
            assert numbers_of(events) == numbers


def test_gateways_with_different_logs_do_not_disturb_each_other(
    fleet: Fleet, broker: str, folder: Path, publisher: Publisher
) -> None:
    with redis_server(folder) as redis:
        alone = GatewayProcess(broker, folder, options=["--log", redis.url])
        try:
            alone.start()
            mine = {
                "name": "shop.other"
            }  # the broker has kept events from before, and a new log begins with them
            with (
                NdjsonStream(alone.url, mine) as stream,
                NdjsonStream(fleet.members[0].url, mine) as shared,
            ):
                start = shared.opened["id"]
                numbers = publish(publisher, name="shop.other")
                ids = [event["id"] for event in received(stream, numbers)]
                assert not set(ids) & {event["id"] for event in received(shared, numbers)}
                alone.stop()
                numbers += publish(publisher, name="shop.other")
                received(shared, numbers)
            assert len(lines(fleet.members[1].url, start, numbers[-1])) == len(numbers)
        finally:
            alone.stop()
