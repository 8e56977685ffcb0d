"""The endpoint ``GET /queues``: the lengths of the queues that the principal may see.

Rules: a queue has a name and a cluster, and no other value: a scope that has another condition shows none,
and so does one that hides the field ``queue``. Only visible queues are read.
"""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from celery_gateway.broker.queue_names import MAX_QUEUES
from celery_gateway.broker.queue_reading import QueueReading
from celery_gateway.broker.queues import Queues
from celery_gateway.events.event import FILTER_FIELDS, ORIGIN_FIELDS, Keys, encode
from celery_gateway.events.filter_parser import parse
from celery_gateway.events.matcher import Matcher
from celery_gateway.http.access_control import AccessControl
from celery_gateway.http.query_params import ACCESS_TOKEN, check_parameters, query_parameters
from celery_gateway.http.query_values import choice
from celery_gateway.http.state_query import FORMATS
from celery_gateway.http.state_work import StateWork, until_disconnect
from celery_gateway.http.visible import Visible

NAMES_PER_STEP: Final = 100
_FILTERS: Final = ("queue", "cluster")
_PARAMETERS: Final = (*_FILTERS, "format", ACCESS_TOKEN)


class QueueEndpoints:
    """The endpoint, as ``routes``.

    Args:
        queues: those of all brokers; ``None``: there is no broker.
        work: shared by all endpoints with large responses, which take turns.
    """

    def __init__(self, access: AccessControl, queues: Queues | None, work: StateWork) -> None:
        self._access = access
        self._queues = queues
        self._work = work
        self.routes = [access.route("/queues", until_disconnect(self.queues), "workers")]

    async def queues(self, request: Request) -> Response:
        """Return the lengths of the visible queues, ordered by cluster and name."""
        parameters = query_parameters(request)
        check_parameters(parameters, _PARAMETERS)
        choice(parameters, "format", FORMATS)
        visible = self._access.visible(request)
        filter = visible.restrict(parse({field: parameters.getlist(field) for field in _FILTERS}))
        shown: list[dict[str, Any]] = []
        errors: dict[str, str] = {}
        omitted = 0
        if self._queues is not None and "queue" in visible.fields(None):
            for cluster in sorted(self._queues.clusters, key=str):
                passing = await self._passing(request, self._queues, visible, filter, cluster)
                if not passing:
                    continue  # nothing of this broker is visible, nor its errors
                readings = await self._queues.read(cluster, list(passing))
                shown += [_view(each, cluster) for each in readings if each.exists or passing[each.name]]
                omitted += max(0, len(passing) - MAX_QUEUES)
                if (error := self._queues.error(cluster)) is not None:
                    errors[cluster or ""] = error
        builder = self._work.builder(request)
        builder.add(b'{"queues":' + encode(shown) + b',"omitted":%d,"errors":%b' % (omitted, encode(errors)))
        return builder.response(request, visible.pipeline.hub.id)

    async def _passing(
        self, request: Request, queues: Queues, visible: Visible, filter: Matcher, cluster: str | None
    ) -> dict[str, bool]:
        """Return the names of a broker's visible queues; see ``Queues.names``."""
        seen = visible.pipeline.tasks.queues()
        names = await queues.names(cluster, seen)
        passing: dict[str, bool] = {}
        async with self._work.begin(request) as (share, _):
            for index, (name, is_listed) in enumerate(names.items()):
                if filter.matches(queue_keys(name, cluster)):
                    passing[name] = is_listed
                if not index % NAMES_PER_STEP:
                    await share.checkpoint()
        return passing


def queue_keys(name: str, cluster: str | None) -> Keys:
    """Return the values of a queue that filters and scopes compare."""
    values = {"queue": name, "cluster": cluster}
    return tuple(values.get(field) for field in (*FILTER_FIELDS, *ORIGIN_FIELDS))


def _view(reading: QueueReading, cluster: str | None) -> dict[str, Any]:
    view = {
        "name": reading.name,
        "depth": reading.depth,
        "unacknowledged": reading.unacknowledged,
        "consumers": reading.consumers,
        "oldest": reading.oldest,
        "priorities": reading.priorities,
        "time": reading.time,
        "error": reading.error,
    }
    return view if cluster is None else view | {"cluster": cluster}
