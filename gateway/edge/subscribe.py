"""From a checked request for a stream to a subscription."""

from functools import partial

from gateway.edge.query import StreamQuery
from gateway.frames import Plain, picked
from gateway.pipeline import Pipeline
from gateway.snapshot import Snapshot
from gateway.subscription import Subscription


def is_over(pipeline: Pipeline, query: StreamQuery) -> bool:
    """Tell whether a client comes back to a stream whose end it has seen: what it waited for is ready."""
    return (
        query.until is not None
        and query.last_event_id is not None
        and pipeline.until.is_over(query.until, query.last_event_id)
    )


def subscribe(pipeline: Pipeline, query: StreamQuery, framing: Plain) -> Subscription:
    """Return a subscription to what is asked for."""
    hub = pipeline.hub

    def snapshot() -> Snapshot:
        view = partial(pipeline.view, fields=query.fields)
        return Snapshot(pipeline.tasks, query.filter, view, pipeline.view_workers, hub)

    subscription = hub.subscribe(
        query.filter,
        framing if query.fields is None else picked(framing, query.fields),
        query.last_event_id,
        query.since,
        snapshot if query.snapshot else None,
    )
    if query.until is not None:
        pipeline.until.add(subscription, query.until)
    return subscription
