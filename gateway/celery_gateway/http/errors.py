"""Refusals: every error that a client is told has one shape, ``{"error": {"code", "message", …}}``."""

import json

from starlette.responses import Response

from gateway.errors import BadRequest


def refusal(status_code: int, code: str, message: str, **details: object) -> Response:
    """Return the answer for what cannot be given.

    Args:
        code: a stable word for programs.
        message: for people.
        details: what else is said.
    """
    body = {"error": {"code": code, "message": message, **details}}
    return Response(
        json.dumps(body, ensure_ascii=False, indent=2) + "\n",
        status_code=status_code,
        headers={"Cache-Control": "no-store"},  # a 404 may be cached without it, RFC 9110 section 15.5.5
        media_type="application/json",
    )


def bad_request(error: BadRequest) -> Response:
    """Return the answer for a parameter that is unknown or has a bad value."""
    return refusal(400, error.code, str(error), parameter=error.parameter, allowed=list(error.allowed))
