"""The AMQP source while it consumes, and what it reports."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from celery_gateway.broker.amqp_source import AMQPSource
from celery_gateway.broker.source import Status
from celery_gateway.events.message import Message


class Sink:
    """Collects what a source reports."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.statuses: list[Status] = []
        self.losses = 0

    def message(self, message: Message) -> None:
        self.messages.append(message)

    def status(self, status: Status) -> None:
        self.statuses.append(status)

    def lost(self) -> None:
        self.losses += 1

    async def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Wait for a condition; raise TimeoutError after some seconds."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def consuming(url: str, **options: Any) -> AsyncIterator[Sink]:
    """Run a source with some options of ``AMQPSource`` within the block, which begins when it consumes."""
    sink = Sink()
    options.setdefault("first_pause_seconds", 0.05)
    running = asyncio.create_task(AMQPSource([url], **options).run(sink))
    try:
        await sink.until(lambda: bool(sink.statuses) and sink.statuses[-1].is_consuming)
        yield sink
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
