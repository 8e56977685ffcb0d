"""The workers' mailboxes, which Celery calls pidboxes: commands go out, and answers come in.

Rules of this room
- ``Command`` is all that can be said. None of them changes a task, a queue or a pool.
- It blocks, so it belongs into a thread. Every step has its time-out, and the connection is made for the
  occasion: what becomes of it touches nobody who consumes.
- A command is one message to the fanout exchange ``celery.pidbox`` (``celery`` being Celery's
  ``control_exchange``), an answer one to a queue of ours (as in
  kombu/pidbox.py, whose client is not used because it waits for ever for a broker that is away). Commands
  that are asked together reach each worker in this order.
- Answers are read for ids and names alone: their arguments may be of any size.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple

import msgspec
from kombu import Connection, Consumer, Message, Producer, Queue
from kombu.exceptions import KombuError
from kombu.pidbox import Mailbox

from gateway import __version__
from gateway.broker import BY_URL, Access
from gateway.errors import Unasked

CONNECT_SECONDS = 5
SOCKET_SECONDS = 5
POLL_SECONDS = 0.1
MAX_SECONDS = 15.0
"""How long answers are listened for, though more and more of them come."""
MAX_ANSWER_BYTES = 64 << 20
MAX_ANSWERS = 20_000

_JSON_TYPES = frozenset({None, "", "application/json"})
_AMQP = frozenset({"amqp", "amqps", "pyamqp"})
_TRANSPORT_OPTIONS: dict[str, dict[str, Any]] = {
    "redis": {"socket_timeout": SOCKET_SECONDS, "socket_connect_timeout": CONNECT_SECONDS},
    "rediss": {"socket_timeout": SOCKET_SECONDS, "socket_connect_timeout": CONNECT_SECONDS},
    "memory": {"polling_interval": 0.05},  # seconds; kombu looks once a second by itself
}


class Command(Enum):
    """What can be said to a worker (celery/worker/control.py)."""

    ENABLE_EVENTS = "enable_events"
    SCHEDULED = "scheduled"
    RESERVED = "reserved"
    ACTIVE = "active"


_ARGUMENTS: dict[Command, dict[str, Any]] = {Command.ACTIVE: {"safe": True}}  # arguments as text, if at all


class Answer(NamedTuple):
    """One worker's answer: whether it did as it was told, its own words, and the tasks it named.

    ``names`` are pairs of uuid and name; ``words`` are empty where it listed tasks.
    """

    hostname: str
    command: Command
    is_done: bool
    words: str
    names: list[tuple[str, str]]


class _Task(msgspec.Struct, gc=False):
    """celery/worker/request.py, ``info``; ``scheduled`` wraps it as its ``request``."""

    id: Any = None
    name: Any = None
    request: "_Task | None" = None


_Listed = dict[str, list[_Task] | dict[str, Any]]
_decode = msgspec.json.Decoder(_Listed).decode


def ask(
    url: str,
    commands: Sequence[Command],
    hostnames: Sequence[str] | None,
    silence_seconds: float,
    is_stopping: Callable[[], bool] = lambda: False,
    *,
    access: Access = BY_URL,
    control_exchange: str = "celery",
) -> Iterator[Answer]:
    """Send commands to some workers, or to all (``None``); give their answers as they come.

    It ends when all those named have answered, after a silence of ``silence_seconds``, or when told to stop.

    Raises:
        Unasked: the commands could not be sent.
    """
    try:
        connection = _connection(url, access)
    except (TypeError, ValueError, KeyError) as error:  # a query that kombu does not know, for one
        raise Unasked(f"the broker's URL cannot be used: {error}") from None
    try:
        connected = connection.connect()
        if connection.transport.driver_type == "amqp":  # py-amqp waits for a broker's answer without an end
            connected.transport.sock.settimeout(SOCKET_SECONDS)
        mailbox = Mailbox(control_exchange, type="fanout")
        yield from _asked(connection, mailbox, commands, hostnames, silence_seconds, is_stopping)
        connection.release()
    except (OSError, KombuError, *connection.connection_errors, *connection.channel_errors) as error:
        raise Unasked(f"{type(error).__name__}: {error}".removesuffix(": ")) from error
    finally:
        if connection.connected:
            connection.collect()  # without a word: a broker that is blocked would not answer


def _connection(url: str, access: Access) -> Connection:
    def refuse(reason: str) -> None:
        raise Unasked("the broker takes no messages: an alarm is on")

    transport = url.partition("://")[0]
    options = _TRANSPORT_OPTIONS.get(transport, {})
    if transport in _AMQP:
        name = {"connection_name": f"celery-gateway {__version__} control"}
        options = {"on_blocked": refuse, "client_properties": name}
    return Connection(
        url,
        ssl=access.ssl,
        login_method=access.login_method,
        connect_timeout=CONNECT_SECONDS,
        heartbeat=10,
        transport_options={**access.transport_options, **options},
    )


def _asked(
    connection: Connection,
    mailbox: Mailbox,
    commands: Sequence[Command],
    hostnames: Sequence[str] | None,
    silence_seconds: float,
    is_stopping: Callable[[], bool],
) -> Iterator[Answer]:
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
    tickets = {secrets.token_hex(16): command for command in commands}
    answers: list[Answer] = []
    expected = None if hostnames is None else {(host, command) for host in hostnames for command in commands}
    count = 0
    quiet_at = end_at = time.monotonic() + MAX_SECONDS

    def take(message: Message) -> None:
        nonlocal count, quiet_at
        count += 1
        if command := tickets.get(message.headers.get("ticket")):
            quiet_at = time.monotonic() + silence_seconds
            answers.extend(_read(message, command))

    # Ended with its connection: to cancel it would be one more thing to wait for.
    Consumer(channel, [replies], no_ack=True, on_message=take).consume()
    producer = Producer(channel, auto_declare=False)
    mailbox.exchange(channel).declare()
    for ticket, command in tickets.items():
        producer.publish(
            {
                "method": command.value,
                "arguments": _ARGUMENTS.get(command, {}),
                "destination": None if hostnames is None else list(hostnames),
                "pattern": None,
                "matcher": None,
                "ticket": ticket,
                "reply_to": {"exchange": mailbox.reply_exchange.name, "routing_key": reply_key},
            },
            exchange=mailbox.exchange.name,
            serializer="json",
            headers={"clock": 0, "expires": time.time() + MAX_SECONDS},
            retry=False,
        )
    quiet_at = time.monotonic() + silence_seconds
    while time.monotonic() < min(quiet_at, end_at) and count < MAX_ANSWERS and not is_stopping():
        try:
            connection.drain_events(timeout=POLL_SECONDS)
        except TimeoutError:
            continue
        yield from answers
        if expected is not None:
            expected -= {(answer.hostname, answer.command) for answer in answers}
            if not expected:
                break
        answers.clear()
    channel.after_reply_message_received(replies.name)


def _read(message: Message, command: Command) -> Iterator[Answer]:
    """Give the answers in a message: Celery sends one, ``{hostname: …}``. What cannot be read gives none."""
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
    if (
        message.content_type not in _JSON_TYPES
        or message.headers.get("compression")
        or len(body) > MAX_ANSWER_BYTES
    ):
        return
    try:
        listed = _listed(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return
    for hostname, answer in listed.items():
        if isinstance(answer, dict):  # {"ok": words} or {"error": words}
            yield Answer(hostname, command, "ok" in answer, str(answer.get("ok") or answer.get("error")), [])
        else:
            yield Answer(hostname, command, True, "", list(_names(answer)))


def _listed(body: bytes) -> _Listed:
    try:
        return _decode(body)
    except msgspec.DecodeError:  # a NaN among the arguments, perhaps, which Celery sends and JSON has not
        return msgspec.convert(json.loads(body), _Listed)


def _names(tasks: Sequence[_Task]) -> Iterator[tuple[str, str]]:
    for task in tasks:
        about = task.request or task
        if type(about.id) is str and type(about.name) is str:
            yield about.id, about.name
