"""From a checked request for a stream to a subscription."""

from collections.abc import Callable
from functools import partial

from gateway.edge.query import StreamQuery
from gateway.frames import Plain, picked
from gateway.pipeline import Pipeline
from gateway.snapshot import Snapshot
from gateway.subscription import Subscription


def is_over(pipeline: Pipeline, query: StreamQuery) -> bool:
    """Return whether a client comes back to a stream whose end it has seen."""
    return (
        query.until is not None
        and query.last_event_id is not None
        and pipeline.until.is_over(query.until, query.last_event_id)
    )


def subscribe(pipeline: Pipeline, query: StreamQuery, framing: Plain) -> Subscription:
    """Return a subscription to what is asked for."""
    hub, asked = pipeline.hub, query.snapshot
    begin: Callable[[], Snapshot] | None = None
    if asked is not None:
        view = partial(pipeline.view, fields=query.fields)
        begin = partial(
            Snapshot,
            pipeline.tasks,
            asked.filter,
            view,
            pipeline.view_workers,
            hub,
            follows=not asked.is_due_when_resumed,
        )
    subscription = hub.subscribe(
        query.filter,
        framing if query.fields is None else picked(framing, query.fields),
        query.last_event_id,
        query.since,
        begin,
        is_due_when_resumed=asked is not None and asked.is_due_when_resumed,
    )
    subscription.tell(pipeline.status(subscription.id))
    if query.until is not None:
        pipeline.until.add(subscription, query.until)
    return subscription
