"""What a client asks for: query parameters and headers, checked once, here."""

import re
import time
from datetime import datetime
from typing import NamedTuple

from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection

from gateway.errors import BadRequest
from gateway.event import FILTER_FIELDS
from gateway.filter import Filter, parse
from gateway.frames import FORMATS
from gateway.until import Goal

STREAM_PARAMETERS = (*FILTER_FIELDS, "fields", "format", "last_event_id", "since", "snapshot", "until")
MAX_FIELDS = 100
_NO_ID = frozenset("*?,!")
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_AGE_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class StreamQuery(NamedTuple):
    """A checked request for a stream.

    ``format`` is a key of ``frames.FORMATS``; ``since`` is in epoch seconds, 0 for all that is held;
    ``until`` is what ends it; ``fields`` are those to be kept, ``None`` for all.
    """

    filter: Filter
    format: str
    last_event_id: str | None
    since: float | None
    fields: frozenset[str] | None
    snapshot: bool
    until: Goal | None


def stream_query(request: HTTPConnection) -> StreamQuery:
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
    since, snapshot = only(parameters, "since"), _flag(parameters, "snapshot")
    if snapshot and since is not None:
        raise BadRequest(
            "a snapshot is of now, and since= begins in the past: leave out one of them",
            code="bad-value",
            parameter="snapshot",
        )
    return StreamQuery(
        filter=parse({field: parameters.getlist(field) for field in FILTER_FIELDS}),
        format=_format(request),
        last_event_id=request.headers.get("last-event-id") or only(parameters, "last_event_id"),
        since=_since(since),
        fields=fields(parameters),
        snapshot=snapshot,
        until=_until(parameters),
    )


def fields(parameters: QueryParams) -> frozenset[str] | None:
    """Return which fields are to be kept; ``None`` for all.

    Raises:
        BadRequest: an empty name, or too many.
    """
    values = parameters.getlist("fields")
    if not values:
        return None
    names = [name for value in values for name in value.split(",")]
    if not all(names):
        raise BadRequest(
            f"fields={','.join(values)!r} has an empty name", code="empty-value", parameter="fields"
        )
    if len(names) > MAX_FIELDS:
        raise BadRequest(
            f"{len(names)} names of fields; at most {MAX_FIELDS} are taken",
            code="too-many-values",
            parameter="fields",
        )
    return frozenset(names)


def _flag(parameters: QueryParams, name: str) -> bool:
    text = only(parameters, name)
    if text not in (None, "0", "1"):
        raise BadRequest(
            f"{name}={text!r}: give 1 to have it", code="bad-value", parameter=name, allowed=("0", "1")
        )
    return text == "1"


def _until(parameters: QueryParams) -> Goal | None:
    text = only(parameters, "until")
    if text is None:
        return None
    if text != "ready":
        raise BadRequest(
            f"until={text!r}: the one end that there is is ready",
            code="bad-value",
            parameter="until",
            allowed=("ready",),
        )
    for field in ("uuid", "root_id"):
        values = parameters.getlist(field)
        if len(values) == 1 and not (_NO_ID & set(values[0])):
            return Goal(field, values[0])
        if values:
            break
    raise BadRequest(
        "until=ready waits for one task or one workflow: give one uuid= or one root_id=, without wildcards",
        code="bad-value",
        parameter="until",
    )


def only(parameters: QueryParams, name: str) -> str | None:
    """Return the value of a parameter that may be given once."""
    values = parameters.getlist(name)
    if len(values) > 1:
        raise BadRequest(
            f"{name} is given {len(values)} times; it has one value", code="bad-value", parameter=name
        )
    return values[0] if values else None


def _since(text: str | None) -> float | None:
    if text is None:
        return None
    if text == "earliest":
        return 0.0
    if age := _AGE.fullmatch(text):
        return time.time() - float(age[1]) * _AGE_UNIT_SECONDS[age[2]]
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign in a query means a space
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError):
        pass
    raise BadRequest(
        f"since={text!r}: give earliest, an age such as 10m, or a time such as 2026-11-21T08:31:00Z",
        code="bad-value",
        parameter="since",
        allowed=("earliest", "10m", "2026-11-21T08:31:00Z"),
    )


def _format(request: HTTPConnection) -> str:
    """Return the ``format`` parameter, or what the Accept header prefers; SSE unless NDJSON is named."""
    given = only(request.query_params, "format")
    if given is not None:
        if given not in FORMATS:
            raise BadRequest(
                f"format={given!r} is not a format",
                code="bad-value",
                parameter="format",
                allowed=tuple(FORMATS),
            )
        return given
    accepted = [part.partition(";")[0].strip() for part in request.headers.get("accept", "").split(",")]
    for media_type in accepted:
        for name, framing in FORMATS.items():
            if media_type == framing.media_type:
                return name
    return "sse"
