"""Ctrl-C: the process ends at once and without a traceback, unless the command shuts down in order."""

import os
import signal
import sys

EXIT_CODE = 130
"""128 + SIGINT, the exit code that shells use."""


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


def exit_now() -> None:
    """End the process with ``EXIT_CODE``, without waiting for threads. Nothing is flushed."""
    os._exit(EXIT_CODE)
