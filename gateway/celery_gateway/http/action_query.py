"""Requests for actions: who may send them, and the checks of their bodies.

Rules: only JSON is accepted, since a page of another origin cannot send that without a preflight (Fetch
standard, section 3.2). A page of another origin needs a token of its own: a session or the header of a
proxy, and the lack of authentication, are of use to pages of the gateway's own origin only.
"""

import asyncio
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from celery_gateway.access.actions import SIGNALS
from celery_gateway.errors import Forbidden, InvalidToken
from celery_gateway.http.access_control import AccessControl
from celery_gateway.http.carriers import OWN_PAGE_KEY, PRINCIPAL_KEY, carried_token
from celery_gateway.http.errors import error_response
from celery_gateway.http.query_params import (
    ACCESS_TOKEN,
    check_names,
    check_parameters,
    only,
    query_parameters,
)
from celery_gateway.http.stream_query import bad_value

MAX_BODY_BYTES: Final = 4 << 10
BODY_SECONDS: Final = 10.0
DEFAULT_SIGNAL: Final = "SIGTERM"
"""Celery's ``TERM_SIGNAME``."""
_PARAMETERS: Final = ("cluster", ACCESS_TOKEN)
_BODY: Final = ("terminate", "signal")
_EXAMPLE: Final = 'an object such as {"terminate": false}, or empty'


async def refused_origin(request: Request, access: AccessControl) -> Response | None:
    """Return the 403 for a request of a page of another origin that has no token of its own."""
    if request.scope.get(OWN_PAGE_KEY, False):
        return None
    if not access.is_open:
        try:
            carried = carried_token(request.scope)
            principal = await access.authenticate(carried.token)
        except (InvalidToken, Forbidden):  # it was admitted by the header of a proxy
            pass
        else:
            if not carried.session and principal == request.scope[PRINCIPAL_KEY][0]:
                return None
    message = (
        "a page of another origin cannot request actions; it needs a token of its own: the header "
        "'Authorization: Bearer TOKEN', or access_token= in the query"
    )
    return error_response(403, "forbidden-origin", message)


def refused_type(request: Request) -> Response | None:
    """Return the 415 for a request whose body is not JSON; also an empty body needs its type."""
    given = request.headers.getlist("content-type")
    if len(given) == 1 and given[0].partition(";")[0].strip().lower() == "application/json":
        return None
    message = "the header Content-Type must be application/json, also without a body"
    response = error_response(415, "unsupported-media-type", message, allowed=["application/json"])
    response.headers["Accept-Post"] = "application/json"
    return response


def checked_cluster(request: Request) -> str | None:
    """Return the parameter ``cluster`` of the query; ``None`` if it is missing.

    Raises:
        BadRequest: there is an unknown parameter, or one is repeated.
    """
    parameters = query_parameters(request)
    check_parameters(parameters, _PARAMETERS)
    return only(parameters, "cluster")


async def requested_signal(request: Request) -> str | None:
    """Return the signal that the body of a request asks for; ``None`` if running tasks go on.

    Raises:
        BadRequest: the body is too long or not a JSON object, a name is unknown or a value is bad.
        HTTPException: the body is not complete after ``BODY_SECONDS``.
        ClientDisconnect: the client has disconnected.
    """
    values = _object(await _body(request))
    check_names(values, _BODY)
    terminate = values.get("terminate", False)
    if not isinstance(terminate, bool):
        raise bad_value("terminate", "invalid terminate: it must be true or false", ("true", "false"))
    signal = values.get("signal")
    if signal is not None and signal not in SIGNALS:
        raise bad_value("signal", f"invalid signal: the allowed values are {', '.join(SIGNALS)}", SIGNALS)
    if signal is not None and not terminate:
        raise bad_value("signal", 'invalid signal: it needs "terminate": true; or leave it out')
    return (signal or DEFAULT_SIGNAL) if terminate else None


def _object(body: bytes) -> dict[str, Any]:
    try:
        values = msgspec.json.decode(body or b"{}")
    except (ValueError, RecursionError):
        raise bad_value("body", f"invalid body: it is not JSON; it must be {_EXAMPLE}") from None
    if not isinstance(values, dict):
        raise bad_value("body", f"invalid body: it must be {_EXAMPLE}")
    return values


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise bad_value("body", f"body too long: at most {MAX_BODY_BYTES:,} bytes are allowed")
    except TimeoutError:
        raise HTTPException(408, headers={"Connection": "close"}) from None
    return bytes(body)
