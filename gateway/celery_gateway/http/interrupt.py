"""Ctrl-C: the process ends at once and without a traceback, unless the command shuts down in order."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_CODE = 130
"""128 + SIGINT, the exit code that shells use."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def exit_on_ctrl_c() -> None:
    """End the process on SIGINT from now on. Call it in the main thread.

    A SIGINT that is ignored (as for ``command &`` in a script) stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: exit_now())


def raise_on_ctrl_c() -> None:
    """Raise KeyboardInterrupt on SIGINT, for a command that cleans up. Call it in the main thread.

    A SIGINT in a finalizer, where Python cannot raise, ends the process at once.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _on_unraisable


def _on_unraisable(error: "sys.UnraisableHookArgs") -> None:
    if error.exc_type is KeyboardInterrupt:
        exit_now()
    sys.__unraisablehook__(error)


@contextmanager
def stop_signals_handled(handle: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Within the block, call ``handle`` on SIGINT and SIGTERM, in the running event loop.

    After it SIGINT ends the process at once.
    """
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        # Blocked, because the event loop restores Python's own handler, which raises KeyboardInterrupt.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
        exit_on_ctrl_c()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exit_now() -> None:
    """End the process with ``EXIT_CODE``, without waiting for threads. Nothing is flushed."""
    os._exit(EXIT_CODE)
