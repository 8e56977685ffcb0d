"""The messages between the supervisor of a gateway's processes and each of them.

They travel as lines of JSON over a pair of sockets. The end of the channel is the end of the other side,
however it ended.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from celery_gateway.http.metrics_sum import Series
from celery_gateway.settings import Settings

MAX_LINE_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """What a process gets on its standard input, pickled."""

    settings: Settings
    number: int
    warm_seconds: float
    """How long it waits until it has read the shared log, before it accepts requests."""


class Started(msgspec.Struct, tag=True):
    """From a process: it accepts requests."""


class Metrics(msgspec.Struct, tag=True):
    """From a process: its metrics. ``wants_total``: it needs those of all processes."""

    series: list[Series]
    wants_total: bool = False


class Report(msgspec.Struct, tag=True):
    """To a process: it has to send its metrics."""


class Total(msgspec.Struct, tag=True):
    """To a process: the metrics of all processes."""

    series: list[Series]


class ShutDown(msgspec.Struct, tag=True):
    """To a process: it has to shut down in order."""


Message = Started | Metrics | Report | Total | ShutDown
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[Message]] = msgspec.json.Decoder(Message)


class Channel:
    """One side of a channel.

    Args:
        reader: made with the limit ``MAX_LINE_BYTES``.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, message: Message) -> None:
        """Send a message; if the other side has ended, nothing happens."""
        if not self._writer.is_closing():
            self._writer.write(_ENCODER.encode(message) + b"\n")

    async def messages(self) -> AsyncIterator[Message]:
        """Yield the messages of the other side, until it has ended."""
        with suppress(OSError):
            while (line := await self._reader.readline()).endswith(b"\n"):
                yield _DECODER.decode(line)

    def close(self) -> None:
        """Close this side."""
        self._writer.close()
