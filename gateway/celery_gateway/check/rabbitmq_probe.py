"""The probe of RabbitMQ. It connects as the gateway does (aiormq), and declares nothing that stays behind.

The event exchange is looked for passively. Only if it exists it is declared, as Celery declares it: that
changes nothing, and fails if the exchange has other properties.
"""

import asyncio
import json
import os
import platform
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from pamqp.commands import Basic
from pamqp.common import FieldValue

from celery_gateway import __version__
from celery_gateway.broker import alarm
from celery_gateway.broker.address import address_of, amqp_url
from celery_gateway.broker.diagnosis import Phase
from celery_gateway.broker.pidbox import command_message
from celery_gateway.broker.redis_channels import PIDBOX_EXCHANGE
from celery_gateway.broker.urls import Access
from celery_gateway.check.broker_probe import Observation, PublishersBlocked, worker_replies
from celery_gateway.check.network import failed
from celery_gateway.check.step import Step, found, passed
from celery_gateway.events.message import Message

TIMEOUT_SECONDS = 10.0
_LIMITS: dict[str, FieldValue] = {
    "x-max-length": 10_000,
    "x-max-length-bytes": 16 << 20,
    "x-overflow": "drop-head",
}
_ERRORS = (
    *(OSError, TimeoutError, aiormq.AMQPError, aiormq.exceptions.ChannelInvalidStateError, RuntimeError),
)


class RabbitMQProbe:
    """See ``BrokerProbe``."""

    def __init__(self, url: str, exchange: str, access: Access) -> None:
        self.observations: asyncio.Queue[Observation] = asyncio.Queue()
        self.is_consuming = False
        self._url = url
        self._address = address_of(url)
        self._exchange = exchange
        self._access = access
        self._queue = f"{access.queue_prefix}.check.{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}"
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None

    async def open(self) -> AsyncIterator[Step]:
        address = self._address
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                url = amqp_url(self._url, heartbeat_seconds=10, name=f"celery-gateway {__version__} check")
                self._connection = await aiormq.connect(url)
        except TimeoutError:
            yield found(
                "login",
                "not-amqp",
                f"{address.host_and_port} accepts connections, but does not reply to AMQP within "
                f"{TIMEOUT_SECONDS:g} s",
                "Correct the port (RabbitMQ's are 5672, and 5671 with TLS; 15672 is its management page), or "
                "check whether the broker is overloaded: rabbitmqctl status",
            )
            return
        except _ERRORS as error:
            step = self._failed("login", error, Phase.LOGIN)
            if step.finding in ("vhost-unknown", "vhost-refused", "limit-reached"):
                yield passed("login", f"the user {address.user} is accepted")
                step = step._replace(name="vhost")
            yield step
            return
        self._connection.closing.add_done_callback(self._on_close)
        yield passed("login", f"{_server(self._connection)} accepts the user {address.user}")
        yield passed("vhost", address.vhost)
        try:
            yield await self._exchange_step()
            self._channel = channel = await self._open_channel()
            await channel.queue_declare(self._queue, exclusive=True, auto_delete=True, arguments=_LIMITS)
            await channel.queue_declare(f"{self._queue}.replies", exclusive=True, auto_delete=True)
            await channel.basic_consume(f"{self._queue}.replies", self._on_reply, no_ack=True)
            await self.consume()
            if self.is_consuming:
                yield passed("queue", "a queue can be declared, bound and read")
        except _ERRORS as error:
            yield self._failed("queue", error, Phase.CONSUME)

    async def consume(self) -> None:
        if not await self._exists(self._exchange):
            return
        channel = self._channel
        assert channel is not None
        await channel.queue_bind(self._queue, self._exchange, routing_key="#")
        await channel.basic_consume(self._queue, self._on_event, no_ack=True)
        self.is_consuming = True

    async def request(self, command: str, arguments: Mapping[str, Any]) -> None:
        if not await self._exists(PIDBOX_EXCHANGE):  # no worker has opened its mailbox yet
            with suppress(aiormq.exceptions.ChannelAccessRefused):
                await self._publish(b"", "", alarm.ROUTING_KEY, Basic.Properties())
            return
        properties = Basic.Properties(
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=1,
            headers={"clock": 0, "expires": time.time() + TIMEOUT_SECONDS},
        )
        # Replies through the default exchange need no permission beyond that to write to the mailboxes.
        message = command_message(command, arguments, "", f"{self._queue}.replies", None, command)
        await self._publish(json.dumps(message).encode(), PIDBOX_EXCHANGE, "", properties)

    async def close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                await asyncio.wait_for(self._connection.close(), 2)

    def _failed(self, name: str, error: BaseException, phase: Phase) -> Step:
        return failed(name, error, self._url, phase, self._exchange, self._access)

    async def _exchange_step(self) -> Step:
        if not await self._exists(self._exchange):
            return passed("exchange", f"{self._exchange} does not exist: no worker has sent an event here")
        channel = await self._open_channel()
        try:
            await channel.exchange_declare(self._exchange, exchange_type="topic", durable=True)
        except aiormq.exceptions.ChannelPreconditionFailed as error:
            return self._failed("exchange", error, Phase.CONSUME)
        except aiormq.exceptions.ChannelAccessRefused:  # the gateway needs no permission to declare it
            return passed("exchange", f"{self._exchange} exists")
        await channel.close()
        return passed("exchange", f"{self._exchange} exists, as Celery declares it")

    async def _publish(
        self, body: bytes, exchange: str, routing_key: str, properties: Basic.Properties
    ) -> None:
        """Publish, and wait until the broker has confirmed it.

        Raises:
            PublishersBlocked: an alarm blocks it.
        """
        assert self._connection is not None
        channel = await self._open_channel(confirms=True)

        async def publish() -> None:
            await channel.basic_publish(
                body,
                exchange=exchange,
                routing_key=routing_key,
                properties=properties,
                timeout=TIMEOUT_SECONDS,
            )
            await channel.close()  # a broker that blocks may accept the first message, but not reply to this

        publishing = asyncio.create_task(publish())
        while not publishing.done():
            await asyncio.wait({publishing}, timeout=alarm.POLL_SECONDS)
            if not publishing.done() and await alarm.is_blocked(self._connection):
                publishing.cancel()
                raise PublishersBlocked
        await publishing

    async def _on_event(self, delivery: DeliveredMessage) -> None:
        properties = delivery.header.properties
        compression = (properties.headers or {}).get("compression")
        self.observations.put_nowait(
            Message(
                delivery.body,
                properties.content_type,
                properties.content_encoding,
                None if compression is None else str(compression),
            )
        )

    async def _on_reply(self, delivery: DeliveredMessage) -> None:
        ticket = (delivery.header.properties.headers or {}).get("ticket")
        for reply in worker_replies(delivery.body, str(ticket)):
            self.observations.put_nowait(reply)

    async def _exists(self, exchange: str) -> bool:
        channel = await self._open_channel()
        try:
            await channel.exchange_declare(exchange, passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return False
        await channel.close()
        return True

    async def _open_channel(self, confirms: bool = False) -> AbstractChannel:
        assert self._connection is not None
        return await self._connection.channel(publisher_confirms=confirms)

    def _on_close(self, closing: "asyncio.Future[Any]") -> None:
        error = asyncio.CancelledError() if closing.cancelled() else closing.exception()
        self.observations.put_nowait(error or ConnectionResetError())


def _server(connection: AbstractConnection) -> str:
    properties = connection.server_properties
    words = (properties.get("product", b"the broker"), properties.get("version", b""))
    return " ".join(str(word, "utf-8") if isinstance(word, bytes) else str(word) for word in words).strip()
