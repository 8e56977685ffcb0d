"""A broker message as every source hands it on: the raw body and what its properties say of it."""

from typing import NamedTuple


class Message(NamedTuple):
    """One message taken from the event exchange, still undecoded.

    ``compression`` is kombu's ``compression`` header; ``None`` when the body is not compressed.
    """

    body: bytes
    content_type: str | None = "application/json"
    content_encoding: str | None = "utf-8"
    compression: str | None = None
