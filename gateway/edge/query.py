"""What a client asks for: query parameters and headers, checked once, here."""

from typing import NamedTuple

from starlette.requests import Request

from gateway.errors import BadRequest
from gateway.event import FILTER_FIELDS
from gateway.filter import Filter, parse
from gateway.frames import FRAMINGS

STREAM_PARAMETERS = (*FILTER_FIELDS, "format")


class StreamQuery(NamedTuple):
    """A checked request for a stream. ``format`` is a key of ``frames.FRAMINGS``."""

    filter: Filter
    format: str
    last_event_id: str | None


def stream_query(request: Request) -> StreamQuery:
    """Return what a request to a stream asks for.

    Raises:
        BadRequest: an unknown parameter or a bad value; never is it taken for a stream of everything.
    """
    parameters = request.query_params
    for name in parameters:
        if name not in STREAM_PARAMETERS:
            raise BadRequest(
                f"unknown parameter {name!r}",
                code="unknown-parameter",
                parameter=name,
                allowed=STREAM_PARAMETERS,
            )
    return StreamQuery(
        filter=parse({field: parameters.getlist(field) for field in FILTER_FIELDS}),
        format=_format(request),
        last_event_id=request.headers.get("last-event-id"),
    )


def _format(request: Request) -> str:
    """Return the ``format`` parameter, or what the Accept header prefers; SSE unless NDJSON is named."""
    given = request.query_params.getlist("format")
    if given:
        if len(given) > 1 or given[0] not in FRAMINGS:
            raise BadRequest(
                f"format={','.join(given)!r} is not a format",
                code="bad-value",
                parameter="format",
                allowed=tuple(FRAMINGS),
            )
        return given[0]
    accepted = [part.partition(";")[0].strip() for part in request.headers.get("accept", "").split(",")]
    for media_type in accepted:
        for name, framing in FRAMINGS.items():
            if media_type == framing.media_type:
                return name
    return "sse"
