"""How the lead goes from one gateway to another, and what a new leader takes over. In virtual time."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from celery_gateway.broker.source import NOT_CONNECTED, Sink, Status
from celery_gateway.log.memory_log import MemoryServer
from celery_gateway.pipeline.feed import Feed
from tests.log import test_pipelines
from tests.log.test_pipelines import Broker, Gateway, KeptMessages
from tests.log.test_replica import until
from tests.support.virtual_time import run

pytestmark = [pytest.mark.unit, pytest.mark.slow]

BASE = 1_700_000_000.0
"""The wall time when the loop's time is 0."""


class SlowToEnd(KeptMessages):
    """A source whose connection takes a while to close."""

    async def run(self, sink: Sink) -> None:
        try:
            await super().run(sink)
        finally:
            await asyncio.sleep(1.5)


class NotKept:
    """A source that gets what is sent while it runs, as with Redis pub/sub."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.status = NOT_CONNECTED

    async def run(self, sink: Sink) -> None:
        await asyncio.sleep(0.5)
        self.status = Status(True, "consuming")
        sink.status(self.status)
        position = len(self.broker.messages)
        while True:
            for message in self.broker.messages[position:]:
                rest: Iterator[None] | None = sink.message(message._replace(offset=None))
                for _ in rest or ():
                    pass
            position = len(self.broker.messages)
            await self.broker.arrived.wait()


def now() -> float:
    return BASE + asyncio.get_running_loop().time()


def event(type: str, **fields: Any) -> dict[str, Any]:
    return {"type": type, "hostname": "w", "pid": 1, "timestamp": now(), "utcoffset": 0, "clock": 1} | fields


async def beat(broker: Broker, seconds: float) -> None:
    """Send a heartbeat each 0.3 s."""
    end = now() + seconds
    while now() < end:
        broker.send(event("worker-heartbeat", freq=0.3))
        await asyncio.sleep(0.3)


def in_virtual_time(test: Callable[[MemoryServer, Broker], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await test(MemoryServer(), Broker())

    run(main())


async def started(server: MemoryServer, broker: Broker, name: str) -> Gateway:
    gateway = Gateway(server, broker, name, BASE)
    await gateway.start()
    await asyncio.sleep(2)
    return gateway


def test_a_gateway_that_stops_does_not_lead_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_pipelines, "KeptMessages", SlowToEnd)

    async def test(server: MemoryServer, broker: Broker) -> None:
        gateway = await started(server, broker, "a")
        assert gateway.is_leading
        await gateway.stop()
        replication = gateway.pipeline.replication
        assert replication is not None and replication.replica.claims == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    in_virtual_time(test)


def test_another_gateway_leads_as_soon_as_the_leader_drains() -> None:
    async def test(server: MemoryServer, broker: Broker) -> None:
        leader, other = [await started(server, broker, name) for name in "ab"]
        broker.send(event("task-sent", uuid="u1", name="n", root_id="u1"))
        await asyncio.sleep(0.1)
        leader.pipeline.drain()
        await asyncio.sleep(0.8)  # less than what tells that a leader is dead
        assert other.is_leading and not leader.is_leading
        broker.send(event("task-sent", uuid="u2", name="n", root_id="u2"))
        await asyncio.sleep(0.1)
        assert [each["uuid"] for each in other.events()] == ["u1", "u2"]
        assert not any(b'"consuming":false' in each for each in other.stream())
        await leader.stop()
        await other.stop()

    in_virtual_time(test)


def test_a_gateway_that_begins_behind_the_last_status_has_it_too() -> None:
    async def test(server: MemoryServer, broker: Broker) -> None:
        leader = await started(server, broker, "a")
        await beat(broker, 70)
        half = len(server._from(0, 1_000_000)) // 2
        await leader.engine.trim(server._from(0, 1_000_000)[half].offset)  # as retention does
        other = await started(server, broker, "b")
        assert other.stream() and not any(b"gateway-status" in each for each in other.stream())
        assert other.pipeline.statuses == leader.pipeline.statuses
        assert other.pipeline.statuses[None].is_consuming
        await leader.stop()
        await other.stop()

    in_virtual_time(test)


def test_the_clock_is_the_present_after_an_outage_if_the_broker_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise it jumps as soon as nothing comes for a second, and every worker has been silent for long."""
    monkeypatch.setattr(
        test_pipelines, "Feed", lambda cluster, source, kept: Feed(cluster, NotKept(source.broker))
    )

    async def test(server: MemoryServer, broker: Broker) -> None:
        first = await started(server, broker, "a")
        await beat(broker, 5)
        await first.stop()
        await asyncio.sleep(600)
        second = Gateway(server, broker, "b", BASE)
        await second.start()
        await until(lambda: second.is_leading)
        await asyncio.sleep(0.4)  # it does not consume yet, and misses more
        assert b"gateway-gap" not in b"".join(second.stream())
        await asyncio.sleep(0.4)
        assert b"gateway-gap" in b"".join(second.stream())
        await beat(broker, 5)
        broker.send(event("task-started", uuid="u", name="n", root_id="u"))
        assert abs(second.pipeline.clock.time() - now()) < 0.1
        await asyncio.sleep(3)
        await beat(broker, 5)
        assert "task-lost" not in [each["type"] for each in second.events()]
        await second.stop()

    in_virtual_time(test)


def test_names_that_a_worker_lists_too_late_do_not_change_a_gateway_that_does_not_lead() -> None:
    async def test(server: MemoryServer, broker: Broker) -> None:
        leader, other = [await started(server, broker, name) for name in "ab"]
        for gateway in (leader, other):
            gateway.pipeline.on_names(None, [("u", "n")])
        assert leader.tasks() and not other.tasks()
        await leader.stop()
        await other.stop()

    in_virtual_time(test)


def test_a_name_that_is_none_of_the_task_stays_out_of_its_record() -> None:
    """Only some types of events name their task; a follower takes other names from the join alone."""

    async def test(server: MemoryServer, broker: Broker) -> None:
        leader, other = [await started(server, broker, name) for name in "ab"]
        broker.send(event("task-custom", uuid="u", name="not the task's"))
        await asyncio.sleep(3)
        assert leader.tasks()["u"]["name"] is None
        assert leader.tasks() == other.tasks()
        await leader.stop()
        await other.stop()

    in_virtual_time(test)
