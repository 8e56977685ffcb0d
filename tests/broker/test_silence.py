"""Silence of the broker: a held event loop ends no connection, a silent broker is detected."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import uvloop
from kombu import Connection as KombuConnection

from celery_gateway.broker.redis_connection import RedisConnection
from celery_gateway.broker.silence import BrokerSilentError, SilenceMonitor, running_timeout
from tests.support.amqp_sink import consuming
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis_server import redis_server

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
loops = pytest.mark.parametrize("loop", LOOPS)


def run(loop: str, main: Awaitable[None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60):
            await main

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(whole())


def publish(url: str, body: bytes = b'{"type": "a"}') -> None:
    with KombuConnection(url) as connection:
        connection.default_channel.basic_publish_confirm(
            connection.default_channel.prepare_message(body), exchange="celeryev", routing_key="a"
        )


def test_heartbeats_are_sent_with_few_turns_of_the_event_loop(broker: str) -> None:
    """Every turn takes 0.6 s: aiormq's own heartbeat takes a timer and three turns."""

    async def main() -> None:
        async with consuming(f"{broker}?heartbeat=1", silence_seconds=0.5, check_seconds=60) as sink:
            held = 0.0
            while held < 3.6:
                time.sleep(0.6)  # noqa: ASYNC251
                held += 0.6
                await asyncio.sleep(0)
            await asyncio.to_thread(publish, broker)
            await sink.until(lambda: len(sink.messages) == 1)
            assert sink.losses == 0 and len(sink.statuses) == 1

    run("uvloop", main())


@loops
def test_aiormqs_own_monitor_is_switched_off(loop: str, proxy: Proxy, broker: str) -> None:
    """Gateway and broker stand still, like a machine that is suspended, and continue at the same time."""

    async def main() -> None:
        async with consuming(f"{proxy.url(broker)}?heartbeat=1", silence_seconds=10) as sink:
            (transport,) = [
                task.get_coro().cr_frame.f_locals["self"]  # type: ignore[union-attr]
                for task in asyncio.all_tasks()
                if task.get_coro().__qualname__ == "Connection.__heartbeat"  # type: ignore[union-attr]
            ]
            proxy.stall()
            time.sleep(0.5)  # noqa: ASYNC251  (holds the event loop)
            proxy.resume()
            assert not transport.is_connection_was_stuck
            transport._Connection__last_frame_time -= 3_000  # seconds without a frame, for the library
            assert not transport.is_connection_was_stuck
            await asyncio.to_thread(publish, broker)
            await sink.until(lambda: len(sink.messages) == 1)
            assert sink.losses == 0

    run(loop, main())


@pytest.fixture
def proxy(rabbitmq: RabbitMQ) -> Iterator[Proxy]:
    with Proxy(rabbitmq.port) as proxy:
        yield proxy


def test_a_silent_broker_is_detected_in_time(broker: str, proxy: Proxy) -> None:
    async def main() -> None:
        async with consuming(proxy.url(broker), silence_seconds=0.5, check_seconds=0.1) as sink:
            await asyncio.to_thread(proxy.stall)
            await sink.until(lambda: len(sink.statuses) > 1, 5)
            assert not sink.statuses[1].is_consuming
            await sink.until(lambda: "silent for too long" in sink.statuses[-1].reason, 5)
            await asyncio.to_thread(proxy.resume)
            await sink.until(lambda: sink.statuses[-1].is_consuming, 10)
            assert sink.losses == 1

    run("uvloop", main())


def test_a_silent_broker_is_detected_without_heartbeats(broker: str, proxy: Proxy) -> None:
    async def main() -> None:
        url = f"{proxy.url(broker)}?heartbeat=0"
        async with consuming(url, silence_seconds=0.5, check_seconds=0.1) as sink:
            await asyncio.to_thread(proxy.stall)
            await sink.until(lambda: len(sink.statuses) > 1, 5)
            await asyncio.to_thread(proxy.resume)
            await sink.until(lambda: sink.statuses[-1].is_consuming, 15)
            assert sink.losses == 1

    run("asyncio", main())


# ------------------------------------------------------------------------------------- Redis


def test_a_redis_reader_that_was_held_waits_for_answers(folder: Path) -> None:
    """A thread that waits for the event loop neither reads nor pings meanwhile."""
    with redis_server(folder) as server:
        broker = RedisConnection(server.url)
        broker.open()
        subscription = broker.subscribe(["celeryev*"], silence_seconds=0.3, ping_seconds=0.1)
        for _ in range(2):
            time.sleep(0.35)
            assert subscription.read(0.05) is None
        for _ in range(10):
            subscription.read(0.05)  # pings are answered: longer than the limit
        assert server._process is not None
        server._process.signal(signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError, match="no answer"):
                for _ in range(20):
                    subscription.read(0.05)
        finally:
            server._process.signal(signal.SIGCONT)
        subscription.close()
        broker.close()


# ------------------------------------------------------------------------------------- pure


class FakeBroker:
    """The number of reads, set by a test, and of our heartbeats."""

    def __init__(self) -> None:
        self.reads = self.heartbeats = 0
        self.on_heartbeat: Callable[[], object] = lambda: None

    def monitor(self, limit_seconds: float, heartbeat_seconds: float = 0.0) -> SilenceMonitor:
        return SilenceMonitor(lambda: self.reads, self.send_heartbeat, limit_seconds, heartbeat_seconds)

    def send_heartbeat(self) -> None:
        self.heartbeats += 1
        self.on_heartbeat()


@loops
def test_silence_is_counted_in_ticks(loop: str) -> None:
    async def main() -> None:
        broker = FakeBroker()
        monitor = broker.monitor(0.2)
        monitor.start()
        for _ in range(2):
            time.sleep(0.3)  # noqa: ASYNC251
            await asyncio.sleep(0.001)
        assert not monitor.ended.done()
        for _ in range(10):
            broker.reads += 1
            await asyncio.sleep(0.03)
        assert not monitor.ended.done()
        with pytest.raises(BrokerSilentError):
            await asyncio.wait_for(monitor.ended, 2)
        monitor.stop()

    run(loop, main())


async def test_heartbeats_are_sent_at_their_interval_until_the_end() -> None:
    times: list[float] = []
    broker = FakeBroker()
    broker.on_heartbeat = lambda: times.append(asyncio.get_running_loop().time())
    monitor = broker.monitor(0.1, 0.03)  # a tick each 0.01 s
    monitor.start()
    async with asyncio.timeout(30):
        while broker.heartbeats < 5:
            broker.reads += 1
            await asyncio.sleep(0.005)
    monitor.stop()
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.03
    heartbeats = broker.heartbeats
    await asyncio.sleep(0.05)
    assert broker.heartbeats == heartbeats


async def test_a_failed_heartbeat_is_not_the_last_one(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    broker = FakeBroker()
    broker.on_heartbeat = fail
    monitor = broker.monitor(0.1, 0.01)
    monitor.start()
    async with asyncio.timeout(30):
        while broker.heartbeats < 2:
            broker.reads += 1
            await asyncio.sleep(0.001)
        with pytest.raises(BrokerSilentError):
            await monitor.ended
    heartbeats = broker.heartbeats
    await asyncio.sleep(0.05)
    assert broker.heartbeats == heartbeats, "there is a tick after the end"
    assert "ZeroDivisionError" in caplog.text


@loops
def test_a_timeout_counts_the_time_in_which_the_event_loop_runs(loop: str) -> None:
    async def main() -> None:
        async with running_timeout(0.2):
            for _ in range(2):
                time.sleep(0.25)  # noqa: ASYNC251
                await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with running_timeout(0.1):
                await asyncio.sleep(5)

    run(loop, main())
