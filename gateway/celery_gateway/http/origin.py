"""Check the Host and Origin headers of each request before anything else, and add the headers of CORS.

Rules: a request for a host or from an origin that is not allowed gets 403, on a WebSocket before it is
accepted. HTTP/1.1 without a Host, or with several, gets 400 (RFC 9112 section 3.2). Responses to pages of
allowed origins have the headers of CORS (Fetch standard, section 3.2), errors included; preflights are
answered here.
"""

import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from celery_gateway.http.allowed_hosts import Policy
from celery_gateway.http.carriers import OWN_PAGE_KEY, TRUSTS_COOKIES_KEY
from celery_gateway.http.errors import error_response, respond

PREFLIGHT_SECONDS = 600
"""How long a browser may cache the response to a preflight, in seconds."""
EXPOSED_HEADERS = "ETag, Retry-After"
METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
LOG_SECONDS = 60.0
MAX_LOGGED = 20
"""Maximum number of hosts, and of origins, that are logged in ``LOG_SECONDS``, each once."""
MAX_QUOTED_CHARACTERS = 200

log = logging.getLogger(__name__)


class OriginCheck:
    """Pass on requests for allowed hosts and from allowed origins; respond to others with 403."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy
        self._logged = {"host": _Logged(), "origin": _Logged()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value.decode("latin-1"))
        hosts, origins = headers.get(b"host", []), headers.get(b"origin", [])
        server = (scope.get("server") or ("",))[0] or ""
        if len(hosts) > 1 or (not hosts and scope.get("http_version") == "1.1"):
            await respond(_bad_host(len(hosts)), scope, receive, send)
            return
        if any(not self._policy.allows_host(host, server) for host in hosts):
            await respond(self._foreign_host(hosts[0]), scope, receive, send)
            return
        forwarded = [host.partition(",")[0].strip() for host in headers.get(b"x-forwarded-host", [])]
        if any(not self._policy.allows_origin(origin, (*hosts[:1], *forwarded)) for origin in origins):
            await respond(self._foreign_origin(", ".join(origins)), scope, receive, send)
            return
        scope[TRUSTS_COOKIES_KEY] = self._trusts_cookies(headers, origins, (*hosts[:1], *forwarded))
        scope[OWN_PAGE_KEY] = self._is_of_own_page(headers, origins, (*hosts[:1], *forwarded))
        if scope["type"] == "http":
            origin = origins[0] if origins else ""
            if scope["method"] == "OPTIONS" and origin and b"access-control-request-method" in headers:
                await self._preflight(origin, headers)(scope, receive, send)
                return
            send = self._sharing(origin, send)
        await self._app(scope, receive, send)

    def _trusts_cookies(
        self, headers: dict[bytes, list[str]], origins: list[str], hosts: tuple[str, ...]
    ) -> bool:
        """Return whether the cookies of a request count: not if a page of another origin made it.

        Fetch Metadata (W3C) reports that for requests without an Origin. Users may follow links of any page.
        """
        if origins:
            return all(self._policy.allows_credentials(origin, hosts) for origin in origins)
        site = headers.get(b"sec-fetch-site", ["none"])
        is_link = headers.get(b"sec-fetch-mode") == ["navigate"] and headers.get(b"sec-fetch-dest") == [
            "document"
        ]
        return is_link or site in (["none"], ["same-origin"])

    def _is_of_own_page(
        self, headers: dict[bytes, list[str]], origins: list[str], hosts: tuple[str, ...]
    ) -> bool:
        """Return whether no page of another origin made a request, by both headers that browsers send."""
        site = headers.get(b"sec-fetch-site", ["none"])
        return site in (["none"], ["same-origin"]) and all(
            self._policy.is_own(origin, hosts) for origin in origins
        )

    def _sharing(self, origin: str, send: Send) -> Send:
        """Return a ``send`` that adds the headers of CORS."""
        added = self._cors(origin)
        if added:
            added["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
        elif not self._policy.names_origins:
            return send

        async def send_shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message.get("headers", ())))
                headers.update(added)
                if self._policy.names_origins:
                    headers.add_vary_header("Origin")
                message = {**message, "headers": headers.raw}
            await send(message)

        return send_shared

    def _cors(self, origin: str) -> dict[str, str]:
        sharing = self._policy.shares_with(origin) if origin else "none"
        if sharing == "named":
            return {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"}
        # Without an Origin, too: a cache may give the response to a page.
        return {"Access-Control-Allow-Origin": "*"} if self._policy.shares_with_all else {}

    def _preflight(self, origin: str, headers: dict[bytes, list[str]]) -> Response:
        """Return the response to a preflight: it allows all headers, and a private network."""
        requested = ("Method", "Headers", "Private-Network")
        response_headers = {
            **self._cors(origin),
            "Vary": ", ".join(("Origin", *(f"Access-Control-Request-{name}" for name in requested))),
        }
        if "Access-Control-Allow-Origin" in response_headers:
            response_headers["Access-Control-Allow-Methods"] = METHODS
            response_headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
            if names := headers.get(b"access-control-request-headers"):
                response_headers["Access-Control-Allow-Headers"] = ", ".join(names)
            if headers.get(b"access-control-request-private-network") == ["true"]:
                response_headers["Access-Control-Allow-Private-Network"] = "true"
        return Response(status_code=204, headers=response_headers)

    def _foreign_host(self, host: str) -> Response:
        name = host[:MAX_QUOTED_CHARACTERS]
        message = (
            "is not allowed; allowed are localhost, names without a dot, IP addresses, the address of "
            "--host, this machine's host name, and the hosts of --allow-host and --public-url; add the host "
            "with --allow-host (GATEWAY_ALLOW_HOST, Settings.allow_hosts), or set --public-url if users "
            "reach the gateway there"
        )
        self._log("host", name, f"the host {name!r} {message}")
        # Only the log contains the host: the response repeats nothing of a request that cannot be trusted.
        return error_response(403, "forbidden-host", f"the host of this request {message}")

    def _foreign_origin(self, origin: str) -> Response:
        name = origin[:MAX_QUOTED_CHARACTERS]
        message = (
            f"the origin {name!r} is not allowed; allowed are the gateway's own origin, and those of "
            "--allow-origin and --public-url; add the origin with --allow-origin (GATEWAY_ALLOW_ORIGIN, "
            "Settings.allow_origins), or set --public-url if users reach the gateway there"
        )
        self._log("origin", name, message)
        return error_response(403, "forbidden-origin", message, origin=name)

    def _log(self, kind: str, name: str, message: str) -> None:
        if self._logged[kind].is_due(name):
            log.warning("refused a request: %s", message)


def _bad_host(count: int) -> Response:
    if count:
        return error_response(400, "several-hosts", f"too many Host headers: {count}; send one")
    return error_response(400, "no-host", "missing Host header: HTTP/1.1 requires one")


class _Logged:
    """The names that were logged in the current ``LOG_SECONDS``."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._started_at = -LOG_SECONDS

    def is_due(self, name: str) -> bool:
        """Return whether to log a name now."""
        now = time.monotonic()
        if now - self._started_at >= LOG_SECONDS:
            self._started_at = now
            self._names.clear()
        if name in self._names or len(self._names) >= MAX_LOGGED:
            return False
        self._names.add(name)
        return True
