"""A request for a stream as JSON: the body of a ``POST``, or an ``open`` message on a WebSocket.

Rules: it has the parameters of a query string, and two more abilities: events that match any of several
filters, and a snapshot of some of them although the stream is resumed. So a client can watch more over one
connection without losing its position::

    {"any": [{"name": ["shop.*"], "type": "task-failed"}, {"uuid": ["…", "…"]}],
     "last_event_id": "…", "since": "10m", "fields": ["state"], "snapshot": [{"uuid": ["…"]}]}
    {"any": [{"root_id": "…"}], "until": "ready", "quiet_time": 5}

Without ``any`` every event matches, with an empty list none. ``"snapshot": true`` is ``snapshot=1``. ``null``
for ``any``, ``snapshot`` or ``fields`` is an error: a client that sends it may mean nothing, and would get
everything. For the other parameters it is the same as leaving them out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request

from celery_gateway.errors import BadRequest
from celery_gateway.events.event import FILTER_FIELDS
from celery_gateway.events.filter import Filter
from celery_gateway.events.filter_parser import MAX_PATTERNS, build_any
from celery_gateway.events.matcher import Matcher
from celery_gateway.events.pattern import MAX_QUOTED_CHARS, quoted
from celery_gateway.http.query_params import (
    ACCESS_TOKEN,
    check_names,
    check_parameters,
    media_format,
    query_parameters,
    without_last_event_id,
)
from celery_gateway.http.report_query import REPORT_PARAMETERS, check_reports
from celery_gateway.http.stream_query import SnapshotQuery, StreamQuery, bad_value, check_stream
from celery_gateway.stream.limits import Reservation

MAX_BYTES = 256 << 10
"""Maximum length of a request: a filter of a thousand ids and to spare."""
BODY_SECONDS = 10.0
"""Maximum time to receive a body, in seconds."""
MAX_ALTERNATIVES = 100
PARAMETERS = (
    *("any", "fields", "last_event_id", "max_event_bytes", "quiet_time", "since", "snapshot", "until"),
    "view",
    *REPORT_PARAMETERS,
)
_EXAMPLE = 'an object such as {"any": [{"name": ["shop.*"]}]}'
_INSTEAD_OF_NULL = {
    "any": 'it must be a list of filters such as [{"name": ["shop.*"]}]',
    "snapshot": 'it must be true, false, or a list of filters such as [{"name": ["shop.*"]}]',
    "fields": 'it must be a list of strings such as ["name", "state"]',
}


async def posted_query(
    request: Request, reserved: Reservation, may_start: Callable[[], Awaitable[None]]
) -> StreamQuery:
    """Return the checked request for a stream in the body of a request; an empty body means every event.

    Args:
        reserved: is charged for the body's memory.
        may_start: is awaited once the body is complete.

    Raises:
        OverLimit: there is no memory for the body.
        BadRequest: the body is too long or not a JSON object, or has a bad value.
        HTTPException: the body is not complete after ``BODY_SECONDS``.
        ClientDisconnect: the client has disconnected.
    """
    parameters, given_id = without_last_event_id(query_parameters(request))
    check_parameters(parameters, ("format", ACCESS_TOKEN))
    format = media_format(request)
    body = await _body(request, reserved)
    await may_start()
    try:
        values = msgspec.json.decode(body or b"{}")
    except (ValueError, RecursionError):
        raise bad_value("body", f"invalid body: it is not JSON; it must be {_EXAMPLE}") from None
    if not isinstance(values, dict):
        raise bad_value("body", f"invalid body: it is {_kind(values)}; it must be {_EXAMPLE}")
    if last_event_id := request.headers.get("last-event-id") or given_id:
        values["last_event_id"] = last_event_id
    return json_query(values, format)


async def _body(request: Request, reserved: Reservation) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                reserved.grow(len(part))
                if len(body) > MAX_BYTES:
                    raise bad_value("body", f"body too long: at most {MAX_BYTES:,} bytes are allowed")
    except TimeoutError:
        raise HTTPException(408, headers={"Connection": "close"}) from None
    return bytes(body)


def json_query(values: Mapping[str, Any], format: str) -> StreamQuery:
    """Return the checked request for a stream in a JSON object.

    Args:
        format: a key of ``framing.FORMATS``.

    Raises:
        BadRequest: an unknown parameter or a bad value.
    """
    check_names(values, PARAMETERS)
    for name, instead in _INSTEAD_OF_NULL.items():
        if name in values and values[name] is None:
            raise bad_value(name, f"invalid {name}=null: {instead}; or leave it out")
    filter = alternatives(values["any"], "any") if "any" in values else Filter()
    snapshot = values.get("snapshot", False)
    snapshot_query = None
    if not isinstance(snapshot, bool):
        snapshot_query = SnapshotQuery(alternatives(snapshot, "snapshot"), is_due_when_resumed=True)
    elif snapshot:
        snapshot_query = SnapshotQuery(filter, is_due_when_resumed=False)
    return check_stream(
        filter=filter,
        format=format,
        last_event_id=_string(values, "last_event_id"),
        since=_string(values, "since"),
        fields=strings(values["fields"], "fields") if "fields" in values else None,
        snapshot=snapshot_query,
        until=_string(values, "until"),
        quiet_time=_quiet_time(values),
        max_event_bytes=_integer(values, "max_event_bytes"),
        view=_string(values, "view"),
        reports=check_reports(
            has_workers=_flag(values, "workers"),
            statistics=_string(values, "statistics"),
            window=_string(values, "window"),
            max_rate=_integer(values, "max_rate"),
        ),
    )


def alternatives(value: Any, parameter: str) -> Matcher:
    """Return a filter that matches what any filter of a list matches.

    Raises:
        BadRequest: the value is not a list of filters, or there are too many filters or patterns.
    """
    if not isinstance(value, list) or len(value) > MAX_ALTERNATIVES:
        found = f"a list of {len(value)}" if isinstance(value, list) else _kind(value)
        message = (
            f'invalid "{parameter}": it is {found}; it must be a list of at most {MAX_ALTERNATIVES} objects'
            ' such as {"name": ["shop.*"]}'
        )
        raise bad_value(parameter, message)
    count = sum(
        len(values)
        for alternative in value
        if isinstance(alternative, dict)
        for values in alternative.values()
        if isinstance(values, list)
    )
    if count > MAX_PATTERNS:
        raise BadRequest(
            f'invalid "{parameter}": it has {count} values; at most {MAX_PATTERNS} are allowed',
            code="too-many-values",
            parameter=parameter,
        )
    return build_any([_patterns(alternative, parameter) for alternative in value], parameter)


def strings(value: Any, parameter: str) -> list[str]:
    """Return a list of strings, or one string as such a list.

    Raises:
        BadRequest: the value is neither.
    """
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list):
        message = f'invalid "{parameter}": it is {_kind(value)}; it must be a list of strings'
        raise bad_value(parameter, message)
    if not listed:
        message = f'invalid "{parameter}": the list is empty; leave "{parameter}" out instead'
        raise bad_value(parameter, message)
    for each in listed:
        if not isinstance(each, str):
            message = f'invalid "{parameter}": the list contains {_kind(each)}; it must contain only strings'
            raise bad_value(parameter, message)
    return listed


def _patterns(alternative: Any, parameter: str) -> dict[str, list[str]]:
    if not isinstance(alternative, dict):
        message = (
            f'invalid "{parameter}": the list contains {_kind(alternative)}; it must contain only objects'
            ' such as {"name": ["shop.*"]}'
        )
        raise bad_value(parameter, message)
    for name in alternative:
        if name not in FILTER_FIELDS:
            raise BadRequest(
                f"unknown field {quoted(name)}: the allowed fields are {', '.join(FILTER_FIELDS)}",
                code="unknown-parameter",
                parameter=name[:MAX_QUOTED_CHARS],
                allowed=FILTER_FIELDS,
            )
    return {name: strings(values, name) for name, values in alternative.items()}


def _quiet_time(values: Mapping[str, Any]) -> str | None:
    value = values.get("quiet_time")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{min(max(value, -1), 10**9):.6f}"
    return _string(values, "quiet_time")


def _integer(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    found = str(value) if isinstance(value, float) else _kind(value)
    raise bad_value(name, f'invalid "{name}": it is {found}; it must be an integer')


def _flag(values: Mapping[str, Any], name: str) -> bool:
    """Return a flag: a boolean, or 0 or 1 as a number or a text; ``null`` is absent."""
    value = values.get(name)
    if value is None or value in (False, True, "0", "1"):
        return value in (True, "1")
    found = quoted(value) if isinstance(value, str) else _kind(value)
    raise bad_value(name, f'invalid "{name}": it is {found}; it must be true or false', ("true", "false"))


def _string(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_value(name, f'invalid "{name}": it is {_kind(value)}; it must be a string')
    return value


def _kind(value: Any) -> str:
    """Return the kind of a JSON value, for errors."""
    if value is None:
        return "null"
    kinds = {bool: "a boolean", str: "a string", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")
