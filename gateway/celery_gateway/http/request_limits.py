"""Limits on the size of a request that our own server reads, and the errors for requests beyond them.

Rules: nothing here depends on a server. A connection counts what it parses and raises one of these errors.
The limits are above what the application accepts, so that the application answers first where it can.
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from starlette.responses import Response

from celery_gateway.http.errors import RETRY_SECONDS, error_response
from celery_gateway.http.headers import with_safe_headers

MAX_URL_BYTES: Final = 60_000
"""Above the limits of a filter, and below the longest URL that httptools can parse (65,535 bytes)."""
MAX_HEAD_BYTES: Final = 96 << 10
"""Maximum size of a request's URL, headers and trailers together, in bytes."""
MAX_HEADERS: Final = 200
MAX_BODY_BYTES: Final = 1 << 20
"""The application accepts less (``query_json.MAX_BYTES``), and has its own error for a longer body."""
MAX_PIPELINED: Final = 16
"""Maximum number of requests that wait for the response to the one before; the connection ends after them."""
MAX_WEBSOCKET_LINE_BYTES: Final = 8_000
"""Maximum length of the request line and of each header. websockets 13 to 17 accept 8,192 bytes."""
MAX_WEBSOCKET_HEADERS: Final = 120
"""websockets 13 to 17 accept 128."""


class RequestRejected(Exception):
    """A request cannot be read, or exceeds a limit. It is not passed to the application.

    Args:
        status_code: the HTTP status of the response.
        code: a stable word for programs.
        message: for people.
        reason: one of ``limits.REASONS``, to be counted; ``None`` if no limit is concerned.
    """

    def __init__(self, status_code: int, code: str, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.code = code
        self.message = message
        self.reason = reason

    def response(self) -> Response:
        """Return the response for the client."""
        response = error_response(self.status_code, self.code, self.message)
        if self.status_code == 503:
            response.headers["Retry-After"] = str(RETRY_SECONDS)
        return response


def too_many_connections(reason: str) -> RequestRejected:
    message = f"connection refused: the gateway's limit on {reason} is reached; try again later"
    return RequestRejected(503, "limit", message, reason)


def client_over_limit(reason: str, max_input_seconds: float) -> RequestRejected:
    """Return the error for a client that sends more than it may.

    Args:
        reason: ``input-rate`` or ``memory``.
        max_input_seconds: CPU time that the input of a connection may take at once.
    """
    message = "request refused: the memory for this client (--client-memory) is used up; try again later"
    if reason == "input-rate":
        message = f"request refused: reading it took more than {max_input_seconds} s of CPU time"
    return RequestRejected(503, "limit", message, reason)


def invalid_request(problem: object) -> RequestRejected:
    return RequestRejected(400, "bad-request", f"invalid HTTP/1 request: {problem}")


def https_required() -> RequestRejected:
    message = "this port requires HTTPS: use https:// or wss:// in place of http:// or ws://"
    return RequestRejected(400, "https-required", message)


def url_too_long() -> RequestRejected:
    message = (
        f"URL too long: at most {MAX_URL_BYTES:,} bytes are allowed; "
        "send long filters as JSON with POST /events"
    )
    return RequestRejected(414, "url-too-long", message, "url")


def head_too_long() -> RequestRejected:
    message = (
        f"request head too long: at most {MAX_HEADERS} headers are allowed, and at most {MAX_HEAD_BYTES:,} "
        "bytes of URL and headers"
    )
    return RequestRejected(431, "head-too-long", message, "head")


def body_too_long() -> RequestRejected:
    message = f"request body too long: at most {MAX_BODY_BYTES:,} bytes are allowed"
    return RequestRejected(413, "body-too-long", message, "body")


def too_many_pipelined() -> RequestRejected:
    message = f"too many pipelined requests: at most {MAX_PIPELINED} can wait; read the responses first"
    return RequestRejected(429, "limit", message, "pipelining")


def invalid_handshake(problem: object) -> RequestRejected:
    return RequestRejected(400, "bad-request", f"invalid WebSocket request: {problem}")


def check_handshake(url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Check a WebSocket's request against the limits of websockets, whose errors carry no reason.

    Args:
        url: path and query, as received.
        headers: names and values.

    Raises:
        RequestRejected: the URL or a header is too long, or there are too many headers.
    """
    line_bytes = [len(name) + len(value) + 2 for name, value in headers]
    if len(url) > MAX_WEBSOCKET_LINE_BYTES - 20:
        message = (
            f"WebSocket URL too long: at most {MAX_WEBSOCKET_LINE_BYTES:,} bytes are allowed; "
            'send the filter as a message: {"op": "filter", "any": […]}'
        )
        raise RequestRejected(414, "url-too-long", message, "url")
    if len(line_bytes) > MAX_WEBSOCKET_HEADERS or max(line_bytes) > MAX_WEBSOCKET_LINE_BYTES:
        message = (
            f"WebSocket request head too long: at most {MAX_WEBSOCKET_HEADERS} headers are allowed, "
            f"of at most {MAX_WEBSOCKET_LINE_BYTES:,} bytes each"
        )
        raise RequestRejected(431, "head-too-long", message, "head")


def as_http1(response: Response, hsts_seconds: int = 0) -> bytes:
    """Return a response as HTTP/1.1 bytes that announce the end of the connection (RFC 9112 section 9.6).

    Args:
        hsts_seconds: see ``headers.with_safe_headers``.
    """
    status = HTTPStatus(response.status_code)
    headers = with_safe_headers(response.raw_headers, hsts_seconds)
    head = b"".join(b"%b: %b\r\n" % header for header in headers)
    status_line = f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    return status_line + head + b"connection: close\r\n\r\n" + bytes(response.body)
