"""What a client asks for: query parameters and headers, checked once, here (as JSON: ``json_query``)."""

import re
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection

from gateway.errors import BadRequest
from gateway.event import FILTER_FIELDS
from gateway.filter import Filter, parse
from gateway.frames import FORMATS
from gateway.index import Matcher
from gateway.until import Goal

ACCESS_TOKEN = "access_token"
"""Taken, and left to a proxy in front to look at: the gateway has no accounts of its own."""
STREAM_PARAMETERS = (
    *FILTER_FIELDS,
    ACCESS_TOKEN,
    *("fields", "format", "last_event_id", "quiet_time", "since", "snapshot", "until"),
)
GIVEN_FORMATS = ("sse", "ndjson")
MAX_FIELDS = 100
MAX_QUIET_SECONDS = 86_400
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_AGE_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class SnapshotQuery(NamedTuple):
    """Of which tasks a stream is to tell how they are, and whether it is to do so even if it is resumed."""

    filter: Matcher
    is_due_when_resumed: bool


class StreamQuery(NamedTuple):
    """A checked request for a stream.

    ``format`` is a key of ``frames.FORMATS``; ``since`` is in epoch seconds, 0 for all that is held;
    ``until`` is what ends it; ``fields`` are those to be kept, ``None`` for all.
    """

    filter: Matcher
    format: str
    last_event_id: str | None
    since: float | None
    fields: frozenset[str] | None
    snapshot: SnapshotQuery | None
    until: Goal | None


def stream_query(request: HTTPConnection) -> StreamQuery:
    """Return what a request to a stream asks for.

    Raises:
        BadRequest: an unknown parameter or a bad value; never is it taken for a stream of everything.
    """
    parameters = request.query_params
    check_names(parameters, STREAM_PARAMETERS)
    filter = parse({field: parameters.getlist(field) for field in FILTER_FIELDS})
    since = only(parameters, "since")
    snapshot = SnapshotQuery(filter, False) if _flag(parameters, "snapshot") else None
    check_since(since, snapshot)
    return StreamQuery(
        filter=filter,
        format=media_format(request),
        last_event_id=request.headers.get("last-event-id") or only(parameters, "last_event_id"),
        since=moment(since),
        fields=fields(parameters),
        snapshot=snapshot,
        until=goal(only(parameters, "until"), only(parameters, "quiet_time"), filter),
    )


def check_names(names: Iterable[str], allowed: tuple[str, ...]) -> None:
    """Raise BadRequest for the first name that is none of a request's parameters."""
    for name in names:
        if name not in allowed:
            raise BadRequest(
                f"unknown parameter {name!r}", code="unknown-parameter", parameter=name, allowed=allowed
            )


def fields(parameters: QueryParams) -> frozenset[str] | None:
    """Return which fields are to be kept; ``None`` for all.

    Raises:
        BadRequest: an empty name, or too many.
    """
    values = parameters.getlist("fields")
    return keep_fields([name for value in values for name in value.split(",")]) if values else None


def keep_fields(names: Sequence[str]) -> frozenset[str]:
    """Return the fields that are to be kept.

    Raises:
        BadRequest: an empty name, or too many.
    """
    if not all(names):
        raise BadRequest(
            f"fields={','.join(names)!r} has an empty name", code="empty-value", parameter="fields"
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


def goal(until: str | None, quiet_time: str | None, filter: Matcher) -> Goal | None:
    """Return what a stream waits for.

    Args:
        until: the only supported value is ``ready``.
        quiet_time: how long all known tasks of a workflow have to be ready: seconds, or an age such as 1m.
        filter: the stream's: it names the task or the workflow.

    Raises:
        BadRequest: a bad value, or a filter that names no single task or workflow.
    """
    if until is None:
        if quiet_time is not None:
            raise _bad_value("quiet_time", f"quiet_time={quiet_time!r}: it goes with until=ready")
        return None
    if until != "ready":
        message = f"invalid until={until!r}: the only supported value is 'ready'"
        raise _bad_value("until", message, ("ready",))
    only = filter.only if isinstance(filter, Filter) else lambda field: None
    fields: tuple[Literal["uuid", "root_id"], ...] = ("uuid", "root_id")
    for field in fields:
        if (value := only(field)) is not None:
            return Goal(field, value, only("cluster"), _quiet_seconds(quiet_time))
    raise _bad_value(
        "until",
        "until=ready waits for one task or one workflow: give one uuid or one root_id, without wildcards "
        "(a backslash before * ? , ! takes it literally)",
    )


def _quiet_seconds(text: str | None) -> float | None:
    if text is None:
        return None
    seconds = -1.0
    if age := _AGE.fullmatch(text):
        seconds = float(age[1]) * _AGE_UNIT_SECONDS[age[2]]
    elif _SECONDS.fullmatch(text):
        seconds = float(text)
    if not 0 <= seconds <= MAX_QUIET_SECONDS:
        message = f"invalid quiet_time={text!r}: give seconds up to {MAX_QUIET_SECONDS}, or an age such as 1m"
        raise _bad_value("quiet_time", message, ("30", "1m"))
    return seconds


def _bad_value(parameter: str, message: str, allowed: Sequence[str] = ()) -> BadRequest:
    return BadRequest(message, code="bad-value", parameter=parameter, allowed=tuple(allowed))


def only(parameters: QueryParams, name: str) -> str | None:
    """Return the value of a parameter that may be given once."""
    values = parameters.getlist(name)
    if len(values) > 1:
        raise BadRequest(
            f"{name} is given {len(values)} times; it has one value", code="bad-value", parameter=name
        )
    return values[0] if values else None


def check_since(since: str | None, snapshot: SnapshotQuery | None) -> None:
    """Raise BadRequest if both are asked for."""
    if snapshot is not None and since is not None:
        raise BadRequest(
            "a snapshot is of now, and since= begins in the past: leave out one of them",
            code="bad-value",
            parameter="snapshot",
        )


def moment(text: str | None) -> float | None:
    """Return since when events are wanted, in epoch seconds; 0 for the earliest.

    Raises:
        BadRequest: it is no time.
    """
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


def media_format(request: HTTPConnection) -> str:
    """Return the ``format`` parameter, or what the Accept header prefers; SSE unless NDJSON is named.

    Raises:
        BadRequest: it is not a format.
    """
    given = only(request.query_params, "format")
    if given is not None:
        if given not in GIVEN_FORMATS:
            raise BadRequest(
                f"format={given!r} is not a format",
                code="bad-value",
                parameter="format",
                allowed=GIVEN_FORMATS,
            )
        return given
    accepted = [part.partition(";")[0].strip() for part in request.headers.get("accept", "").split(",")]
    for media_type in accepted:
        for name in GIVEN_FORMATS:
            if media_type == FORMATS[name].media_type:
                return name
    return "sse"
