"""A gateway without a broker, in its own thread: for tests whose browser is driven from the main thread."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.state_gateway import Event, StateGateway, served

START_SECONDS = 30
PUT_SECONDS = 30


class ViewedGateway:
    """A gateway that serves pages.

    Args:
        options: of ``StateGateway``.

    Attributes:
        url: without a slash at its end.
    """

    def __init__(self, **options: Any) -> None:
        self.url = ""
        self._options = options
        self._loop: asyncio.AbstractEventLoop
        self._gateway: StateGateway
        self._stop: asyncio.Event
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def start(self) -> None:
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready.wait(0.1):
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the gateway has not started")

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)

    def put(self, *events: Event) -> None:
        """Process events as one message of a broker; return once they are in the table."""

        async def put() -> None:
            self._gateway.put(*events)

        asyncio.run_coroutine_threadsafe(put(), self._loop).result(PUT_SECONDS)

    def gap(self) -> None:
        """Report a gap of the broker."""
        self._loop.call_soon_threadsafe(self._gateway.pipeline.on_gap, None)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._gateway = StateGateway(**self._options)
        async with served(self._gateway) as port:
            await self._gateway.pipeline.start()
            self.url = f"http://127.0.0.1:{port}"
            self._is_ready.set()
            await self._stop.wait()
            await self._gateway.pipeline.stop()


@contextmanager
def viewed_gateway(**options: Any) -> Iterator[ViewedGateway]:
    """Serve a gateway within the block."""
    gateway = ViewedGateway(**options)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()
