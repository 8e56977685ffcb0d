"""Processing and acknowledging the deliveries of one connection: events, and dead letters of lost events.

- Nothing is awaited for a delivery, and many events are acknowledged together. An acknowledgement costs more
  than a delivery. The prefetch count is the credit that limits the broker.
- Dead letters are acknowledged at once, so that the broker can send the next one.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress

import aiormq
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelInvalidStateError

from celery_gateway.broker.amqp_frames import Delivery
from celery_gateway.broker.source import Sink

PREFETCH_MESSAGES = 2_000
"""How many messages the broker sends before it waits for an acknowledgement."""
ACKNOWLEDGE_SECONDS = 0.1
"""With this interval the credit is enough for 20,000 messages a second."""
EVENTS_TAG, OVERFLOW_TAG = b"events", b"overflow"
"""The consumer tags of the two queues."""

log = logging.getLogger(__name__)


class Deliveries:
    """The deliveries of one connection.

    Args:
        sink: gets the messages, and the losses that dead letters report.
        is_dead_letter: whether the delivery that is being processed is one that the broker has made.
        on_foreign: called for each message of another client in the overflow queue, with whether more than
            half of the credit was in use.

    Attributes:
        channel: the one that is consumed; set before the first delivery.
        last_tag: the delivery tag of the last event; counts the events.
    """

    def __init__(
        self, sink: Sink, is_dead_letter: Callable[[], bool], on_foreign: Callable[[bool], None]
    ) -> None:
        self.channel: AbstractChannel | None = None
        self.last_tag = 0
        self._sink = sink
        self._is_dead_letter = is_dead_letter
        self._on_foreign = on_foreign
        self._acknowledged_tag = 0
        self._overflow_tag: int | None = None  # of a dead letter; there is one at a time
        self._has_overflow = asyncio.Event()
        self._is_loss_reported = False  # and no event has come since
        self._acknowledging: asyncio.Task[None] | None = None

    def on_delivery(self, delivery: Delivery) -> Iterator[None] | None:
        """Process a delivery; return the rest of its work, if it is long."""
        rest = None
        if delivery.consumer_tag == OVERFLOW_TAG:
            if not self._is_dead_letter():
                self._on_foreign(self.last_tag - self._acknowledged_tag > PREFETCH_MESSAGES // 2)
            elif not self._is_loss_reported:
                self._is_loss_reported = True
                self._sink.lost()
            self._overflow_tag = delivery.tag
            self._has_overflow.set()
        else:
            self._is_loss_reported = False
            rest = self._sink.message(delivery.message)
            self.last_tag = delivery.tag
        if self._acknowledging is None:
            self._acknowledging = asyncio.create_task(self._acknowledge())
        return rest

    def stop(self) -> None:
        """Stop acknowledging. May be called again."""
        if self._acknowledging is not None:
            self._acknowledging.cancel()

    async def _acknowledge(self) -> None:
        """Acknowledge what is processed until nothing is left: dead letters at once, events at intervals."""
        assert self.channel is not None
        now = asyncio.get_running_loop().time
        due = now() + ACKNOWLEDGE_SECONDS
        try:
            while self._overflow_tag is not None or self.last_tag > self._acknowledged_tag:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._has_overflow.wait()
                # Both are read at one moment: a later dead letter has a tag beyond those of these events. No
                # tag may be acknowledged twice.
                overflow_tag, last_tag = self._overflow_tag, self.last_tag
                self._overflow_tag = None
                self._has_overflow.clear()
                if overflow_tag is not None:
                    await self.channel.basic_ack(overflow_tag, wait=False)
                if now() >= due:
                    due = now() + ACKNOWLEDGE_SECONDS
                    if last_tag > self._acknowledged_tag:
                        self._acknowledged_tag = last_tag
                        await self.channel.basic_ack(last_tag, multiple=True, wait=False)
        except (aiormq.AMQPError, ChannelInvalidStateError, OSError):
            log.debug("broker: deliveries could not be acknowledged", exc_info=True)
        finally:
            self._acknowledging = None
