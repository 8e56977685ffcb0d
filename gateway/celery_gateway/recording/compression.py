"""The compressed forms of a recording: zstd, gzip, or none.

zstd is in Python's standard library from 3.14 on. Before, it is the package backports.zstd, which has the
same interface.
"""

import gzip
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from celery_gateway.errors import RecordingError

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 256 << 10


class Encoder(Protocol):
    """Compresses a stream. What was given to it can be read once ``flush`` or ``end`` was written."""

    def encode(self, data: bytes) -> bytes:
        """Return the compressed bytes that are ready, perhaps none."""

    def flush(self) -> bytes:
        """Return everything that waits; the next data still refers to the data before."""

    def end(self) -> bytes:
        """Do the same, and end the frame (zstd) or the member (gzip): the next data begins another one."""


class _Plain:
    def encode(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""

    def end(self) -> bytes:
        return b""


class _Gzip:
    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._compressor = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)

    def encode(self, data: bytes) -> bytes:
        return self._compressor.compress(data)

    def flush(self) -> bytes:
        return self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        data = self._compressor.flush(zlib.Z_FINISH)
        self._begin()
        return data


class _Zstd:
    def __init__(self) -> None:
        zstd = zstd_module()
        options = {zstd.CompressionParameter.checksum_flag: 1}
        self._compressor = zstd.ZstdCompressor(options=options)

    def encode(self, data: bytes) -> bytes:
        return cast(bytes, self._compressor.compress(data))

    def flush(self) -> bytes:
        return cast(bytes, self._compressor.flush(self._compressor.FLUSH_BLOCK))

    def end(self) -> bytes:
        return cast(bytes, self._compressor.flush(self._compressor.FLUSH_FRAME))


def zstd_module() -> Any:
    """Return Python's module for zstd, or its backport.

    Raises:
        RecordingError: there is none.
    """
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise RecordingError(
            "zstd is not installed: run pip install backports.zstd, or use a recording that is compressed "
            "with gzip (.gz), or not at all"
        ) from None
    return zstd


def has_zstd() -> bool:
    """Return whether zstd can be used."""
    try:
        zstd_module()
    except RecordingError:
        return False
    return True


def encoder_for(name: str) -> Encoder:
    """Return the encoder for a file's name: zstd for ``.zst``, gzip for ``.gz``, else none.

    Raises:
        RecordingError: zstd is not installed.

    >>> type(encoder_for("out.ndjson.gz")).__name__
    '_Gzip'
    """
    lower = name.lower()
    if lower.endswith((".zst", ".zstd")):
        return _Zstd()
    return _Gzip() if lower.endswith(".gz") else _Plain()


class Damaged(Exception):
    """The rest of a file cannot be read; the text is the reason."""


@contextmanager
def decoded_chunks(path: Path) -> Iterator[Iterator[bytes]]:
    """Open a file, and yield an iterator of its content in chunks, decompressed by its first bytes.

    The iterator raises ``Damaged`` if the compressed data ends too early, or is damaged, after all data
    before that point.

    Raises:
        RecordingError: the file needs zstd, which is not installed.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        magic = file.peek(4)[:4]
        if magic.startswith(_ZSTD_MAGIC):
            zstd = zstd_module()
            yield _chunks(zstd.ZstdFile(file), (EOFError, zstd.ZstdError))
        elif magic.startswith(_GZIP_MAGIC):
            opened = cast(BinaryIO, gzip.GzipFile(fileobj=file))
            yield _chunks(opened, (EOFError, zlib.error, gzip.BadGzipFile))
        else:
            yield _chunks(file, ())


def _chunks(file: Any, errors: tuple[type[Exception], ...]) -> Iterator[bytes]:
    while True:
        try:
            # read1: read() would drop the data before an error.
            chunk = file.read1(_CHUNK_BYTES)
        except EOFError:
            raise Damaged("it ends in the middle of its compressed data") from None
        except errors as error:
            raise Damaged(f"its compressed data is damaged ({error})") from None
        if not chunk:
            return
        yield chunk
