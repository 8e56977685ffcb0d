"""Whole pipelines on one log, in virtual time: the same stream and the same state, whoever leads.

The broker keeps its messages, as a RabbitMQ stream does; the clusters and their troubles are simulated.
"""

import asyncio
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from celery_gateway.broker.source import NOT_CONNECTED, Sink, Status
from celery_gateway.events.message import Message
from celery_gateway.log.follower import Restart
from celery_gateway.log.memory_log import MemoryServer
from celery_gateway.pipeline.clock import Clock
from celery_gateway.pipeline.feed import Feed
from celery_gateway.pipeline.pipeline import Pipeline
from celery_gateway.pipeline.replication import Replication
from celery_gateway.state.replicated_table import ReplicatedTaskTable
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.completion import Completions
from celery_gateway.stream.hub import Hub
from tests.support.simulated_cluster import History, history
from tests.support.thorough import tries
from tests.support.virtual_time import run

pytestmark = [pytest.mark.unit, pytest.mark.slow]

PROMPT_SECONDS = 0.001


class Broker:
    """Messages that are kept: each has its offset, from 1 on."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.arrived = asyncio.Event()

    def send(self, *events: dict[str, Any]) -> None:
        body = json.dumps(events if len(events) > 1 else events[0]).encode()
        self.messages.append(Message(body, offset=len(self.messages) + 1))
        self.arrived.set()
        self.arrived = asyncio.Event()


class KeptMessages:
    """The source of one gateway."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.start = 0
        self.status = NOT_CONNECTED

    async def declare(self) -> None: ...

    async def run(self, sink: Sink) -> None:
        await asyncio.sleep(PROMPT_SECONDS)
        self.status = Status(True, "consuming")
        sink.status(self.status)
        try:
            position = max(self.start, 1)
            while True:
                while position <= len(self.broker.messages):
                    rest: Iterator[None] | None = sink.message(self.broker.messages[position - 1])
                    for _ in rest or ():
                        await asyncio.sleep(0)
                    position += 1
                    await asyncio.sleep(0)
                await self.broker.arrived.wait()
        finally:
            self.status = NOT_CONNECTED
            sink.status(self.status)


class Gateway:
    """A gateway; it starts again when it has to."""

    def __init__(self, server: MemoryServer, broker: Broker, name: str, base: float) -> None:
        self._server = server
        self._broker = broker
        self._base = base
        self.name = name
        self.restarts = 0
        self.is_stopped = False
        self.pipeline = self._pipeline()

    def _pipeline(self) -> Pipeline:
        clock = Clock(lambda: asyncio.get_running_loop().time() + self._base)
        tasks, workers, hub = ReplicatedTaskTable(keeps_origins=True), WorkerTable(), Hub()
        completions = Completions(tasks, hub)
        self.engine = self._server.engine()
        replication = Replication(self.engine, self.name, tasks, workers, hub, completions, clock)
        kept = KeptMessages(self._broker)
        return Pipeline(
            [Feed(None, kept, kept=kept)],
            tasks,
            workers,
            hub,
            completions,
            replication=replication,
            clock=clock,
        )

    async def start(self) -> None:
        await self.pipeline.start(self._on_restart)

    def _on_restart(self, error: Restart) -> None:
        self.restarts += 1
        self._restart = asyncio.ensure_future(self._replace())

    async def _replace(self) -> None:
        await self.pipeline.stop()
        if self.is_stopped:
            return
        self.pipeline = self._pipeline()
        await self.start()

    @property
    def is_leading(self) -> bool:
        replication = self.pipeline.replication
        return replication is not None and replication.is_leading

    async def kill(self) -> None:
        """End without a last word: nothing more is sent."""
        self._server.partition(self.engine)
        self._server.disconnect(self.engine)
        await self.stop()

    async def stop(self) -> None:
        self.is_stopped = True
        await self.pipeline.stop()

    def stream(self) -> list[bytes]:
        history = self.pipeline.hub.history
        return [entry.json for entry in history.after(0, history.position)]

    def events(self) -> list[dict[str, Any]]:
        return [
            event for json_ in self.stream() if not (event := json.loads(json_))["type"].startswith("gateway")
        ]

    def tasks(self) -> dict[str, Any]:
        return {
            record.key: json.loads(record.view(with_attempts=True)) for record in self.pipeline.tasks.newest()
        }

    def workers(self) -> list[Any]:
        return [json.loads(worker) for worker in self.pipeline.view_workers()]


def assert_same_tasks(one: Gateway, other: Gateway) -> None:
    """The same records; where an event had no possible time, the time of its arrival may differ a little.

    The state of earlier attempts is not compared: the stream tells only of current ones that they are lost.
    """
    ours, theirs = one.tasks(), other.tasks()
    assert ours.keys() == theirs.keys()
    numbers = {record.key: record.number for record in one.pipeline.tasks.newest()}
    assert numbers == {record.key: record.number for record in other.pipeline.tasks.newest()}
    assert list(numbers.values()) == sorted(numbers.values(), reverse=True)
    for key, task in ours.items():
        for field, value in task.items():
            expected = theirs[key][field]
            if field == "attempts":
                assert [each["retries"] for each in value] == [each["retries"] for each in expected]
            elif isinstance(value, float) and isinstance(expected, float):
                assert abs(value - expected) < 2.0, (key, field)
            else:
                assert value == expected, (key, field)


def assert_same_workers(one: Gateway, other: Gateway) -> None:
    """The same records. A follower sees an event that waits for its task a second later."""
    for ours, theirs in zip(one.workers(), other.workers(), strict=True):
        for field, value in ours.items():
            if isinstance(value, float) and isinstance(theirs[field], float):
                assert abs(value - theirs[field]) < 2.0, field
            else:
                assert value == theirs[field], field


async def settle(gateways: list[Gateway], broker: Broker) -> None:
    """Wait until all have read everything."""
    await asyncio.sleep(30)
    (leader,) = [gateway for gateway in gateways if gateway.is_leading]
    for gateway in gateways:
        assert gateway.pipeline.hub.history.position == leader.pipeline.hub.history.position


def base_of(one: History) -> float:
    """The wall time when the loop's time is 0: most senders have the right clock."""
    ahead = sorted(event["timestamp"] - at for at, event in one.arrivals)
    return ahead[len(ahead) // 2] - 1_000.0


async def play(one: History, broker: Broker, chance: random.Random, between: Any = None) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for at, event in one.arrivals:
        if (seconds := began + at - loop.time()) > 0:
            await asyncio.sleep(seconds)
        broker.send(event)
        if between is not None:
            await between()


@pytest.mark.parametrize("seed", range(tries(40)))
def test_a_follower_has_the_stream_and_the_state_of_the_leader(seed: int) -> None:
    one = history(seed)

    async def main() -> None:
        server, broker = MemoryServer(), Broker()
        base = base_of(one)
        gateways = [Gateway(server, broker, name, base) for name in ("a", "b")]
        for gateway in gateways:
            await gateway.start()
            await asyncio.sleep(2)
        await play(one, broker, random.Random(seed))
        await settle(gateways, broker)
        leader, follower = gateways
        assert leader.is_leading and not follower.is_leading
        assert leader.stream() == follower.stream()
        assert_same_tasks(leader, follower)
        assert_same_workers(leader, follower)
        sent = sorted((e["timestamp"], e["type"], e.get("uuid", "")) for _, e in one.arrivals)
        got = sorted(
            (e["timestamp"], e["type"], e.get("uuid", ""))
            for e in leader.events()
            if e["type"] != "task-lost"
        )
        assert sent == got
        for gateway in gateways:
            await gateway.pipeline.stop()

    run(main())


@pytest.mark.parametrize("seed", range(tries(40)))
def test_the_stream_and_the_state_are_complete_whoever_leads(seed: int) -> None:
    """Leaders are killed, stopped in order, cut off, and all are away for a while, as the events arrive."""
    one, chance = history(seed), random.Random(seed)
    random.seed(seed)  # of the replicas

    async def main() -> None:
        server, broker = MemoryServer(), Broker()
        base = base_of(one)
        gateways = [Gateway(server, broker, name, base) for name in ("a", "b", "c")]
        for gateway in gateways:
            await gateway.start()
        await asyncio.sleep(2)

        async def disturb() -> None:
            if chance.random() > 0.04:
                return
            index = chance.randrange(len(gateways))
            gateway = gateways[index]
            match chance.randrange(5):
                case 0:
                    await gateway.kill()
                case 1:
                    await gateway.stop()
                case 2:
                    server.disconnect(gateway.engine)
                    return
                case 3:
                    server.partition(gateway.engine)
                    await asyncio.sleep(chance.uniform(0.1, 6.0))
                    server.heal(gateway.engine)
                    return
                case 4:
                    for each in gateways:
                        await each.kill()
                    await asyncio.sleep(chance.uniform(0.1, 6.0))
                    for at, each in enumerate(gateways):
                        gateways[at] = Gateway(server, broker, f"{each.name[0]}{chance.random()}", base)
                        await gateways[at].start()
                    return
            gateways[index] = Gateway(server, broker, f"{gateway.name[0]}{chance.random()}", base)
            await gateways[index].start()

        await play(one, broker, chance, disturb)
        await settle(gateways, broker)
        first = gateways[0]
        for other in gateways[1:]:
            assert first.stream() == other.stream()
            assert_same_tasks(first, other)
        sent = sorted((e["timestamp"], e["type"], e.get("uuid", "")) for _, e in one.arrivals)
        got = sorted(
            (e["timestamp"], e["type"], e.get("uuid", "")) for e in first.events() if e["type"] != "task-lost"
        )
        assert sent == got
        assert not any(b"gateway-gap" in message for message in first.stream())
        for gateway in gateways:
            await gateway.pipeline.stop()

    run(main())
