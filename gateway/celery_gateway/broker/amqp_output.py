"""AMQP frames that are written to the socket at once, without aiormq's queues and tasks.

They may be written between aiormq's own frames, because aiormq writes whole frames only. A message needs a
channel on which aiormq publishes nothing (AMQP 0-9-1, sections 2.3.5 and 4.2). Pure.
"""

import struct

import pamqp.frame
from pamqp.commands import Basic

_DEFAULT_FRAME_BYTES = 128 << 10
"""For a broker that sets no limit."""
_FRAME_EXTRA_BYTES = 8  # head and end of a frame
_METHOD, _HEADER, _BODY = 1, 2, 3
_FRAME_END = b"\xce"
_BASIC = 60

_frame_head = struct.Struct(">BHI").pack
_acknowledge = struct.Struct(">BHIHHQBB").pack
_content_head = struct.Struct(">HHQ").pack


def acknowledge_frame(channel: int, tag: int) -> bytes:
    """Return a ``basic.ack`` for all deliveries up to a delivery tag."""
    return _acknowledge(_METHOD, channel, 13, _BASIC, 80, tag, 1, 0xCE)


def cancel_frame(channel: int, consumer_tag: str) -> bytes:
    """Return a ``basic.cancel`` that gets no reply."""
    return pamqp.frame.marshal(Basic.Cancel(consumer_tag, nowait=True), channel)


class Publishing:
    """Encodes messages for one exchange and routing key.

    Args:
        channel: its number.
        max_frame_bytes: as negotiated with the broker; 0 for no limit.
        properties: of all messages.
        mandatory: whether the broker returns a message that no queue gets.
    """

    def __init__(
        self,
        channel: int,
        max_frame_bytes: int,
        exchange: str,
        routing_key: str,
        properties: Basic.Properties,
        *,
        mandatory: bool,
    ) -> None:
        self._method = pamqp.frame.marshal(
            Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory), channel
        )
        self._properties = properties.marshal()
        self._header_head = _frame_head(_HEADER, channel, 12 + len(self._properties))
        self._channel = channel
        self._max_body_bytes = (max_frame_bytes or _DEFAULT_FRAME_BYTES) - _FRAME_EXTRA_BYTES

    def frames(self, body: bytes) -> bytes:
        """Return the frames of a message."""
        size = len(body)
        parts = [
            self._method,
            self._header_head,
            _content_head(_BASIC, 0, size),
            self._properties,
            _FRAME_END,
        ]
        for start in range(0, size, self._max_body_bytes):
            part = body if size <= self._max_body_bytes else body[start : start + self._max_body_bytes]
            parts += (_frame_head(_BODY, self._channel, len(part)), part, _FRAME_END)
        return b"".join(parts)
