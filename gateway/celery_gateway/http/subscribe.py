"""From a checked request for a stream to a subscription."""

from collections.abc import Callable
from functools import partial

from celery_gateway.events.filter import Filter
from celery_gateway.events.truncate import shorten
from celery_gateway.http.stream_query import ReportQuery, StreamQuery
from celery_gateway.http.visible import Visible
from celery_gateway.state.task_record import Record
from celery_gateway.stream.framing import FieldProjection, PlainFraming, projected_framing
from celery_gateway.stream.record_view import RecordView, record_view
from celery_gateway.stream.snapshot import PAGE_BYTES, Snapshot
from celery_gateway.stream.statistics_reports import StatisticsRequest
from celery_gateway.stream.subscription import Subscription

PAGE_FRAME_BYTES = 250
"""What a page of a snapshot has beside its records, in any format, in bytes."""


def is_complete(visible: Visible, query: StreamQuery) -> bool:
    """Return whether a client reconnects to a stream whose end it has received."""
    return (
        query.until is not None
        and query.last_event_id is not None
        and visible.pipeline.completions.is_complete(visible.target(query.until), query.last_event_id)
    )


async def find_beginning(visible: Visible, query: StreamQuery, client: str = "") -> int | None:
    """Wait until a stream can begin; return ``since_position`` for ``subscribe``. See ``Hub``."""
    return await visible.pipeline.hub.find_beginning(query.last_event_id, query.since, client)


def begins_at_once(visible: Visible, query: StreamQuery) -> bool:
    """Return whether a stream can begin without ``find_beginning``."""
    return visible.pipeline.hub.begins_at_once(query.last_event_id, query.since)


def subscribe(
    visible: Visible,
    query: StreamQuery,
    framing: PlainFraming,
    client: str = "",
    replaces: Subscription | None = None,
    since_position: int | None = None,
) -> Subscription:
    """Return a subscription for a request: what its filter passes of what is visible.

    Args:
        framing: how its messages are encoded.
        client: who is charged, see ``query_params.client_of``.
        replaces: the subscription that the client will close for this one; see ``Hub.subscribe``.
        since_position: the result of ``find_beginning``.

    Raises:
        Forbidden: the scope does not allow a parameter of the request.
        OverLimit: the limits do not allow it now.
    """
    pipeline, filter = visible.pipeline, visible.restrict(query.filter)
    target = None if query.until is None else visible.target(query.until)
    if query.view == "record":
        visible.require("state", "view")
    reports = query.reports
    if reports.has_workers:
        visible.require("workers", "workers")
        visible.check_shown([("hostname", "workers")], "reported")  # a report has no other identity
    if reports.statistics_seconds is not None:
        visible.require("state", "statistics")
    subscription = pipeline.hub.subscribe(
        filter,
        _event_framing(visible, query, framing),
        query.last_event_id,
        query.since,
        _snapshot(visible, query, framing, client),
        snapshot_when_resumed=query.snapshot is not None and query.snapshot.is_due_when_resumed,
        client=client,
        replaces=replaces,
        since_position=since_position,
        max_rate=reports.max_rate,
    )
    subscription.send(pipeline.status(subscription.id))
    try:
        pipeline.reporting.add(
            subscription,
            workers=visible.view_worker if reports.has_workers else None,
            statistics=_statistics(visible, reports),
        )
    except BaseException:
        subscription.close()
        raise
    if target is not None:
        pipeline.completions.add(subscription, target)
    return subscription


def _statistics(visible: Visible, reports: ReportQuery) -> StatisticsRequest | None:
    """Return the statistics that a stream reports; ``None`` if there are none."""
    if reports.statistics_seconds is None:
        return None
    window = reports.window_seconds
    key = window, visible.filter, visible.hidden
    return StatisticsRequest(key, lambda: visible.activity(window, Filter()), reports.statistics_seconds)


def _snapshot(
    visible: Visible, query: StreamQuery, framing: PlainFraming, client: str
) -> Callable[[], Snapshot] | None:
    """Return a function that makes the initial snapshot; ``None`` if there is none."""
    requested = query.snapshot
    if requested is None:
        return None
    if tuple(requested.filter.alternatives):  # an empty one only marks the position where the stream begins
        visible.require("state", "snapshot")
    fields, max_bytes = visible.fields(query.fields), _max_event_bytes(visible, query)
    page_bytes = max(0, max_bytes - PAGE_FRAME_BYTES)
    is_visible = visible.filter_of_records

    def view(record: Record) -> bytes:
        return shorten(record.view(fields, is_visible=is_visible), page_bytes)

    return partial(
        visible.pipeline.snapshots.begin,
        visible.restrict(requested.filter),
        framing,
        view,
        (fields, page_bytes, visible.key),
        client=client,
        follows_filter=not requested.is_due_when_resumed,
        page_bytes=min(page_bytes or PAGE_BYTES, PAGE_BYTES),
        workers=visible.workers,
        visible=visible.filter,
    )


def _event_framing(
    visible: Visible, query: StreamQuery, framing: PlainFraming
) -> PlainFraming | FieldProjection | RecordView:
    """Return how the events are encoded."""
    fields = visible.fields(query.fields)
    if query.view == "record":
        return record_view(framing, fields, _max_event_bytes(visible, query), visible.record_of)
    return projected_framing(framing, fields, query.max_event_bytes)


def _max_event_bytes(visible: Visible, query: StreamQuery) -> int:
    return query.max_event_bytes or visible.pipeline.hub.max_event_bytes
