"""The overflow queue: a second queue, of one message, that shows that the broker has dropped events.

- Events that the broker drops from the event queue, because of its limits, go to this queue (dead-lettering).
  A message in it means that events were lost.
- Dead letters are acknowledged at once and separately from events, so there is always credit for one. The
  credit of the event queue is used up when events are dropped, so the dead letter usually arrives before the
  events that follow the lost ones. This is not guaranteed, because the broker handles the two queues
  separately: under load, and if new credit arrives at that moment, some of these events arrive first (once,
  32 lost events were reported 62 entries late).
- Overflow queues are numbered by slots. A gateway takes the lowest slot that is free.
- Only the broker can publish to the exchange of this queue (``internal``), but other clients can publish to
  the queue by its name. A dead letter has the name of the event queue (``x-death``), which other clients
  cannot guess. A message of another client can displace a dead letter, so after such a message the source
  checks whether the event queue has a backlog.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress

import aiormq
from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from celery_gateway.broker.amqp_queues import (
    EXPECTED_OVERFLOW_EXCHANGE,
    EXPECTED_QUEUE,
    QUEUE_ARGUMENTS,
    OpenChannel,
    ReportForeign,
)

SLOTS = 100
"""As many tripwire exchanges can be left behind as gateways were there at one time, and at most so many."""
FOREIGN_LOG_SECONDS = 60.0

log = logging.getLogger(__name__)


async def declare_overflow_queue(
    channel: AbstractChannel, prefix: str, open_channel: OpenChannel, report_foreign: ReportForeign
) -> tuple[AbstractChannel, str, str]:
    """Declare an overflow queue and its exchange, with the same name, in the lowest free slot.

    Returns:
        The channel on which they were declared (another one than the given one after a refusal), their name,
        and the slot.

    Raises:
        ChannelAccessRefused: the user may not declare them.
    """
    arguments = QUEUE_ARGUMENTS | {"x-max-length": 1}
    for slot in (*map(str, range(SLOTS)), secrets.token_hex(4)):
        name = f"{prefix}.overflow.{slot}"
        try:
            await channel.queue_declare(name, exclusive=True, auto_delete=True, arguments=arguments)
        except ChannelLockedResource as error:  # of another gateway, or not an exclusive queue
            channel = await open_channel()
            with suppress(ChannelLockedResource, ChannelAccessRefused):
                await channel.queue_declare(name, passive=True)
                report_foreign("queue", name, EXPECTED_QUEUE, error)
                continue
            channel = await open_channel()
            continue
        except (ChannelPreconditionFailed, ChannelNotFoundEntity) as error:  # not found: its node is down
            report_foreign("queue", name, EXPECTED_QUEUE, error)
            channel = await open_channel()
            continue
        try:
            await channel.exchange_declare(name, exchange_type="fanout", auto_delete=True, internal=True)
        except ChannelPreconditionFailed as error:
            report_foreign("exchange", name, EXPECTED_OVERFLOW_EXCHANGE, error)
            channel = await open_channel()
            await channel.queue_delete(name)
            continue
        break
    return channel, name, slot


class ForeignMessages:
    """Checks what messages of other clients in the overflow queue mean, and logs them once a minute.

    A foreign message can have displaced a dead letter only if the broker may have dropped events, which needs
    a backlog in the event queue. Then a gap is reported.

    Args:
        queue: the name of the event queue.
        overflow_queue: the name of the overflow queue.
        report_gap: called if events may have been lost.
    """

    def __init__(
        self, queue: str, overflow_queue: str, open_channel: OpenChannel, report_gap: Callable[[], None]
    ) -> None:
        self._queue = queue
        self._overflow_queue = overflow_queue
        self._open_channel = open_channel
        self._report_gap = report_gap
        self._count = 0
        self._is_behind = False
        self._check_task: asyncio.Task[None] | None = None

    def record(self, is_behind: bool) -> None:
        """Record a foreign message.

        Args:
            is_behind: whether more than half of the credit of the event queue was in use.
        """
        self._count += 1
        self._is_behind |= is_behind
        if self._check_task is None:
            self._check_task = asyncio.create_task(self._check())

    def stop(self) -> None:
        """Stop checking. May be called again."""
        if self._check_task is not None:
            self._check_task.cancel()

    async def _check(self) -> None:
        checked = 0
        try:
            while self._count != checked:
                checked, is_behind, self._is_behind = self._count, self._is_behind, False
                channel = await self._open_channel()
                queue = await channel.queue_declare(self._queue, passive=True)
                await channel.close()
                is_behind |= bool(queue.message_count)
                consequence = "They are ignored"
                if is_behind:
                    self._report_gap()
                    consequence = (
                        "The gateway reports a gap, because events are queued in the broker, and such a "
                        "message can displace the dead letter of events that were dropped"
                    )
                log.warning(
                    "broker: %d messages in the queue %s are not dead letters: another client publishes to "
                    "this queue. %s (logged once a minute)",
                    checked,
                    self._overflow_queue,
                    consequence,
                )
                await asyncio.sleep(FOREIGN_LOG_SECONDS)
        except (aiormq.AMQPError, ChannelInvalidStateError, OSError):
            log.debug("broker: checking the messages of another client failed", exc_info=True)
        finally:
            self._check_task = None
