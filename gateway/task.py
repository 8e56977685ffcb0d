"""A task as events describe it: the fields of Celery's own ``State.Task``, and what follows from them.

Names are those of celery/events/state.py (``Task._fields``), except that ``worker`` and ``client`` are node
names. How events change it is told in ``course``.
"""

from collections.abc import Iterable

import msgspec

from gateway.event import encode
from gateway.state import READY_STATES

_NOT_RUNNING = frozenset({None, "PENDING", "RETRY", "CANCELLED", "REJECTED"}) | READY_STATES


class Task(msgspec.Struct, gc=False):  # no reference leads back to it, so the collector can pass it by
    """What is known of one task. Times are epoch seconds, UTC, on the sender's clock.

    Attributes:
        type: of the youngest event.
        timestamp: of the youngest event.
        worker: the node that received or runs it.
        client: the node that sent it.
        attempts: how often a worker has begun it, so far as that follows from all that was heard.
        starts: how often it was heard to begin; in a task that was retried before we listened, from there on.
        retries: of the youngest message.
        queued_seconds: of the last attempt, up to started: from sent, from rejected where it went back to
            the queue, or else from received. A wait for ``eta`` is in it.
        runtime: seconds, as the worker says; of a failed task, or where it does not say, from started on.
        informed: the time of the youngest custom event, such as ``task-progress``, of the last attempt.
        info: the own fields of that event.
        progress: 0..1, where ``info`` says so, or has ``current`` and ``total``.
        clock: of the youngest event.
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
    args: str | None = None
    kwargs: str | None = None
    eta: str | None = None
    expires: str | float | None = None
    retries: int = 0
    attempts: int = 0
    starts: int = 0
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
        return self.state not in _NOT_RUNNING

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
        """Return what filters look at, as ``event.keys`` does: of its latest event, so to speak."""
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


def view(task: Task, children: Iterable[str], is_stale: bool) -> bytes:
    """Return a task as JSON, with what lies outside of its record.

    Args:
        children: the uuids of the tasks that it has started.
        is_stale: its worker died while it had it.
    """
    return b'%b,"children":%b,"stale":%b}' % (
        encode(task)[:-1],
        encode(list(children)),
        b"true" if is_stale else b"false",
    )


VIEW_FIELDS = (*Task.__struct_fields__, "children", "stale")
"""The fields of ``view``, in its order."""
