"""Connections to the Redis that keeps the log, by its broker URL.

URL, TLS and transport options mean what they mean for kombu (kombu/transport/redis.py). Each client has one
connection, or one at a time, and belongs to one user: whoever cancels a command, or gets an error, closes the
client, because a reply may still be on its way.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from kombu import Connection
from kombu.utils.url import url_to_parts

from celery_gateway.broker.address import address_of
from celery_gateway.broker.amqp_consumer import is_being_cancelled
from celery_gateway.broker.diagnosis import Phase, diagnose
from celery_gateway.broker.diagnosis_redis import is_error_reply
from celery_gateway.broker.permissions import redis_cli
from celery_gateway.broker.redaction import without_password, without_passwords
from celery_gateway.broker.urls import Access
from celery_gateway.errors import SourceError, TransportError
from celery_gateway.log.engine import LogError

T = TypeVar("T")

CONNECT_SECONDS = 5.0
SOCKET_SECONDS = 10.0
"""How long a command may take; a server that does not answer in this time is away."""
CLOSE_SECONDS = 1.0

_OPTIONS = ("socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options")
_OTHER_OPTIONS = ("health_check_interval", "client_name")
_KEEPALIVE = {
    getattr(socket, option): value
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))
    if hasattr(socket, option)
}
_DEFAULTS: dict[str, Any] = {
    "socket_connect_timeout": CONNECT_SECONDS,
    "socket_timeout": SOCKET_SECONDS,
    "socket_keepalive": True,
    "socket_keepalive_options": _KEEPALIVE,
}
_CERT_REQS: dict[int, str] = {
    ssl.CERT_NONE: "none",
    ssl.CERT_OPTIONAL: "optional",
    ssl.CERT_REQUIRED: "required",
}
_RAW = ("XREAD", "XRANGE", "XREVRANGE", "XINFO GROUPS")
"""Commands whose replies are read here, not by redis-py."""
_COMMANDS = (
    "exec",
    "multi",
    "xadd",
    "xgroup|create",
    "xinfo",
    "xrange",
    "xread",
    "xrevrange",
    "xtrim",
    "unlink",
)
_COMMAND_IN_TEXT = re.compile(
    r"Command # \d+ \(.*\) of pipeline caused error: (?:\(['\"](.*)['\"],\)|(.*))", re.DOTALL
)
_UNKNOWN_TO_OLD_SERVERS = ("syntax error", "unknown command", "wrong number of arguments")


class RedisClients:
    """A Redis, or the master that sentinels name: what connects to it, and its errors.

    Args:
        url: as ``urls.brokers`` returns it.
        access: how the gateway connects.
        key: the key of the log, for texts.

    Raises:
        TransportError: the package for Redis is not installed.
        SourceError: the URL cannot be read.
    """

    def __init__(self, url: str, access: Access, key: str) -> None:
        self._package = _package(url)
        self._url, self._access, self._key = url, access, key
        self._sentinels: list[tuple[str, int]] = []
        try:
            self.address = address_of(url)
            self._options = self._connection_options()
            self.client().connection_pool.make_connection()  # it checks the options
        except (ValueError, KeyError, TypeError, self._package.RedisError) as error:
            raise SourceError(f"the URL of the log cannot be read: {error}") from None

    @property
    def block_ms(self) -> int:
        """How long a command may block."""
        return int(min(1.0, (self._options["socket_timeout"] or 2.0) / 2) * 1_000)

    def client(self, *, reconnects: bool = True) -> Any:
        """Return a client of redis-py, which connects with its first command.

        Args:
            reconnects: whether it may connect again, unnoticed, when its connection was closed while it was
                idle.
        """
        redis, options = self._package.asyncio, dict(self._options)
        if not reconnects:
            options["redis_connect_func"] = self._connect_once()
        master = self._access.transport_options.get("master_name")
        if self._sentinels:
            sentinels = redis.Sentinel(
                self._sentinels,
                min_other_sentinels=self._access.transport_options.get("min_other_sentinels", 0),
                sentinel_kwargs=self._sentinel_options(),
                **options,
            )
            client = sentinels.master_for(master)
        else:
            kind = redis.Connection
            if "path" in options:
                kind = redis.UnixDomainSocketConnection
            elif options.pop("ssl", False):
                kind = redis.SSLConnection
            client = redis.Redis(connection_pool=redis.ConnectionPool(connection_class=kind, **options))
        for command in _RAW:
            client.set_response_callback(command, _as_it_is)
        return client

    async def close(self, *clients: Any) -> None:
        """Close all connections of some clients."""
        for client in clients:
            pool = client.connection_pool
            sentinels = getattr(getattr(pool, "sentinel_manager", None), "sentinels", ())
            for each in (pool, *(sentinel.connection_pool for sentinel in sentinels)):
                with suppress(OSError, TimeoutError, self._package.RedisError):
                    async with asyncio.timeout(CLOSE_SECONDS):
                        await each.disconnect()

    async def run(self, command: Awaitable[T]) -> T:
        """Return the result of a command of a client.

        redis-py reports some cancellations as other errors, and swallows others: not so this method.

        Raises:
            LogError: it failed.
        """
        try:
            result = await command
        except asyncio.CancelledError:
            if is_being_cancelled():
                raise
            raise LogError(f"the connection to {self.address.host_and_port} was closed") from None
        except (OSError, ValueError, RuntimeError, self._package.RedisError) as error:  # uvloop: RuntimeError
            if is_being_cancelled():
                raise asyncio.CancelledError from None
            raise self.error(error) from error
        if is_being_cancelled():
            raise asyncio.CancelledError
        return result

    def error(self, error: BaseException) -> LogError:
        """Return what an error of redis-py or the network means for the log."""
        if error.args and isinstance(error.args[0], str):  # redis-py adds the command, with its data
            error.args = (_COMMAND_IN_TEXT.sub(r"\1\2", error.args[0]), *error.args[1:])
        text = without_passwords(str(error))
        at = self.address.host_and_port
        if "NOPERM" in text or type(error).__name__ == "NoPermissionError":
            user = self.address.user or "default"
            grant = redis_cli(
                self.address, "ACL", "SETUSER", user, f"~{self._key}", *map("+{}".format, _COMMANDS)
            )
            return LogError(
                f"the user {user} lacks a permission for the log at {at}: {text}. Give it: {grant}"
            )
        if is_error_reply(error):
            if text.startswith("WRONGTYPE") or "wrong kind of value" in text:
                return LogError(
                    f"the key {self._key} at {at} is not a stream: delete it, or set another queue_prefix"
                )
            if any(each in text for each in _UNKNOWN_TO_OLD_SERVERS):
                return LogError(f"{at} cannot keep the log, which needs Redis 6.2 or later: {text}")
        found = diagnose(error, self._url, phase=Phase.LOST, access=self._access)
        if found.code in ("connection-lost", "unexpected") and is_error_reply(error):
            return LogError(f"{at} refused a command of the log: {text}")
        return LogError(f"{found.what}. {found.remedy}")

    def is_missing_key(self, error: BaseException) -> bool:
        """Return whether an error is the reply that the log does not exist."""
        return isinstance(error, self._package.ResponseError) and "no such key" in str(error)

    @property
    def reply_error(self) -> type[Exception]:
        """The class of error replies."""
        kind: type[Exception] = self._package.ResponseError
        return kind

    def _connection_options(self) -> dict[str, Any]:
        """Return the arguments of a connection of redis-py; ``ssl`` says whether it is one with TLS."""
        url, given = self._url, self._access.transport_options
        tls = self._access.ssl
        if url.startswith("rediss") and not tls and "ssl_" not in url:
            tls = {"ssl_cert_reqs": ssl.CERT_NONE}  # kombu's default, without its warning
        info = Connection(url, ssl=tls)
        options = {name: given.get(name, default) for name, default in _DEFAULTS.items()}
        options |= {name: given[name] for name in _OTHER_OPTIONS if name in given}
        options["retry"] = _no_retry(self._package)
        parts = url_to_parts(url.partition(";")[0])
        options |= {"username": parts.username, "password": parts.password}
        if self.address.scheme.endswith("+socket"):
            del options["socket_keepalive"], options["socket_keepalive_options"]
            return options | {"path": self.address.host, "db": int(self.address.vhost)}
        options["db"] = int((info.virtual_host or "0").strip("/") or 0)
        if info.ssl:
            options |= {"ssl": True, **(info.ssl if isinstance(info.ssl, dict) else {})}
            if isinstance(required := options.get("ssl_cert_reqs"), int):
                options["ssl_cert_reqs"] = _CERT_REQS[required]  # redis-py takes names only, before 5
        if self.address.scheme == "sentinel":
            for each in url.split(";"):
                sentinel = address_of(each)
                self._sentinels.append((sentinel.host, sentinel.port))
            return options
        return options | {"host": self.address.host, "port": self.address.port}

    def _sentinel_options(self) -> dict[str, Any]:
        given = self._access.transport_options.get("sentinel_kwargs") or {}
        defaults = {name: self._options[name] for name in _OPTIONS}
        return {**defaults, "retry": _no_retry(self._package), **given}

    def _connect_once(self) -> Any:
        connects = 0

        async def connect(connection: Any) -> None:
            nonlocal connects
            connects += 1
            if connects > 1:
                raise self._package.ConnectionError("Connection closed by server.")
            await connection.on_connect()

        return connect


def _no_retry(package: Any) -> Any:
    """A repeated ``XADD`` would append twice."""
    return package.asyncio.retry.Retry(package.backoff.NoBackoff(), 0)


def _as_it_is(reply: Any, **_: Any) -> Any:
    return reply


def _package(url: str) -> Any:
    """Return redis-py.

    Raises:
        TransportError: it is not installed.
    """
    try:
        import redis
        import redis.asyncio
        import redis.asyncio.retry
        import redis.backoff
    except ImportError:
        raise TransportError(
            f"{without_password(url)}: the log needs the package for Redis, which is not installed; "
            "run: pip install 'celery-gateway[redis]'"
        ) from None
    return redis
