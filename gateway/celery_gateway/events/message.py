"""A broker message, as sources pass it on: the raw body, and the properties that describe it."""

from typing import NamedTuple


class Message(NamedTuple):
    """An undecoded message of the event exchange.

    Attributes:
        compression: the header ``compression`` of kombu; ``None`` if the body is not compressed.
        offset: where it is in a RabbitMQ stream; ``None`` if it is from elsewhere.
    """

    body: bytes
    content_type: str | None = "application/json"
    content_encoding: str | None = "utf-8"
    compression: str | None = None
    offset: int | None = None


UNREADABLE = Message(b"", "unreadable")
"""Passed on for a message whose envelope or properties a source cannot read, so that it is counted."""
