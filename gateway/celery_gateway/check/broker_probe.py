"""The protocol of a broker's probe: it connects step by step, collects events, and asks workers.

Observations are put into a queue, in order. The last one may be an exception: the connection has ended.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from celery_gateway.check.step import Step
from celery_gateway.events.message import Message

MAX_REPLY_BYTES = 1 << 20


class WorkerReply(NamedTuple):
    """One worker's reply to a command.

    Attributes:
        command: its name in Celery, such as ``stats``.
        content: the reply, a JSON object.
    """

    command: str
    hostname: str
    content: Mapping[str, Any]


class MisroutedMessage(NamedTuple):
    """A message on another channel than those that a gateway subscribes to."""

    channel: str
    message: Message


class PublishersBlocked(Exception):
    """An alarm of the broker blocks all publishers."""


Observation = Message | WorkerReply | MisroutedMessage | BaseException


class BrokerProbe(Protocol):
    """The probe of one broker, from ``open`` to ``close``.

    Attributes:
        observations: of events and replies, in order.
        is_consuming: whether events are observed.
    """

    observations: asyncio.Queue[Observation]
    is_consuming: bool

    def open(self) -> AsyncIterator[Step]:
        """Give the steps until the probe is open, up to the first failure."""

    async def consume(self) -> None:
        """Begin to observe events, if the event exchange exists."""

    async def request(self, command: str, arguments: Mapping[str, Any]) -> None:
        """Send a command to all workers.

        Raises:
            PublishersBlocked: an alarm blocks it.
            Exception: the command could not be sent.
        """

    async def close(self) -> None:
        """Disconnect. Nothing stays behind at the broker."""


def worker_replies(body: bytes, command: str) -> Iterator[WorkerReply]:
    """Give the replies in a message: ``{hostname: {…}}``. What cannot be read gives none."""
    if len(body) > MAX_REPLY_BYTES:
        return
    try:
        by_hostname = json.loads(body)
    except (ValueError, RecursionError):
        return
    if isinstance(by_hostname, dict):
        for hostname, content in by_hostname.items():
            if isinstance(content, dict):
                yield WorkerReply(command, hostname, content)
