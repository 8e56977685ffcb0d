"""A terminal that ``top`` draws on: the alternate screen, single keys, and the signals that interrupt it."""

import os
import select
import signal
import sys
import termios
import tty
from contextlib import suppress
from types import FrameType
from typing import Any, Final, Self

from rich.console import Console, RenderableType

SIGNALS: Final = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGTERM)
TERMINATED: Final = 128 + signal.SIGTERM
"""The exit code after SIGTERM."""
# Control sequences of xterm, which all terminals have.
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
"""Show the alternate screen, and hide the cursor."""
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_CLEAR_LINE: Final = "\x1b[K"
_CLEAR_BELOW: Final = "\x1b[K\x1b[J"


class Screen:
    """The screen of standard output, as a context manager. Keys come from standard input if it is a terminal.

    Within the block the terminal shows the alternate screen. It is restored at the end of the block, also
    after an error, and while the process is suspended (Ctrl-Z).
    """

    def __init__(self) -> None:
        self._console = Console()
        self._has_keys = sys.stdin is not None and sys.stdin.isatty()
        self._modes: list[Any] | None = None
        self._woken, self._waker = os.pipe()
        for end in (self._woken, self._waker):
            os.set_blocking(end, False)

    @property
    def width(self) -> int:
        """Columns."""
        return self._console.size.width

    @property
    def height(self) -> int:
        """Lines."""
        return self._console.size.height

    @property
    def is_ascii(self) -> bool:
        """Whether the terminal has no other characters."""
        return not self._console.encoding.lower().startswith("utf")

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        self._show()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._leave()
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.close(self._woken)
        os.close(self._waker)

    def wake(self) -> None:
        """End a wait for keys. May be called in any thread."""
        with suppress(OSError):  # the pipe is full, so the wait ends anyway; or the screen is closed
            os.write(self._waker, b"\0")

    def keys(self, timeout_seconds: float) -> str:
        """Wait for keys, for ``wake`` or for a signal; return the keys that were pressed."""
        sources = [self._woken, *([sys.stdin.fileno()] if self._has_keys else [])]
        ready, _, _ = select.select(sources, (), (), timeout_seconds)
        if self._woken in ready:
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if not self._has_keys or sys.stdin.fileno() not in ready:
            return ""
        data = os.read(sys.stdin.fileno(), 1024)
        self._has_keys = bool(data)  # the terminal is gone
        return data.decode(errors="replace")

    def draw(self, page: RenderableType) -> None:
        """Replace what is shown. Lines beyond the height of the screen are not shown."""
        height = self._console.size.height
        with self._console.capture() as capture:
            self._console.print(page)
        lines = capture.get().split("\n")[:-1][:height]
        self._write(_HOME + f"{_CLEAR_LINE}\r\n".join(lines) + _CLEAR_BELOW)

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _show(self) -> None:
        if self._has_keys:
            self._modes = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin, termios.TCSANOW)
        self._write(_ENTER)

    def _leave(self) -> None:
        self._write(_LEAVE)
        if self._modes is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._modes)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            sys.exit(TERMINATED)
        if number == signal.SIGTSTP:
            self._leave()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)  # continues here after SIGCONT
            signal.signal(number, self._on_signal)
            self._show()
