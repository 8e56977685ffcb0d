"""Control messages: what the gateway itself says in a stream, beside Celery's events.

Each is one JSON object whose ``type`` begins with ``gateway-``; no event may have such a type.
"""

from typing import Literal, NamedTuple

from gateway.event import encode

GapReason = Literal["evicted", "slow", "broker", "unknown-id"]
Resume = Literal["live", "resumed", "reset"]
CloseReason = Literal["ready", "drain", "slow", "expired", "limit"]


class Control(NamedTuple):
    """A control message: its type, and the whole object encoded."""

    type: str
    json: bytes


def opened(id: bytes, resume: Resume) -> Control:
    """First on every stream: what follows begins right after ``id``."""
    return _control("gateway-open", id, resume=resume)


def gap(id: bytes, reason: GapReason, lost: int | None) -> Control:
    """Events were, or may have been, lost up to ``id``; ``lost`` is how many, where that is known."""
    return _control("gateway-gap", id, reason=reason, lost=lost)


def closed(id: bytes, reason: CloseReason) -> Control:
    """Last on a stream that the gateway ends: all up to ``id`` was sent."""
    return _control("gateway-close", id, reason=reason)


def bookmark(id: bytes) -> Control:
    """Keep-alive: nothing that matches happened up to ``id``."""
    return _control("gateway-bookmark", id)


def _control(type: str, id: bytes, **fields: str | int | None) -> Control:
    return Control(type, encode({"type": type, **fields, "id": id.decode()}))
