"""Calls that are due later, and can be cancelled together."""

import asyncio
from collections.abc import Callable


class Timers:
    """The timers of one replica, in its event loop."""

    def __init__(self) -> None:
        self._handles: set[asyncio.TimerHandle] = set()

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call a function after some seconds, unless ``stop`` is called before."""

        def run() -> None:
            self._handles.discard(handle)
            call()

        handle = asyncio.get_running_loop().call_later(seconds, run)
        self._handles.add(handle)

    def stop(self) -> None:
        """Cancel all."""
        for handle in self._handles:
            handle.cancel()
        self._handles.clear()
