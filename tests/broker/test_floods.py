"""A flood of messages is processed in order, for a short time in each turn of the event loop."""

import asyncio
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import pamqp.frame
import pytest
from kombu import Connection as KombuConnection
from pamqp import commands
from pamqp.heartbeat import Heartbeat

from celery_gateway.broker.amqp_frames import Delivery, DeliveryReader
from celery_gateway.broker.thread_source import Session, ThreadSource
from celery_gateway.broker.urls import BY_URL
from celery_gateway.events.message import Message
from tests.broker.test_amqp_frames import delivery
from tests.support.amqp_sink import Sink
from tests.support.cpu_time import scaled
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import received

COUNT = 1_000
HEARTBEAT = pamqp.frame.marshal(Heartbeat(), 0)
OTHER = pamqp.frame.marshal(commands.Basic.QosOk(), 1)
BURN_SECONDS = 0.001
MAX_PER_TURN = 21
"""Number of pieces of work in a turn of the event loop: 20 ms of them, and the last one."""


_burned = 0


def burn() -> None:
    """Use ``BURN_SECONDS`` of CPU time, and count it as a piece of work."""
    global _burned
    _burned += 1
    end = time.thread_time() + BURN_SECONDS
    while time.thread_time() < end:
        pass


class Turns:
    """Counts the pieces of work in each turn of the event loop."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._before = _burned
        self._handle = self._loop.call_soon(self._count)

    def _count(self) -> None:
        self.counts.append(_burned - self._before)
        self._before = _burned
        self._handle = self._loop.call_soon(self._count)

    def stop(self) -> None:
        self._handle.cancel()


class Transport:
    """A transport; pausing and resuming its reading must alternate."""

    def __init__(self) -> None:
        self.is_paused = False
        self.pauses = 0

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused = True
        self.pauses += 1

    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False


def opened(take: Callable[[Delivery], None]) -> tuple[DeliveryReader, Transport]:
    reader, transport = DeliveryReader(take), Transport()
    reader.set_transport(transport)
    return reader, transport


@pytest.mark.parametrize("count_per_read", [COUNT, 30, 3])
async def test_a_flood_of_deliveries_is_processed_in_turns(count_per_read: int) -> None:
    tags: list[int] = []

    def take(delivery: Delivery) -> None:
        burn()
        tags.append(delivery.tag)

    reader, transport = opened(take)
    frames = [delivery(tag, b"x" * 900) for tag in range(1, COUNT + 1)]
    chunks = [b"".join(frames[at : at + count_per_read]) for at in range(0, COUNT, count_per_read)]
    turns = Turns()
    for _ in range(10 * COUNT):
        for _ in range(32):  # as many reads as uvloop does in a turn
            if transport.is_paused or not chunks:
                break
            reader.feed_data(chunks.pop(0))
        await asyncio.sleep(0)
        if len(tags) == COUNT:
            break
    turns.stop()
    assert tags == list(range(1, COUNT + 1))
    assert max(turns.counts) <= MAX_PER_TURN
    await reader.caught_up()
    assert transport.pauses and not transport.is_paused
    assert reader.reads > COUNT // 30  # for ``silence``: the broker is heard while the rest is processed


@pytest.mark.parametrize("error", [None, ConnectionResetError("by the broker")])
async def test_a_lost_connection_is_reported_after_all_deliveries(error: Exception | None) -> None:
    taken: list[Delivery] = []
    reader, transport = opened(lambda delivery: (burn(), taken.append(delivery))[1])
    protocol = asyncio.StreamReaderProtocol(reader)
    frames = b"".join(OTHER * (tag % 50 == 0) + delivery(tag, b"{}") for tag in range(1, 151))
    reader.feed_data(frames + OTHER)
    assert 0 < len(taken) < 150 and transport.is_paused
    protocol.connection_lost(error)
    passed = b""
    with nullcontext() if error is None else pytest.raises(ConnectionResetError):
        while read := await reader.read(1 << 20):
            passed += read
    assert len(taken) == 150
    assert passed.replace(HEARTBEAT, b"") == OTHER * 4


async def test_an_abort_drops_unprocessed_deliveries() -> None:
    taken: list[Delivery] = []
    reader, _ = opened(lambda delivery: (burn(), taken.append(delivery))[1])
    reader.feed_data(b"".join(delivery(tag, b"{}") for tag in range(1, 151)))
    count = len(taken)
    reader.abandon()
    reader.feed_eof()
    await reader.read()
    await reader.caught_up()
    await asyncio.sleep(0)
    assert len(taken) == count < 150


async def test_other_frames_pass_while_deliveries_are_ignored() -> None:
    taken: list[Delivery] = []
    reader, _ = opened(lambda delivery: (burn(), taken.append(delivery))[1])
    reader.feed_data(b"".join(delivery(tag, b"{}") for tag in range(1, 151)) + OTHER)
    count = len(taken)
    reader.ignore_deliveries()
    await reader.caught_up()
    reader.feed_eof()
    assert (await reader.read()).endswith(OTHER)
    assert len(taken) == count


async def test_reading_resumes_when_no_one_pauses_it() -> None:
    taken: list[Delivery] = []
    reader, transport = opened(lambda delivery: (burn(), taken.append(delivery))[1])
    others = OTHER * (200_000 // len(OTHER))  # more than the stream holds
    reader.feed_data(others + b"".join(delivery(tag, b"{}") for tag in range(1, 101)))
    await reader.caught_up()
    assert len(taken) == 100 and transport.is_paused
    await reader.readexactly(len(others))
    assert not transport.is_paused and transport.pauses == 1


@pytest.mark.parametrize("count_per_read", [50, 1])
async def test_a_long_message_is_processed_in_parts_before_the_next_one(count_per_read: int) -> None:
    taken: list[str] = []

    def parts(tag: int) -> Iterator[None]:
        for part in range(100):
            burn()
            taken.append(f"{tag}.{part}")
            yield

    def take(delivery: Delivery) -> Iterator[None] | None:
        if delivery.tag % 5 == 0:
            return parts(delivery.tag)
        taken.append(str(delivery.tag))
        return None

    reader, transport = opened(take)
    chunks = [b"".join(delivery(tag + at, b"{}") for at in range(count_per_read)) for tag in range(1, 51)]
    chunks = chunks[: 50 // count_per_read]
    turns = Turns()
    while chunks or transport.is_paused:
        if not transport.is_paused:
            reader.feed_data(chunks.pop(0))
        await asyncio.sleep(0)
    turns.stop()
    expected = [[str(tag)] if tag % 5 else [f"{tag}.{part}" for part in range(100)] for tag in range(1, 51)]
    assert taken == [each for one in expected for each in one]
    assert max(turns.counts) <= MAX_PER_TURN


class BurningSink(Sink):
    """Uses CPU time for each message, and several turns for each tenth one."""

    def message(self, message: Message) -> Iterator[None] | None:  # type: ignore[override]
        burn()
        if not message.body.endswith(b"5"):
            super().message(message)
            return None
        return self._more(message)

    def _more(self, message: Message) -> Iterator[None]:
        for _ in range(5):
            burn()
            yield
        super().message(message)

    def status(self, status: object) -> None:
        self.messages.append(Message(b"status", None, None, None))


async def test_a_flood_from_a_thread_is_processed_in_turns() -> None:
    sink = BurningSink()

    def consume(url: str, session: Session) -> None:
        session.begin("here")
        for number in range(COUNT):
            session.message(Message(b"%d" % number, None, None, None))
        while not session.is_stopping():
            time.sleep(0.01)

    source = ThreadSource(["memory://"], consume, exchange="celeryev", name=None, access=BY_URL)
    running = asyncio.create_task(source.run(sink))
    turns = Turns()
    async with asyncio.timeout(30):
        while len(sink.messages) <= COUNT:  # noqa: ASYNC110
            await asyncio.sleep(0)
    turns.stop()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert [message.body for message in sink.messages] == [b"status", *(b"%d" % n for n in range(COUNT))]
    assert max(turns.counts) <= MAX_PER_TURN


async def test_a_stopped_thread_passes_on_no_more_messages() -> None:
    sink = BurningSink()

    def consume(url: str, session: Session) -> None:
        while not session.is_stopping():
            session.message(Message(b"{}", None, None, None))

    source = ThreadSource(["memory://"], consume, exchange="celeryev", name=None, access=BY_URL)
    running = asyncio.create_task(source.run(sink))
    async with asyncio.timeout(30):
        while not sink.messages:  # noqa: ASYNC110
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.sleep(0)
    count = len(sink.messages)
    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(running, 10)
    assert len(sink.messages) == count


def test_a_flooded_gateway_stops_without_processing_the_flood(broker: str, tmp_path: Path) -> None:
    """The broker's queue has ten seconds of work, and the socket as much of it as it takes."""
    gateway = GatewayProcess(broker, tmp_path)
    gateway.start()
    try:
        body = json.dumps([received(f"{number:036d}", "flood") for number in range(100)]).encode()
        os.kill(gateway.pid, signal.SIGSTOP)
        with KombuConnection(broker) as connection:
            channel = connection.default_channel
            message = channel.prepare_message(body, content_type="application/json", content_encoding="utf-8")
            for _ in range(2_000):
                channel.basic_publish(message, exchange="celeryev", routing_key="task.multi")
            channel.basic_publish_confirm(message, exchange="celeryev", routing_key="task.multi")
        before = cpu_seconds(gateway.pid) + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        os.kill(gateway.pid, signal.SIGCONT)
        assert gateway.stop(timeout_seconds=30) == 0, gateway.tail()
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < scaled(1.5)
    finally:
        gateway.stop()


def cpu_seconds(pid: int) -> float:
    """Return the user CPU time of a process."""
    user = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]
    return int(user) / os.sysconf("SC_CLK_TCK")
