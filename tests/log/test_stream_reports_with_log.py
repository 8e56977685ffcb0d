"""Reports of streams with a shared log: each gateway has the same, whoever leads. In virtual time."""

import asyncio
import json
from typing import Any

import pytest

from celery_gateway.events.filter import Filter
from celery_gateway.log.memory_log import MemoryServer
from celery_gateway.state.activity_report import ActivityReader
from celery_gateway.stream.framing import FORMATS
from celery_gateway.stream.statistics_reports import StatisticsRequest
from tests.log.test_pipelines import Broker, Gateway
from tests.log.test_takeover import event, in_virtual_time, started

pytestmark = [pytest.mark.unit, pytest.mark.slow]

Message = dict[str, Any]


class Client:
    """A stream of a gateway, with its workers and statistics."""

    def __init__(self, gateway: Gateway) -> None:
        self.messages: list[Message] = []
        pipeline = gateway.pipeline
        subscription = pipeline.hub.subscribe(Filter(), FORMATS["ndjson"])
        subscription.send(pipeline.status(subscription.id))
        request = StatisticsRequest("all", lambda: ActivityReader(pipeline.tasks.activity, 3_600.0), 1.0)
        pipeline.reporting.add(subscription, workers=lambda _, json: json, statistics=request)
        subscription.attach(self._write, lambda reason: None, lambda: pytest.fail("aborted"))

    def _write(self, chunk: bytes) -> None:
        self.messages += [json.loads(line) for line in chunk.splitlines()]

    def of_type(self, type: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == f"gateway-{type}"]

    @property
    def workers(self) -> list[tuple[str, bool | None]]:
        reported = [message["worker"] for message in self.of_type("worker")]
        return [(worker["status"], worker["sends_task_events"]) for worker in reported]

    @property
    def running(self) -> list[int]:
        return [message["total"]["running"] for message in self.of_type("statistics")]


def test_each_gateway_reports_the_same() -> None:
    async def test(server: MemoryServer, broker: Broker) -> None:
        gateways = [await started(server, broker, name) for name in "ab"]
        clients = [Client(gateway) for gateway in gateways]
        clock = 0

        async def beat(count: int, processed: int) -> None:
            nonlocal clock
            for _ in range(count):
                clock += 1
                beaten = event("worker-heartbeat", clock=clock, freq=2.0, active=0, processed=processed)
                broker.send(beaten)
                await asyncio.sleep(2)

        await beat(2, 0)
        await beat(4, 1)
        broker.send(event("task-received", uuid="u", name="n", root_id="u", clock=50))
        broker.send(event("task-started", uuid="u", name="n", root_id="u", clock=51))
        await beat(2, 2)
        await asyncio.sleep(20)
        for client in clients:
            assert client.workers == [("online", None), ("online", False), ("online", True), ("silent", True)]
            assert client.running[0] == 0 and client.running[-1] == 1
        await gateways[0].kill()
        clock = 60
        await beat(8, 2)
        assert gateways[1].is_leading
        assert clients[1].workers[4:] == [("online", True)], "the new leader reports on"
        for client in clients:
            assert {"version", "started", "control", "actions"} <= client.of_type("status")[0].keys()
            assert all(each["sources"] for each in client.of_type("status"))
        await gateways[1].stop()

    in_virtual_time(test)
