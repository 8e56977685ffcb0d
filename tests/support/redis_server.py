"""Private Redis servers on free ports of 127.0.0.1, with sentinels, and what publishers send there."""

import base64
import json
import shlex
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from celery import Celery

from tests.support.rabbitmq import Process, free_port, wait_for


class RedisServer:
    """One server that keeps nothing on the disk; `start()` it, and `stop()` it."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.program = shutil.which("redis-server") or ""
        assert self.program, "redis-server is missing: run sh tests/support/setup-system.sh as root"
        self.port = port or free_port()
        self.log = folder / f"redis-{self.port}.log"
        self._args = [
            *(self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            *("--dir", str(folder), *options),
        ]
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *, is_ready: bool = True) -> None:
        before = self.log.stat().st_size if self.log.exists() else 0
        self._process = Process(self._args, log=self.log)
        if is_ready:
            self._process.wait_until(
                lambda: "Ready to accept connections" in self.log.read_text(errors="replace")[before:], 10
            )

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def client(self, **options: Any) -> "redis.Redis[bytes]":
        return redis.Redis(port=self.port, **options)


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Sentinels:
    """A master, a replica, and one sentinel that watches them as `mymaster`."""

    def __init__(self, folder: Path) -> None:
        self.master = RedisServer(folder)
        self.replica = RedisServer(folder, "--replicaof", f"127.0.0.1 {self.master.port}")
        self.port = free_port()
        self._conf = folder / f"sentinel-{self.port}.conf"
        self._log = folder / f"sentinel-{self.port}.log"
        self._conf.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor mymaster 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n"
        )
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"sentinel://127.0.0.1:{self.port}/0"

    def __enter__(self) -> "Sentinels":
        try:
            self.master.start()
            self.replica.start()
            assert wait_for(lambda: b"up" in self._link(), 10), self.replica.log.read_text()
            self._process = Process([self.master.program, self._conf, "--sentinel"], log=self._log)
            assert wait_for(self._knows_both, 15), self._log.read_text()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None:
            self._process.kill()
        self.master.stop()
        self.replica.stop()

    def current(self) -> int | None:
        """The port of the master as the sentinel says it."""
        with redis.Redis(port=self.port) as client:
            found = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
        return int(found[1]) if found else None

    def _link(self) -> bytes:
        with self.replica.client() as client:
            return client.info("replication").get("master_link_status", "").encode()

    def _knows_both(self) -> bool:
        with suppress(redis.RedisError), redis.Redis(port=self.port) as client:
            return len(client.execute_command("SENTINEL", "REPLICAS", "mymaster")) == 1
        return False


def envelope(event: dict[str, Any]) -> bytes:
    """An event as kombu publishes it."""
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(event).encode()).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"hostname": "w1@localhost"},
            "properties": {
                "body_encoding": "base64",
                "delivery_info": {"exchange": "celeryev", "routing_key": "task.started"},
                "delivery_mode": 1,
                "delivery_tag": str(uuid.uuid4()),
                "priority": 0,
            },
        }
    ).encode()


@contextmanager
def dispatching(url: str, options: dict[str, Any] | None = None, **conf: Any) -> Iterator[None]:
    """Celery's own dispatcher at work: what a worker that runs tasks sends, until the block ends."""
    stopping = threading.Event()

    def send() -> None:
        with Celery(broker=url, set_as_current=False) as app:
            app.conf.update(broker_transport_options=options or {}, **conf)
            processed = 0
            while not stopping.is_set():
                with (
                    suppress(Exception),
                    app.connection_for_write() as connection,
                    app.events.Dispatcher(connection, hostname="w1@localhost") as worker,
                ):
                    while not stopping.wait(0.1):
                        processed = _work(worker, processed)
                stopping.wait(0.1)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(10)


def _work(worker: Any, processed: int) -> int:
    task = str(uuid.uuid4())
    worker.send("task-sent", uuid=task, name="shop.charge", queue="celery", retry=False)
    worker.send("task-received", uuid=task, name="shop.charge", retry=False)
    worker.send("task-started", uuid=task, retry=False)
    worker.send("worker-heartbeat", freq=2, active=0, processed=processed + 1, retry=False)
    return processed + 1


def commands(remedy: str, program: str) -> list[list[str]]:
    """The command lines of a program in a remedy, as they are pasted into a shell."""
    parts = remedy.replace(" && ", "\n").replace(": ", "\n").replace("; ", "\n").splitlines()
    return [
        shlex.split(part.partition(" (")[0].rstrip(".)")) for part in parts if part.startswith(f"{program} ")
    ]
