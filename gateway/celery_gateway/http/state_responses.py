"""Parts of responses about state: a task's view, some fields of an event, and the errors 404 and 409."""

from collections.abc import Callable, Iterator, Sequence

import msgspec
from starlette.responses import Response

from celery_gateway.events.event import encode
from celery_gateway.events.fields import Fields
from celery_gateway.http.errors import error_response
from celery_gateway.state.task import encode_attempts, encode_fields, stale_field
from celery_gateway.state.task_record import Record, shows_attempts
from celery_gateway.state.task_table import TaskTable

CHILDREN_PER_STEP = 500
NUMBER_BYTES = 100
"""Memory of an entry of a dict from numbers to records, or the like."""

_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class TaskView:
    """A record's view (``task.view``) as of one moment, encoded in steps later.

    Args:
        fields: the requested fields.
        with_attempts: whether all fields include the attempts.

    Attributes:
        size_bytes: memory that the view takes, without the children.
        children: the records of the tasks that it has started; set by ``freeze_children``.
    """

    __slots__ = ("_head", "_tail", "_record", "_has_children", "children", "size_bytes")

    def __init__(self, record: Record, fields: Fields, *, with_attempts: bool = False) -> None:
        tail = stale_field(record.task) if "stale" in fields else b""
        if shows_attempts(fields, with_attempts):
            tail += b',"attempts":' + encode_attempts(record.current_run(), fields)
        self._head = encode_fields(record.task, fields)
        self._tail = tail + b"}"
        self._record = record
        self._has_children = "children" in fields
        self.children: Sequence[Record] = ()
        self.size_bytes = len(self._head) + len(self._tail) + 2 * NUMBER_BYTES

    def freeze_children(self, is_visible: Callable[[Record], bool] | None) -> None:
        """Set ``children`` as of now.

        Args:
            is_visible: returns whether a child is listed; ``None``: all are.
        """
        if self._has_children and self._record.children:
            children = self._record.children.values()
            self.children = tuple(children if is_visible is None else filter(is_visible, children))

    def pieces(self) -> Iterator[bytes]:
        """Yield the view as JSON, in pieces."""
        if not self._has_children:
            yield self._head + self._tail
            return
        piece = self._head + b',"children":['
        for start in range(0, len(self.children), CHILDREN_PER_STEP):
            ids = [child.task.uuid for child in self.children[start : start + CHILDREN_PER_STEP]]
            yield piece + encode(ids)[1:-1]
            piece = b","
        yield (b"" if self.children else piece) + b"]" + self._tail


def event_pieces(json: bytes, fields: Fields) -> Iterator[bytes]:
    """Yield an encoded object with some of its fields only; their values are not decoded."""
    separator = b"{"
    for field, value in _decode_raw(json).items():
        if field in fields:
            yield separator + encode(field) + b":"
            yield bytes(value)
            separator = b","
    yield b"{}" if separator == b"{" else b"}"


def event_evicted(id: str) -> Response:
    message = f"event {id!r} was evicted from the history; --history-bytes sets how much is kept"
    return error_response(404, "event-evicted", message)


def event_unknown(id: str) -> Response:
    message = f"event {id!r} is unknown: no event in the history has this id; ids change at each start"
    return error_response(404, "event-unknown", message)


def unknown(kind: str, id: str, reason: str = "none of its events was received") -> Response:
    """Return the 404 for a task or a workflow of which nothing is known, or visible."""
    return error_response(404, f"{kind}-unknown", f"{kind} {id!r} is unknown: {reason}")


def not_found(tasks: TaskTable, kind: str, id: str, cluster: str | None) -> Response:
    """Return the 404 for a task or a workflow, with the reason.

    Args:
        kind: ``task`` or ``workflow``.
        id: the uuid or the root_id.
        cluster: the name of the broker, if the request has one.
    """
    if tasks.was_evicted(id, cluster):
        message = f"{kind} {id!r} was evicted: the table is full; --max-tasks sets its size"
        return error_response(404, f"{kind}-evicted", message)
    for record in tasks.find(id, cluster):  # and a workflow was requested
        root_id = record.task.root_id
        message = f"workflow {id!r} is unknown: the task {id!r} is not the root of a workflow"
        if root_id is not None:
            message = f"workflow {id!r} is unknown: the task {id!r} belongs to the root {root_id!r}"
        return error_response(404, f"{kind}-unknown", message, root_id=root_id)
    return unknown(kind, id)


def ambiguous(kind: str, id: str, clusters: Sequence[object]) -> Response:
    """Return the 409 for an id that several brokers have, by their names."""
    names = ", ".join(map(str, clusters))
    return error_response(
        409,
        "ambiguous",
        f"{kind} {id!r} is ambiguous: several brokers have it; choose one of them with cluster= ({names})",
        parameter="cluster",
        allowed=clusters,
    )
