"""Control messages: what the gateway itself says in a stream, beside Celery's events.

Each is one JSON object whose ``type`` begins with ``gateway-``; no event may have such a type.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from gateway.event import encode

GapReason = Literal["evicted", "slow", "broker", "unknown-id"]
Resume = Literal["live", "resumed", "reset"]
CloseReason = Literal["ready", "lost", "unknown", "drain", "slow", "expired", "limit"]

CLOSE_CODES: dict[CloseReason, int] = {
    "ready": 1000,
    "lost": 4010,
    "unknown": 4004,
    "drain": 1012,  # service restart: come back
    "limit": 1013,  # try again later
    "expired": 4001,
    "slow": 4008,
}
"""The WebSocket close code that goes with each reason (RFC 6455 section 7.4, and the IANA registry)."""


class Control(NamedTuple):
    """A control message: its type, and the whole object encoded.

    ``retry_ms``: when the client is asked to come back, where it is.
    """

    type: str
    json: bytes
    retry_ms: int | None = None


def opened(id: bytes, resume: Resume) -> Control:
    """First on every stream: what follows begins right after ``id``."""
    return _control("gateway-open", id, resume=resume)


def gap(id: bytes, reason: GapReason, lost: int | None, cluster: str | None = None) -> Control:
    """Events were, or may have been, lost up to ``id``; ``lost`` is how many, where that is known.

    ``cluster`` names the broker of which they were, if brokers have names.
    """
    if cluster is None:
        return _control("gateway-gap", id, reason=reason, lost=lost)
    return _control("gateway-gap", id, reason=reason, lost=lost, cluster=cluster)


def snapshot(id: bytes, tasks: Iterable[bytes], workers: Iterable[bytes], done: bool) -> Control:
    """A page of what is known; with ``done`` it is the last, and what follows begins right after ``id``.

    Args:
        tasks, workers: each encoded. A task that comes again in a later page has changed meanwhile.
    """
    json = b'{"type":"gateway-snapshot","tasks":[%b],"workers":[%b],"done":%b,"id":"%b"}' % (
        b",".join(tasks),
        b",".join(workers),
        b"true" if done else b"false",
        id,
    )
    return Control("gateway-snapshot", json)


def closed(
    id: bytes, reason: CloseReason, retry_ms: int | None = None, details: Mapping[str, object] | None = None
) -> Control:
    """Last on a stream that the gateway ends: all up to ``id`` was sent; come back after ``retry_ms``.

    Args:
        details: more fields.
    """
    fields = {"reason": reason, **(details or {})}
    if retry_ms is None:
        return _control("gateway-close", id, **fields)
    return _control("gateway-close", id, **fields, retry_ms=retry_ms)._replace(retry_ms=retry_ms)


def status(id: bytes, sources: Sequence[Mapping[str, object]]) -> Control:
    """Whether the gateway hears its brokers, and if not, why: after ``gateway-open``, and at each change."""
    return _control("gateway-status", id, sources=sources)


def filtered(id: bytes) -> Control:
    """The answer to a new filter: it holds from ``id`` on."""
    return _control("gateway-filter", id)


def pong(id: bytes) -> Control:
    """The answer to a client's ping."""
    return _control("gateway-pong", id)


def refused(id: bytes, code: str, message: str, parameter: str) -> Control:
    """The answer to a client's message that cannot be followed; the stream goes on."""
    return _control("gateway-error", id, code=code, message=message, parameter=parameter)


def bookmark(id: bytes) -> Control:
    """Keep-alive: nothing that matches happened up to ``id``."""
    return _control("gateway-bookmark", id)


def _control(type: str, id: bytes, **fields: object) -> Control:
    return Control(type, encode({"type": type, **fields, "id": id.decode()}))
