"""The reader of AMQP frames, which takes deliveries out of the broker's bytes before aiormq sees them.

- aiormq carries a delivery through three frame objects, as many queues, and a task: more CPU than everything
  else that a gateway does with the event. Here the frames of deliveries (AMQP 0-9-1, sections 2.3.5 and 4.2)
  are taken out as they come off the socket.
- Every other frame goes to aiormq unchanged: aiormq keeps the handshake, the channels, the replies and the
  errors.
- One channel is consumed: the first that gets a delivery. Deliveries of other channels go to aiormq.
- The callback is called by the transport or by the event loop, in order. It must neither block nor raise.
- Deliveries are processed for about ``SLICE_SECONDS`` in one turn of the event loop. The rest waits for the
  next turns; the transport does not read meanwhile.
"""

import asyncio
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from pamqp.header import ContentHeader

from celery_gateway.events.message import Message

MAX_FRAME_BYTES = 256 << 20
"""RabbitMQ's frames have at most 128 kB unless it is configured otherwise; more than this is not a frame."""
HEARTBEAT_SECONDS = 1.0
"""While the broker sends deliveries it sends no heartbeats, so aiormq gets one from here at this interval."""

SLICE_SECONDS = 0.02
"""How long deliveries are processed in one turn of the event loop, plus at most one delivery."""
SHORT_READ_SECONDS = 0.0005
"""Shorter reads are not added up. (uvloop reads a connection up to 32 times in a turn.)"""

MAX_PROPERTIES_BYTES = 16 << 10
"""The time that pamqp needs for a header grows with the square of its size: 350 ms for 120 kB. Celery's own
headers have about a hundred bytes."""

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8  # types of frames
_FRAME_TYPES = frozenset({_METHOD, _HEADER, _BODY, _HEARTBEAT})
_FRAME_HEAD_BYTES, _CONTENT_HEAD_BYTES = 7, 12
_FRAME_END = 0xCE
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_DELIVER = b"\x00\x3c\x00\x3c"  # class basic, method deliver
_MAX_KNOWN_PROPERTIES, _MAX_KNOWN_PROPERTIES_BYTES = 1_000, 1_000
_OFFSET = b"\x0fx-stream-offsetl"  # the name of the header, and the type of its value: 64 bits, signed

_frame = struct.Struct(">BHI").unpack_from
_uint64 = struct.Struct(">Q").unpack_from
_int64 = struct.Struct(">q").unpack_from

_Properties = tuple[str | None, str | None, str | None]
_Fields = _Properties | tuple[str | None, str | None, str | None, int | None]
"""All fields of a ``Message`` but the body."""


class Delivery(NamedTuple):
    """A message for a consumer; ``tag`` is the delivery tag, which an acknowledgement needs."""

    consumer_tag: bytes
    tag: int
    message: Message


OnDelivery = Callable[[Delivery], Iterator[None] | None]
"""Processes a delivery; returns the rest of the work if it is long (see ``Sink.message``)."""

_END = object()


class DeliveryReader(asyncio.StreamReader):
    """A stream reader that passes on all bytes except those of deliveries, which go to a callback.

    The end of the stream is passed on after everything that was fed before it.

    Args:
        on_delivery: called with each delivery.

    Attributes:
        reads: how often bytes came from the socket, or bytes that had come before were processed.
        properties: of the delivery with which ``on_delivery`` is called, as AMQP encodes them.
    """

    def __init__(self, on_delivery: OnDelivery) -> None:
        super().__init__()
        self.reads = 0
        self.properties = b""
        self._on_delivery = on_delivery
        self._is_amqp = True
        self._rest = b""  # the bytes that were fed and are not processed: the beginning of a frame
        self._channel: int | None = None
        self._expected = 0  # the type of the open delivery's next frame; 0: there is none
        self._consumer_tag = b""
        self._tag = 0
        self._properties: _Fields = (None, None, None)
        self._known_properties: dict[bytes, _Properties] = {}
        self._body: list[bytes] = []
        self._body_bytes_left = 0
        self._heartbeat_due = 0.0
        self._loop = asyncio.get_running_loop()
        self._pauses: _ReadingPauses | None = None
        self._is_behind = False  # ``_rest`` may have whole frames, which the next turn processes
        self._slice_ends = 0.0  # by ``perf_counter``; 0: no long read in this turn yet
        self._turn_end: asyncio.Handle | None = None
        self._work: Iterator[None] | None = None  # what is left of the last delivery
        self._caught_up = asyncio.Event()
        self._caught_up.set()
        self._end: Callable[[], None] | None = None

    def set_transport(self, transport: Any) -> None:
        self._pauses = _ReadingPauses(transport)
        super().set_transport(self._pauses)  # type: ignore[arg-type]  # it uses no other methods

    def feed_eof(self) -> None:
        self._pass_on_end(super().feed_eof)

    def set_exception(self, exc: Exception) -> None:
        self._pass_on_end(partial(super().set_exception, exc))

    def _pass_on_end(self, end: Callable[[], None]) -> None:
        if self._is_behind:
            self._end = end
        else:
            end()

    async def caught_up(self) -> None:
        """Wait until everything that was fed is processed."""
        await self._caught_up.wait()

    def ignore_deliveries(self) -> None:
        """Drop deliveries from now on; all other frames are still passed on."""
        self._on_delivery = _drop
        self._work = None

    def abandon(self) -> None:
        """Drop the bytes that are not processed, because the connection is being aborted."""
        self.ignore_deliveries()
        if self._is_behind:
            self._rest = b""
            self._catch_up()

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # what transports give
        self.reads += 1
        if self._is_behind:
            self._rest += data
            return
        started = perf_counter()
        ended = self._process(data, self._slice_ends or started + SLICE_SECONDS)
        if not self._slice_ends and ended - started > SHORT_READ_SECONDS:
            self._limit_turn(started + SLICE_SECONDS)

    def _limit_turn(self, slice_ends: float) -> None:
        """Give all further reads of this turn the same deadline."""
        if self._turn_end is not None:
            self._turn_end.cancel()
        self._slice_ends = slice_ends
        self._turn_end = self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._slice_ends = 0.0

    def _fall_behind(self) -> None:
        """Leave the rest to the next turn, and do not read until everything is processed."""
        if not self._is_behind:
            self._is_behind = True
            self._caught_up.clear()
            if self._pauses is not None:
                self._pauses.pause_reading()
        self._loop.call_soon(self._continue)

    def _continue(self) -> None:
        if self._is_behind:  # and was not abandoned
            self.reads += 1  # not reading is our decision, not silence of the broker
            deadline = perf_counter() + SLICE_SECONDS
            self._limit_turn(deadline)
            self._process(b"", deadline)

    def _catch_up(self) -> None:
        self._is_behind = False
        self._caught_up.set()
        if self._end is not None:
            self._loop.call_soon(self._end)  # after aiormq has read the last frames: an error discards them
        elif self._pauses is not None:
            self._pauses.resume_reading()

    def _process(self, data: bytes, deadline: float) -> float:
        """Process the rest of earlier reads and ``data``, as far as the deadline allows.

        At least one delivery, or one step of its work, is processed; other frames have no limit.

        Args:
            deadline: by ``perf_counter``.

        Returns:
            The time by ``perf_counter`` after the last delivery; 0.0 if there was none.
        """
        if not self._is_amqp:
            super().feed_data(data)
            return 0.0
        now = 0.0
        while self._work is not None:
            if next(self._work, _END) is _END:
                self._work = None
            if (now := perf_counter()) >= deadline:
                self._rest += data
                self._fall_behind()
                return now
        if self._rest:
            data = self._rest + data
        others = []
        position, available = 0, len(data)
        while available - position > _FRAME_HEAD_BYTES:
            frame_type, channel, size = _frame(data, position)
            start = position + _FRAME_HEAD_BYTES
            end = start + size
            if (
                frame_type not in _FRAME_TYPES
                or size > MAX_FRAME_BYTES
                or (end < available and data[end] != _FRAME_END)
            ):
                # Another protocol, or another version of AMQP: aiormq reports the error.
                self._is_amqp = False
                others.append(data[position:])
                position = available
                break
            if end >= available:
                break
            position = end + 1
            if not self._is_of_delivery(frame_type, channel, data, start, end):
                others.append(data[start - _FRAME_HEAD_BYTES : position])
            elif not self._expected and ((now := perf_counter()) >= deadline or self._work is not None):
                break  # behind a whole delivery
        self._rest = data[position:]
        if others:
            super().feed_data(b"".join(others))
        elif position and time.monotonic() >= self._heartbeat_due:
            self._heartbeat_due = time.monotonic() + HEARTBEAT_SECONDS
            super().feed_data(HEARTBEAT_FRAME)
        if self._work is not None or (now >= deadline and self._rest):
            self._fall_behind()
        elif self._is_behind:
            self._catch_up()
        return now

    def _is_of_delivery(self, frame_type: int, channel: int, data: bytes, start: int, end: int) -> bool:
        """Process a frame if it is a part of a delivery, and return whether it is.

        Args:
            start, end: of its payload in ``data``.
        """
        if frame_type == _METHOD:
            if not data.startswith(_DELIVER, start) or self._channel not in (None, channel):
                return False
            self._channel = channel
            tag_start = start + 5
            tag_end = tag_start + data[tag_start - 1]
            self._consumer_tag = data[tag_start:tag_end]
            self._tag = _uint64(data, tag_end)[0]
            self._expected = _HEADER
            return True
        if channel != self._channel or frame_type != self._expected:
            return False
        if frame_type == _HEADER:
            self.properties = data[start + _CONTENT_HEAD_BYTES : end]
            self._properties = self._read_properties(self.properties, data, start, end)
            self._body_bytes_left = _uint64(data, start + 4)[0]
        else:
            self._body.append(data[start:end])
            self._body_bytes_left -= end - start
        if self._body_bytes_left > 0:
            self._expected = _BODY
            return True
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._expected = 0
        self._work = self._on_delivery(
            Delivery(self._consumer_tag, self._tag, Message(body, *self._properties))
        )
        return True

    def _read_properties(self, encoded: bytes, data: bytes, start: int, end: int) -> _Fields:
        """Return content type, encoding and compression of a content header, and the offset in a stream.

        Most headers are equal, but for the offset.
        """
        known = self._known_properties.get(encoded)
        if known is not None:
            return known
        offset_start = encoded.find(_OFFSET) + len(_OFFSET)
        if offset_start >= len(_OFFSET) and offset_start + 8 <= len(encoded):
            # The broker replaces this header of a publisher, so what is there twice is a part of a value.
            offset = _int64(encoded, offset_start)[0] if encoded.count(_OFFSET) == 1 else None
            key = encoded[:offset_start] + encoded[offset_start + 8 :]
            return (*(self._known_properties.get(key) or self._decode(key, data, start, end)), offset)
        return self._decode(encoded, data, start, end)

    def _decode(self, key: bytes, data: bytes, start: int, end: int) -> _Properties:
        """Decode a content header, and remember its fields under ``key``."""
        header = ContentHeader()
        try:
            if len(key) > MAX_PROPERTIES_BYTES:
                raise ValueError("too long")
            header.unmarshal(data[start:end])
            properties = header.properties
            compression = (properties.headers or {}).get("compression")
            fields = (
                properties.content_type,
                properties.content_encoding,
                None if compression is None else str(compression),
            )
        except (ValueError, TypeError, ArithmeticError, RecursionError, struct.error):
            fields = ("unreadable properties", None, None)
        if len(self._known_properties) >= _MAX_KNOWN_PROPERTIES:
            self._known_properties.clear()
        if len(key) <= _MAX_KNOWN_PROPERTIES_BYTES:
            self._known_properties[key] = fields
        return fields


class _Pausable(Protocol):
    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class _ReadingPauses:
    """Pauses the reading of a transport while at least one of its two users has paused it.

    The users are the stream (aiormq does not read it fast enough) and the processing of deliveries.
    """

    def __init__(self, transport: _Pausable) -> None:
        self._transport = transport
        self._pauses = 0

    def pause_reading(self) -> None:
        self._pauses += 1
        if self._pauses == 1 and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._pauses -= 1
        if not self._pauses and not self._transport.is_closing():
            self._transport.resume_reading()


def _drop(_: Delivery) -> Iterator[None] | None:
    """Process a delivery that is no longer wanted."""
    return None
