"""The probe of the RabbitMQ that keeps a shared log or a raw stream. It declares nothing that stays behind.

A stream cannot be temporary. So if there is none, an exchange and a queue that are deleted with the
connection are declared in its place: they need the same permissions. A stream that exists is declared as the
settings have it: that changes nothing, and is refused if it is another one.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection
from pamqp.common import FieldValue

from celery_gateway import __version__
from celery_gateway.broker.address import amqp_url
from celery_gateway.broker.diagnosis import Phase
from celery_gateway.broker.rabbitmq_stream import (
    NoStreamError,
    declare_stream,
    difference_warning,
    stream_arguments,
)
from celery_gateway.broker.urls import Broker
from celery_gateway.check.log_places import LogSettings
from celery_gateway.check.log_report import duration_text, size_text
from celery_gateway.check.network import failed
from celery_gateway.check.step import Step, found, passed

TIMEOUT_SECONDS = 10.0
FIRST_WITH_STREAMS = (3, 9)
_ERRORS = (
    *(OSError, TimeoutError, aiormq.AMQPError, aiormq.exceptions.ChannelInvalidStateError, RuntimeError),
)


async def rabbitmq_log_steps(settings: LogSettings, server: Broker, exchange: str) -> AsyncIterator[Step]:
    """Give the steps of the server of a log: version, permissions and retention, up to the first failure."""
    url, phase = server.urls[0], Phase.CONNECT
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS), _connected(url) as connection:
            phase = Phase.CONSUME
            product, version = _server(connection)
            if step := version_step(product, version):
                yield step
                return
            await _try_permissions(connection, settings.queue_prefix)
            yield passed("log", f"{product} {version} can keep it, and the user may declare and use it")
            if await _exists(connection, settings.name):
                yield await _retention(connection, settings, settings.name)
    except _ERRORS as error:
        yield failed("log", error, url, phase, exchange, server.access)


async def raw_stream_step(settings: LogSettings, broker: Broker) -> Step | None:
    """Return the step of a broker's raw stream; ``None`` if there is none, or its broker cannot be used."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS), _connected(broker.urls[0]) as connection:
            if not await _exists(connection, settings.raw_name):
                return None
            return await _retention(connection, settings, settings.raw_name)
    except _ERRORS:
        return None


def version_step(product: str, version: str) -> Step | None:
    """Return a failure if a server has no streams; a version that cannot be read counts as new enough.

    >>> version_step("RabbitMQ", "3.8.9").finding
    'log-too-old'
    >>> version_step("RabbitMQ", "4.2.0"), version_step("LavinMQ", "2.1.0")
    (None, None)
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if product != "RabbitMQ" or numbers is None:
        return None
    if (int(numbers[1]), int(numbers[2])) >= FIRST_WITH_STREAMS:
        return None
    return found(
        "log",
        "log-too-old",
        f"RabbitMQ {version} has no streams: a shared log needs 3.9 or later",
        "Update RabbitMQ, or keep the log in a Redis (--log redis://HOST:6379/1), or in memory.",
    )


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[AbstractConnection]:
    connection = await aiormq.connect(
        amqp_url(url, heartbeat_seconds=10, name=f"celery-gateway {__version__} check")
    )
    try:
        yield connection
    finally:
        await connection.close()


async def _try_permissions(connection: AbstractConnection, prefix: str) -> None:
    """Use all permissions that a log needs, on names with the same beginning.

    Raises:
        ChannelAccessRefused: one is missing.
    """
    name = f"{prefix}.check.{secrets.token_hex(4)}"
    channel = await connection.channel(publisher_confirms=True)
    await channel.exchange_declare(name, exchange_type="fanout", auto_delete=True)
    await channel.queue_declare(name, exclusive=True, auto_delete=True)
    await channel.queue_bind(name, name)  # with it, the exchange ends with the queue
    await channel.basic_publish(b"", exchange=name)
    await channel.basic_get(name, no_ack=True)
    await channel.queue_delete(name)
    await channel.close()


async def _exists(connection: AbstractConnection, stream: str) -> bool:
    channel = await _open_channel(connection)
    try:
        await channel.queue_declare(stream, passive=True)
    except aiormq.exceptions.ChannelNotFoundEntity:
        return False
    await channel.close()
    return True


async def _retention(connection: AbstractConnection, settings: LogSettings, name: str) -> Step:
    arguments: dict[str, FieldValue] = stream_arguments(settings.age_seconds, settings.max_bytes)

    async def open_channel() -> AbstractChannel:
        return await _open_channel(connection)

    try:
        channel, difference = await declare_stream(await open_channel(), name, arguments, open_channel)
    except NoStreamError as error:
        return found("log", "log-unusable", str(error), "Delete this queue.")
    await channel.close()
    if difference:
        what, _, remedy = difference_warning(name, difference).partition(". The retention")
        return found("retention", "log-retention", what, f"The retention{remedy}")
    age, size = duration_text(settings.age_seconds), size_text(settings.max_bytes)
    what = f"{name} was declared with {age} and {size}, as the settings have it (a policy has precedence)"
    return passed("retention", what)


async def _open_channel(connection: AbstractConnection) -> AbstractChannel:
    return await connection.channel(publisher_confirms=False)


def _server(connection: AbstractConnection) -> tuple[str, str]:
    """Return the product and the version of a server."""
    properties = connection.server_properties
    words = (properties.get("product", b""), properties.get("version", b""))
    product, version = (str(word, "utf-8") if isinstance(word, bytes) else str(word) for word in words)
    return product, version
