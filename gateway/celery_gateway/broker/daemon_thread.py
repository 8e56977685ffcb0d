"""A blocking call in a daemon thread of its own.

One that hangs delays neither other calls nor the end of the process.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")


def started(call: Callable[[], _T], name: str) -> "asyncio.Future[_T]":
    """Start a call in a thread; return the future of its result, for the running event loop.

    If the future is cancelled, the call goes on, and its result is dropped.

    Args:
        call: may block.
        name: of the thread.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def end(result: Callable[[], None]) -> None:
        if not future.done():
            result()

    def run() -> None:
        try:
            value = call()
        except Exception as error:
            failure = error
            report = lambda: future.set_exception(failure)  # noqa: E731
        else:
            report = lambda: future.set_result(value)  # noqa: E731
        with suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(end, report)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
