"""A child process that reads commands as lines and replies with lines of JSON, such as the publisher.

Its standard input is a pipe from this process. Each child ends when the pipe closes, so none outlives this
process, however this process ends.
"""

import json
import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

END_SECONDS = 5


class ChildError(Exception):
    """A child ended, or sent nothing before a timeout; the message has the end of its standard error."""


class Child:
    """A child process. As a context manager it ends with the block.

    Args:
        args: its command line.
        log: the file to which its standard error is appended.
        cwd: its working directory.
    """

    def __init__(self, args: Sequence[str | Path], *, log: Path, cwd: Path | None = None) -> None:
        self._name = " ".join(Path(arg).name for arg in map(str, args))
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [str(arg) for arg in args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                cwd=cwd,
                start_new_session=True,
            )
        self._received = b""
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def send(self, line: str) -> None:
        """Send it a line.

        Raises:
            ChildError: it has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError:
            raise self._error("has ended") from None

    def receive(self, timeout_seconds: float) -> dict[str, Any]:
        """Return its next line.

        Raises:
            ChildError: it has ended, or sent nothing before the timeout.
        """
        line = self.receive_if_any(timeout_seconds)
        if line is None:
            raise self._error(f"has sent nothing for {timeout_seconds:g} s")
        return line

    def receive_if_any(self, timeout_seconds: float) -> dict[str, Any] | None:
        """Return its next line, or ``None`` if it sends nothing before the timeout.

        Raises:
            ChildError: it has ended.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                more = os.read(self._process.stdout.fileno(), 1 << 16)
                if not more:
                    raise self._error("has ended")
                self._received += more
        line, _, self._received = self._received.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def end(self) -> None:
        """Close its input, and kill it if it does not end. Can be called again."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _error(self, what: str) -> ChildError:
        reply = self._log.read_text(errors="replace")[-1000:].strip()
        return ChildError(f"{self._name}: {what}" + (f"; standard error: {reply}" if reply else ""))
