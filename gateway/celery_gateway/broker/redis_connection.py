"""A connection to Redis: the channels of Celery's events, and the workers' mailboxes.

- kombu opens the connections (database, TLS, sentinels, credentials) and names the channels
  (``fanout_prefix``, ``global_keyprefix``). Messages are read here (``redis_subscription``).
- Nothing is declared, so nothing stays behind when a gateway is killed. A queue of kombu's is a member of the
  set ``_kombu.binding.<exchange>``, and a publisher that declares the exchange as ``topic`` pushes each event
  to a list for each member, even if nobody reads it. Older versions of the gateway declared such queues;
  their members and lists are deleted (``sweep``), because nothing ever read them.

Blocks, so it belongs into a thread.
"""

import base64
import json
import logging
import socket
import ssl
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from kombu import Connection
from kombu.exceptions import KombuError

from celery_gateway.broker.redaction import without_password
from celery_gateway.broker.redis_replies import ReplyList
from celery_gateway.broker.redis_subscription import Subscription
from celery_gateway.broker.urls import BY_URL, Access
from celery_gateway.errors import TransportError

_OPTIONS: dict[str, Any] = {
    "socket_connect_timeout": 10,  # seconds
    "socket_timeout": 30,  # seconds
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, option): value
        for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))
        if hasattr(socket, option)
    },
}
_DEFAULT_PREFIX = f"{BY_URL.queue_prefix}."
_LEGACY_SENTINEL_PREFIX = "/{db}."
"""With sentinels, kombu before 5.4 did not replace ``{db}`` by the number of the database."""

log = logging.getLogger(__name__)


class RedisConnection:
    """A connection to one Redis, or to the master that sentinels name: ``open`` it, and ``close`` it.

    Args:
        url: as ``urls.brokers`` returns it.
        access: how the gateway connects; its transport options replace equal ones in ``options``.
        options: transport options that replace the gateway's defaults.

    Raises:
        TransportError: the package for Redis is not installed.
        ValueError: the URL cannot be read.
    """

    def __init__(self, url: str, access: Access = BY_URL, options: Mapping[str, Any] | None = None) -> None:
        self._package = _package(url)
        self._queue_prefix = access.queue_prefix
        self._has_legacy_channels = bool(access.transport_options.get("sentinel_fanout_compat"))
        tls = access.ssl
        if url.startswith("rediss") and not tls and "ssl_" not in url:
            tls = {"ssl_cert_reqs": ssl.CERT_NONE}  # kombu's default, without its warning at each connection
        self._connection = Connection(
            url, ssl=tls, transport_options={**_OPTIONS, **(options or {}), **access.transport_options}
        )
        self._channel: Any = None
        self._client: Any = None
        self._swept: set[str] = set()

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The errors that a broker, or the network, can cause."""
        return (OSError, KombuError, ValueError, self._package.exceptions.RedisError)

    def open(self) -> None:
        """Connect.

        Raises:
            Exception: any error of the connection (see ``diagnose``).
        """
        transport = self._connection.transport
        self._channel = transport.create_channel(transport)  # it sends a PING
        with self._channel.conn_or_acquire() as client:
            # With the same connections, but without kombu's prefixing, which has only the commands that kombu
            # uses.
            self._client = self._package.Redis(connection_pool=client.connection_pool)

    def close(self) -> None:
        """Close all connections. May be called in any state."""
        channel, self._channel = self._channel, None
        if channel is not None:
            transport = self._connection.transport
            transport.close_connection(transport)

    def topics(self, exchange: str) -> list[str]:
        """Return the patterns of the channels on which the events of an exchange are published."""
        return self._topics(exchange, "/*" if self._channel.fanout_patterns else "")

    def subscribe(self, patterns: Sequence[str], **options: float) -> Subscription:
        """Return a subscription that the server has confirmed.

        Args:
            options: those of ``Subscription``.
        """
        subscription = Subscription(self._client.pubsub(), self._package, **options)
        try:
            subscription.add(patterns)
        except BaseException:
            subscription.close()
            raise
        return subscription

    def is_replica(self) -> bool:
        """Return whether it is a replica, which refuses writes; ``False`` without the permission to ask."""
        try:
            role = self._client.execute_command("ROLE")
        except self._package.exceptions.ResponseError:  # no permission, or an old server
            return False
        return bool(role) and role[0] in (b"slave", "slave")

    def sweep(self, exchange: str) -> int:
        """Delete the bindings and lists that older versions of the gateway have left behind.

        Without the permissions for it, nothing is done. A list that a publisher creates at the same moment is
        deleted by the next sweep.

        Returns:
            The number of bindings.
        """
        channel, client = self._channel, self._client
        prefix = channel.global_keyprefix
        sets = [f"{prefix}_kombu.binding.{exchange}", f"{prefix}_kombu.binding_permanent.{exchange}"]
        try:
            members = client.smembers(sets[0])
            ours = {member: queue for member in members if (queue := self._own_queue(member))}
            if ours:
                for key in sets:
                    client.srem(key, *ours)
            queues = self._swept | set(ours.values())
            if queues:
                steps = [f"{channel.sep}{step}" if step else "" for step in channel.priority_steps]
                client.delete(*(f"{prefix}{queue}{step}" for queue in queues for step in steps))
            self._swept = set(ours.values())
        except self._package.exceptions.ResponseError as error:
            log.debug("redis: nothing was swept: %s", error)
            return 0
        return len(ours)

    def publish(self, exchange: str, message: Mapping[str, Any], headers: Mapping[str, Any]) -> int:
        """Send a message to all subscribers of a fanout exchange; return their number."""
        payload = json.dumps(
            {
                "body": base64.b64encode(json.dumps(message).encode()).decode(),
                "content-type": "application/json",
                "content-encoding": "utf-8",
                "headers": dict(headers),
                "properties": {
                    "body_encoding": "base64",
                    "delivery_info": {"exchange": exchange, "routing_key": ""},
                    "delivery_mode": 1,
                    "delivery_tag": str(uuid.uuid4()),
                    "priority": 0,
                },
            }
        )
        return sum(self._client.publish(topic, payload) for topic in self._topics(exchange, ""))

    def queue_lengths(self, queues: Sequence[str]) -> list[dict[str, int | Exception]]:
        """Return the lengths of the lists of some queues.

        Returns:
            For each queue the lengths by priority step, or the error of Redis in place of a length.
        """
        channel = self._channel
        steps = list(channel.priority_steps)
        with self._client.pipeline(transaction=False) as pipeline:
            for queue in queues:
                for step in steps:
                    ending = f"{channel.sep}{step}" if step else ""
                    pipeline.llen(f"{channel.global_keyprefix}{queue}{ending}")
            lengths = pipeline.execute(raise_on_error=False)
        count = len(steps)
        return [
            dict(zip(map(str, steps), lengths[at * count : (at + 1) * count], strict=True))
            for at in range(len(queues))
        ]

    def reply_list(self, key: str) -> ReplyList:
        """Return a list for replies with the routing key ``key`` of the default exchange."""
        return ReplyList(self._client, f"{self._channel.global_keyprefix}{key}")

    def _topics(self, exchange: str, ending: str) -> list[str]:
        channel = self._channel
        prefixes = [channel.keyprefix_fanout]
        if self._has_legacy_channels and hasattr(channel, "master_name"):
            prefixes.append(_LEGACY_SENTINEL_PREFIX)
        return [f"{channel.global_keyprefix}{p}{exchange}{ending}" for p in dict.fromkeys(prefixes)]

    def _own_queue(self, member: bytes | str) -> str | None:
        text = member if isinstance(member, str) else member.decode("utf-8", "replace")
        queue: str = text.rpartition(self._channel.sep)[2]
        return queue if queue.startswith((_DEFAULT_PREFIX, f"{self._queue_prefix}.")) else None


def _package(url: str) -> Any:
    """Return redis-py.

    Raises:
        TransportError: it is not installed.
    """
    try:
        import redis
        import redis.backoff
        import redis.retry
    except ImportError:
        raise TransportError(
            f"{without_password(url)}: the package for Redis is not installed; "
            "run: pip install 'celery-gateway[redis]'"
        ) from None
    return redis
