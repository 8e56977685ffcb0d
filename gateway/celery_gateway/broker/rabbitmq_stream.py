"""RabbitMQ streams over AMQP 0-9-1: declaring one, and consuming it from an offset.

Facts (RabbitMQ 3.10.8; rabbitmq.com/docs/streams):

- Retention removes whole segments, when a new one begins. So a segment has a tenth of the length.
- The arguments of a stream cannot be changed. A policy has precedence over them.
- A consumer that starts behind the end of the stream gets no error, and nothing until the stream has reached
  that offset. So a consumer that continues asks for the message before, too: if neither that one nor a later
  one comes, the stream is not the one that was consumed before.
- The broker sends whole chunks: somewhat more than the prefetch count allows.
- A consumer that is slower than retention skips what was removed, without an error.
- A segment may begin with an entry of the broker itself, which takes an offset (if publishers use confirms).
  So one missing offset means nothing.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from itertools import count

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelPreconditionFailed
from pamqp.common import FieldValue

from celery_gateway.broker.amqp_connection import Connection
from celery_gateway.broker.amqp_frames import Delivery
from celery_gateway.broker.amqp_output import acknowledge_frame, cancel_frame
from celery_gateway.broker.amqp_queues import OpenChannel
from celery_gateway.broker.silence import running_timeout
from celery_gateway.events.message import Message

SEGMENTS = 10
MAX_SEGMENT_BYTES = 3_000_000_000
"""RabbitMQ's limit."""
MISSING_SECONDS = 3.0
"""How long the broker may take to send the message before the start."""
RETRY_SECONDS = 0.05
"""The interval at which a consumer that was told to wait asks whether it may continue."""

_numbers = count(1)

OnMessage = Callable[[Message], Iterator[None] | None]
"""Processes a message; returns the rest of the work if it is long (see ``Sink.message``)."""


class NoStreamError(Exception):
    """A queue of another type has the name of the stream."""


def stream_arguments(age_seconds: float, max_bytes: int) -> dict[str, FieldValue]:
    """Return the arguments of a stream with a retention by age and size."""
    return {
        "x-queue-type": "stream",
        "x-max-length-bytes": max_bytes,
        "x-max-age": f"{max(1, round(age_seconds))}s",
        "x-stream-max-segment-size-bytes": max(1, min(max_bytes // SEGMENTS, MAX_SEGMENT_BYTES)),
    }


def difference_warning(name: str, difference: str) -> str:
    """Return a warning for a stream that exists with other arguments.

    Args:
        difference: the broker's text.
    """
    return (
        f"the stream {name} exists with another retention, which is used: {difference}. The retention of a "
        "stream cannot be changed. Delete the stream and what is in it, or set a policy: rabbitmqctl "
        f'set_policy retention \'^{re.escape(name)}$\' \'{{"max-length-bytes":BYTES,"max-age":"24h"}}\' '
        "--apply-to queues"
    )


async def declare_stream(
    channel: AbstractChannel, name: str, arguments: dict[str, FieldValue], open_channel: OpenChannel
) -> tuple[AbstractChannel, str]:
    """Declare a stream; one that exists with other arguments is left as it is.

    Returns:
        An open channel (another one than the given one after a refusal); and the broker's text about the
        first argument that differs, ``""`` if none does.

    Raises:
        NoStreamError: see there.
        Exception: any other error of the connection.
    """
    try:
        await channel.queue_declare(name, durable=True, arguments=arguments)
        return channel, ""
    except ChannelPreconditionFailed as error:
        difference = _text(error)
    channel = await open_channel()
    try:
        await channel.queue_declare(name, durable=True, arguments={"x-queue-type": "stream"})
    except ChannelPreconditionFailed as error:
        if any(each in _text(error) for each in ("'x-queue-type'", "'durable'", "'exclusive'")):
            raise NoStreamError(f"the queue {name} exists and is not a stream: {_text(error)}") from error
        channel = await open_channel()
    return channel, difference


class StreamConsumer:
    """A consumer of a stream, on the one channel of a connection that has consumers.

    Args:
        stream: its name.
        start: the offset of the first message.
        on_message: called with each message, whose ``offset`` is set.
        prefetch: how many messages the broker sends before it waits for an acknowledgement.
        on_missed: called with the number of messages that retention removed, before the message after them.
        on_cancel: called when the broker cancels the consumer: the stream was deleted, or its node is down.
        may_continue: asked before each acknowledgement; while it returns ``False``, none is sent.
        before: the body of the message before the start, if that is known.

    Attributes:
        start: the offset of the next message.
        encoded_tag: the consumer tag.
    """

    def __init__(
        self,
        stream: str,
        start: int,
        on_message: OnMessage,
        *,
        prefetch: int,
        on_missed: Callable[[int], None] = lambda count: None,
        on_cancel: Callable[[], None] = lambda: None,
        may_continue: Callable[[], bool] = lambda: True,
        before: bytes | None = None,
    ) -> None:
        self.start = start
        self._stream = stream
        self._on_message = on_message
        self._on_missed = on_missed
        self._prefetch = prefetch
        self._call_on_cancel = on_cancel
        self._may_continue = may_continue
        self._before = before
        self._tag = f"stream-{next(_numbers)}"
        self.encoded_tag = self._tag.encode()
        self._connection: Connection | None = None
        self._channel: AbstractChannel | None = None
        self._has_begun = asyncio.Event()
        self._is_consuming = self._is_stopped = False
        self._is_other = False  # another stream than the one that was consumed before
        self._usual_gap = 0  # offsets that may be missing before the next message; see the module
        self._last_tag = self._acknowledged_tag = 0
        self._retry: asyncio.TimerHandle | None = None

    async def begin(self, connection: Connection, channel: AbstractChannel, *, is_checked: bool) -> bool:
        """Begin to consume. It must not be cancelled: aiormq would close the channel.

        Args:
            is_checked: whether to check that the stream is the one that was consumed up to the start.

        Returns:
            Whether it is; if not, nothing is delivered. A stream that was created again and has more messages
            than the start is not detected without ``before``.
        """
        self._connection, self._channel = connection, channel
        is_checked = is_checked and self.start > 0
        offset = self.start - 1 if is_checked else self.start
        channel.on_consumer_cancel_callbacks.add(self._on_cancel)
        await channel.basic_qos(prefetch_count=self._prefetch)
        await channel.basic_consume(
            self._stream, _not_called, consumer_tag=self._tag, arguments={"x-stream-offset": offset}
        )
        self._is_consuming = True
        if self._is_stopped:
            self._cancel(channel)
            return True
        if is_checked and not await self._has_messages(channel):
            self._is_other = True
        if self._is_other:
            self.stop()
        return not self._is_other

    async def wait_until_sent(self, channel: AbstractChannel) -> None:
        """Wait until the deliveries that the broker has sent are processed."""
        await channel.basic_qos(prefetch_count=self._prefetch)  # the reply comes behind them

    def on_delivery(self, delivery: Delivery) -> Iterator[None] | None:
        """Process a delivery of the connection, if it is for this consumer."""
        if delivery.consumer_tag != self.encoded_tag or self._is_stopped or self._is_other:
            return None
        message = delivery.message
        offset = message.offset
        self._last_tag = delivery.tag
        if not self._has_begun.is_set():
            self._acknowledged_tag = delivery.tag - 1
            self._has_begun.set()
        if self._last_tag - self._acknowledged_tag >= self._prefetch // 4:
            self._acknowledge()
        if offset is None:  # in unreadable properties
            offset = self.start
            message = message._replace(offset=offset)
        if offset < self.start:
            if offset == self.start - 1:
                self._usual_gap = 1
                self._is_other = self._before is not None and message.body != self._before
            return None
        gap = offset - self.start
        if gap > self._usual_gap:
            self._on_missed(gap)
        self._usual_gap = 1
        self.start = offset + 1
        return self._on_message(message)

    def stop(self) -> None:
        """Stop consuming, at once. May be called again; the channel can be used for another consumer."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._has_begun.set()
        if self._retry is not None:
            self._retry.cancel()
        if self._is_consuming and self._channel is not None:
            self._cancel(self._channel)

    def _cancel(self, channel: AbstractChannel) -> None:
        channel.on_consumer_cancel_callbacks.discard(self._on_cancel)
        getattr(channel, "consumers", {}).pop(self._tag, None)  # as aiormq does when it gets a reply
        self._write(cancel_frame(channel.number, self._tag))
        if self._last_tag > self._acknowledged_tag:
            self._write(acknowledge_frame(channel.number, self._last_tag))

    def _write(self, frame: bytes) -> None:
        if self._connection is not None and self._channel is not None and not self._channel.is_closed:
            self._connection.write(frame)

    def _acknowledge(self) -> None:
        if self._retry is not None or self._is_stopped:
            return
        if self._may_continue():
            assert self._channel is not None
            self._acknowledged_tag = self._last_tag
            self._write(acknowledge_frame(self._channel.number, self._last_tag))
        else:
            self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._acknowledge_again)

    def _acknowledge_again(self) -> None:
        self._retry = None
        self._acknowledge()

    def _on_cancel(self, frame: object) -> None:
        if getattr(frame, "consumer_tag", None) == self._tag:
            self._call_on_cancel()

    async def _has_messages(self, channel: AbstractChannel) -> bool:
        """Wait for the first delivery; return whether there is one."""
        try:
            async with running_timeout(MISSING_SECONDS):
                await self._has_begun.wait()
        except TimeoutError:
            await self.wait_until_sent(channel)
        return self._has_begun.is_set()


def _text(error: Exception) -> str:
    return str(error.args[0] if error.args else error)


async def _not_called(_: object) -> None:
    """Stands for the callback that aiormq requires: deliveries do not reach it."""
