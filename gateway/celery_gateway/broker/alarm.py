"""Detecting an alarm of RabbitMQ (memory, disk) that blocks all publishers, so that no events arrive.

- A broker reports an alarm only to a connection that publishes, and then reads nothing more from it until the
  alarm is over (rabbitmq.com/docs/connection-blocked). So a second connection publishes a message without a
  route.
- It does so only when no events have arrived for a while: under an alarm none arrive.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from aiormq.abc import AbstractConnection
from yarl import URL

from celery_gateway.broker.amqp_connection import Connection
from celery_gateway.broker.amqp_frames import Delivery
from celery_gateway.broker.tls import TLS

PAUSES_SECONDS = (5.0, 30.0, 60.0)
"""How long no event has arrived when the broker is tested; the last one is repeated."""
TEST_TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.1
ROUTING_KEY = "celery-gateway.probe"

BLOCKED = "an alarm of the broker (memory or disk) blocks all publishers, so workers cannot send events"
REMEDY = (
    "Free memory or disk space on the broker's node (to show the alarms: rabbitmq-diagnostics alarms), or "
    "raise the limit: rabbitmqctl set_vm_memory_high_watermark 0.8 (for the disk: rabbitmqctl "
    "set_disk_free_limit 50MB)"
)

log = logging.getLogger(__name__)


async def is_blocked(connection: AbstractConnection) -> bool:
    """Return whether the broker has reported to a connection that its publishing is blocked."""
    try:
        async with asyncio.timeout(0.01):
            await connection.ready()
    except TimeoutError:
        return True
    return False


async def watch(
    url: URL,
    tls: TLS | None,
    event_count: Callable[[], int],
    exchange: str,
    on_change: Callable[[bool], None],
) -> None:
    """Report when publishers are blocked, and when they no longer are, until cancelled.

    Args:
        url: as aiormq takes it.
        tls: see ``amqp_connection.Connection``.
        event_count: returns a number that changes with each event.
        exchange: one that the user may publish to; ``""`` for the default exchange.
        on_change: called with ``True`` when publishers are blocked, and with ``False`` when they no longer
            are.
    """
    attempt = 0
    while True:
        before = event_count()
        await asyncio.sleep(PAUSES_SECONDS[min(attempt, len(PAUSES_SECONDS) - 1)])
        if event_count() != before:
            attempt = 0
            continue
        attempt += 1
        connection = Connection(url.update_query(name=f"{url.query.get('name', '')} alarm"), _ignore, tls)
        try:
            async with asyncio.timeout(TEST_TIMEOUT_SECONDS):
                await connection.connect()
                assert connection.transport is not None
                aiormq_connection = connection.transport.connection
                blocked = await _test(aiormq_connection, exchange)
            if blocked:
                on_change(True)
                try:
                    await _wait_for_end(aiormq_connection, event_count)
                finally:
                    on_change(False)
                attempt = 0
            else:
                with suppress(Exception):
                    await asyncio.wait_for(connection.close(), 1)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise  # not aiormq, which cancels waiters when its connection is lost
            log.debug("broker: the test for alarms failed", exc_info=True)  # no permission, for example
        finally:
            connection.abort()


async def _test(connection: AbstractConnection, exchange: str) -> bool:
    """Publish a message without a route; return whether the broker blocks that."""
    channel = await connection.channel(publisher_confirms=False)
    await channel.basic_publish(b"", exchange=exchange, routing_key=ROUTING_KEY)
    closing = asyncio.ensure_future(channel.close())  # the broker replies only if nothing is blocked
    try:
        while not closing.done():
            await asyncio.wait({closing}, timeout=POLL_SECONDS)
            if await is_blocked(connection):
                return True
        return False
    finally:
        closing.cancel()
        with suppress(Exception, asyncio.CancelledError):
            await closing  # without the permission to publish it ends with that refusal


async def _wait_for_end(connection: AbstractConnection, event_count: Callable[[], int]) -> None:
    """Wait until the broker unblocks the connection, closes it, or an event arrives."""
    waits = {
        asyncio.ensure_future(connection.ready()),
        asyncio.ensure_future(_wait_for_event(event_count, event_count())),
    }
    try:
        await asyncio.wait({*waits, connection.closing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _wait_for_event(event_count: Callable[[], int], before: int) -> None:
    while event_count() == before:  # noqa: ASYNC110  (an asyncio.Event for each message would cost more)
        await asyncio.sleep(POLL_SECONDS)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _ignore(delivery: Delivery) -> None:
    """There are no deliveries: this connection does not consume."""
