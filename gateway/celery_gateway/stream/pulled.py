"""The pulled side of a subscription: bytes that wait for ``Subscription.pull``.

The buffer takes one chunk of the cohort. Everything after it waits in the history.
"""

import asyncio


class PullBuffer:
    """Bytes that wait to be pulled, and the one task that waits for them.

    Attributes:
        chunk: the bytes.
    """

    __slots__ = ("chunk", "_woken")

    def __init__(self) -> None:
        self.chunk = b""
        self._woken: asyncio.Future[None] | None = None

    def add(self, chunk: bytes) -> int:
        """Add bytes; return how many there are now. The waiting task is woken by ``wake`` only."""
        self.chunk += chunk  # to an empty buffer: no copy, so all members of a cohort share the chunk
        return len(self.chunk)

    def read(self) -> bytes:
        """Return all bytes, and empty the buffer."""
        chunk, self.chunk = self.chunk, b""
        return chunk

    def wake(self) -> None:
        """Wake the task that waits, if there is one."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def wait(self) -> None:
        """Wait for ``wake``. For one task at a time; may be cancelled."""
        self._woken = asyncio.get_running_loop().create_future()
        try:
            await self._woken
        finally:
            self._woken = None
