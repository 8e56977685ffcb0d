"""Control messages: what the gateway itself sends in a stream, beside Celery's events.

Rules:

- Each is one JSON object with a ``type`` that begins with ``gateway-``. No event may have such a type.
- Each has an ``id``: the position up to which the client got everything (see ``history``).

Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from celery_gateway.events.event import encode

GapReason = Literal["evicted", "slow", "broker", "unknown-id"]
Resume = Literal["live", "resumed", "reset"]
CloseReason = Literal["ready", "lost", "unknown", "drain", "slow", "expired", "limit"]

CLOSE_CODES: dict[CloseReason, int] = {
    "ready": 1000,
    "lost": 4010,
    "unknown": 4004,
    "drain": 1012,  # service restart: reconnect
    "limit": 1013,  # try again later
    "expired": 4001,
    "slow": 4008,
}
"""The WebSocket close code for each reason (RFC 6455 section 7.4, and the IANA registry)."""
FINAL_REASONS = frozenset({"ready", "lost", "unknown"})
"""What the client waits for has ended: another stream would end in the same way."""

AT_ONCE_REASONS = frozenset({"limit", "expired"})
"""The stream ends at once, without what is left for it: the client may use, or read, no more."""


class ControlMessage(NamedTuple):
    """A control message: its type, and the whole object encoded.

    ``retry_ms``: when the client should reconnect, in milliseconds.
    """

    type: str
    json: bytes
    retry_ms: int | None = None


def open_message(id: bytes, resume: Resume) -> ControlMessage:
    """Make the first message of every stream: what follows begins right after ``id``."""
    return _message("gateway-open", id, resume=resume)


def gap_message(id: bytes, reason: GapReason, lost: int | None, cluster: str | None = None) -> ControlMessage:
    """Make the message that events up to ``id`` were, or may have been, lost.

    Args:
        lost: how many, where that is known.
        cluster: the broker of the lost events, if brokers have names.
    """
    if cluster is None:
        return _message("gateway-gap", id, reason=reason, lost=lost)
    return _message("gateway-gap", id, reason=reason, lost=lost, cluster=cluster)


def snapshot_message(
    id: bytes, tasks: Iterable[bytes], workers: Iterable[bytes], done: bool
) -> ControlMessage:
    """Make a page of a snapshot.

    Args:
        tasks, workers: each encoded. A task that is in a later page, too, has changed meanwhile.
        done: it is the last page; what follows begins right after ``id``.
    """
    json = b'{"type":"gateway-snapshot","tasks":[%b],"workers":[%b],"done":%b,"id":"%b"}' % (
        b",".join(tasks),
        b",".join(workers),
        b"true" if done else b"false",
        id,
    )
    return ControlMessage("gateway-snapshot", json)


def close_message(
    id: bytes, reason: CloseReason, retry_ms: int | None = None, details: Mapping[str, object] | None = None
) -> ControlMessage:
    """Make the last message of a stream that the gateway ends: everything up to ``id`` was sent.

    Args:
        retry_ms: when to reconnect, in milliseconds.
        details: more fields.
    """
    fields = {"reason": reason, **(details or {})}
    if retry_ms is None:
        return _message("gateway-close", id, **fields)
    return _message("gateway-close", id, **fields, retry_ms=retry_ms)._replace(retry_ms=retry_ms)


def status_message(
    id: bytes, sources: Sequence[Mapping[str, object]], gateway: Mapping[str, object] | None = None
) -> ControlMessage:
    """Make the message with the state of each broker's source: sent after ``gateway-open`` and at each
    change.

    Args:
        gateway: fields about the gateway that sends it; ``None`` in an entry of the log.
    """
    return _message("gateway-status", id, sources=sources, **(gateway or {}))


def worker_message(id: bytes, worker: bytes) -> ControlMessage:
    """Make the report of a worker that is new or has changed.

    Args:
        worker: encoded.
    """
    return ControlMessage("gateway-worker", b'{"type":"gateway-worker","worker":%b,"id":"%b"}' % (worker, id))


def statistics_message(
    id: bytes, head: bytes, names: Iterable[bytes], rest: bytes, *, is_last: bool
) -> ControlMessage:
    """Make the report of what tasks do, by name.

    Args:
        head: ``window``, ``time`` and ``since``, encoded, without braces.
        names: the names that have changed, each encoded.
        rest: ``other`` and ``total``, encoded, without braces.
        is_last: no further part of the report follows.
    """
    done = b"true" if is_last else b"false"
    json = b'{"type":"gateway-statistics",%b,"names":[%b],%b,"done":%b,"id":"%b"}' % (
        head,
        b",".join(names),
        rest,
        done,
        id,
    )
    return ControlMessage("gateway-statistics", json)


def skipped_message(id: bytes, count: int) -> ControlMessage:
    """Make the report that events up to ``id`` were skipped, because of ``max_rate``."""
    return _message("gateway-skipped", id, count=count)


def control_message(id: bytes, fields: Mapping[str, object]) -> ControlMessage:
    """Make the message that a client's action was sent to the workers.

    Args:
        fields: the action and the task.
    """
    return _message("gateway-control", id, **fields)


def filter_message(id: bytes) -> ControlMessage:
    """Make the answer to a new filter: it applies after ``id``."""
    return _message("gateway-filter", id)


def pong_message(id: bytes) -> ControlMessage:
    """Make the answer to a client's ping."""
    return _message("gateway-pong", id)


def error_message(
    id: bytes, code: str, message: str, parameter: str, details: Mapping[str, object] | None = None
) -> ControlMessage:
    """Make the answer to an invalid message of a client; the stream continues.

    Args:
        details: more fields.
    """
    fields = {"code": code, "message": message, "parameter": parameter, **(details or {})}
    return _message("gateway-error", id, **fields)


def bookmark_message(id: bytes) -> ControlMessage:
    """Make a keep-alive: there was no matching entry up to ``id``."""
    return _message("gateway-bookmark", id)


def _message(type: str, id: bytes, **fields: object) -> ControlMessage:
    return ControlMessage(type, encode({"type": type, **fields, "id": id.decode()}))
