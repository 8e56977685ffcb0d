"""Markers: messages by which a gateway knows that it has read everything that was in the log at a moment.

A gateway appends a ``seen`` message, and reads it back. One is under way at a time; whoever comes meanwhile
waits for the next one.
"""

import asyncio
from collections.abc import Callable

from celery_gateway.log.engine import LogError

CATCH_UP_SECONDS = 2.0
"""How long ``catch_up`` waits."""


class Markers:
    """The markers of one gateway.

    Args:
        append: appends a ``seen`` message with a number.
    """

    def __init__(self, append: Callable[[int], None]) -> None:
        self._append = append
        self._sent = self._read = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def write(self) -> int:
        """Append the next marker, and return its number."""
        self._sent += 1
        self._append(self._sent)
        return self._sent

    def on_read(self, number: int) -> None:
        """Record that a marker was read back."""
        self._read = max(self._read, number)
        for awaited, waiter in self._waiters:
            if awaited <= number and not waiter.done():
                waiter.set_result(None)
        self._waiters = [each for each in self._waiters if not each[1].done()]
        if self._waiters:
            self.write()

    async def catch_up(self) -> None:
        """Return once everything was read that is in the log now.

        Raises:
            LogError: that takes too long.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((self._sent + 1, waiter))
        if self._sent == self._read:
            self.write()
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                await waiter
        except TimeoutError:
            self._read = self._sent  # it may be lost: the next call writes another one
            raise LogError("this gateway is behind the log") from None
