"""Where a request carries its token. Pure.

Rules: the first of these that is present decides, whether its token is valid or not (behind a trusted proxy
with ``[proxy]``, the header with the user comes before all of them): the header
``Authorization`` (RFC 6750), a WebSocket's subprotocol, the query parameter ``access_token``, the cookie of a
session. A request with several tokens of one kind has none that is valid.

A browser sends a cookie with requests of other pages, too. So it counts only in requests of the gateway's own
origin, of a named origin (``--allow-origin``), or of no page at all.
"""

from http.cookies import CookieError, SimpleCookie
from typing import Final, NamedTuple

from starlette.types import Scope

from celery_gateway.errors import InvalidToken

COOKIE: Final = "__Host-celery_gateway"
"""The prefix makes browsers accept it only from this host over a secure connection (RFC 6265bis)."""
SUBPROTOCOL_PREFIX: Final = "celery-gateway.bearer."
ACCESS_TOKEN_KEY: Final = "celery_gateway.access_token"
"""The key of the tokens of the query in a request's ASGI scope (see ``query_secrets``)."""
TRUSTS_COOKIES_KEY: Final = "celery_gateway.trusts_cookies"
"""The key of whether the cookies of a request count (see ``origin``)."""
OWN_PAGE_KEY: Final = "celery_gateway.own_page"
"""The key of whether a page of the gateway's own origin, or none at all, made a request (see ``origin``)."""
PRINCIPAL_KEY: Final = "celery_gateway.principal"
"""The key of a request's principal and session, once it is admitted (see ``access_control``)."""
QUOTA_KEY: Final = "celery_gateway.quota"
"""The key of the quota of that principal."""
MAX_COOKIE_CHARS: Final = 4_000
"""Browsers accept 4,096 bytes for name, value and attributes."""


class Carried(NamedTuple):
    """A token, and the id of the session of a cookie (empty for others)."""

    token: str
    session: str = ""


def carried_token(scope: Scope) -> Carried:
    """Return the token of a request.

    Args:
        scope: the ASGI scope of a request or a WebSocket. The names of headers are in lower case.

    Raises:
        InvalidToken: there is none, or the header is malformed.
    """
    authorization = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
    if authorization:
        return Carried(bearer_token(authorization))
    offered = [name for name in scope.get("subprotocols") or () if name.startswith(SUBPROTOCOL_PREFIX)]
    if offered:
        return Carried(_only(offered, "subprotocols").removeprefix(SUBPROTOCOL_PREFIX))
    if given := scope.get(ACCESS_TOKEN_KEY):
        return Carried(_only(given, "parameters access_token"))
    carried = session_of(scope)
    if carried.token:
        return carried
    raise InvalidToken(
        "no token: send the header 'Authorization: Bearer TOKEN', or start a session with POST /session",
        is_missing=True,
    )


def bearer_token(headers: list[str]) -> str:
    """Return the token of the headers ``Authorization``.

    Raises:
        InvalidToken: there are several, or it has another scheme.
    """
    scheme, _, token = _only(headers, "headers Authorization").strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise InvalidToken("invalid header Authorization: it must be 'Bearer TOKEN'")
    return token.strip()


def session_of(scope: Scope) -> Carried:
    """Return what the cookie of a request has; empty texts without one."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
    session, _, token = _cookie(values).partition(".")
    return Carried(token, session) if scope.get(TRUSTS_COOKIES_KEY, False) else Carried("")


def single_headers(scope: Scope) -> dict[str, str]:
    """Return the headers of a request that it has once, by their names in lower case.

    Values are UTF-8, as proxies send the names of users; other bytes become lone surrogates.
    """
    names = [name.lower() for name, _ in scope["headers"]]
    return {
        name.decode("latin-1"): value.decode("utf-8", "surrogateescape")
        for name, (_, value) in zip(names, scope["headers"], strict=True)
        if names.count(name) == 1
    }


def _only(values: list[str], name: str) -> str:
    if len(values) > 1:
        raise InvalidToken(f"too many {name}: {len(values)} of them have a token; send one")
    return values[0]


def _cookie(headers: list[str]) -> str:
    """Return the value of the session's cookie; empty without one. Of several, none counts."""
    found = []
    for header in headers:
        for pair in header.split(";"):
            name, _, value = pair.strip().partition("=")
            if name == COOKIE:
                found.append(value)
    return found[0] if len(found) == 1 else ""


def cookie_header(value: str, max_age_seconds: int | None) -> str:
    """Return the header ``Set-Cookie`` of a session.

    Args:
        value: empty to remove the cookie.
        max_age_seconds: how long the browser keeps it; ``None``: until it is closed.

    Raises:
        CookieError: the value is too long.
    """
    if len(value) > MAX_COOKIE_CHARS:
        raise CookieError(f"the token is too long for a cookie: at most {MAX_COOKIE_CHARS - 50} characters")
    cookie: SimpleCookie = SimpleCookie()
    cookie[COOKIE] = value
    morsel = cookie[COOKIE]
    morsel["path"], morsel["secure"], morsel["httponly"], morsel["samesite"] = "/", True, True, "Lax"
    if max_age_seconds is not None:
        morsel["max-age"] = max_age_seconds
    return morsel.OutputString()
