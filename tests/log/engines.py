"""The servers of the engines of the log, for tests: real ones, started once for a test module."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from celery_gateway.broker.urls import Access
from celery_gateway.log.engine import Engine
from celery_gateway.log.memory_log import MemoryLog, MemoryServer
from celery_gateway.log.rabbitmq_log import RabbitMQLog
from celery_gateway.log.redis_log import RedisLog
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis_server import RedisServer

BYTES = 64 << 20
AGE_SECONDS = 3_600.0


class Server(Protocol):
    """A server that keeps logs.

    Attributes:
        can_restart: whether it can restart, and what was appended is still there then.
        can_trim: whether its engine implements ``trim``.
    """

    can_restart: bool
    can_trim: bool

    def engine(self, name: str, *, max_bytes: int = BYTES, age_seconds: float = AGE_SECONDS) -> Engine:
        """Return a new engine, not open. Engines with the same name have the same log."""

    def restart(self) -> None:
        """Restart in good order, and wait until clients can connect. It blocks."""


class RabbitMQServer:
    """A RabbitMQ node."""

    can_restart = True
    can_trim = False

    def __init__(self, node: RabbitMQ, url: str) -> None:
        self.node = node
        self.url = url

    def engine(self, name: str, *, max_bytes: int = BYTES, age_seconds: float = AGE_SECONDS) -> RabbitMQLog:
        return RabbitMQLog(
            [self.url],
            access=Access(),
            name=f"celery-gateway.{name}",
            age_seconds=age_seconds,
            max_bytes=max_bytes,
        )

    def restart(self) -> None:
        self.node.stop_app()
        self.node.start_app()


def start_rabbitmq(request: pytest.FixtureRequest, *, is_own: bool = False) -> RabbitMQServer:
    node: RabbitMQ = request.getfixturevalue("own_rabbitmq" if is_own else "rabbitmq")
    return RabbitMQServer(node, node.add_vhost(f"log-{request.node.name.partition('[')[0][-40:]}"))


class PersistentRedis:
    """A Redis that writes everything to the disk."""

    can_restart = can_trim = True

    def __init__(self, folder: Path) -> None:
        self.redis = RedisServer(folder, "--appendonly", "yes", "--appendfsync", "always")
        self.redis.start()

    def engine(self, name: str, *, max_bytes: int = BYTES, age_seconds: float = AGE_SECONDS) -> RedisLog:
        return RedisLog(
            [self.redis.url],
            access=Access(),
            name=f"celery-gateway.{name}",
            age_seconds=age_seconds,
            max_bytes=max_bytes,
        )

    def restart(self) -> None:
        self.redis.stop()
        self.redis.start()


def start_redis(request: pytest.FixtureRequest, *, is_own: bool = False) -> PersistentRedis:
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    server = PersistentRedis(factory.mktemp("redis"))
    request.addfinalizer(server.redis.stop)
    return server


class Memory:
    """Logs in this process."""

    can_restart = False
    can_trim = True

    def __init__(self) -> None:
        self._servers: dict[str, MemoryServer] = {}

    def engine(self, name: str, *, max_bytes: int = BYTES, age_seconds: float = AGE_SECONDS) -> MemoryLog:
        return self._servers.setdefault(name, MemoryServer(max_bytes=max_bytes)).engine()

    def restart(self) -> None:
        raise NotImplementedError


def start_memory(request: pytest.FixtureRequest, *, is_own: bool = False) -> Memory:
    return Memory()


Start = Callable[..., Server]
"""``start(request, is_own=False)``: with ``is_own``, no other test uses the server, so it can be restarted.
What it starts is a fixture, or ended by ``request.addfinalizer``."""

ENGINES: dict[str, Start] = {"rabbitmq": start_rabbitmq, "redis": start_redis, "memory": start_memory}
"""By the kind of the engine."""
