"""What ``tail`` waits for, as a line on the terminal; and what ends the waiting: a timeout, a closed pipe."""

import os
import select
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

import click

TICK_SECONDS = 1.0
_CLEAR = b"\r\x1b[K"


class TimedOut(BaseException):
    """The time of ``--timeout`` has passed. (No Exception: libraries convert those that a read raises.)"""


class OutputClosed(BaseException):
    """The reader of standard output has closed it, as in ``tail | head -1``."""


class StatusLine:
    """Shows on a terminal what the main thread waits for, and ends the waiting. A context manager.

    Within the block a timer raises ``TimedOut`` or ``OutputClosed`` in the main thread.

    Args:
        timeout_seconds: from now on; ``None`` for no limit.
    """

    def __init__(self, timeout_seconds: float | None = None) -> None:
        self.text = ""
        """What is waited for, such as ``task 5a37c0b2``; ``""`` to show nothing."""
        self._start = time.monotonic()
        self._deadline = None if timeout_seconds is None else self._start + timeout_seconds
        self._is_terminal = sys.stderr.isatty()
        self._is_shown = self._is_hidden = False
        self._closed_output = _poll_of_stdout()

    def __enter__(self) -> Self:
        signal.signal(signal.SIGALRM, self._on_timer)
        self._start_timer()
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._hide()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the line while something else is written."""
        self._is_hidden = True
        self._hide()
        try:
            yield
        finally:
            self._is_hidden = False

    def show(self, text: str) -> None:
        """Set what is waited for, and show it at once."""
        self.text = text
        self._draw()

    def report(self, text: str) -> None:
        """Print a line to standard error."""
        with self.hidden():
            click.echo(text, err=True)

    def _on_timer(self, number: int, frame: FrameType | None) -> None:
        self._start_timer()  # first: an exception that is raised in a destructor is lost, the next is not
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise TimedOut
        if self._closed_output is not None and self._closed_output.poll(0):
            raise OutputClosed
        self._draw()

    def _start_timer(self) -> None:
        left = TICK_SECONDS if self._deadline is None else self._deadline - time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, min(max(left, 0.05), TICK_SECONDS))

    def _draw(self) -> None:
        if not self._is_terminal or self._is_hidden:
            return
        if not self.text:
            self._hide()
            return
        line = f"… waiting for {self.text} ({time.monotonic() - self._start:.0f} s)"
        self._write(_CLEAR + line[: _columns() - 1].encode("utf-8", "replace"))
        self._is_shown = True

    def _hide(self) -> None:
        if self._is_shown:
            self._is_shown = False
            self._write(_CLEAR)

    @staticmethod
    def _write(data: bytes) -> None:
        os.write(sys.stderr.fileno(), data)  # not through a buffer, which may be in use when the timer fires


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80


def _poll_of_stdout() -> "select.poll | None":
    """Return a poll that is ready when the reader of standard output has closed it; ``None`` if no pipe."""
    try:
        number = sys.stdout.fileno()
        if not stat.S_ISFIFO(os.fstat(number).st_mode):
            return None
    except (OSError, ValueError):
        return None
    poll = select.poll()
    poll.register(number, 0)  # errors are always reported
    return poll
