"""The messages of remote control: commands to workers, and their replies. Celery calls a mailbox a pidbox.

- ``Command`` has the commands that the gateway sends by itself. None of them changes a task, a queue or a
  pool. A client may request a revoke, if the gateway allows it (``task_control``).
- A command is one message to the fanout exchange ``celery.pidbox`` (``celery`` is Celery's
  ``control_exchange``); a reply is one message to a queue of ours (kombu/pidbox.py,
  celery/worker/control.py).
- Replies are read for ids and names alone: arguments of tasks may have any size.

Pure but for the clock; ``pidbox_client`` sends and receives.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import msgspec

MAX_SECONDS = 15.0
"""How long replies are received, even if more and more of them arrive."""
MAX_REPLY_BYTES = 64 << 20
MAX_REPLIES = 20_000

_JSON_TYPES = frozenset({None, "", "application/json"})


class Command(Enum):
    """A command of remote control (celery/worker/control.py)."""

    ENABLE_EVENTS = "enable_events"
    SCHEDULED = "scheduled"
    RESERVED = "reserved"
    ACTIVE = "active"
    ACTIVE_QUEUES = "active_queues"


_ARGUMENTS: dict[Command, dict[str, Any]] = {Command.ACTIVE: {"safe": True}}  # tasks' arguments as text


class Reply(NamedTuple):
    """One worker's reply to one command.

    Attributes:
        is_success: whether the worker has executed the command.
        text: the worker's message, empty if it has listed tasks.
        names: uuid and name of each task that it has listed.
        queues: the names of the queues that it has listed.
    """

    hostname: str
    command: Command
    is_success: bool
    text: str
    names: list[tuple[str, str]]
    queues: Sequence[str] = ()


class _Task(msgspec.Struct, gc=False):
    """A listed task (celery/worker/request.py, ``info``); ``scheduled`` wraps it as its ``request``.

    Of a listed queue it has the name (kombu/entity.py, ``as_dict``).
    """

    id: Any = None
    name: Any = None
    request: "_Task | None" = None


_ByHostname = dict[str, list[_Task] | dict[str, Any]]
_decode = msgspec.json.Decoder(_ByHostname).decode


class PendingReplies:
    """Commands that are sent together, and the replies to them. Each worker gets them in this order.

    Args:
        hostnames: the workers that get them; ``None`` for all.
        silence_seconds: how long no reply has arrived when the wait ends.
        is_stopping: whether to stop at once.

    Attributes:
        expires_at: wall time after which no worker executes the commands (kombu/pidbox.py).
    """

    def __init__(
        self,
        commands: Sequence[Command],
        hostnames: Sequence[str] | None,
        silence_seconds: float,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._tickets = {secrets.token_hex(16): command for command in commands}
        self._hostnames = None if hostnames is None else list(hostnames)
        self._missing = None if hostnames is None else {(host, c) for host in hostnames for c in commands}
        self._silence_seconds = silence_seconds
        self._is_stopping = is_stopping
        self._replies: list[Reply] = []
        self._count = 0
        self._silent_at = self._end_at = time.monotonic() + MAX_SECONDS
        self.expires_at = time.time() + MAX_SECONDS

    def messages(self, exchange: str, routing_key: str) -> Iterator[dict[str, Any]]:
        """Give the messages of the commands; the wait for replies begins after the last one.

        Args:
            exchange, routing_key: where workers send their replies.
        """
        for ticket, command in self._tickets.items():
            arguments = _ARGUMENTS.get(command, {})
            yield command_message(command.value, arguments, exchange, routing_key, self._hostnames, ticket)
        self._silent_at = time.monotonic() + self._silence_seconds

    def headers(self) -> dict[str, Any]:
        """Return the headers of each message."""
        return {"clock": 0, "expires": self.expires_at}

    def add(
        self, body: bytes, content_type: str | None, compression: Any, headers: Mapping[str, Any]
    ) -> None:
        """Add a message that has arrived; one that cannot be read adds no reply."""
        self._count += 1
        if command := self._tickets.get(headers.get("ticket", "")):
            self._silent_at = time.monotonic() + self._silence_seconds
            self._replies.extend(_replies(body, content_type, compression, command))

    def is_waiting(self) -> bool:
        """Return whether to wait for more replies."""
        return (
            time.monotonic() < min(self._silent_at, self._end_at)
            and self._count < MAX_REPLIES
            and self._missing != set()
            and not self._is_stopping()
        )

    def take(self) -> Iterator[Reply]:
        """Give the replies that have arrived since the last call."""
        replies, self._replies = self._replies, []
        if self._missing is not None:
            self._missing -= {(reply.hostname, reply.command) for reply in replies}
        yield from replies


def command_message(
    method: str,
    arguments: Mapping[str, Any],
    exchange: str,
    routing_key: str,
    hostnames: Sequence[str] | None,
    ticket: str,
) -> dict[str, Any]:
    """Return the message of a command as kombu/pidbox.py writes it.

    Args:
        exchange, routing_key: where workers send their replies.
        hostnames: the workers that execute it; ``None`` for all.
        ticket: each reply has it in its headers.
    """
    return {
        **broadcast_message(method, arguments),
        "destination": None if hostnames is None else list(hostnames),
        "ticket": ticket,
        "reply_to": {"exchange": exchange, "routing_key": routing_key},
    }


def broadcast_message(method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message of a command to all workers, which do not reply."""
    return {
        "method": method,
        "arguments": dict(arguments),
        "destination": None,
        "pattern": None,
        "matcher": None,
    }


def _replies(body: bytes, content_type: str | None, compression: Any, command: Command) -> Iterator[Reply]:
    """Give the replies in a message: Celery sends one, ``{hostname: …}``."""
    if content_type not in _JSON_TYPES or compression or len(body) > MAX_REPLY_BYTES:
        return
    try:
        by_hostname = _by_hostname(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return
    for hostname, content in by_hostname.items():
        if isinstance(content, dict):  # {"ok": text} or {"error": text}
            text = str(content.get("ok") or content.get("error"))
            yield Reply(hostname, command, "ok" in content, text, [])
        elif command is Command.ACTIVE_QUEUES:
            queues = [queue.name for queue in content if type(queue.name) is str]
            yield Reply(hostname, command, True, "", [], queues)
        else:
            yield Reply(hostname, command, True, "", list(_names(content)))


def _by_hostname(body: bytes) -> _ByHostname:
    try:
        return _decode(body)
    except msgspec.DecodeError:  # a NaN in the arguments, for example, which Celery sends and JSON has not
        return msgspec.convert(json.loads(body), _ByHostname)


def _names(tasks: Sequence[_Task]) -> Iterator[tuple[str, str]]:
    for task in tasks:
        request = task.request or task
        if type(request.id) is str and type(request.name) is str:
            yield request.id, request.name
