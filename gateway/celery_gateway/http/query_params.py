"""Query parameters and headers: their names, their number, and the values of a request for a stream.

Rules: an unknown parameter is an error. Parameters are counted before they are parsed. Values are checked by
``stream_query`` (streams) and ``state_query`` (state). ``query_json`` has the same request as JSON.
"""

from collections.abc import Iterable

from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection

from celery_gateway.access.principal import ANYONE
from celery_gateway.access.quota import UNLIMITED, Quota
from celery_gateway.errors import BadRequest
from celery_gateway.events.event import FILTER_FIELDS
from celery_gateway.events.filter_parser import parse
from celery_gateway.events.pattern import MAX_QUOTED_CHARS, quoted
from celery_gateway.http.carriers import PRINCIPAL_KEY, QUOTA_KEY
from celery_gateway.http.report_query import REPORT_PARAMETERS, check_reports
from celery_gateway.http.stream_query import SnapshotQuery, StreamQuery, bad_value, check_stream, parse_fields
from celery_gateway.stream.framing import FORMATS

ACCESS_TOKEN = "access_token"
"""Accepted by every endpoint. Its value was replaced before (``query_secrets``)."""
IGNORED = frozenset({"_", "r", "evs_preamble", "evs_buffer_size_limit"})
"""Parameters that client libraries add to defeat caches, or for old browsers: jQuery, event-source-polyfill
0.0.9 and eventsource-polyfill. They are accepted on every request and have no effect."""
STREAM_PARAMETERS = (
    *FILTER_FIELDS,
    ACCESS_TOKEN,
    *("fields", "format", "last_event_id", "max_event_bytes", "quiet_time", "since", "snapshot", "until"),
    "view",
    *REPORT_PARAMETERS,
)
QUERY_FORMATS = ("sse", "ndjson")
"""The values of ``format``."""
MAX_PARAMETERS = 1_200
"""Maximum number of parameters of a query: each pattern of a filter may be one, and there are some others."""


def stream_query(request: HTTPConnection) -> StreamQuery:
    """Return the checked request for a stream in a query string.

    Raises:
        BadRequest: an unknown parameter or a bad value.
    """
    parameters, last_event_id = without_last_event_id(query_parameters(request))
    check_parameters(parameters, STREAM_PARAMETERS)
    filter = parse({field: parameters.getlist(field) for field in FILTER_FIELDS})
    return check_stream(
        filter=filter,
        format=media_format(request),
        last_event_id=request.headers.get("last-event-id") or last_event_id,
        since=only(parameters, "since"),
        fields=parameters.getlist("fields") or None,
        snapshot=SnapshotQuery(filter, is_due_when_resumed=False) if _flag(parameters, "snapshot") else None,
        until=only(parameters, "until"),
        quiet_time=only(parameters, "quiet_time"),
        max_event_bytes=only(parameters, "max_event_bytes"),
        view=only(parameters, "view"),
        reports=check_reports(
            has_workers=_flag(parameters, "workers"),
            statistics=only(parameters, "statistics"),
            window=only(parameters, "window"),
            max_rate=only(parameters, "max_rate"),
        ),
    )


def client_of(request: HTTPConnection) -> str:
    """Return who is charged for a request: its principal, or the address of its client without one.

    Returns:
        ``""`` if the address is unknown, too.
    """
    principal, _ = request.scope.get(PRINCIPAL_KEY, (ANYONE, ""))
    return principal.name or (request.client.host if request.client else "")


def quota_of(request: HTTPConnection) -> Quota:
    """Return the quota of a request's principal; one without limits if there is no authentication."""
    quota: Quota = request.scope.get(QUOTA_KEY, UNLIMITED)
    return quota


def query_parameters(request: HTTPConnection) -> QueryParams:
    """Return the query's parameters. They are counted before they are parsed.

    Raises:
        BadRequest: there are too many.
    """
    _check_count(1 + request.scope["query_string"].count(b"&"))
    return request.query_params


def _check_count(count: int) -> None:
    if count > MAX_PARAMETERS:
        raise BadRequest(
            f"too many query parameters: {count}; at most {MAX_PARAMETERS} are allowed; separate several "
            "values of a parameter with commas",
            code="too-many-values",
            parameter="query",
        )


def without_last_event_id(parameters: QueryParams) -> tuple[QueryParams, str | None]:
    """Return the parameters without the last event id, and that id; ``None`` if it is missing or empty.

    Client libraries spell it in many ways (``lastEventId``, ``Last-Event-ID``, ``evs_last_event_id``), and
    some append theirs to a URL that has one already: the last one is the newest.
    """
    given, others = None, []
    for name, value in parameters.multi_items():
        if name.lower().replace("-", "").replace("_", "").removeprefix("evs") == "lasteventid":
            given = value
        else:
            others.append((name, value))
    return QueryParams(others), given or None


def check_parameters(parameters: QueryParams, allowed: tuple[str, ...]) -> None:
    """Check the number and the names of parameters.

    Raises:
        BadRequest: there are too many, or one is unknown.
    """
    _check_count(len(parameters.multi_items()))
    check_names((name for name in parameters if name not in IGNORED), allowed)


def check_names(names: Iterable[str], allowed: tuple[str, ...]) -> None:
    """Check the names of parameters.

    Raises:
        BadRequest: for the first unknown one.
    """
    for name in names:
        if name not in allowed:
            expected = f"allowed are {', '.join(allowed)}" if allowed else "none is allowed here"
            raise BadRequest(
                f"unknown parameter {quoted(name)}: {expected}",
                code="unknown-parameter",
                parameter=name[:MAX_QUOTED_CHARS],
                allowed=allowed,
            )


def requested_fields(parameters: QueryParams) -> frozenset[str] | None:
    """Return the names of the requested fields; ``None`` for all.

    Raises:
        BadRequest: a name is empty, or there are too many.
    """
    values = parameters.getlist("fields")
    return parse_fields(values) if values else None


def only(parameters: QueryParams, name: str) -> str | None:
    """Return the value of a parameter that has a single value; ``None`` if it is missing.

    Raises:
        BadRequest: it is repeated.
    """
    values = parameters.getlist(name)
    if len(values) > 1:
        raise bad_value(name, f"repeated parameter {name}: it has {len(values)} values; give one")
    return values[0] if values else None


def media_format(request: HTTPConnection) -> str:
    """Return the ``format`` parameter, or what the Accept header prefers; SSE unless NDJSON is preferred.

    Raises:
        BadRequest: the parameter is neither ``sse`` nor ``ndjson``.
    """
    given = only(request.query_params, "format")
    if given is not None:
        if given not in QUERY_FORMATS:
            message = f"invalid format={quoted(given)}: the allowed values are {' and '.join(QUERY_FORMATS)}"
            raise bad_value("format", message, QUERY_FORMATS)
        return given
    accepted = [part.partition(";")[0].strip() for part in request.headers.get("accept", "").split(",")]
    for media_type in accepted:
        for name in QUERY_FORMATS:
            if media_type == FORMATS[name].media_type:
                return name
    return "sse"


def _flag(parameters: QueryParams, name: str) -> bool:
    text = only(parameters, name)
    if text is not None and text not in ("0", "1"):
        raise bad_value(name, f"invalid {name}={quoted(text)}: the allowed values are 0 and 1", ("0", "1"))
    return text == "1"
