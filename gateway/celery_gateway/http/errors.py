"""Error responses. Each has one shape: ``{"error": {"code", "message", …}}``."""

import json

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from celery_gateway.errors import BadRequest, OverLimit

RETRY_SECONDS = 5
"""The value of ``Retry-After`` for reached limits."""


def error_response(status_code: int, code: str, message: str, **details: object) -> Response:
    """Return the response for an error.

    Args:
        code: a stable word for programs.
        message: for people: what failed, the value, what is allowed, what to do.
        details: further fields of ``error``.
    """
    body = {"error": {"code": code, "message": message, **details}}
    return Response(
        json.dumps(body, ensure_ascii=False, indent=2) + "\n",
        status_code=status_code,
        headers={"Cache-Control": "no-store"},  # a 404 may be cached without it, RFC 9110 section 15.5.5
        media_type="application/json",
    )


def bad_request(error: BadRequest) -> Response:
    """Return the 400 for a parameter that is unknown or has a bad value."""
    return error_response(400, error.code, str(error), parameter=error.parameter, allowed=list(error.allowed))


def limit_reached(error: OverLimit) -> Response:
    """Return the 503 for a limit that is reached."""
    response = error_response(503, "limit", str(error), reason=error.reason)
    response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


async def respond(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response to a request, or to a WebSocket before it is accepted.

    A server without the ASGI extension ``websocket.http.response`` sends an empty 403 for the latter.
    """
    if scope["type"] == "websocket" and "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
    else:
        await response(scope, receive, send)
