"""The line to RabbitMQ: the gateway's own way (aiormq), and nothing is declared that outlives it.

The exchange is looked for passively. Only if it is there is it declared, as Celery does: that changes
nothing, and is refused where it is of another kind.
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

from gateway import __version__
from gateway.check.line import PIDBOX, Heard, answers, question
from gateway.check.network import failed
from gateway.check.step import Step, found, passed
from gateway.message import Message
from gateway.source.place import amqp_url, place_of

TIMEOUT_SECONDS = 10.0
_LIMITS: dict[str, FieldValue] = {
    "x-max-length": 10_000,
    "x-max-length-bytes": 16 << 20,
    "x-overflow": "drop-head",
}
_LOST = (OSError, TimeoutError, aiormq.AMQPError, aiormq.exceptions.ChannelInvalidStateError, RuntimeError)


class RabbitMQLine:
    """See ``Line``."""

    def __init__(self, url: str, exchange: str) -> None:
        self.heard: asyncio.Queue[Heard] = asyncio.Queue()
        self.listens = False
        self._url = url
        self._place = place_of(url)
        self._exchange = exchange
        self._queue = f"celery-gateway.check.{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}"
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None

    async def opening(self) -> AsyncIterator[Step]:
        place = self._place
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                url = amqp_url(self._url, heartbeat_seconds=10, name=f"celery-gateway {__version__} check")
                self._connection = await aiormq.connect(url)
        except TimeoutError:
            yield found(
                "login",
                "not-amqp",
                f"{place.address} accepts connections, but says nothing to AMQP within {TIMEOUT_SECONDS:g} s",
                "Correct the port (RabbitMQ's are 5672, with TLS 5671, and 15672 is its web page), or look "
                "whether the broker is overloaded: rabbitmqctl status",
            )
            return
        except _LOST as error:
            step = failed("login", error, self._url, self._exchange)
            if step.finding in ("vhost-unknown", "vhost-refused", "limit-reached"):
                yield passed("login", f"{place.user} may log in")
                step = step._replace(name="vhost")
            yield step
            return
        self._connection.closing.add_done_callback(self._lost)
        yield passed("login", f"{_server(self._connection)} lets {place.user} in")
        yield passed("vhost", place.vhost)
        try:
            yield await self._exchange_step()
            self._channel = channel = await self._new_channel()
            await channel.queue_declare(self._queue, exclusive=True, auto_delete=True, arguments=_LIMITS)
            await channel.queue_declare(f"{self._queue}.answers", exclusive=True, auto_delete=True)
            await channel.basic_consume(f"{self._queue}.answers", self._take_answer, no_ack=True)
            await self.listen()
            if self.listens:
                yield passed("queue", "a queue of ours can be declared, bound and read")
        except _LOST as error:
            yield failed("queue", error, self._url, self._exchange)

    async def _exchange_step(self) -> Step:
        if not await self._exists(self._exchange):
            return passed("exchange", f"{self._exchange} is not there yet: no worker ever sent an event here")
        channel = await self._new_channel()
        try:
            await channel.exchange_declare(self._exchange, exchange_type="topic", durable=True)
        except aiormq.exceptions.ChannelPreconditionFailed as error:
            return failed("exchange", error, self._url, self._exchange)
        except aiormq.exceptions.ChannelAccessRefused:  # not ours to declare, and no need to
            return passed("exchange", f"{self._exchange} is there")
        await channel.close()
        return passed("exchange", f"{self._exchange} is there, as Celery declares it")

    async def listen(self) -> None:
        if not await self._exists(self._exchange):
            return
        channel = self._channel
        assert channel is not None
        await channel.queue_bind(self._queue, self._exchange, routing_key="#")
        await channel.basic_consume(self._queue, self._take, no_ack=True)
        self.listens = True

    async def ask(self, name: str, arguments: Mapping[str, Any]) -> None:
        if not await self._exists(PIDBOX):
            return  # no worker has ever opened its mailbox
        channel = await self._new_channel(confirms=True)
        await channel.basic_publish(
            json.dumps(question(name, arguments, f"{self._queue}.answers")).encode(),
            exchange=PIDBOX,
            properties=Basic.Properties(
                content_type="application/json",
                content_encoding="utf-8",
                delivery_mode=1,
                headers={"clock": 0, "expires": time.time() + TIMEOUT_SECONDS},
            ),
            timeout=TIMEOUT_SECONDS,
        )
        await channel.close()

    async def close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                await asyncio.wait_for(self._connection.close(), 2)

    async def _take(self, delivery: DeliveredMessage) -> None:
        properties = delivery.header.properties
        compression = (properties.headers or {}).get("compression")
        self.heard.put_nowait(
            Message(
                delivery.body,
                properties.content_type,
                properties.content_encoding,
                None if compression is None else str(compression),
            )
        )

    async def _take_answer(self, delivery: DeliveredMessage) -> None:
        ticket = (delivery.header.properties.headers or {}).get("ticket")
        for answer in answers(delivery.body, str(ticket)):
            self.heard.put_nowait(answer)

    async def _exists(self, exchange: str) -> bool:
        channel = await self._new_channel()
        try:
            await channel.exchange_declare(exchange, passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return False
        await channel.close()
        return True

    async def _new_channel(self, confirms: bool = False) -> AbstractChannel:
        assert self._connection is not None
        return await self._connection.channel(publisher_confirms=confirms)

    def _lost(self, closing: "asyncio.Future[Any]") -> None:
        error = asyncio.CancelledError() if closing.cancelled() else closing.exception()
        self.heard.put_nowait(error or ConnectionResetError())


def _server(connection: AbstractConnection) -> str:
    properties = connection.server_properties
    words = (properties.get("product", b"the broker"), properties.get("version", b""))
    return " ".join(str(word, "utf-8") if isinstance(word, bytes) else str(word) for word in words).strip()
