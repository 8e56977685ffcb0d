"""Sending commands of remote control to workers, and receiving their replies, if there are any.

- Each request has a connection of its own, so that an alarm or an error there does not affect the source.
- Every step has a timeout. (kombu's own client is not used, because it waits without end for a broker that is
  away.)
- Replies arrive in an exclusive queue, or at Redis in a list that expires (``redis_replies``).

Blocks, so it belongs into a thread.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from kombu import Connection, Consumer, Message, Producer, Queue
from kombu.exceptions import KombuError
from kombu.pidbox import Mailbox

from celery_gateway.broker.kombu_connection import kombu_connection
from celery_gateway.broker.pidbox import Command, PendingReplies, Reply, broadcast_message
from celery_gateway.broker.redis_connection import RedisConnection
from celery_gateway.broker.url_syntax import is_redis
from celery_gateway.broker.urls import BY_URL, Access
from celery_gateway.errors import SourceError, WorkerControlError

CONNECT_SECONDS = 5
SOCKET_SECONDS = 5
POLL_SECONDS = 0.1

BLOCKED: Final = "the broker blocks publishers, because of an alarm (memory or disk)"
_REDIS_OPTIONS = {"socket_timeout": SOCKET_SECONDS, "socket_connect_timeout": CONNECT_SECONDS}
_NO_REPLY_HEADERS: Final = {"clock": 0, "expires": 0}
"""Of a command without replies: it does not expire (kombu/pidbox.py)."""


def request(
    url: str,
    commands: Sequence[Command],
    hostnames: Sequence[str] | None,
    silence_seconds: float,
    is_stopping: Callable[[], bool] = lambda: False,
    *,
    access: Access = BY_URL,
    control_exchange: str = "celery",
) -> Iterator[Reply]:
    """Send commands to workers, and give their replies as they arrive.

    It ends when all workers in ``hostnames`` have replied to all commands, after a silence, or at the latest
    after ``pidbox.MAX_SECONDS``.

    Args:
        hostnames: the workers; ``None`` for all.
        silence_seconds: how long no reply has arrived when it ends.
        is_stopping: whether to end at once; called a few times a second.
        access: how the gateway connects.
        control_exchange: Celery's.

    Raises:
        WorkerControlError: the commands could not be sent.
    """
    pending = PendingReplies(commands, hostnames, silence_seconds, is_stopping)
    if is_redis(url):
        yield from _request_redis(url, pending, access, f"{control_exchange}.pidbox")
        return
    with _connected(url, access) as connection:
        mailbox = Mailbox(control_exchange, type="fanout")
        yield from _request_kombu(connection, mailbox, pending)


def broadcast(
    url: str,
    method: str,
    arguments: Mapping[str, Any],
    *,
    access: Access = BY_URL,
    control_exchange: str = "celery",
) -> None:
    """Send a command to all workers, which do not reply. On return the broker has it.

    At RabbitMQ it is sent in a transaction. A broker that blocks publishers reads what was published once its
    alarm ends, also from a connection that was closed. So the commit is sent only after a reply to a method
    behind the command: until then the broker drops the command with the connection.

    Raises:
        WorkerControlError: it could not be sent, or the broker has not confirmed it.
    """
    message = broadcast_message(method, arguments)
    if is_redis(url):
        with _connected_redis(url, access) as redis:
            redis.publish(f"{control_exchange}.pidbox", message, _NO_REPLY_HEADERS)
        return
    with _connected(url, access) as connection:
        mailbox = Mailbox(control_exchange, type="fanout")
        channel = connection.channel()
        mailbox.exchange(channel).declare()
        has_transactions = connection.transport.driver_type == "amqp"
        if has_transactions:
            channel.tx_select()
        Producer(channel, auto_declare=False).publish(
            message,
            exchange=mailbox.exchange.name,
            serializer="json",
            headers=_NO_REPLY_HEADERS,
            retry=False,
        )
        if has_transactions:
            mailbox.exchange(channel).declare(passive=True)
            channel.tx_commit()


@contextmanager
def _connected(url: str, access: Access) -> Iterator[Connection]:
    """Connect for the block.

    Raises:
        WorkerControlError: also for each error of the connection in the block.
    """
    try:
        connection = kombu_connection(
            url,
            access,
            "control",
            connect_seconds=CONNECT_SECONDS,
            heartbeat_seconds=10,
            on_blocked=_raise_blocked,
        )
    except (TypeError, ValueError, KeyError) as error:  # an invalid port, for example
        raise WorkerControlError(f"the broker URL cannot be used: {error}") from None
    try:
        connected = connection.connect()
        if connection.transport.driver_type == "amqp":  # py-amqp waits for replies of the broker without end
            connected.transport.sock.settimeout(SOCKET_SECONDS)
        yield connection
        connection.release()
    except (OSError, KombuError, *connection.connection_errors, *connection.channel_errors) as error:
        raise WorkerControlError(f"{type(error).__name__}: {error}".removesuffix(": ")) from error
    finally:
        if connection.connected:
            connection.collect()  # without a close handshake: a blocked broker would not reply to it


def _raise_blocked(reason: str) -> None:
    raise WorkerControlError(BLOCKED)


@contextmanager
def _connected_redis(url: str, access: Access) -> Iterator[RedisConnection]:
    """As ``_connected``, to a Redis."""
    try:
        connection = RedisConnection(url, access, _REDIS_OPTIONS)
    except (TypeError, ValueError, KeyError, SourceError) as error:
        raise WorkerControlError(f"the broker URL cannot be used: {error}") from None
    try:
        connection.open()
        yield connection
    except connection.errors as error:
        raise WorkerControlError(f"{type(error).__name__}: {error}".removesuffix(": ")) from error
    finally:
        with suppress(*connection.errors):
            connection.close()


def _request_redis(url: str, pending: PendingReplies, access: Access, exchange: str) -> Iterator[Reply]:
    key = f"{access.queue_prefix}.control.{secrets.token_hex(16)}"
    with _connected_redis(url, access) as connection:
        replies = connection.reply_list(key)
        replies.keep()
        expected = sum(
            connection.publish(exchange, message, pending.headers()) for message in pending.messages("", key)
        )
        while pending.is_waiting():
            for message, headers in replies.read():
                pending.add(message.body, message.content_type, message.compression, headers)
            yield from pending.take()
            time.sleep(POLL_SECONDS)
        replies.release(expected, max(pending.expires_at - time.time(), 1.0))


def _request_kombu(connection: Connection, mailbox: Mailbox, pending: PendingReplies) -> Iterator[Reply]:
    channel = connection.channel()
    reply_key = secrets.token_hex(16)
    replies = Queue(
        f"{reply_key}.{mailbox.reply_exchange.name}",
        exchange=mailbox.reply_exchange,
        routing_key=reply_key,
        durable=False,
        exclusive=True,
        auto_delete=True,
        expires=10,
    )

    def on_message(message: Message) -> None:
        body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
        pending.add(body, message.content_type, message.headers.get("compression"), message.headers)

    # The consumer ends with its connection: to cancel it would be one more reply to wait for.
    Consumer(channel, [replies], no_ack=True, on_message=on_message).consume()
    producer = Producer(channel, auto_declare=False)
    mailbox.exchange(channel).declare()
    for message in pending.messages(mailbox.reply_exchange.name, reply_key):
        producer.publish(
            message,
            exchange=mailbox.exchange.name,
            serializer="json",
            headers=pending.headers(),
            retry=False,
        )
    while pending.is_waiting():
        with suppress(TimeoutError):
            connection.drain_events(timeout=POLL_SECONDS)
        yield from pending.take()
    channel.after_reply_message_received(replies.name)
