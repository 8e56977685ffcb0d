"""Which requests get the dashboard's page: the addresses of its views are those of endpoints, too. Pure.

Rules: a browser that opens the address of an endpoint sends ``Accept: text/html,…``, and gets the page.
Programs name another media type, or none (``*/*``), and get the endpoint. ``format=`` always asks for it.
"""

import re
from typing import Final
from urllib.parse import parse_qsl, unquote

from starlette.types import Scope

_VIEWS: Final = re.compile(
    r"/(?:(?:events|queues|failures|statistics)|(?:tasks|workflows|workers)(?:/(?!\Z)(?s:.)*)?)?\Z"
)
_DATA: Final = frozenset({"/tasks/counts"})
"""Endpoints below a view that are none."""
_PROGRAM_TYPES: Final = ("application/json", "text/event-stream", "application/x-ndjson")


def view_path(scope: Scope) -> str | None:
    """Return the path of a request below the gateway's root, if there is a view at it.

    Args:
        scope: the ASGI scope of a request: its ``path`` includes ``root_path``.
    """
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path if path not in _DATA and _VIEWS.match(path) else None


def wants_page(scope: Scope) -> bool:
    """Return whether a request gets the page of a view, and not the endpoint at the same address."""
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    path = view_path(scope)
    if path is None:
        return False
    if path == "/":
        return True
    accept = b",".join(value for name, value in scope["headers"] if name.lower() == b"accept")
    return names_html(accept.decode("latin-1")) and not _has_format(scope.get("query_string", b""))


def names_html(accept: str) -> bool:
    """Return whether the header Accept prefers ``text/html`` by name (RFC 9110 section 12.5.1)."""
    qualities = {}
    for part in accept.lower().split(","):
        media_type, *parameters = (each.strip() for each in part.split(";"))
        quality = next((each[2:].strip() for each in parameters if each.startswith("q=")), "1")
        try:
            qualities[media_type] = float(quality)
        except ValueError:
            qualities[media_type] = 0.0
    html = qualities.get("text/html", 0.0)
    return html > 0 and all(qualities.get(other, 0.0) < html for other in _PROGRAM_TYPES)


def base_href(scope: Scope) -> str:
    """Return the way from the URL of a view to the root of the gateway, such as ``../``.

    It is relative, so it is right whether a proxy has removed a part of the path or not. It depends on the
    path as the browser has sent it: there, an id with a slash is one segment (``%2F``).

    Args:
        scope: that of a request for which ``view_path`` has a result.
    """
    path = view_path(scope)
    assert path is not None
    raw = scope.get("raw_path") or path.encode()
    segments = raw.partition(b"?")[0].decode("latin-1").split("/")
    for depth in range(1, len(segments)):
        if unquote("/".join(segments[-depth:]), errors="surrogateescape") == path[1:]:
            return "../" * (depth - 1) or "./"
    return "../" * (path.count("/") - 1) or "./"


def _has_format(query: bytes) -> bool:
    if b"format" not in query and b"%" not in query:
        return False
    return any(name == "format" for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
