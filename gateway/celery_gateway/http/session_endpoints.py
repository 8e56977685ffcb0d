"""Endpoints of sessions: ``POST /session`` turns a token into a cookie, and ``DELETE /session`` ends it.

Rules: a page cannot give an ``EventSource`` a header, but browsers send cookies. Only a token in the header
``Authorization`` starts a session, never a cookie, so that a foreign page cannot start one.
"""

import time
from http.cookies import CookieError

from starlette.requests import Request
from starlette.responses import Response

from celery_gateway.errors import Forbidden, InvalidToken
from celery_gateway.http.access_control import AccessControl
from celery_gateway.http.carriers import bearer_token, cookie_header, session_of
from celery_gateway.http.errors import error_response
from celery_gateway.http.query_params import check_parameters, query_parameters


class SessionEndpoints:
    """The endpoints, as ``routes``."""

    def __init__(self, access: AccessControl) -> None:
        self._access = access
        self.routes = [access.route("/session", self.session, "public", methods=["POST", "DELETE"])]

    async def session(self, request: Request) -> Response:
        """Start or end a session."""
        is_end = request.method == "DELETE"
        response = await (self._end(request) if is_end else self._start(request))
        check_parameters(query_parameters(request), ())
        return response

    async def _start(self, request: Request) -> Response:
        headers = request.headers.getlist("authorization")
        if self._access.is_open:
            return _no_content(None)
        if not headers:
            raise InvalidToken(
                "no token: POST /session requires the header 'Authorization: Bearer TOKEN'", is_missing=True
            )
        token = bearer_token(headers)
        principal = await self._access.authenticate(token)
        expires_at = principal.expires_at
        max_age_seconds = None if expires_at is None else max(1, round(expires_at - time.time()))
        try:
            cookie = cookie_header(f"{self._access.sessions.new_id()}.{token}", max_age_seconds)
        except CookieError as error:
            return error_response(
                400, "token-too-long", f"no session: {error}; use a scope with fewer values"
            )
        return _no_content(cookie)

    async def _end(self, request: Request) -> Response:
        carried = session_of(request.scope)
        if carried.session and not self._access.is_open:
            try:
                principal = await self._access.authenticate(carried.token)
            except (InvalidToken, Forbidden) as error:  # there is nothing to end
                await self._access.response_to(request, error)
            else:
                self._access.quota_of(principal).take("operations_per_second")
                self._access.end_session(carried.session)
        return _no_content(cookie_header("", 0))


def _no_content(cookie: str | None) -> Response:
    headers = {"Cache-Control": "no-store"}
    if cookie is not None:
        headers["Set-Cookie"] = cookie
    return Response(status_code=204, headers=headers)
