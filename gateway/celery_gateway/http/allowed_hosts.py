"""Which hosts and origins may use the gateway: their syntax, and the policy. Pure.

Rules: a request is allowed if its ``Host`` and its ``Origin`` are. They protect from two attacks of web pages
that a user has open. A page may connect to the gateway's address (a browser applies no same-origin policy to
a WebSocket): its ``Origin`` is foreign. Or the page's own host name may resolve to the gateway's address
after a while (DNS rebinding): its ``Host`` is foreign. Rebinding requires a name in the public DNS, so IP
addresses are allowed as hosts, and names without a dot, such as those of containers.
"""

import re
import socket
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

ANY: Final = "*"
_AUTHORITY = re.compile(
    r"(?P<name>\[[0-9a-f:.]+(?:%[\w.~-]+)?\]|[^\[\]:/?#@\\,\s]+)(?::(?P<port>\d{0,5}))?", re.I
)
_HOST_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
_BARE_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#,\s]+)", re.I)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_IPV6 = re.compile(r"\[.*|[0-9a-f.]*:[0-9a-f.]*:[0-9a-f:.]*", re.I)
_MAX_PORT = 65_535


class Origin(NamedTuple):
    """The origin of a page; ``port`` is the scheme's default if none is given, 0 if the scheme has none."""

    scheme: str
    host: str
    port: int


def parse_authority(text: str) -> tuple[str, int | None] | None:
    """Return the host, in lower case and without a final dot, and the port of ``host[:port]``.

    Returns:
        ``None`` if it is malformed. An IPv6 address keeps its brackets.
    """
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    name = match["name"].lower()
    return name.removesuffix("."), int(match["port"]) if match["port"] else None


def parse_origin(text: str) -> Origin | None:
    """Return the parts of an ``Origin`` (RFC 6454); ``None`` for ``null`` and malformed values."""
    match = _ORIGIN.fullmatch(text)
    authority = parse_authority(match["authority"]) if match else None
    if match is None or authority is None:
        return None
    scheme, (host, port) = match["scheme"].lower(), authority
    return Origin(scheme, host, _DEFAULT_PORTS.get(scheme, 0) if port is None else port)


def parse_public_url(text: str) -> Origin:
    """Return the origin of the URL at which users reach the gateway.

    Raises:
        ValueError: it is not an http or https URL; the message has the allowed syntax.
    """
    parts = urlsplit(text)
    origin = _named_origin(f"{parts.scheme}://{parts.netloc}")
    if origin is None or origin.scheme not in _DEFAULT_PORTS or parts.query or parts.fragment:
        raise ValueError(
            f"invalid public URL {text!r}: it must be an http or https URL with a host, and a path if the "
            "gateway has one, such as https://events.example/celery"
        )
    return origin


def parse_allowed_origin(text: str) -> Origin | Literal["*"]:
    """Return an origin whose pages are allowed, with its host in ASCII; ``*`` for all.

    Raises:
        ValueError: it is malformed; the message has the allowed syntax.
    """
    if text == ANY:
        return ANY
    origin = _named_origin(text)
    if origin is None:
        raise ValueError(
            f"invalid origin {text!r}: it must be scheme://host or scheme://host:port, without a path and "
            "without a * in the host, such as https://shop.example or http://localhost:5173; or * for every "
            "origin"
        )
    return origin


def parse_pattern(text: str) -> str:
    """Return a pattern of allowed hosts in normal form: ``*``, ``.example.com`` or ``events.example``.

    Raises:
        ValueError: it is malformed; the message has the allowed syntax.
    """
    pattern = _ascii(text).lower().removesuffix(".").removeprefix("*" if text.startswith("*.") else "")
    if pattern == ANY or _HOST_NAME.fullmatch(pattern.removeprefix(".")):
        return pattern
    if _IPV6.fullmatch(text):
        raise ValueError(
            f"invalid host {text!r}: IP addresses are always allowed as hosts; give names only, such as "
            "events.example"
        )
    raise ValueError(
        f"invalid host {text!r}: it must be a name without scheme and port, such as events.example; "
        ".example.com or *.example.com for example.com and all names below it; or * for every host"
    )


def own_names() -> tuple[str, ...]:
    """Return the names of this machine that need no DNS query: its host name, short, and in mDNS."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return name, short, f"{short}.local"


class Policy:
    """Decide which hosts and origins are allowed.

    Args:
        bind: the address or name that the server listens on.
        public_url: the URL for users, if a proxy gives the gateway another one.
        allow_hosts: further hosts, as for ``parse_pattern``.
        allow_origins: origins whose pages may read from the gateway; ``*`` for all.

    Raises:
        ValueError: one of them is malformed.
    """

    def __init__(
        self,
        *,
        bind: str = "",
        public_url: str = "",
        allow_hosts: Iterable[str] = (),
        allow_origins: Iterable[str] = (),
    ) -> None:
        patterns = {parse_pattern(text) for text in _listed(allow_hosts)}
        self._allows_any_host = ANY in patterns
        self._suffixes = tuple(pattern for pattern in patterns if pattern.startswith("."))
        self._hosts = {pattern.removeprefix(".") for pattern in patterns}
        self._hosts |= {*own_names(), bind.lower().removesuffix(".")} - {""}
        self._public = parse_public_url(public_url) if public_url else None
        if self._public is not None:
            self._hosts.add(self._public.host)
        origins = {parse_allowed_origin(text) for text in _listed(allow_origins)}
        self.shares_with_all = ANY in origins
        self._origins = origins - {ANY}

    @property
    def names_origins(self) -> bool:
        """Whether responses depend on the ``Origin`` of the request."""
        return bool(self._origins)

    def allows_host(self, header: str, server: str = "") -> bool:
        """Return whether a request may have this ``Host``.

        Args:
            server: the address or name that the server listens on (ASGI's ``server``).
        """
        if self._allows_any_host or not header:  # without one: HTTP/1.0, which no browser sends
            return True
        authority = parse_authority(header)
        if authority is None:
            return False
        name = authority[0]
        return (
            name in self._hosts
            or _BARE_NAME.fullmatch(name) is not None
            or name.endswith((".localhost", *self._suffixes))
            or _is_address(name)
            or name == server.lower()
        )

    def allows_origin(self, header: str, hosts: Iterable[str]) -> bool:
        """Return whether a page of this ``Origin`` may use the gateway.

        Args:
            hosts: the request's ``Host``, and its ``X-Forwarded-Host``, which a page cannot set on a request
                to another origin without a preflight (CORS).
        """
        return self.shares_with(header) != "none" or self.is_own(header, hosts)

    def allows_credentials(self, header: str, hosts: Iterable[str]) -> bool:
        """Return whether cookies count in a request of a page of this ``Origin``; ``hosts`` as above."""
        return self.shares_with(header) == "named" or self.is_own(header, hosts)

    def is_own(self, header: str, hosts: Iterable[str]) -> bool:
        """Return whether an ``Origin`` is the gateway's own, or that of its public URL."""
        origin = parse_origin(header)
        if origin is None or origin.scheme not in _DEFAULT_PORTS:
            return False
        return origin == self._public or any(_is_same(origin, host) for host in hosts)

    def shares_with(self, header: str) -> Literal["none", "all", "named"]:
        """Return whether an ``Origin`` is in ``allow_origins``, by ``*`` or by name.

        A page of a named one may send credentials.
        """
        if self._origins and parse_origin(header) in self._origins:
            return "named"
        return "all" if self.shares_with_all else "none"


def _listed(texts: Iterable[str]) -> Iterable[str]:
    return (texts,) if isinstance(texts, str) else texts


def _named_origin(text: str) -> Origin | None:
    """Return an origin as browsers send it; ``None`` if a page cannot have it."""
    origin = parse_origin(text)
    if origin is None or origin.port > _MAX_PORT:
        return None
    host = _ascii(origin.host)
    if not (host.startswith("[") or _HOST_NAME.fullmatch(host)):
        return None
    return origin._replace(host=host)


def _is_same(origin: Origin, host: str) -> bool:
    """Return whether an origin has this host; its scheme is not compared, as a TLS proxy may hide it."""
    authority = parse_authority(host)
    if authority is None:
        return False
    name, port = authority
    return name == origin.host and (_DEFAULT_PORTS[origin.scheme] if port is None else port) == origin.port


def _is_address(name: str) -> bool:
    """Return whether a host is an IP address: in brackets, or with a number at its end (WHATWG URL 3.5)."""
    last = name.rpartition(".")[2]
    return name.startswith("[") or (last.isascii() and last.isdigit())


def _ascii(text: str) -> str:
    try:
        return text if text.isascii() else text.encode("idna").decode()
    except UnicodeError:
        return text
