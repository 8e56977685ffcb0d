"""Gateways of a Redis broker, and their log in the same Redis. Pub/sub keeps nothing without a leader."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import walk
from tests.support.redis_server import RedisServer, envelope, redis_server
from tests.support.stream_client import NdjsonStream

CHANNEL = "/0.celeryev/task.multi"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RedisServer]:
    with redis_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def gateways(server: RedisServer, folder: Path) -> Iterator[list[GatewayProcess]]:
    """The first one leads."""
    made = [GatewayProcess(server.url, folder, options=("--log", "redis")) for _ in range(2)]
    try:
        for gateway in made:
            gateway.start()
        yield made
    finally:
        for gateway in made:
            gateway.stop()


def test_a_new_leader_reports_a_gap_and_clients_resume(
    server: RedisServer, gateways: list[GatewayProcess]
) -> None:
    leader, other = gateways
    with server.client() as redis, NdjsonStream(leader.url) as stream, NdjsonStream(other.url) as followed:
        for event in walk():
            redis.publish(CHANNEL, envelope(event))
        live = stream.until(lambda events: len(events) >= 3, 40)
        assert followed.until(lambda events: len(events) >= 3, 40) == live
        os.kill(leader.pid, signal.SIGKILL)
        gap = followed.until(lambda events: len(events) >= 4, 40)[3]
        assert (gap["type"], gap["reason"]) == ("gateway-gap", "broker")
        later = walk("shop.later")
        for event in later:
            redis.publish(CHANNEL, envelope(event))
        rest = followed.until(lambda events: len(events) >= 7, 40)[3:]
        assert [event["type"] for event in rest[1:]] == [event["type"] for event in later]
    leader.stop()
    leader.start()
    with NdjsonStream(leader.url, {"last_event_id": live[1]["id"]}) as resumed:
        assert resumed.opened["resume"] == "resumed"
        found = resumed.until(lambda events: len(events) >= 5, 40)
    assert json.dumps(found) == json.dumps([live[2], *rest])
    state = httpx.get(f"{leader.url}/tasks/{live[0]['uuid']}").json()
    assert state["state"] == "SUCCESS"
