"""The record of a task, and its JSON. Pure.

Names are those of celery/events/state.py (``Task._fields``), except that ``worker`` and ``client`` are node
names. How events change the record: ``lifecycle``, ``task_fields``.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from celery_gateway.events.event import encode
from celery_gateway.events.fields import ALL_FIELDS, Fields
from celery_gateway.state.attempt import Attempt
from celery_gateway.state.transitions import READY_STATES, UNASSIGNED_STATES

_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Task(msgspec.Struct, gc=False):  # in no reference cycle
    """A task as its events have reported it. Times are epoch seconds, UTC, on the sender's clock.

    State, times, worker and outcome are those of the current attempt (see ``attempt``). The call (``sent``,
    ``args``, ``eta``, ``queue``, ``retries``, …) is that of the last message.

    Attributes:
        type: the type of the event that set the state; ``timestamp`` and ``clock`` are of that event, too.
        worker: the node that received or runs it.
        client: the node that sent it.
        retried, rejected: when an attempt of this run last ended so.
        lost: when the gateway found that the worker's process is gone, on the gateway's clock.
        attempt: the number of the current attempt in its run, from 1; 0 while the task is only sent.
        retries: the retries of the last message.
        queued_seconds: the time in the queue until started: from sent; from rejected if it was requeued; or
            else from received. A wait for ``eta`` is included.
        runtime: seconds, as the worker reports it; of a failed task, or without a report, since started.
        custom_at: the time of the last custom event, such as ``task-progress``, of the current attempt.
        custom: the fields of that event that Celery's events do not have.
        progress: 0..1, if ``custom`` has ``progress``, or ``current`` and ``total``; 1 at SUCCESS.
        pid: of the worker that runs it.
        cluster: the broker's name; left out if it has none.
    """

    uuid: str
    name: str | None = None
    state: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    type: str | None = None
    timestamp: float = 0.0
    worker: str | None = None
    client: str | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    sent: float | None = None
    received: float | None = None
    started: float | None = None
    succeeded: float | None = None
    failed: float | None = None
    retried: float | None = None
    revoked: float | None = None
    rejected: float | None = None
    lost: float | None = None
    args: str | None = None
    kwargs: str | None = None
    eta: str | None = None
    expires: str | float | None = None
    retries: int = 0
    attempt: int = 0
    queued_seconds: float | None = None
    runtime: float | None = None
    result: str | None = None
    exception: str | None = None
    traceback: str | None = None
    custom_at: float | None = None
    custom: msgspec.Raw | None = None
    progress: float | None = None
    clock: int | None = None
    pid: int | None = None
    cluster: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_ready(self) -> bool:
        """True if it has ended, in whatever way."""
        return self.state in READY_STATES

    @property
    def is_running(self) -> bool:
        """True if a worker has received or started it, and it has not ended."""
        return self.state not in UNASSIGNED_STATES

    @property
    def begun_at(self) -> float | None:
        """When it was sent, or else received, or else started."""
        return self.sent or self.received or self.started

    @property
    def ended_at(self) -> float | None:
        """When it ended; ``None`` if it has not ended."""
        ended = {"SUCCESS": self.succeeded, "FAILURE": self.failed, "REVOKED": self.revoked}
        return ended.get(self.state or "")

    def keys(self) -> tuple[str | None, ...]:
        """Return the values that filters compare, as ``event.keys`` does: those of its last event."""
        return (
            self.type,
            self.name,
            self.root_id,
            self.parent_id,
            self.uuid,
            self.worker or self.client,
            self.state,
            self.queue,
            None if self.cluster is msgspec.UNSET else self.cluster,
        )


def view(
    task: Task,
    children: Iterable[str],
    attempts: Iterable[Attempt] | None = None,
    fields: Fields = ALL_FIELDS,
) -> bytes:
    """Return a task as JSON, with the fields that are not in its record.

    Args:
        children: the uuids of the tasks that it has started.
        attempts: those of its current run, in order; ``None`` to leave them out.
        fields: the fields to keep beside ``uuid``.
    """
    json = encode_fields(task, fields)
    if "children" in fields:
        json += b',"children":%b' % encode(list(children))
    if "stale" in fields:
        json += stale_field(task)
    if attempts is not None and "attempts" in fields:
        json += b',"attempts":%b' % encode_attempts(attempts, fields)
    return json + b"}"


def encode_fields(task: Task, fields: Fields) -> bytes:
    """Return a task as JSON without the last brace.

    Args:
        fields: fields of the record, besides ``uuid``. Hidden ones are removed from ``custom``, too.
    """
    if fields.are_all:
        return encode(task)[:-1]
    picked: dict[str, Any] = {"uuid": task.uuid}
    for field in Task.__struct_fields__:
        if field in fields and (value := getattr(task, field)) is not msgspec.UNSET:
            picked[field] = value
    if fields.hidden and task.custom is not None and "custom" in picked:
        picked["custom"] = without(task.custom, fields.hidden)
    return encode(picked)[:-1]


def without(json: msgspec.Raw | bytes, hidden: frozenset[str]) -> msgspec.Raw:
    """Return an encoded object without some of its fields."""
    return msgspec.Raw(encode({name: value for name, value in _split(json).items() if name not in hidden}))


def stale_field(task: Task) -> bytes:
    """Return the field ``stale`` of a view, behind a comma: whether the task is lost."""
    return b',"stale":false' if task.lost is None else b',"stale":true'


VIEW_FIELDS = (*Task.__struct_fields__, "children", "stale", "attempts")
"""The fields of ``view``, in order. ``stale``: the task is lost."""


def encode_attempts(attempts: Iterable[Attempt], fields: Fields = ALL_FIELDS) -> bytes:
    """Return attempts as a JSON array, without the hidden fields."""
    shown = [_attempt_fields(attempt) for attempt in attempts]
    if fields.hidden:
        shown = [{name: each[name] for name in each if name not in fields.hidden} for each in shown]
    return encode(shown)


def _attempt_fields(attempt: Attempt) -> dict[str, Any]:
    key = None if attempt.process is None else attempt.process.key
    return {
        "retries": attempt.retries,
        "state": attempt.state,
        "worker": key and key.hostname,
        "pid": key and key.pid,
        "sent": attempt.sent,
        "eta": attempt.eta,
        "received": attempt.received,
        "started": attempt.started,
        "ended": attempt.ended,
        "exception": attempt.exception,
    }
