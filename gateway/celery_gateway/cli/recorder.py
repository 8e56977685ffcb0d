"""Writes the messages of a stream to a recording, and ends in order on a timeout or a signal."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, Final

from celery_gateway import __version__
from celery_gateway.cli.status_line import OutputClosed, StatusLine, TimedOut
from celery_gateway.cli.stream_reader import Message, StreamReader
from celery_gateway.errors import RecordingError
from celery_gateway.http.interrupt import exit_on_ctrl_c
from celery_gateway.recording.recording_file import Header, RecordingWriter, new_header

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_BEFORE_EVENTS: Final = frozenset({"gateway-open", "gateway-bookmark"})
"""Messages that may precede the first ``gateway-status``, which names the clusters."""
_KEPT: Final = frozenset({"gateway-gap"})
"""The control messages that are recorded."""
_PRIVATE: Final = 0o600
_CLOSED: Final = "the reader has closed the output"


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM was received."""


class _WriteError(BaseException):
    """The file cannot be written. (No Exception, as ``TimedOut``: the timer writes to the file, too.)"""

    def __init__(self, error: OSError) -> None:
        self.error = error


class Recorder(StatusLine):
    """Records a stream. A context manager: at its end the file is complete.

    Every second, what was received is written to the file. The status line on a terminal has the counts.
    Signals and the timeout never interrupt the writing of the file.

    Args:
        path: of the file; ``None`` for standard output.
        query: the parameters of the stream, for the header.
        since: of the header.
        seconds: how long to record; ``None`` for no limit.
        overwrites: whether the file may exist.

    Attributes:
        events: how many events were recorded.
        gaps: how many times events were lost.
        end: why the recording has ended, for people.
    """

    def __init__(
        self,
        path: Path | None,
        query: dict[str, Any],
        since: str | None,
        seconds: float | None,
        *,
        overwrites: bool = False,
    ) -> None:
        super().__init__(seconds)
        self.events = self.gaps = 0
        self.end = "the stream has ended"
        self._path = path
        self._query = query
        self._since = since
        self._seconds = seconds
        self._overwrites = overwrites
        self._writer: RecordingWriter | None = None
        self._is_deferring = True  # signals and the timer raise nothing now
        self._is_interrupted = False
        if path is not None:
            self._closed_output = None  # standard output is not used

    @property
    def bytes_written(self) -> int:
        """The size of the recording so far."""
        return 0 if self._writer is None else self._writer.bytes_written

    def record(self, reader: StreamReader, max_events: int | None) -> None:
        """Record a stream until it ends, or the limit of events or of time is reached, or it is interrupted.

        Raises:
            GatewayError: the gateway cannot be reached at first, or refuses the request.
            UsageError: the URL is not that of a gateway, or a parameter is invalid.
            RecordingError: the file cannot be written.
        """
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        try:
            self._is_deferring = False
            for text, message in reader.messages():
                with self._writing():
                    self._add(text, message)
                self.text = f"events; {self.events:,} recorded, {self.bytes_written:,} bytes"
                if max_events is not None and self.events >= max_events:
                    self.end = f"--events: {max_events:,} events are recorded"
                    return
        except TimedOut:
            self.end = f"--for: {self._seconds:g} s have passed"
        except Interrupted:
            self.end = "interrupted"
        except OutputClosed:
            self.end = _CLOSED
        except _WriteError as failed:
            self._fail(failed.error)
        finally:
            self._is_deferring = True

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        exit_on_ctrl_c()  # a second Ctrl-C ends it at once
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                if exc_info[0] is None:
                    self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Record that the file could not be written.

        Raises:
            RecordingError: always, but for standard output that its reader has closed.
        """
        if self._path is None and isinstance(error, BrokenPipeError):
            self.end = _CLOSED
        else:
            where = "standard output" if self._path is None else self._path
            raise RecordingError(f"cannot write {where}: {error.strerror or error}") from None

    def _add(self, text: str, message: Message) -> None:
        event_type = message["type"]
        if self._writer is None:
            if event_type in _BEFORE_EVENTS:
                return
            self._open(_clusters(message))
            assert self._writer is not None
        if event_type.startswith("gateway-") and event_type not in _KEPT:
            return
        self._writer.write(text.encode())
        if event_type in _KEPT:
            self.gaps += 1
        else:
            self.events += 1

    def _open(self, clusters: tuple[str, ...]) -> None:
        name = "" if self._path is None else self._path.name
        self._writer = RecordingWriter(_opened(self._path, self._overwrites), name)
        self._writer.write_header(self._header(clusters))

    def _header(self, clusters: tuple[str, ...]) -> Header:
        return new_header(__version__, self._query, self._since, clusters)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._is_deferring = True
        try:
            yield
        except OSError as error:
            raise _WriteError(error) from None
        finally:
            self._is_deferring = False
        if self._is_interrupted:
            raise Interrupted

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._is_interrupted = True
        if not self._is_deferring:
            raise Interrupted

    def _on_timer(self, number: int, frame: FrameType | None) -> None:
        if self._is_deferring:
            self._start_timer()
            return
        if self._writer is not None:
            with self._writing():
                self._writer.flush()
        super()._on_timer(number, frame)


def _opened(path: Path | None, overwrites: bool) -> BinaryIO:
    """Return the file to write to. A new file can be read by its owner only: it may have data of tasks."""
    if path is None:
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    existing = os.O_TRUNC if overwrites else os.O_EXCL
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | existing, _PRIVATE), "wb")


def _clusters(message: Message) -> tuple[str, ...]:
    """Return the names of the brokers in a ``gateway-status``; none for other messages."""
    sources = message.get("sources")
    if message["type"] != "gateway-status" or not isinstance(sources, list):
        return ()
    return tuple(
        source["cluster"]
        for source in sources
        if isinstance(source, dict) and isinstance(source.get("cluster"), str)
    )
