"""`serve --workers N`: several processes, one address, one `/metrics`, one shutdown."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from celery_gateway.errors import GatewayError
from celery_gateway.http.listener import SharedAddress
from celery_gateway.settings import Settings
from tests.support.command import QUIET, call
from tests.support.gateway_process import ROOT, GatewayProcess
from tests.support.rabbitmq import wait_for
from tests.support.redis_server import RedisServer, envelope, redis_server
from tests.support.stream_client import NdjsonStream

PROCESSES = ("--workers", "2", "--log", "redis")
STREAMS = 16
"""So many that no process is without one."""
CONNECTIONS = 400
DEADLINE_SECONDS = 40


class Gateway(GatewayProcess):
    """A gateway with two processes."""

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        super().__init__(redis.url, folder, options=PROCESSES)

    def start(self, timeout_seconds: float = DEADLINE_SECONDS) -> None:
        super().start(timeout_seconds)
        self.until(processes=2)

    def processes(self) -> list[int]:
        """The pids of the processes that serve."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def metrics(self) -> dict[str, float]:
        """The metrics without labels, from the process that a new connection leads to."""
        families = text_string_to_metric_families(httpx.get(f"{self.url}/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        names = [sample.name for sample in samples if not sample.labels]
        assert len(names) == len(set(names))
        return {
            sample.name.removeprefix("celery_gateway_"): sample.value
            for sample in samples
            if not sample.labels
        }

    def until(self, **values: float) -> None:
        """Wait until ten requests for metrics in a row have returned these values."""
        last: dict[str, float] = {}

        def are_there() -> bool:
            nonlocal last
            for _ in range(10):
                last = self.metrics()
                if any(last[name] != value for name, value in values.items()):
                    return False
            return True

        assert wait_for(are_there, DEADLINE_SECONDS), f"{values}\n{last}\n{self.tail()}"


@contextmanager
def running(redis: RedisServer, folder: Path) -> Iterator[Gateway]:
    """A gateway with two processes; when it has ended, its processes have, too."""
    gateway = Gateway(redis, folder)
    pids = []
    try:
        gateway.start()
        pids = gateway.processes()
        yield gateway
    finally:
        gateway.stop()
        assert wait_for(lambda: not any(map(is_running, pids)), DEADLINE_SECONDS)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that waits for its parent to read its exit code does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@contextmanager
def streaming(gateway: Gateway, count: int = STREAMS) -> Iterator[list[NdjsonStream]]:
    """Streams of a gateway, over all processes."""
    with ExitStack() as opened:
        yield [opened.enter_context(NdjsonStream(gateway.url)) for _ in range(count)]


def sockets(pid: int) -> int:
    """How many sockets a process has open."""
    count = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            count += os.readlink(descriptor).startswith("socket:")
    return count


def publish(client: "Redis[bytes]", task: str) -> None:
    """Send an event of a task."""
    event = {"type": "task-sent", "uuid": task, "name": "shop.pay", "hostname": "w1@localhost"}
    client.publish("/0.celeryev/task.sent", envelope(event | {"timestamp": time.time()}))


@pytest.fixture(scope="module")
def redis(folder: Path) -> Iterator[RedisServer]:
    with redis_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(redis: RedisServer, folder: Path) -> Iterator[Gateway]:
    with running(redis, folder) as started:
        yield started


def test_processes_share_the_connections(gateway: Gateway) -> None:
    pids = gateway.processes()
    before = [sockets(pid) for pid in pids]
    with ExitStack() as opened:
        for _ in range(CONNECTIONS):
            opened.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))

        def accepted() -> list[int]:
            return [sockets(pid) - count for pid, count in zip(pids, before, strict=True)]

        assert wait_for(lambda: sum(accepted()) >= CONNECTIONS, DEADLINE_SECONDS), accepted()
        assert min(accepted()) > 0.3 * CONNECTIONS, accepted()


def test_each_process_returns_the_metrics_of_all(gateway: Gateway, redis: RedisServer) -> None:
    known = gateway.metrics()["tasks_known"]
    with streaming(gateway), redis.client() as publisher:
        publish(publisher, "of-metrics")
        # Streams are added up; all processes have the same tasks.
        gateway.until(subscriptions=STREAMS, tasks_known=known + 1, source_consuming=1, processes=2)
    gateway.until(subscriptions=0)


def test_a_killed_process_is_replaced_and_the_streams_of_the_others_go_on(
    gateway: Gateway, redis: RedisServer
) -> None:
    with streaming(gateway) as streams, redis.client() as publisher:
        before = gateway.metrics()
        killed, other = gateway.processes()
        os.kill(killed, signal.SIGKILL)
        assert wait_for(lambda: any(stream.closed(0) for stream in streams), DEADLINE_SECONDS)

        def is_replaced() -> bool:
            assert httpx.get(f"{gateway.url}/tasks").status_code == 200, "a process that is not ready"
            return len(gateway.processes()) == 2 and gateway.metrics()["processes"] == 2

        assert wait_for(is_replaced, DEADLINE_SECONDS), gateway.tail()
        gateway.until(processes=2, processes_replaced_total=before["processes_replaced_total"] + 1)
        after = gateway.metrics()
        totals = [name for name in before if name.endswith("_total")]
        assert len(totals) > 5 and all(after[name] >= before[name] for name in totals)

        pids = gateway.processes()
        assert other in pids and killed not in pids and len(pids) == 2
        open_streams = [stream for stream in streams if not stream.closed(0)]
        assert 0 < len(open_streams) < STREAMS

        def has_arrived() -> bool:
            # Again and again: Redis keeps nothing while the leader of the log changes.
            publish(publisher, "after")
            return all(
                any(event.get("uuid") == "after" for event in stream.events) for stream in open_streams
            )

        assert wait_for(has_arrived, DEADLINE_SECONDS), gateway.tail()
    log = gateway.log.read_text()
    assert log.count(f"(pid {killed}) was ended by SIGKILL: starting another one") == 1
    assert "Traceback" not in log


def test_sigterm_drains_all_processes(redis: RedisServer, tmp_path: Path) -> None:
    with running(redis, tmp_path) as gateway, streaming(gateway) as streams:
        assert gateway.log.read_text().count("listening on") == 1
        assert gateway.stop() == 0, gateway.tail()
        for stream in streams:
            assert stream.closed()
            assert stream.events[-1]["type"] == "gateway-close" and stream.events[-1]["reason"] == "drain"
        log = gateway.log.read_text()
    assert log.count("SIGTERM: shutting down") == 1
    assert "Traceback" not in log and "ERROR" not in log and "WARNING" not in log, log


def test_a_second_signal_ends_processes_that_hang(redis: RedisServer, tmp_path: Path) -> None:
    with running(redis, tmp_path) as gateway:
        hanging = gateway.processes()[0]
        os.kill(hanging, signal.SIGSTOP)
        os.kill(gateway.pid, signal.SIGINT)
        assert wait_for(lambda: "SIGINT: shutting down" in gateway.log.read_text(), DEADLINE_SECONDS)
        os.kill(gateway.pid, signal.SIGINT)
        assert wait_for(lambda: not is_running(hanging), DEADLINE_SECONDS)
        assert wait_for(lambda: not is_running(gateway.pid), DEADLINE_SECONDS)
        assert gateway.stop() == 130, gateway.tail()


def test_processes_end_when_the_supervisor_was_killed(redis: RedisServer, tmp_path: Path) -> None:
    with running(redis, tmp_path) as gateway, streaming(gateway, 4) as streams:
        pids = gateway.processes()
        os.kill(gateway.pid, signal.SIGKILL)
        for stream in streams:
            assert stream.closed()
            assert stream.events[-1]["type"] == "gateway-close"
        assert wait_for(lambda: not any(map(is_running, pids)), DEADLINE_SECONDS)


def test_a_setting_that_cannot_be_used_is_reported_once(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "celery_gateway", "serve", *PROCESSES, "--port", "0"),
            *("--broker", "redis://127.0.0.1:1", "--tls-cert", str(missing)),
        ],
        cwd=ROOT,
        env=QUIET,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.count("missing.pem") == 1 and done.stderr.startswith("Error: "), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.unit
def test_several_processes_need_a_shared_log() -> None:
    done = call("serve", "--workers", "2")
    assert done.returncode == 2
    assert "--workers 2 needs a shared log" in done.stderr and "--log rabbitmq" in done.stderr


@pytest.mark.unit
def test_an_open_address_is_refused_as_with_one_process() -> None:
    done = call("serve", *PROCESSES, "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 2 and "refused to listen on 0.0.0.0" in done.stderr


@pytest.mark.unit
@pytest.mark.parametrize("balances", [True, False])
def test_a_port_has_one_gateway(balances: bool) -> None:
    address = SharedAddress(Settings(port=0), balances=balances)
    port = address.reserved.getsockname()[1]
    listeners = [address.socket(listens=True), address.socket(listens=False)]
    try:
        assert {listener.getsockname()[1] for listener in listeners} == {port}
        with pytest.raises(GatewayError, match=f"port {port} on 127.0.0.1 is already in use"):
            SharedAddress(Settings(port=port), balances=balances)
    finally:
        for listener in listeners:
            listener.close()
        address.close()
