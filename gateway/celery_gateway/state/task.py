"""A task as events describe it: the fields of Celery's own ``State.Task``, and what follows from them.

Names are those of celery/events/state.py (``Task._fields``), except that ``worker`` and ``client`` are node
names. ``course`` says how events change it.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.attempt import Attempt
from gateway.event import encode
from gateway.state import NOT_HELD_STATES, READY_STATES


class Task(msgspec.Struct, gc=False):  # no reference leads back to it, so the collector can pass it by
    """What is known of one task. Times are epoch seconds, UTC, on the sender's clock.

    State, times, worker and outcome are those of the last attempt that a worker took up (see ``attempt``);
    the call (``sent``, ``args``, ``eta``, ``queue``, ``retries``, …) is that of the youngest message.

    Attributes:
        type: of the event that set the state last; ``timestamp`` and ``clock`` are also of that event.
        worker: the node that received or runs it.
        client: the node that sent it.
        retried, rejected: when an attempt of this run last ended so.
        lost: when the gateway found that the worker's process is gone, on the gateway's clock.
        attempts: how many attempts the run has had, those before the gateway listened included.
        retries: of the youngest message.
        queued_seconds: of the last attempt, up to started: from sent, from rejected where it went back to
            the queue, or else from received. A wait for ``eta`` is in it.
        runtime: seconds, as the worker says; of a failed task, or where it does not say, from started on.
        informed: the time of the youngest custom event, such as ``task-progress``, of the last attempt.
        info: the own fields of that event.
        progress: 0..1, where ``info`` says so, or has ``current`` and ``total``; 1 at SUCCESS.
        pid: of the worker that runs it.
        cluster: the broker's name; left out where it has none.
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
    attempts: int = 0
    queued_seconds: float | None = None
    runtime: float | None = None
    result: str | None = None
    exception: str | None = None
    traceback: str | None = None
    informed: float | None = None
    info: msgspec.Raw | None = None
    progress: float | None = None
    clock: int | None = None
    pid: int | None = None
    cluster: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_ready(self) -> bool:
        """True if it has ended, whichever way."""
        return self.state in READY_STATES

    @property
    def is_running(self) -> bool:
        """True if a worker has it in its hands."""
        return self.state not in NOT_HELD_STATES

    @property
    def begun_at(self) -> float | None:
        """When it was first heard of."""
        return self.sent or self.received or self.started

    @property
    def ended_at(self) -> float | None:
        """When it ended; ``None`` if it has not."""
        ended = {"SUCCESS": self.succeeded, "FAILURE": self.failed, "REVOKED": self.revoked}
        return ended.get(self.state or "")

    def keys(self) -> tuple[str | None, ...]:
        """Return the values that filters look at, as ``event.keys`` does: those of its youngest event."""
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


def view(task: Task, children: Iterable[str], tries: Iterable[Attempt] | None = None) -> bytes:
    """Return a task as JSON, with what lies outside of its record.

    Args:
        children: the uuids of the tasks that it has started.
        tries: its attempts, the first one first; ``None`` to leave them out.
    """
    told = b"" if tries is None else b',"tries":%b' % encode_tries(tries)
    return b'%b,"children":%b,"stale":%b%b}' % (
        encode(task)[:-1],
        encode(list(children)),
        b"false" if task.lost is None else b"true",
        told,
    )


VIEW_FIELDS = (*Task.__struct_fields__, "children", "stale", "tries")
"""The fields of ``view``, in its order. ``stale``: it is lost."""


def encode_tries(tries: Iterable[Attempt]) -> bytes:
    """Return attempts as JSON."""
    return encode([_try(attempt) for attempt in tries])


def _try(attempt: Attempt) -> dict[str, Any]:
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
