"""A request for a stream as JSON: the body of a ``POST``, or what an ``open`` on a WebSocket says.

It asks for what a query asks for, and for what no query can: events that pass any of several filters, and a
snapshot of some of them though the stream is resumed, so that a client can watch more over one connection
without losing its place::

    {"any": [{"name": ["shop.*"], "type": "task-failed"}, {"uuid": ["…", "…"]}],
     "last_event_id": "…", "since": "10m", "fields": ["state"], "snapshot": [{"uuid": ["…"]}]}
    {"any": [{"root_id": "…"}], "until": "ready", "quiet_time": 5}

Without ``any`` it is for everything, with an empty one for nothing. ``"snapshot": true`` is ``snapshot=1``.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.edge.query import (
    ACCESS_TOKEN,
    SnapshotQuery,
    StreamQuery,
    check_names,
    check_since,
    goal,
    keep_fields,
    media_format,
    moment,
)
from gateway.errors import BadRequest
from gateway.event import FILTER_FIELDS
from gateway.filter import MAX_GLOBS, MAX_PATTERNS, AnyOf, Filter, build
from gateway.frames import FETCHED
from gateway.index import Matcher

MAX_BYTES = 256 << 10
"""The longest request: a filter of a thousand ids and to spare."""
BODY_SECONDS = 10.0
MAX_ALTERNATIVES = 100
PARAMETERS = ("any", "fields", "last_event_id", "quiet_time", "since", "snapshot", "until")


async def posted_query(request: Request) -> StreamQuery:
    """Return what the body of a request asks for; an empty one asks for everything.

    Raises:
        BadRequest: it is too long, no JSON object, or asks for what cannot be given.
        HTTPException: it does not come to an end in ``BODY_SECONDS``.
        ClientDisconnect: its sender has gone.
    """
    check_names(request.query_params, ("format", ACCESS_TOKEN))
    format = FETCHED[media_format(request)]
    try:
        wanted = msgspec.json.decode(await _body(request) or b"{}")
    except (ValueError, RecursionError):
        raise _bad("the body is not JSON", "body") from None
    if not isinstance(wanted, dict):
        raise _bad('the body must be an object such as {"any": [{"name": ["shop.*"]}]}', "body")
    if (last_event_id := request.headers.get("last-event-id")) is not None:
        wanted["last_event_id"] = last_event_id
    return json_query(wanted, format)


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BYTES:
                    raise _bad(f"the body is longer than {MAX_BYTES} bytes", "body")
    except TimeoutError:
        raise HTTPException(408, headers={"Connection": "close"}) from None
    return bytes(body)


def json_query(wanted: Mapping[str, Any], format: str) -> StreamQuery:
    """Return what an object asks for.

    Args:
        format: how it is to be written, a key of ``frames.FORMATS``.

    Raises:
        BadRequest: it is not what it should be.
    """
    check_names(wanted, PARAMETERS)
    wanted = {name: value for name, value in wanted.items() if value is not None}
    filter = alternatives(wanted["any"], "any") if "any" in wanted else Filter()
    since, last_event_id = _text(wanted, "since"), _text(wanted, "last_event_id")
    snapshot = wanted.get("snapshot", False)
    asked = None
    if not isinstance(snapshot, bool):
        asked = SnapshotQuery(alternatives(snapshot, "snapshot"), is_due_when_resumed=True)
    elif snapshot:
        asked = SnapshotQuery(filter, is_due_when_resumed=False)
    check_since(since, asked)
    return StreamQuery(
        filter=filter,
        format=format,
        last_event_id=last_event_id,
        since=moment(since),
        fields=keep_fields(_names(wanted["fields"])) if "fields" in wanted else None,
        snapshot=asked,
        until=goal(_text(wanted, "until"), _quiet_time(wanted), filter),
    )


def alternatives(value: Any, parameter: str) -> Matcher:
    """Return the filter that passes what any filter of a list passes.

    Raises:
        BadRequest: the value is not a list of filters, or there are too many filters or patterns.
    """
    if not isinstance(value, list) or len(value) > MAX_ALTERNATIVES:
        raise _bad(f'"{parameter}" must be a list of at most {MAX_ALTERNATIVES} objects', parameter)
    filters = [build(_patterns(alternative, parameter)) for alternative in value]
    clauses = [clause for filter in filters for clause in filter.clauses]
    if (patterns := sum(clause.pattern_count for clause in clauses)) > MAX_PATTERNS:
        raise _bad(f'"{parameter}" has {patterns} values: at most {MAX_PATTERNS} are allowed', parameter)
    if (globs := sum(clause.glob_count for clause in clauses)) > MAX_GLOBS:
        raise _bad(
            f'"{parameter}" has {globs} values with wildcards: at most {MAX_GLOBS} are allowed;'
            r" write '\*' and '\?' for a star and a question mark that are part of a value",
            parameter,
        )
    return filters[0] if len(filters) == 1 else AnyOf(frozenset(filters))


def texts(value: Any, parameter: str) -> list[str]:
    """Return a list of texts, or one text as such a list.

    Raises:
        BadRequest: it is neither.
    """
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise _bad(f"{parameter!r} must be a list of texts", parameter)
    return listed


def _names(value: Any) -> list[str]:
    names = [name for text in texts(value, "fields") for name in text.split(",")]
    if not names:
        raise _bad('"fields" is empty; leave it out to have all', "fields")
    return names


def _patterns(alternative: Any, parameter: str) -> dict[str, list[str]]:
    if not isinstance(alternative, dict):
        raise _bad(f'"{parameter}" must hold objects such as {{"name": ["shop.*"]}}', parameter)
    for name in alternative:
        if name not in FILTER_FIELDS:
            raise BadRequest(
                f"unknown field {name!r}; there are {', '.join(FILTER_FIELDS)}",
                code="unknown-parameter",
                parameter=name,
                allowed=FILTER_FIELDS,
            )
    return {name: texts(values, name) for name, values in alternative.items()}


def _quiet_time(wanted: Mapping[str, Any]) -> str | None:
    value = wanted.get("quiet_time")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{min(max(value, -1), 10**9):.6f}"
    return _text(wanted, "quiet_time")


def _text(wanted: Mapping[str, Any], name: str) -> str | None:
    text = wanted.get(name)
    if text is not None and not isinstance(text, str):
        raise _bad(f"{name!r} must be a text", name)
    return text


def _bad(message: str, parameter: str) -> BadRequest:
    return BadRequest(message, code="bad-value", parameter=parameter)
