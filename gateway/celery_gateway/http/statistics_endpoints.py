"""Endpoints for statistics: the activity of tasks by name, and failures by signature.

Rules: as for other state (``state_endpoints``). A scope is compared with names and clusters only; see
``state/activity_report``.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from celery_gateway.events.event import encode
from celery_gateway.events.fields import Fields
from celery_gateway.http.access_control import AccessControl
from celery_gateway.http.query_params import query_parameters
from celery_gateway.http.state_work import StateWork, until_disconnect
from celery_gateway.http.statistics_query import failures_query, statistics_query
from celery_gateway.state.activity_report import Item

ITEM_OVERHEAD_BYTES: Final = 300
"""Memory of an item beside its JSON, about, while the others are read."""
FAILURE_BYTES: Final = 2_500
"""Memory of a group of failures before it is encoded, about."""
_IDENTITY: Final = frozenset({"name", "cluster"})


class StatisticsEndpoints:
    """The endpoints, as ``routes``.

    Args:
        access: authenticates, and has what is visible.
        work: shared by all endpoints with large responses, which take turns.
    """

    def __init__(self, access: AccessControl, work: StateWork) -> None:
        self._access = access
        self._work = work
        self.routes = [
            access.route("/statistics", until_disconnect(self.statistics), "state"),
            access.route("/failures", until_disconnect(self.failures), "state"),
        ]

    async def statistics(self, request: Request) -> Response:
        """Return the activity of tasks by name, those that have ended most first."""
        query = statistics_query(query_parameters(request))
        visible = self._access.visible(request)
        reader = visible.activity(query.window_seconds, query.filter)
        fields = Fields(query.fields).including(_IDENTITY)
        pipeline = visible.pipeline
        async with self._work.begin(request) as (share, builder):
            id = pipeline.hub.id  # before the names are read, so that no later event is missed

            def made(item: Item) -> bytes:
                json = _encoded(item, fields)
                builder.charge_scratch(len(json) + ITEM_OVERHEAD_BYTES)
                return json

            for _ in reader.read(pipeline.clock.wall(), made):
                await share.checkpoint()
            builder.add(encode(reader.head)[:-1] + b',"names":[')
            separator = b""
            for json in reader.names:
                builder.add(separator + json)
                separator = b","
                await share.checkpoint()
            other = b"null" if reader.other is None else _encoded(reader.other, fields)
            builder.add(b'],"other":%b,"total":%b' % (other, _encoded(reader.total, fields)))
        return builder.response(request, id)

    async def failures(self, request: Request) -> Response:
        """Return failures by signature, the newest first."""
        visible = self._access.visible(request)
        query = failures_query(query_parameters(request), visible.pipeline.clock.wall())
        async with self._work.begin(request) as (share, builder):
            id = visible.pipeline.hub.id
            found = []
            for failure in visible.failures(query.filter, query.since):
                if failure is not None:
                    builder.charge_scratch(FAILURE_BYTES)
                    found.append(failure)
                await share.checkpoint()
            found.sort(key=lambda failure: -failure["last"])
            builder.add(b'{"failures":[')
            separator = b""
            for each in found[: query.limit]:
                builder.add(separator + encode(each))
                separator = b","
                await share.checkpoint()
            builder.add(b"]")
        return builder.response(request, id)


def _encoded(item: Item, fields: Fields) -> bytes:
    return encode(item if fields.are_all else {name: item[name] for name in item if name in fields})
