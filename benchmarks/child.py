"""A child process that is told lines and answers in lines of JSON, such as the publisher and the subscribers.

Its standard input is a pipe of ours, and each of these children ends when that closes: none outlives us,
however we end.
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


class DialogueError(Exception):
    """A child ended, or was silent for too long; the message has the end of what it said on stderr."""


class Dialogue:
    """A child process; as a context manager it is ended with the block.

    Args:
        args: its command line.
        log: the file that its standard error is appended to.
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
        self._heard = b""
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def say(self, line: str) -> None:
        """Give it a line.

        Raises:
            DialogueError: it has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError:
            raise self._error("has ended") from None

    def hear(self, timeout_seconds: float) -> dict[str, Any]:
        """Return its next line.

        Raises:
            DialogueError: it has ended, or said nothing in time.
        """
        line = self.hear_if_any(timeout_seconds)
        if line is None:
            raise self._error(f"has said nothing for {timeout_seconds:g} s")
        return line

    def hear_if_any(self, timeout_seconds: float) -> dict[str, Any] | None:
        """Return its next line, or ``None`` when it says nothing in time.

        Raises:
            DialogueError: it has ended.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._heard:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                more = os.read(self._process.stdout.fileno(), 1 << 16)
                if not more:
                    raise self._error("has ended")
                self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def end(self) -> None:
        """Close its input, and kill it if that does not end it. May be called again."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _error(self, what: str) -> DialogueError:
        said = self._log.read_text(errors="replace")[-1000:].strip()
        return DialogueError(f"{self._name}: {what}" + (f"; its last words: {said}" if said else ""))
