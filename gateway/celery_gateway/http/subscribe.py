"""From a checked request for a stream to a subscription."""

from collections.abc import Callable
from functools import partial

from celery_gateway.events.truncate import shorten
from celery_gateway.http.stream_query import StreamQuery
from celery_gateway.pipeline import Pipeline
from celery_gateway.state.task_record import Record
from celery_gateway.stream.framing import FieldProjection, PlainFraming, projected_framing
from celery_gateway.stream.record_view import RecordView, record_view
from celery_gateway.stream.snapshot import PAGE_BYTES, Snapshot
from celery_gateway.stream.subscription import Subscription

PAGE_FRAME_BYTES = 250
"""What a page of a snapshot has beside its records, in any format, in bytes."""


def is_complete(pipeline: Pipeline, query: StreamQuery) -> bool:
    """Return whether a client reconnects to a stream whose end it has received."""
    return (
        query.until is not None
        and query.last_event_id is not None
        and pipeline.completions.is_complete(query.until, query.last_event_id)
    )


def subscribe(
    pipeline: Pipeline, query: StreamQuery, framing: PlainFraming, client: str = ""
) -> Subscription:
    """Return a subscription for a request.

    Args:
        framing: how its messages are encoded.
        client: the address of the client, to charge it.

    Raises:
        OverLimit: the limits do not allow it now.
    """
    hub, requested = pipeline.hub, query.snapshot
    begin: Callable[[], Snapshot] | None = None
    if requested is not None:
        fields, max_bytes = query.fields, query.max_event_bytes or hub.max_event_bytes
        page_bytes = max(0, max_bytes - PAGE_FRAME_BYTES)

        def view(record: Record) -> bytes:
            return shorten(pipeline.view(record, fields), page_bytes)

        begin = partial(
            pipeline.snapshots.begin,
            requested.filter,
            framing,
            view,
            (fields, page_bytes),
            client=client,
            follows_filter=not requested.is_due_when_resumed,
            page_bytes=min(page_bytes or PAGE_BYTES, PAGE_BYTES),
        )
    subscription = hub.subscribe(
        query.filter,
        _event_framing(pipeline, query, framing),
        query.last_event_id,
        query.since,
        begin,
        snapshot_when_resumed=requested is not None and requested.is_due_when_resumed,
        client=client,
    )
    subscription.send(pipeline.status(subscription.id))
    if query.until is not None:
        pipeline.completions.add(subscription, query.until)
    return subscription


def _event_framing(
    pipeline: Pipeline, query: StreamQuery, framing: PlainFraming
) -> PlainFraming | FieldProjection | RecordView:
    """Return how the events are encoded."""
    if query.view == "record":
        max_event_bytes = query.max_event_bytes or pipeline.hub.max_event_bytes
        return record_view(framing, query.fields, max_event_bytes, pipeline.records.find)
    return projected_framing(framing, query.fields, query.max_event_bytes)
