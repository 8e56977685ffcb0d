"""A whole RabbitMQ node that stops, restarts, or has an alarm. These tests have a node of their own."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from aiormq.abc import AbstractChannel
from celery import Celery
from kombu import Connection, Exchange, Queue

from celery_gateway.broker.pidbox_client import broadcast
from celery_gateway.errors import WorkerControlError
from tests.broker.test_diagnosis import closed, diagnosis_at
from tests.broker.test_worker_control import CONTROL, add_until_seen, started_gateway, started_worker
from tests.support.gateway_watch import watching
from tests.support.ledger import Ledger
from tests.support.rabbitmq import RabbitMQ, wait_for
from tests.support.stream_client import NdjsonStream

ALARM_SECONDS = 3.0
"""How long publishers are blocked."""
LOWEST, DEFAULT = "0.0000001", "0.4"
"""Memory watermarks: the first one causes an alarm."""


@pytest.fixture(scope="module")
def rabbitmq(own_rabbitmq: RabbitMQ) -> RabbitMQ:
    return own_rabbitmq


@pytest.mark.timeout(90)
def test_a_node_that_stops_and_one_that_restarts(rabbitmq: RabbitMQ, broker: str, folder: Path) -> None:
    with watching(broker, folder) as watch, Ledger(broker) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        rabbitmq.stop_app()
        watch.until_not_ready()
        watch.assert_logged(f"127.0.0.1:{rabbitmq.port}")
        rabbitmq.start_app()
        watch.until_gap()
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        with rabbitmq.down():
            watch.until_not_ready(f"127.0.0.1:{rabbitmq.port}")
        watch.until_gap()
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


async def test_the_diagnosis_of_a_node_that_stops(rabbitmq: RabbitMQ, broker: str) -> None:
    async def steps(channel: AbstractChannel) -> None:
        await asyncio.to_thread(rabbitmq.stop_app)
        try:
            await closed(channel)
        finally:
            await asyncio.to_thread(rabbitmq.start_app)

    diagnosis = await diagnosis_at(broker, steps)
    assert (diagnosis.code, "shutdown" in diagnosis.what) == ("closed-by-broker", True)


def test_a_memory_alarm_stops_publishers_and_no_stream(rabbitmq: RabbitMQ, broker: str, folder: Path) -> None:
    """With ``--control`` the gateway publishes, too: only that connection is blocked."""
    options = ("--control",)
    with watching(f"{broker}?heartbeat=1", folder, options=options) as watch, Ledger(broker) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        rabbitmq.ctl("set_vm_memory_high_watermark", LOWEST)
        try:
            assert wait_for(lambda: "memory" in rabbitmq.eval("rabbit_alarm:get_alarms()"), 10)
            published = [author.attempted for author in ledger.authors]
            time.sleep(ALARM_SECONDS)  # nothing happens that could be waited for
            blocked = [author.attempted for author in ledger.authors]
            assert all(after <= before + 1 for before, after in zip(published, blocked, strict=True))
        finally:
            rabbitmq.ctl("set_vm_memory_high_watermark", DEFAULT)
        ledger.wait_until_it_flows(watch.stream)
        assert {code for code, _ in watch.health.ready} == {200}, "the alarm must not make it unready"
        ledger.settle(watch.stream)
        assert not watch.stream.gaps


def test_an_alarm_stops_neither_the_gateway_nor_later_commands(
    rabbitmq: RabbitMQ, celery: Celery, broker: str, folder: Path
) -> None:
    with started_worker(celery, folder) as worker:
        rabbitmq.ctl("set_vm_memory_high_watermark", LOWEST)
        try:
            with started_gateway(broker, folder, *CONTROL) as gateway, NdjsonStream(gateway.url) as client:
                assert wait_for(lambda: "because of an alarm" in gateway.log.read_text(), 15), gateway.tail()
                assert gateway.is_ready()
                rabbitmq.ctl("set_vm_memory_high_watermark", DEFAULT)
                add_until_seen(celery, worker, client, 30)
        finally:
            rabbitmq.ctl("set_vm_memory_high_watermark", DEFAULT)


def test_a_command_that_an_alarm_has_refused_is_not_carried_out_after_it(
    rabbitmq: RabbitMQ, broker: str
) -> None:
    """The broker reads what a client published during an alarm afterwards, also if the client is gone."""
    with Connection(broker) as connection:
        channel = connection.channel()
        queue = pidbox_queue(channel)
        rabbitmq.ctl("set_vm_memory_high_watermark", LOWEST)
        try:
            assert wait_for(lambda: "memory" in rabbitmq.eval("rabbit_alarm:get_alarms()"), 10)
            with pytest.raises(WorkerControlError, match="because of an alarm"):
                broadcast(broker, "revoke", {"task_id": ["refused"]})
        finally:
            rabbitmq.ctl("set_vm_memory_high_watermark", DEFAULT)
        assert wait_for(lambda: rabbitmq.eval("rabbit_alarm:get_alarms()") == "[]", 10)
        broadcast(broker, "revoke", {"task_id": ["confirmed"]})  # the broker has read the earlier connection
        assert wait_for(lambda: queue.get() is not None, 10)
        assert queue.get() is None


def pidbox_queue(channel: Any) -> Queue:
    """Return a queue that gets the commands to workers, declared."""
    exchange = Exchange("celery.pidbox", "fanout", durable=False, channel=channel)
    queue = Queue("commands", exchange, durable=False, exclusive=True, auto_delete=True, channel=channel)
    queue.declare()
    return queue
