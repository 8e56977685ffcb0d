"""The file of a recording: NDJSON, compressed or not.

- The first line is the header: one object with the type ``gateway-recording``.
- Each other line is a message as the gateway sent it: an event, or a ``gateway-gap``.
- No line has a token or the address of the gateway.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from celery_gateway.errors import RecordingError
from celery_gateway.events.event import decode_object, encode
from celery_gateway.recording.compression import Damaged, decoded_chunks, encoder_for

FORMAT: Final = 1
"""The version of the format that this module writes. It reads this one and those before."""
FRAME_SECONDS: Final = 10.0
"""A frame or member of the compressed data ends after about this time."""
MAX_LINE_BYTES: Final = 64 << 20
"""Longer lines are skipped."""
_TYPE: Final = "gateway-recording"


class Header(NamedTuple):
    """The first line of a recording.

    Attributes:
        format: the version of the format.
        celery_gateway: the version of the program that wrote it.
        recorded_at: when the recording began, RFC 3339 UTC.
        filter: the parameters of the stream, such as ``{"name": ["shop.*"]}``.
        since: where the stream began; ``None`` if it began live.
        clusters: the names of the gateway's brokers; none if its broker has no name.
    """

    format: int
    celery_gateway: str
    recorded_at: str
    filter: Mapping[str, Any]
    since: str | None
    clusters: tuple[str, ...]

    @property
    def recorded_at_seconds(self) -> float:
        """When the recording began, in epoch seconds; 0 if the header does not have it."""
        try:
            return datetime.fromisoformat(self.recorded_at).replace(tzinfo=UTC).timestamp()
        except ValueError:
            return 0.0


class RecordingWriter:
    """Writes a recording to an open file.

    Lines can be read once ``flush`` has returned, also if the process is killed after that.

    Args:
        file: written from its current position on; ``close`` closes it.
        name: of the file, which has the compression (``compression.encoder_for``).

    Attributes:
        bytes_written: after compression.

    Raises:
        RecordingError: zstd is not installed.
    """

    def __init__(self, file: BinaryIO, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_written = 0
        self._encoder = encoder_for(name)
        self._file = file
        self._clock = clock
        self._frame_began_at = clock()
        self._has_unflushed = self._has_open_frame = False

    def write_header(self, header: Header) -> None:
        """Write the first line, and flush it."""
        self.write(encode({"type": _TYPE, **header._asdict()}))
        self.flush()

    def write(self, line: bytes) -> None:
        """Write one message, without a line end."""
        if not self._has_open_frame:
            self._has_open_frame, self._frame_began_at = True, self._clock()
        self._has_unflushed = True
        self._put(self._encoder.encode(line + b"\n"))

    def flush(self) -> None:
        """Write everything that waits; end the frame if it has lasted for ``FRAME_SECONDS``."""
        if self._has_open_frame and self._clock() - self._frame_began_at >= FRAME_SECONDS:
            self._put(self._encoder.end())
            self._has_open_frame = False
        elif self._has_unflushed:
            self._put(self._encoder.flush())
        self._has_unflushed = False
        self._file.flush()

    def close(self) -> None:
        """End the frame, and close the file."""
        try:
            if self._has_open_frame:
                self._put(self._encoder.end())
            self._file.flush()
        finally:
            self._file.close()

    def _put(self, data: bytes) -> None:
        if data:
            self._file.write(data)
            self.bytes_written += len(data)


class RecordingReader:
    """Reads the lines of a recording, in constant memory.

    Attributes:
        header: the first line.
        problem: after ``lines``, why the file ends too early; ``None`` if it does not.

    Raises:
        RecordingError: the file cannot be read, is not a recording, or has a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.problem: str | None = None
        self._path = path
        with closing(self._all_lines()) as lines:
            first = next(lines, None)
        self.header = _header(path, first, self.problem)

    def lines(self) -> Iterator[bytes | None]:
        """Yield each line after the header; ``None`` for one of more than ``MAX_LINE_BYTES``.

        Blank lines are left out.

        Raises:
            RecordingError: the file cannot be read.
        """
        with closing(self._all_lines()) as lines:
            next(lines, None)
            yield from lines

    def _all_lines(self) -> Generator[bytes | None, None, None]:
        self.problem = None
        rest = bytearray()
        is_too_long = False
        try:
            with decoded_chunks(self._path) as chunks:
                for chunk in chunks:
                    first, *others = chunk.split(b"\n")
                    rest += first
                    for other in others:
                        if is_too_long:
                            yield None
                        elif rest.strip():
                            yield bytes(rest)
                        rest, is_too_long = bytearray(other), False
                    if len(rest) > MAX_LINE_BYTES:
                        rest, is_too_long = bytearray(), True
            if rest or is_too_long:
                self.problem = "it ends in the middle of a line"
        except Damaged as damaged:
            self.problem = str(damaged)
        except OSError as error:
            raise RecordingError(f"cannot read {self._path}: {error.strerror or error}") from None


def new_header(
    version: str, query: Mapping[str, Any], since: str | None, clusters: tuple[str, ...]
) -> Header:
    """Return the header of a recording that begins now.

    Args:
        version: of this program.
        query: the filter; parameters without a value are left out.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    given = {name: value for name, value in query.items() if value not in (None, (), "")}
    return Header(FORMAT, version, now, given, since, clusters)


def _header(path: Path, line: bytes | None, problem: str | None) -> Header:
    """Return the header in the first line of a file.

    Raises:
        RecordingError: it is none, or has a newer format.
    """
    if line is None and problem is not None:
        raise RecordingError(f"cannot read {path}: {problem}, before its first line")
    try:
        header = decode_object(line or b"")
    except (ValueError, RecursionError):
        header = {}
    version = header.get("format")
    if header.get("type") != _TYPE or type(version) is not int:
        raise RecordingError(
            f"{path} is not a recording: its first line is not the header that celery-gateway record writes"
        )
    writer = header.get("celery_gateway")
    if not 1 <= version <= FORMAT:
        raise RecordingError(
            f"{path} has format {version} (written by celery-gateway {writer}), and this version reads up to "
            f"format {FORMAT}: use a newer celery-gateway"
        )
    clusters, filter_, since = header.get("clusters"), header.get("filter"), header.get("since")
    return Header(
        version,
        str(writer),
        str(header.get("recorded_at")),
        filter_ if isinstance(filter_, dict) else {},
        since if isinstance(since, str) else None,
        tuple(map(str, clusters)) if isinstance(clusters, list) else (),
    )
