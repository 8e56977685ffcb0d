"""Error responses. Each has one shape: ``{"error": {"code", "message", …}}``."""

import json
import math
from http import HTTPStatus
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from celery_gateway.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    InvalidToken,
    OverLimit,
    QuotaExceeded,
)
from celery_gateway.log.engine import LogError
from celery_gateway.stream.limits import Limits

REALM: Final = "celery-gateway"

RETRY_SECONDS = 5
"""The value of ``Retry-After`` for reached limits."""


def error_response(status_code: int, code: str, message: str, **details: object) -> Response:
    """Return the response for an error.

    Args:
        code: a stable word for programs.
        message: for people: what failed, the value, what is allowed, what to do.
        details: further fields of ``error``.
    """
    return _response(status_code, {"error": {"code": code, "message": message, **details}})


def error_of(error: GatewayError, limits: Limits) -> Response:
    """Return the response for an error that a request has raised.

    Args:
        limits: count the client if one of them is the reason.
    """
    if isinstance(error, BadRequest):
        return bad_request(error)
    if isinstance(error, QuotaExceeded):
        limits.count_error(error)
        response = error_response(429, "quota", str(error), reason=error.reason, limit=error.limit)
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_seconds)))
        return response
    if isinstance(error, OverLimit):
        limits.count(error.reason)
        return limit_reached(error)
    if isinstance(error, InvalidToken):
        return _unauthorized(error)
    if isinstance(error, Forbidden):
        return _forbidden(error)
    if isinstance(error, LogError):
        return log_unavailable()
    raise error


def log_unavailable() -> Response:
    """Return the 503 for a shared log that cannot be read now, or is ahead of this gateway."""
    message = "the shared log cannot be read now, or this gateway is behind it; try again"
    response = error_response(503, "log-unavailable", message)
    response.headers["Retry-After"] = "1"
    return response


def shutting_down() -> Response:
    """Return the 503 for a request that has no response when the gateway shuts down."""
    message = "the gateway shuts down and has not finished this request; send it again"
    response = error_response(503, "shutting-down", message)
    response.headers["Retry-After"] = "1"
    return response


def bad_request(error: BadRequest) -> Response:
    """Return the 400 for a parameter that is unknown or has a bad value."""
    return error_response(400, error.code, str(error), parameter=error.parameter, allowed=list(error.allowed))


def limit_reached(error: OverLimit) -> Response:
    """Return the 503 for a limit that is reached."""
    response = error_response(503, "limit", str(error), reason=error.reason)
    response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


def _unauthorized(error: InvalidToken) -> Response:
    """Return the 401 for a request without a valid token (RFC 6750 section 3)."""
    response = _problem(401, "unauthorized" if error.is_missing else "invalid-token", str(error))
    challenge = f'Bearer realm="{REALM}"'
    if not error.is_missing:
        challenge += f', error="invalid_token", error_description="{_quotable(str(error))}"'
    response.headers["WWW-Authenticate"] = challenge
    return response


def _forbidden(error: Forbidden) -> Response:
    """Return the 403 for a request that its token does not allow (RFC 6750 section 3.1)."""
    details = {} if error.parameter is None else {"parameter": error.parameter}
    response = _problem(403, "forbidden", str(error), **details)
    challenge = f'Bearer realm="{REALM}", error="insufficient_scope"'
    response.headers["WWW-Authenticate"] = f'{challenge}, error_description="{_quotable(str(error))}"'
    return response


def _problem(status_code: int, code: str, message: str, **details: object) -> Response:
    """Return a response with the members of problem details (RFC 9457) beside ``error``."""
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status_code).phrase,
        "status": status_code,
        "detail": message,
    }
    return _response(status_code, {"error": {"code": code, "message": message, **details}} | problem)


def _quotable(text: str) -> str:
    """Return a text with the characters that ``error_description`` may have (RFC 6750 section 3)."""
    return "".join(
        character if " " <= character <= "~" and character not in '"\\' else "'" for character in text
    )


def _response(status_code: int, body: dict[str, object]) -> Response:
    return Response(
        json.dumps(body, ensure_ascii=False, indent=2) + "\n",
        status_code=status_code,
        headers={"Cache-Control": "no-store"},  # a 404 may be cached without it, RFC 9110 section 15.5.5
        media_type="application/json",
    )


async def respond(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response to a request, or to a WebSocket before it is accepted.

    A server without the ASGI extension ``websocket.http.response`` sends an empty 403 for the latter.
    """
    if scope["type"] == "websocket" and "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
    else:
        await response(scope, receive, send)
