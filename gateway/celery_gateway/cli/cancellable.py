"""Run a coroutine that Ctrl-C cancels."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from celery_gateway.http.interrupt import exit_now

CANCEL_SECONDS: Final = 1.0

_T = TypeVar("_T")


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine, which Ctrl-C cancels. A second Ctrl-C ends the process at once.

    It is cancelled again each ``CANCEL_SECONDS``, since a cancellation can be lost: ``asyncio.wait_for`` of
    Python 3.11 ignores it if what it waits for ends at the same moment.

    Raises:
        KeyboardInterrupt: Ctrl-C has cancelled it.
    """
    interrupts: list[asyncio.TimerHandle] = []

    async def cancelled_on_ctrl_c() -> _T:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(main)

        def cancel() -> None:
            task.cancel()
            interrupts.append(loop.call_later(CANCEL_SECONDS, cancel))

        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGINT, lambda: exit_now() if interrupts else cancel())
        return await task

    try:
        result = asyncio.run(cancelled_on_ctrl_c())
    except asyncio.CancelledError:
        if not interrupts:
            raise
    if interrupts:
        raise KeyboardInterrupt
    return result
