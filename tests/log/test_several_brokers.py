"""Several brokers with one log, in virtual time: one has kept messages, and the other is up to date."""

import asyncio
import json
from typing import Any

import pytest

from celery_gateway.broker.source import Sink, Status
from celery_gateway.log.memory_log import MemoryServer
from celery_gateway.pipeline.clock import Clock
from celery_gateway.pipeline.feed import Feed
from celery_gateway.pipeline.pipeline import Pipeline
from celery_gateway.pipeline.replication import Replication
from celery_gateway.state.replicated_table import ReplicatedTaskTable
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.completion import Completions
from celery_gateway.stream.hub import Hub
from tests.log.test_pipelines import Broker, KeptMessages
from tests.support.virtual_time import run

pytestmark = pytest.mark.unit

BASE = 1_000_000_000.0
CLUSTERS = ("fast", "slow")
OUTAGE_SECONDS = 1_000
"""Longer than the silence after which a worker is gone."""


class SlowMessages(KeptMessages):
    """A source that takes its time for each message."""

    async def run(self, sink: Sink) -> None:
        self.status = Status(True, "consuming")
        sink.status(self.status)
        for position in range(max(self.start, 1), 1_000_000):
            while position > len(self.broker.messages):
                await self.broker.arrived.wait()
            sink.message(self.broker.messages[position - 1])
            await asyncio.sleep(0.02)


def gateway(server: MemoryServer, brokers: dict[str, Broker], name: str) -> Pipeline:
    clock = Clock(now)
    tasks = ReplicatedTaskTable(keeps_origins=True, clusters=CLUSTERS)
    workers, hub = WorkerTable(has_clusters=True), Hub()
    completions = Completions(tasks, hub)
    replication = Replication(
        server.engine(), name, tasks, workers, hub, completions, clock, uncounted=CLUSTERS
    )
    sources = {"fast": KeptMessages(brokers["fast"]), "slow": SlowMessages(brokers["slow"])}
    feeds = [Feed(cluster, source, kept=source) for cluster, source in sources.items()]
    return Pipeline(feeds, tasks, workers, hub, completions, replication=replication, clock=clock)


def now() -> float:
    return BASE + asyncio.get_running_loop().time()


def event(type: str, hostname: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": type,
        "hostname": hostname,
        "pid": 1,
        "timestamp": now(),
        "utcoffset": 0,
        "clock": 1,
    } | fields


async def beat(brokers: dict[str, Broker], seconds: float) -> None:
    """Let one worker of each broker send a heartbeat every two seconds, and some others, too."""
    for _ in range(int(seconds / 2)):
        for cluster, broker in brokers.items():
            for number in range(1 if cluster == "fast" else 10):
                broker.send(event("worker-heartbeat", f"w{number}@{cluster}", freq=2.0, clock=int(now())))
        await asyncio.sleep(2)


def test_workers_of_a_broker_whose_messages_are_read_late_are_not_gone() -> None:
    async def main() -> None:
        server, brokers = MemoryServer(), {cluster: Broker() for cluster in CLUSTERS}
        first = gateway(server, brokers, "first")
        await first.start()
        await asyncio.sleep(1)
        await beat(brokers, 4)
        for cluster, broker in brokers.items():
            fields = {"uuid": cluster, "name": "shop.charge", "root_id": cluster, "parent_id": None}
            broker.send(event("task-started", f"w0@{cluster}", **fields))
        await asyncio.sleep(1)
        await first.stop()
        await beat(brokers, OUTAGE_SECONDS)
        leader, follower = gateway(server, brokers, "second"), gateway(server, brokers, "third")
        await leader.start()
        await asyncio.sleep(1)
        await follower.start()
        await beat(brokers, OUTAGE_SECONDS)
        await asyncio.sleep(5)
        for pipeline in (leader, follower):
            history = pipeline.hub.history
            entries = history.after(history.evicted, history.position - history.evicted)
            types = [json.loads(entry.json)["type"] for entry in entries]
            assert "task-lost" not in types and types.count("worker-heartbeat") > 4_000
            assert {record.task.state for record in pipeline.tasks.newest()} == {"STARTED"}
            assert {json.loads(worker)["alive"] for worker in pipeline.view_workers()} == {True}
            await pipeline.stop()

    run(main())
